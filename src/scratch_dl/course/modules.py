"""The course's modules: each is one of `scratch_dl.nn` with the course's names, and plain tensors for parameters.

The equations, argument checks and kernels are those of `scratch_dl.nn`; nothing is computed here.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

from torch import Tensor

from scratch_dl import nn, optim
from scratch_dl.nn.module import check_floats

Pairs = list[tuple[Tensor, Tensor]]


class Module:
    """What all of them have: forward, backward and param.

    Args:
        *args: as the class `kind` of scratch_dl.nn takes them.
        **options: likewise.

    Attributes:
        kind: the class of scratch_dl.nn.
        module: the instance of it that computes.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if one is out of range.
    """

    kind: ClassVar[type[nn.Module]]

    def __init__(self, *args: Any, **options: Any) -> None:
        self.module = self.kind(*args, **options)

    def forward(self, *input: Tensor) -> Tensor:
        """Return the output; images are (n, c, h, w) of the parameters' dtype."""
        return self.module(*input)

    def __call__(self, *input: Tensor) -> Tensor:
        """The same as `forward`."""
        return self.forward(*input)

    def backward(self, *gradwrtoutput: Tensor) -> Tensor:
        """Given the gradient of the output, add to the parameters' gradients and return the gradient of the input.

        Raises:
            RuntimeError: if there was no forward since the last backward.
        """
        return self.module.call_backward(*gradwrtoutput)

    def param(self) -> Pairs:
        """Return (parameter, gradient) of every parameter: the live tensors, which an update in place changes."""
        return [(parameter.value, parameter.grad) for parameter in self.module.parameters()]

    def zero_grad(self) -> None:
        """Set every gradient to zero, in place."""
        self.module.zero_grad()

    def __repr__(self) -> str:
        return repr(self.module)


class _Filter(Module):
    """A module with a weight, and a bias unless `bias=False`."""

    module: Any

    @property
    def weight(self) -> Tensor:
        """The live tensor. What is assigned is copied into it, and must have its shape."""
        return self.module.weight.value  # type: ignore[no-any-return]

    @weight.setter
    def weight(self, weight: Tensor) -> None:
        _copy("weight", weight, self.weight)

    @property
    def bias(self) -> Tensor | None:
        """As `weight`; None without a bias."""
        return None if self.module.bias is None else self.module.bias.value

    @bias.setter
    def bias(self, bias: Tensor) -> None:
        if self.bias is None:
            raise ValueError("bias cannot be assigned to a module with bias=False")
        _copy("bias", bias, self.bias)


class Conv2d(_Filter):
    """A convolution: (in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1); by name: `bias`."""

    kind = nn.Conv2d


class TransposeConv2d(_Filter):
    """A transposed convolution: (in_channels, out_channels, kernel_size, stride=1, padding=0, output_padding=0).

    By name: `dilation`, `bias`.
    """

    kind = nn.ConvTranspose2d


class Upsampling(_Filter):
    """The learnable upsampling: (in_channels, out_channels, kernel_size, scale_factor=2, padding="same", mode=...).

    mode "nearest" (the default) is NearestUpsampling and then a convolution, "transposed" a transposed convolution.
    """

    kind = nn.Upsampling


class NearestUpsampling(Module):
    """Repeats each pixel: (scale_factor)."""

    kind = nn.UpsamplingNearest2d


class ReLU(Module):
    """max(x, 0)."""

    kind = nn.ReLU


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    kind = nn.Sigmoid


class MSE(Module):
    """The mean squared error: `forward(output, target)`, then `backward()`, which takes no gradient."""

    kind = nn.MSELoss


class Sequential(Module):
    """Modules one after another; each is one of this file, or any object with forward, backward and `param()`.

    Raises:
        TypeError: if one of them has no forward or no backward.
        ValueError: if one module stands at two places.
    """

    kind = nn.Sequential

    def __init__(self, *modules: Any) -> None:
        super().__init__(*(item.module if isinstance(item, Module) else item for item in modules))


class SGD(optim.SGD):
    """`scratch_dl.optim.SGD` on the pairs of `param()`, whose tensors it updates in place.

    Args:
        params: (parameter, gradient) pairs.
        lr: >= 0.
        momentum: in [0, 1).
        weight_decay: >= 0.
        nesterov: needs a momentum.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if one is out of its range.
    """

    def __init__(
        self,
        params: Iterable[tuple[Tensor, Tensor]],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__([_Live(pair) for pair in params], lr, momentum, weight_decay, nesterov)


class _Live(nn.Parameter):
    """A parameter whose tensors are those of a pair, not copies."""

    def __init__(self, pair: tuple[Tensor, Tensor]) -> None:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"params must be (parameter, gradient) pairs, but one of them is {type(pair).__name__}")
        self._value, self._grad = check_floats("a parameter", pair[0]), check_floats("a gradient", pair[1])
        if self._value.shape != self._grad.shape:
            raise ValueError(
                f"a gradient must have the parameter's shape {tuple(self._value.shape)}, "
                f"but got {tuple(self._grad.shape)}"
            )


def _copy(name: str, given: Tensor, live: Tensor) -> None:
    """Copy a tensor into a live one, so that pairs of `param()` handed out before stay valid."""
    if check_floats(name, given).shape != live.shape:
        raise ValueError(f"{name} must have shape {tuple(live.shape)}, but got {tuple(given.shape)}")
    live.copy_(given)
