"""A network's scores: on the fixed validation crops, and on whole photographs beside the baselines."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from scratch_dl.data import metrics
from scratch_dl.evaluation import baselines
from scratch_dl.models import CHANNELS, Denoiser
from scratch_dl.system.seeding import seeded

if TYPE_CHECKING:
    from scratch_dl.data import DataSet, Photograph

PREFIXES = {"validation": "val_whole", "test": "test"}  # of the metrics of whole photographs, by split
_CROPS_AT_A_TIME = 64


class Scores(NamedTuple):
    """PSNR averaged over images and over pixels (dB), SSIM, mean squared error of the output as it is."""

    psnr_db: float
    psnr_pooled_db: float
    ssim: float
    mse: float


def denoise(network: Denoiser, noisy: Tensor) -> Tensor:
    """(n, 3, h, w) of any float dtype on the CPU -> the network's output, float32 on the CPU; keeps no cache."""
    like = network.parameters()[0].value
    with torch.no_grad():
        parts = [
            network.predict(part.to(like)).to("cpu", torch.float32) for part in torch.split(noisy, _CROPS_AT_A_TIME)
        ]
    return torch.cat(parts)


def score(output: Tensor, clean: Tensor) -> Scores:
    """Scores of a batch of outputs (n, 3, h, w); the output is clamped to [0, 1] for all but the squared error."""
    clamped = output.clamp(0, 1)
    return Scores(
        metrics.psnr_db(clamped, clean),
        metrics.psnr_pooled_db(clamped, clean),
        metrics.ssim(clamped, clean),
        float((output - clean).square().mean()),
    )


def score_photographs(network: Denoiser, photographs: Sequence["Photograph"]) -> tuple[Scores, list[Tensor]]:
    """Scores over whole photographs of any sizes, and the outputs, each (3, H, W)."""
    outputs = [denoise(network, photograph.noisy[None])[0] for photograph in photographs]
    each = [
        score(output[None], photograph.clean[None]) for output, photograph in zip(outputs, photographs, strict=True)
    ]
    pixels = [photograph.clean.numel() for photograph in photographs]
    # Pooled over unequal sizes: every pixel weighs the same.
    pooled = sum(10 ** (-one.psnr_pooled_db / 10) * n for one, n in zip(each, pixels, strict=True)) / sum(pixels)
    return (
        Scores(
            sum(scores.psnr_db for scores in each) / len(each),
            -10 * math.log10(pooled) if pooled else math.inf,
            sum(scores.ssim for scores in each) / len(each),
            sum(one.mse * n for one, n in zip(each, pixels, strict=True)) / sum(pixels),
        ),
        outputs,
    )


def check_photographs(network: Denoiser, data: "DataSet", splits: Sequence[str]) -> None:
    """Predict an image of zeros of each size that the whole photographs have, without reading any.

    Raises:
        ValueError: if the network cannot; the message names the first such photograph.
    """
    names = {size: name for split in splits for name, size in reversed(data.photograph_sizes(split).items())}
    for (height, width), name in names.items():
        try:
            with seeded("check_photographs"):
                shape = tuple(denoise(network, torch.zeros(1, CHANNELS, height, width)).shape)
        except Exception as error:
            why = f"it fails: {' '.join(str(error).split()) or type(error).__name__}"
        else:
            if shape == (1, CHANNELS, height, width):
                continue
            why = f"its output has the shape {shape}"
        raise ValueError(
            f"model must predict images of any size, but for {height}x{width} pixels, as {name!r} has, {why}"
        )


def evaluate_photographs(
    data: "DataSet", network: Denoiser, split: str, cache: Path
) -> tuple[dict[str, float], list[tuple["Photograph", Tensor]]]:
    """Scores of the network and the baselines on the whole photographs of a split, by metric name, and the outputs.

    Args:
        data: whose photographs.
        network: what is scored.
        split: "validation" or "test"; nothing else reads the test photographs.
        cache: the folder in which the baselines' scores are kept.
    """
    photographs = data.photographs(split)
    scores, outputs = score_photographs(network, photographs)
    named = {"psnr_db": scores.psnr_db, "psnr_pooled_db": scores.psnr_pooled_db, "ssim": scores.ssim}
    named |= {f"{name}_psnr_db": value for name, value in baselines.baseline_psnr(data, split, cache).items()}
    prefix = PREFIXES[split]
    return {f"{prefix}/{name}": value for name, value in named.items()}, list(zip(photographs, outputs, strict=True))
