"""The same network of `torch.nn`, as a user would write it, with the hand-written one's weights."""

from collections.abc import Iterable

import torch
from torch import Tensor

from scratch_dl import nn
from scratch_dl.system.checks import Pair

TOLERANCE = 1e-4
# Of float32 gradients alone: where rounding puts a number on the other side of a ReLU's kink, they part by about 1e-3.
AT_A_KINK = 1e-2


class UnequalError(RuntimeError):
    """The two do not compute the same, so their times say nothing."""


class Skip(torch.nn.Module):
    """[x, inner(x)] along the channels, or x + inner(x)."""

    def __init__(self, inner: torch.nn.Module, join: str) -> None:
        super().__init__()
        self.inner = inner
        self.join = join

    def forward(self, input: Tensor) -> Tensor:
        """(n, c, H, W) -> (n, c + o, H, W), or (n, c, H, W)."""
        output: Tensor = self.inner(input)
        return input + output if self.join == "add" else torch.cat([input, output], dim=1)


def twin(network: nn.Module) -> torch.nn.Module:
    """A network of `torch.nn` with copies of the weights; touches no global random state.

    Raises:
        TypeError: if a module has no counterpart here.
    """
    with torch.device("meta"):  # on which nothing is drawn
        made = _counterpart(network)
    made.to_empty(device="cpu").to(network.parameters()[0].value.dtype)
    with torch.no_grad():
        for parameter, like in zip(made.parameters(), network.parameters(), strict=True):
            parameter.copy_(like.value)
    return made


def last(module: torch.nn.Module) -> torch.nn.Module:
    """The module with its weights in channels_last."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def check_equal(
    name: str, own: tuple[Tensor, Iterable[Tensor]], theirs: tuple[Tensor, Iterable[Tensor]], grads: float = TOLERANCE
) -> None:
    """Refuse two that differ in their output or in a parameter's gradient.

    Args:
        name: what they are, for the message.
        own: output and gradients.
        theirs: output and gradients, in the same order.
        grads: the largest ||a - b|| / ||b|| of a gradient; an output's is 1e-4.

    Raises:
        UnequalError: if one of them differs by more, or is nan.
    """
    pairs = zip([own[0], *own[1]], [theirs[0], *theirs[1]], strict=True)
    for place, (mine, other) in enumerate(pairs):
        error = float((mine - other).norm() / other.norm().clamp_min(torch.finfo(other.dtype).tiny))
        limit = grads if place else TOLERANCE
        if not error <= limit:
            what = f"the gradient of parameter {place - 1}" if place else "the output"
            raise UnequalError(f"{name}: {what} must be PyTorch's to {limit:g}, but differs by {error:.1e}")


def _counterpart(module: nn.Module) -> torch.nn.Module:
    if isinstance(module, nn.Sequential):
        # By place, for torch.nn takes no child of the name "half".
        return torch.nn.Sequential(*(_counterpart(child) for _, child in module.children()))
    if isinstance(module, nn.Skip):
        return Skip(_counterpart(module.inner), module.join)
    if isinstance(module, nn.Conv2d):
        return torch.nn.Conv2d(module.in_channels, module.out_channels, module.kernel_size, module.stride,
                               module.padding, module.dilation, bias=module.bias is not None)  # fmt: skip
    if isinstance(module, nn.Upsampling):
        return _nearest(module) if module.mode == "nearest" else _transposed(module)
    if isinstance(module, nn.ReLU):
        return torch.nn.ReLU()
    if isinstance(module, nn.Sigmoid):
        return torch.nn.Sigmoid()
    raise TypeError(f"network must be made of modules with a twin of torch.nn, but has a {type(module).__name__}")


def _nearest(module: nn.Upsampling) -> torch.nn.Module:
    """Repeat each pixel, pad by hand where the two sides differ, convolve."""
    (top, bottom), (left, right) = module.geometry.padding
    even = top == bottom and left == right
    padding: Pair = (top, left) if even else (0, 0)
    return torch.nn.Sequential(
        torch.nn.UpsamplingNearest2d(scale_factor=module.scale_factor),
        *([] if even else [torch.nn.ZeroPad2d((left, right, top, bottom))]),
        torch.nn.Conv2d(module.in_channels, module.out_channels, module.kernel_size, padding=padding,
                        bias=module.bias is not None),
    )  # fmt: skip


def _transposed(module: nn.Upsampling) -> torch.nn.Module:
    (top, bottom), (left, right) = module.geometry.padding
    return torch.nn.ConvTranspose2d(
        module.in_channels, module.out_channels, module.kernel_size, module.scale_factor, (top, left),
        (top - bottom, left - right), bias=module.bias is not None,
    )  # fmt: skip
