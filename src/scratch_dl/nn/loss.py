"""Losses: what a network is trained to make small."""

import math

from torch import Tensor

from scratch_dl import kernels
from scratch_dl.nn.module import Module, check_floats
from scratch_dl.system.checks import choice


class MSELoss(Module):
    """The squared error over N numbers: L = sum (Y - T)^2 / N for "mean", without the division for "sum".

    Its gradient is dL/dY = 2 (Y - T) / N, or 2 (Y - T).

    Args:
        reduction: "mean" or "sum".

    Raises:
        ValueError: if the reduction is neither.
    """

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = choice("reduction", reduction, ("mean", "sum"))

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape -> the loss, a tensor of shape ().

        Raises:
            ValueError: if the shapes differ.
            TypeError: if the dtypes differ, or are not float32 or float64, or the devices differ.
        """
        input, target = check_floats("input", input), check_floats("target", target)
        if target.shape != input.shape:
            raise ValueError(f"target must have the input's shape {tuple(input.shape)}, but got {tuple(target.shape)}")
        if target.dtype != input.dtype:
            raise TypeError(f"target must be {input.dtype} as the input is, but got {target.dtype}")
        if target.device != input.device:
            raise TypeError(f"target must be on {input.device} as the input is, but got one on {target.device}")
        count = input.numel() if self.reduction == "mean" else 1
        # The mean of no numbers is NaN.
        loss, grad = kernels.squared_error(input, target, 1 / count if count else math.nan, 2 / max(1, count))
        self._keep(grad)
        return loss

    def backward(self) -> Tensor:
        """The gradient of the loss with respect to the input, in the input's shape."""
        grad: Tensor
        (grad,) = self._take()
        return grad

    def _describe(self) -> str:
        return f"reduction={self.reduction!r}"
