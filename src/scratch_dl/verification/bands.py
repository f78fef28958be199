"""The bands: the largest ||got - expected|| / ||expected|| that passes, by witness and dtype."""

import torch

ORACLE = {torch.float64: 1e-10, torch.float32: 1e-5}
"""For comparisons with PyTorch, and for the contract."""
ALGEBRA = {torch.float64: 1e-10, torch.float32: 1e-4}
"""For linearity and the adjoint; float32 is for modules that take no float64."""
DIFFERENCES = {torch.float64: 1e-6, torch.float32: 2e-2}
"""For central differences, such as the slope of the loss."""
NOTHING = {torch.float64: 1e-13, torch.float32: 1e-5}
"""Share of a pass's largest gradient below which a gradient is only rounding, as a bias's before a normalisation."""
ALLOWANCE = 4.0
"""Multiple of PyTorch's own rounding error that passes, where that is more than the band."""


def short(dtype: torch.dtype) -> str:
    """The name without PyTorch's prefix, as float64."""
    return str(dtype).removeprefix("torch.")


def limit_of(dtype: torch.dtype, rounding: float) -> float:
    """The oracle's band in `dtype`, where PyTorch's own float32 is `rounding` away from its float64.

    Where sums cancel even float64 has lost its digits, as many as float32 has.
    """
    share = torch.finfo(dtype).eps / torch.finfo(torch.float32).eps
    return max(ORACLE[dtype], ALLOWANCE * rounding * share)
