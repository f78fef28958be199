"""A network's scores: on the fixed validation crops, and on whole photographs beside the baselines."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
log = logging.getLogger(__name__)

Metric = Callable[[Tensor, Tensor], Any]
"""(output, clean), each (n, 3, h, w) with white at 1, the output clamped to [0, 1] -> a number."""


class Scores(NamedTuple):
    """PSNR averaged over images and over pixels (dB), and the other metrics by name."""

    psnr_db: float
    psnr_pooled_db: float
    others: dict[str, float]

    @property
    def named(self) -> dict[str, float]:
        """All scores, by the last part of their metric's name."""
        return {"psnr_db": self.psnr_db, "psnr_pooled_db": self.psnr_pooled_db, **self.others}


def denoise(network: Denoiser, noisy: Tensor) -> Tensor:
    """(n, 3, h, w) of any float dtype on the CPU -> the network's output, float32 on the CPU; keeps no cache."""
    like = network.parameters()[0].value
    with torch.no_grad():
        parts = [
            network.predict(part.to(like)).to("cpu", torch.float32) for part in torch.split(noisy, _CROPS_AT_A_TIME)
        ]
    return torch.cat(parts)


def measure(name: str, metric: Metric, output: Tensor, clean: Tensor) -> float:
    """Call a metric; its random numbers, if it draws any, are the same at each call.

    Raises:
        TypeError: if it returns something other than a number; it may raise anything itself.
    """
    with torch.no_grad(), seeded("metric", name):
        value = metric(output, clean)
    if getattr(value, "ndim", None) == 0:  # a tensor, or an array of NumPy
        value = value.item()
    if not isinstance(value, Real):
        shape = f" of the shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
        raise TypeError(f"it must return a number, but returned a {type(value).__name__}{shape}")
    return float(value)


def score(output: Tensor, clean: Tensor, others: Mapping[str, Metric] | None = None) -> Scores:
    """Scores of a batch of outputs (n, 3, h, w), clamped to [0, 1].

    Args:
        output: of a network.
        clean: what it should be.
        others: metrics by name, beside PSNR. One that fails is NaN, with a warning: a training goes on without it.
    """
    clamped = output.clamp(0, 1)
    scores = Scores(metrics.psnr_db(clamped, clean), metrics.psnr_pooled_db(clamped, clean), {})
    values = {}
    for name, metric in (others or {}).items():
        try:
            values[name] = measure(name, metric, clamped.clone(), clean.clone())  # it may change them
        except Exception as error:
            log.warning("no metric %s: %s: %s", name, type(error).__name__, error)
            values[name] = math.nan
    return scores._replace(others=values)


def score_photographs(
    network: Denoiser, photographs: Sequence["Photograph"], others: Mapping[str, Metric] | None = None
) -> tuple[Scores, list[Tensor]]:
    """Scores over whole photographs of any sizes, and the outputs, each (3, H, W)."""
    outputs = [denoise(network, photograph.noisy[None])[0] for photograph in photographs]
    each = [
        score(output[None], photograph.clean[None], others)
        for output, photograph in zip(outputs, photographs, strict=True)
    ]
    pixels = [photograph.clean.numel() for photograph in photographs]
    # Pooled over unequal sizes: every pixel weighs the same.
    pooled = sum(10 ** (-one.psnr_pooled_db / 10) * n for one, n in zip(each, pixels, strict=True)) / sum(pixels)
    return (
        Scores(
            sum(scores.psnr_db for scores in each) / len(each),
            -10 * math.log10(pooled) if pooled else math.inf,
            {name: sum(scores.others[name] for scores in each) / len(each) for name in others or {}},
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
    data: "DataSet", network: Denoiser, split: str, cache: Path, others: Mapping[str, Metric] | None = None
) -> tuple[dict[str, float], list[tuple["Photograph", Tensor]]]:
    """Scores of the network and the baselines on the whole photographs of a split, by metric name, and the outputs.

    Args:
        data: whose photographs.
        network: what is scored.
        split: "validation" or "test"; nothing else reads the test photographs.
        cache: the folder in which the baselines' scores are kept.
        others: metrics by name, beside PSNR; each photograph counts the same.
    """
    photographs = data.photographs(split)
    scores, outputs = score_photographs(network, photographs, others)
    named = scores.named
    named |= {f"{name}_psnr_db": value for name, value in baselines.baseline_psnr(data, split, cache).items()}
    prefix = PREFIXES[split]
    return {f"{prefix}/{name}": value for name, value in named.items()}, list(zip(photographs, outputs, strict=True))
