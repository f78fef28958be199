"""PyTorch's counterpart of each hand-written module, network and optimizer: the oracle, and the rival of benchmarks.

This is the only place that says which module of `torch.nn` or optimizer of `torch.optim` does the same.
"""

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor

from scratch_dl import nn, optim
from scratch_dl.nn import Module
from scratch_dl.system.checks import Pair
from scratch_dl.verification.passes import foreign

TOLERANCE = 1e-4
"""Largest ||a - b|| / ||b|| of two float32 results that are computed differently."""
AT_A_KINK = 1e-2
"""The same of gradients: where rounding puts a number on the other side of a ReLU's kink, they differ by about 1e-3."""


class UnequalError(RuntimeError):
    """The two do not compute the same, so that a comparison of their times says nothing."""


class TorchSkip(torch.nn.Module):
    """[x, inner(x)] along the channels, or x + inner(x)."""

    def __init__(self, inner: torch.nn.Module, join: str) -> None:
        super().__init__()
        self.inner = inner
        self.join = join

    def forward(self, input: Tensor) -> Tensor:
        """(n, c, H, W) -> (n, c + o, H, W), or (n, c, H, W)."""
        output: Tensor = self.inner(input)
        return input + output if self.join == "add" else torch.cat([input, output], dim=1)


class TorchCharbonnier(torch.nn.Module):
    """The Charbonnier loss, which `torch.nn` lacks, in PyTorch's differentiable arithmetic."""

    def __init__(self, eps: float, reduction: str) -> None:
        super().__init__()
        self.eps = eps
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape -> a tensor of shape ()."""
        each = torch.sqrt((input - target) ** 2 + self.eps**2)
        return each.mean() if self.reduction == "mean" else each.sum()


def pytorch_module(module: Module) -> torch.nn.Module | None:
    """The module of `torch.nn` that does what a hand-written module does, as a user of PyTorch would write it.

    A subclass has its base's. The parameters come in the same order; they are on the device "meta", without values, so
    that nothing is drawn. None if there is no counterpart.
    """
    make = next((_MODULES[kind] for kind in type(module).__mro__ if kind in _MODULES), None)
    if make is None:
        return None
    with torch.device("meta"):
        return make(module)


def pytorch_twin(network: Module) -> torch.nn.Module:
    """A network of `torch.nn` with copies of a network's weights; touches no global random state.

    Raises:
        TypeError: if a module has no counterpart.
    """

    def leaf(_name: str, module: Module) -> torch.nn.Module:
        if (made := pytorch_module(module)) is None:
            raise TypeError(f"{type(module).__name__} has no counterpart in torch.nn")
        return made

    twin = assembled(network, leaf)
    twin.to_empty(device="cpu")
    for parameter, like in zip(twin.parameters(), network.parameters(), strict=True):
        parameter.data = like.value.clone()
    return twin


def pytorch_optimizer(optimizer: optim.Optimizer, tensors: Iterable[Tensor]) -> torch.optim.Optimizer | None:
    """PyTorch's counterpart of an optimizer with the same settings, on other tensors; None if there is none.

    A subclass has its base's, unless it brings its counterpart along: `pytorch_reference(tensors)`.
    """
    if hasattr(optimizer, "pytorch_reference"):
        return cast("torch.optim.Optimizer | None", optimizer.pytorch_reference(list(tensors)))
    lr, decay = optimizer.lr, getattr(optimizer, "weight_decay", 0.0)
    if isinstance(optimizer, optim.SGD):
        return torch.optim.SGD(tensors, lr, optimizer.momentum, weight_decay=decay, nesterov=optimizer.nesterov)
    if isinstance(optimizer, optim.Adam):
        betas = (optimizer.betas[0], optimizer.betas[1])
        return torch.optim.Adam(tensors, lr, betas=betas, eps=optimizer.eps, weight_decay=decay)
    return None


def assembled(module: Module, leaf: Callable[[str, Module], torch.nn.Module], name: str = "") -> torch.nn.Module:
    """Sequential and Skip as modules of PyTorch, around what `leaf(dotted name, module)` makes of each one inside."""
    if not is_container(module):
        return leaf(name, module)
    prefix = f"{name}." if name else ""
    children = [assembled(child, leaf, f"{prefix}{key}") for key, child in module.children()]
    # By position, since torch.nn takes no child of the name "half".
    return TorchSkip(children[0], module.join) if isinstance(module, nn.Skip) else torch.nn.Sequential(*children)


def is_container(module: Module) -> bool:
    """Whether a module only joins the modules inside, as Sequential or Skip do; a subclass may do something else."""
    kind = type(module)
    plain = any(
        isinstance(module, known) and kind.forward is known.forward and kind.backward is known.backward
        for known in (nn.Sequential, nn.Skip)
    )
    return plain and not has_own_reference(module)


def has_own_reference(module: Module) -> bool:
    """Whether a module brings its counterpart along."""
    return hasattr(foreign(module), "pytorch_reference")


def in_channels_last(module: torch.nn.Module) -> torch.nn.Module:
    """The module with its weights in channels_last."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def check_equal(
    name: str, own: tuple[Tensor, Iterable[Tensor]], theirs: tuple[Tensor, Iterable[Tensor]], grads: float = TOLERANCE
) -> None:
    """Check that two outputs, and the gradients of their parameters, are the same but for rounding.

    Args:
        name: what they are, for the message.
        own: output and gradients.
        theirs: output and gradients, in the same order.
        grads: the largest ||a - b|| / ||b|| of a gradient; that of an output is `TOLERANCE`.

    Raises:
        UnequalError: if one of them differs by more, or is NaN.
    """
    pairs = zip([own[0], *own[1]], [theirs[0], *theirs[1]], strict=True)
    for place, (mine, other) in enumerate(pairs):
        error = float((mine - other).norm() / other.norm().clamp_min(torch.finfo(other.dtype).tiny))
        limit = grads if place else TOLERANCE
        if not error <= limit:
            what = f"the gradient of parameter {place - 1}" if place else "the output"
            raise UnequalError(f"{name}: {what} must be PyTorch's to {limit:g}, but differs by {error:.1e}")


def _conv2d(module: nn.Conv2d) -> torch.nn.Module:
    geometry = module.kernel_size, module.stride, module.padding, module.dilation
    return torch.nn.Conv2d(module.in_channels, module.out_channels, *geometry, bias=module.bias is not None)


def _conv_transpose2d(module: nn.ConvTranspose2d) -> torch.nn.Module:
    geometry = module.kernel_size, module.stride, module.padding, module.output_padding
    bias, dilation = module.bias is not None, module.dilation
    return torch.nn.ConvTranspose2d(module.in_channels, module.out_channels, *geometry, bias=bias, dilation=dilation)


def _upsampling(module: nn.Upsampling) -> torch.nn.Module:
    """Repetition, padding and Conv2d, or ConvTranspose2d.

    The paddings of "same" are worked out here from the definition, not taken from the module's geometry.
    """
    kernel, scale, padding = module.kernel_size, module.scale_factor, module.padding
    channels, bias = (module.in_channels, module.out_channels), module.bias is not None
    if module.mode == "nearest":
        sides = [((k - 1) // 2, k - 1 - (k - 1) // 2) for k in kernel]
        even = all(before == after for before, after in sides)
        ahead = [] if padding != "same" or even else [torch.nn.ZeroPad2d((*sides[1], *sides[0]))]
        inside = padding if padding != "same" else (sides[0][0], sides[1][0]) if even else 0
        conv = torch.nn.Conv2d(*channels, kernel, padding=inside, bias=bias)
        return torch.nn.Sequential(torch.nn.UpsamplingNearest2d(scale_factor=scale), *ahead, conv)
    if not isinstance(padding, str):
        return torch.nn.ConvTranspose2d(*channels, kernel, scale, padding, bias=bias)
    # Cropped to s times the size; where the kernel is smaller than the stride the last pixels are beyond its reach.
    before: Pair = tuple(max(0, -((s - k) // 2)) for k, s in zip(kernel, scale, strict=True))  # type: ignore[assignment]
    after = [k - s - b for k, s, b in zip(kernel, scale, before, strict=True)]
    extra: Pair = (before[0] - after[0], before[1] - after[1])
    if all(e < s for e, s in zip(extra, scale, strict=True)):
        return torch.nn.ConvTranspose2d(*channels, kernel, scale, before, extra, bias=bias)
    # PyTorch takes no output_padding as large as the stride, as an even kernel needs at a factor of 1.
    crop = torch.nn.ZeroPad2d((-before[1], -after[1], -before[0], -after[0]))
    return torch.nn.Sequential(torch.nn.ConvTranspose2d(*channels, kernel, scale, bias=bias), crop)


_MODULES: dict[type[Module], Callable[[Any], torch.nn.Module]] = {
    nn.Conv2d: _conv2d,
    nn.ConvTranspose2d: _conv_transpose2d,
    nn.Upsampling: _upsampling,
    nn.UpsamplingNearest2d: lambda module: torch.nn.UpsamplingNearest2d(scale_factor=module.scale_factor),
    nn.ReLU: lambda _: torch.nn.ReLU(),
    nn.Sigmoid: lambda _: torch.nn.Sigmoid(),
    nn.MSELoss: lambda module: torch.nn.MSELoss(reduction=module.reduction),
    nn.L1Loss: lambda module: torch.nn.L1Loss(reduction=module.reduction),
    nn.CharbonnierLoss: lambda module: TorchCharbonnier(module.eps, module.reduction),
}
