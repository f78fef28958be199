"""One word for what the outputs of a network have become."""

from torch import Tensor

from scratch_dl.data.metrics import psnr_db

CLASSES = ("not_finite", "zeros", "ones", "half", "mean", "input", "worse_than_blur", "better_than_blur")
"""Their positions are the values of the metric `watch/output_class`."""

NEAR = 0.1  # root mean square distance to 0 or to 1
NEAR_HALF = 0.05
FLAT = 0.25  # share of the clean images' variation within an image
NEAR_INPUT = 0.5  # share of the noise


def classify(output: Tensor, noisy: Tensor, clean: Tensor, blur_psnr_db: float) -> str:
    """Return the first of CLASSES that fits.

    Args:
        output: of the network, (n, 3, h, w).
        noisy: its input.
        clean: what it should be.
        blur_psnr_db: mean PSNR of a blur of `noisy`.
    """
    if not bool(output.isfinite().all()):
        return "not_finite"
    for name, level in (("zeros", 0.0), ("ones", 1.0)):
        # If the clean images are dark themselves, a dark output has not lost anything.
        if _rms(output - level) < NEAR and _rms(clean - level) > 2 * NEAR:
            return name
    # If the clean images are flat themselves, a flat output has not lost anything.
    if _rms(_varying(output)) < FLAT * _rms(_varying(clean)):
        return "half" if _rms(output - 0.5) < NEAR_HALF else "mean"
    if _rms(output - noisy) < NEAR_INPUT * _rms(noisy - clean):
        return "input"
    return "better_than_blur" if psnr_db(output.clamp(0, 1), clean) > blur_psnr_db else "worse_than_blur"


def _rms(tensor: Tensor) -> float:
    return float(tensor.double().square().mean().sqrt())


def _varying(images: Tensor) -> Tensor:
    return images - images.mean(dim=(2, 3), keepdim=True)
