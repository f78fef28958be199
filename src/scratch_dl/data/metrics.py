"""How near an image comes to the clean one. Nothing is clamped here: what is scored is the caller's choice.

All take (n, c, h, w) tensors of the same shape, at least one image, with white at 1; a ValueError says if not.
"""

import math

from torch import Tensor

SSIM_WINDOW = 7  # pixels, scikit-image's default: no smaller image can be scored


def psnr_per_image(output: Tensor, clean: Tensor) -> Tensor:
    """-10 log10(MSE) of each image, dB, shape (n,); inf where the two are equal."""
    _alike(output, clean)
    return -10 * (output - clean).square().flatten(1).double().mean(dim=1).log10()


def psnr_db(output: Tensor, clean: Tensor) -> float:
    """The mean over images of their PSNR, dB."""
    return float(psnr_per_image(output, clean).mean())


def psnr_pooled_db(output: Tensor, clean: Tensor) -> float:
    """-10 log10 of the squared error averaged over all images at once, dB; inf if they are equal."""
    _alike(output, clean)
    mse = float((output - clean).square().double().mean())
    return -10 * math.log10(mse) if mse else math.inf if mse == 0 else mse


def ssim(output: Tensor, clean: Tensor) -> float:
    """The mean over images of scikit-image's structural similarity with data_range 1 (Wang et al. 2004)."""
    _alike(output, clean)
    from skimage.metrics import structural_similarity

    pairs = zip(output.cpu().numpy(), clean.cpu().numpy(), strict=True)
    scores = [
        float(structural_similarity(a, b, data_range=1.0, channel_axis=0, win_size=SSIM_WINDOW)) for a, b in pairs
    ]
    return sum(scores) / len(scores)


def _alike(output: Tensor, clean: Tensor) -> None:
    # Broadcasting would score one image against many without a word.
    if output.shape != clean.shape or output.ndim != 4 or not len(output):
        raise ValueError(
            f"output and clean must be (n, c, h, w) of one shape with n >= 1, but are {tuple(output.shape)} and "
            f"{tuple(clean.shape)}"
        )
