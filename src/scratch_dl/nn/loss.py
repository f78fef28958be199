"""Losses: what a network is trained to make small. Y is its output, T the target, N how many numbers each of them has.

Each loss has a `reduction`: "mean" divides loss and gradient by N, "sum" does not.
"""

import math

from torch import Tensor

from scratch_dl import kernels
from scratch_dl.nn.module import Module, check_floats
from scratch_dl.system.checks import choice, real


class Loss(Module):
    """What the losses share: the reduction, and the check that output and target fit together.

    Args:
        reduction: "mean" or "sum".

    Raises:
        ValueError: if the reduction is neither.
    """

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = choice("reduction", reduction, ("mean", "sum"))

    def _checked(self, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return two tensors of one shape, cut off from any autograd graph.

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
        return input, target

    def _share(self, tensor: Tensor) -> float:
        """Return 1 / N for "mean", which is NaN for no numbers, as their mean is; 1 for "sum"."""
        if self.reduction == "sum":
            return 1.0
        return 1 / tensor.numel() if tensor.numel() else math.nan

    def _describe(self) -> str:
        return f"reduction={self.reduction!r}"


class MSELoss(Loss):
    """The squared error: L = sum (Y - T)^2 / N; dL/dY = 2 (Y - T) / N. Without the divisions for "sum"."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape -> the loss, a tensor of shape (); errors as in `Loss._checked`."""
        input, target = self._checked(input, target)
        share = self._share(input)
        loss, grad = kernels.squared_error(input, target, share, 2.0 if math.isnan(share) else 2 * share)
        self._keep(grad)
        return loss

    def backward(self) -> Tensor:
        """The gradient of the loss with respect to the input, in the input's shape."""
        grad: Tensor
        (grad,) = self._take()
        return grad


class L1Loss(Loss):
    """The absolute error: L = sum |Y - T| / N; dL/dY = sign(Y - T) / N, which is 0 where Y = T, as in PyTorch.

    Without the divisions for "sum".
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape -> the loss, a tensor of shape (); errors as in `Loss._checked`."""
        input, target = self._checked(input, target)
        difference = input - target
        self._keep(difference)
        return difference.abs().sum() * self._share(input)

    def backward(self) -> Tensor:
        """The gradient of the loss with respect to the input, in the input's shape."""
        difference: Tensor
        (difference,) = self._take()
        return difference.sign() * self._share(difference)


class CharbonnierLoss(Loss):
    """The Charbonnier loss (Charbonnier et al. 1994): the absolute error, but smooth where it is below about eps.

    With R = sqrt((Y - T)^2 + eps^2):

        L     = sum R / N          (1)
        dL/dY = (Y - T) / R / N    (2)

    Without the divisions by N for "sum".

    Args:
        eps: at least 1e-12, in the units of the pixels; the mean loss of a perfect output is eps.
        reduction: "mean" or "sum".

    Raises:
        ValueError: if eps is smaller, or the reduction is neither.
        TypeError: if eps is not a number.
    """

    def __init__(self, eps: float = 1e-3, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.eps = real("eps", eps, minimum=1e-12)  # the square of less vanishes in float32

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape -> the loss, a tensor of shape (), by (1); errors as in `Loss._checked`."""
        input, target = self._checked(input, target)
        difference = input - target
        root = (difference.square() + self.eps**2).sqrt()
        self._keep(difference, root)
        return root.sum() * self._share(input)

    def backward(self) -> Tensor:
        """The gradient of the loss with respect to the input, in the input's shape, by (2)."""
        difference, root = self._take()
        grad: Tensor = difference / root * self._share(difference)
        return grad

    def _describe(self) -> str:
        return f"eps={self.eps:g}, {super()._describe()}"
