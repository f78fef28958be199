"""How far a result may be from what it should be, ||got - expected|| / ||expected||, by witness and dtype."""

import torch

ORACLE = {torch.float64: 1e-10, torch.float32: 1e-5}
"""PyTorch, and the contract."""
ALGEBRA = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Linearity and the adjoint; float32 is for what takes no float64."""
DIFFERENCES = {torch.float64: 1e-6, torch.float32: 2e-2}
"""Central differences, the slope of the loss among them."""
NOTHING = {torch.float64: 1e-13, torch.float32: 1e-5}
"""Share of a pass's largest gradient below which another one is rounding alone, as a bias's before a normalisation."""
ALLOWANCE = 4.0
"""How many times PyTorch's own rounding error is allowed, where that is more than the band."""


def short(dtype: torch.dtype) -> str:
    """The name without PyTorch's prefix, as float64."""
    return str(dtype).removeprefix("torch.")


def limit_of(dtype: torch.dtype, rounding: float) -> float:
    """The oracle's band in `dtype`, where PyTorch's own float32 is `rounding` away from its float64.

    Where sums cancel even float64 has lost its digits, as many as float32 has.
    """
    share = torch.finfo(dtype).eps / torch.finfo(torch.float32).eps
    return max(ORACLE[dtype], ALLOWANCE * rounding * share)
