"""What a network must beat: the noisy picture itself, a blur, total variation and non-local means.

Each is scored on exactly the pixels that the network is scored on, and its score kept by their digest.
"""

import hashlib
import json
import os
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scratch_dl.data.metrics import psnr_per_image
from scratch_dl.system.checks import choice, real

if TYPE_CHECKING:
    from scratch_dl.data import DataSet

BASELINES = ("noisy", "blur", "tv", "nlm")
# Times the noise's estimated standard deviation; both were chosen on the validation photograph.
TV_WEIGHT, NLM_CUTOFF = 1.0, 0.8
_VERSION = 2


def denoise(name: str, noisy: Tensor) -> Tensor:
    """(3, H, W) -> (3, H, W) by the baseline `name`; only the noisy picture is known to it.

    "blur" is [1 2 1] x [1 2 1] / 16 with the border reflected (its pixels repeated); "tv" is Chambolle's (2004) and
    "nlm" Buades et al.'s (2005) method as in scikit-image, their strength by the noise estimated from the picture.
    """
    choice("baseline", name, BASELINES)
    if name == "noisy":
        return noisy
    if name == "blur":
        return _blur(noisy)
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, estimate_sigma

    picture = noisy.permute(1, 2, 0).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a channel without any detail: no noise, not NaN
        sigma = float(np.mean(np.nan_to_num(estimate_sigma(picture, channel_axis=2))))
    if name == "tv":
        output = denoise_tv_chambolle(picture, weight=max(1e-6, TV_WEIGHT * sigma), channel_axis=2)
    else:
        settings = {"patch_size": 5, "patch_distance": 6, "fast_mode": True, "channel_axis": 2}
        output = denoise_nl_means(picture, h=max(1e-6, NLM_CUTOFF * sigma), sigma=sigma, **settings)
    return torch.from_numpy(np.ascontiguousarray(output.transpose(2, 0, 1), dtype=np.float32))


def baseline_psnr(data: "DataSet", split: str, cache: Path) -> dict[str, float]:
    """Baseline -> mean PSNR over images, dB; outputs are clamped to [0, 1], the noisy picture is not.

    Args:
        data: whose pictures.
        split: "crops" (of the validation), or whole photographs of "validation" or "test".
        cache: the folder of the scores already known.
    """
    if split == "crops":
        pairs = list(zip(*data.validation, strict=True))
    else:
        pairs = [(photograph.noisy, photograph.clean) for photograph in data.photographs(split)]
    path = cache / f"baselines-{_key(pairs)}.json"
    try:
        known: dict[str, float] = json.loads(path.read_text())
        if isinstance(known, dict) and set(known) == set(BASELINES):
            return {name: real(name, known[name]) for name in BASELINES}
    except (OSError, ValueError, TypeError):
        pass
    scores = {}
    for name in BASELINES:
        each = []
        for noisy, clean in pairs:
            output = denoise(name, noisy)
            each.append(psnr_per_image((output if name == "noisy" else output.clamp(0, 1))[None], clean[None]))
        scores[name] = float(torch.cat(each).mean())
    cache.mkdir(parents=True, exist_ok=True)
    # A name of this process's own: runs that start together write the same scores.
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(scores))
    temporary.replace(path)
    return scores


def _blur(noisy: Tensor) -> Tensor:
    for axis in (1, 2):
        first, last = noisy.narrow(axis, 0, 1), noisy.narrow(axis, -1, 1)
        wide = torch.cat([first, noisy, last], dim=axis)
        size = noisy.shape[axis]
        noisy = (wide.narrow(axis, 0, size) + 2 * noisy + wide.narrow(axis, 2, size)) / 4
    return noisy


def _key(pairs: list[tuple[Tensor, Tensor]]) -> str:
    sha = hashlib.sha256(f"{_VERSION} {version('scikit-image')} {TV_WEIGHT} {NLM_CUTOFF}".encode())
    for noisy, clean in pairs:
        for picture in (noisy, clean):
            sha.update(str(tuple(picture.shape)).encode())
            sha.update(picture.contiguous().numpy().tobytes())
    return sha.hexdigest()[:16]
