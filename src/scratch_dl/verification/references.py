"""PyTorch's counterpart of each hand-written module and optimizer: the oracle.

A module of one's own brings its counterpart along by a method `pytorch_reference`, which returns a `torch.nn.Module`
or a function (*inputs, *parameters) -> output in PyTorch's differentiable arithmetic, or None for "there is none".
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name)
from torch import Tensor

from scratch_dl import nn, optim
from scratch_dl.nn import Module
from scratch_dl.system.seeding import seeded
from scratch_dl.verification.passes import BrokenReferenceError, Function, converted, foreign


def conv2d(module: nn.Conv2d) -> Function:
    """(x, weight[, bias]) -> torch's conv2d at the module's settings."""

    def function(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, weight, bias, module.stride, module.padding, module.dilation)

    return function


def conv_transpose2d(module: nn.ConvTranspose2d) -> Function:
    """(x, weight[, bias]) -> torch's conv_transpose2d at the module's settings."""

    def function(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv_transpose2d(x, weight, bias, module.stride, module.padding, module.output_padding, 1,
                                  module.dilation)  # fmt: skip

    return function


def upsampling(module: nn.Upsampling) -> Function:
    """(x, weight[, bias]) -> interpolate, pad and conv2d; or conv_transpose2d, its border added or cropped by "same".

    The paddings are worked out here from the definition, not taken from the module's geometry.
    """
    kernel, scale, padding = module.kernel_size, module.scale_factor, module.padding

    def nearest(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        enlarged = F.interpolate(x, scale_factor=[float(s) for s in scale], mode="nearest")
        if padding == "same":
            sides = [side for k in reversed(kernel) for side in ((k - 1) // 2, k - 1 - (k - 1) // 2)]
            return F.conv2d(F.pad(enlarged, sides), weight, bias)
        return F.conv2d(enlarged, weight, bias, padding=padding)

    def transposed(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not isinstance(padding, str):
            return F.conv_transpose2d(x, weight, bias, scale, padding)
        whole = F.conv_transpose2d(x, weight, None, scale)
        # Cropped to s times the size; where the kernel is smaller than the stride the last pixels are beyond its reach.
        before = [max(0, -((s - k) // 2)) for k, s in zip(kernel, scale, strict=True)]
        after = [k - s - b for k, s, b in zip(kernel, scale, before, strict=True)]
        output = F.pad(whole, (-before[1], -after[1], -before[0], -after[0]))
        return output if bias is None else output + bias[:, None, None]

    return nearest if module.mode == "nearest" else transposed


REFERENCES: dict[type[Module], Callable[[Any], Function]] = {
    nn.Conv2d: conv2d,
    nn.ConvTranspose2d: conv_transpose2d,
    nn.Upsampling: upsampling,
    nn.UpsamplingNearest2d: lambda module: (
        lambda x: F.interpolate(x, scale_factor=[float(s) for s in module.scale_factor], mode="nearest")
    ),
    nn.ReLU: lambda module: F.relu,  # noqa: ARG005
    nn.Sigmoid: lambda module: torch.sigmoid,  # noqa: ARG005
    nn.MSELoss: lambda module: lambda x, target: F.mse_loss(x, target, reduction=module.reduction),
}


def reference_for(module: Module) -> Function | None:
    """PyTorch's counterpart of a module, by its own word or its class; None if there is none.

    A subclass has its base's: whoever changes the meaning gives it a `pytorch_reference`.
    """
    if has_own_reference(module):
        name = f"{type(foreign(module)).__name__}.pytorch_reference"
        try:
            own = foreign(module).pytorch_reference()
        except Exception as error:
            raise BrokenReferenceError(f"{name} raised {type(error).__name__}: {error}") from error
        return None if own is None else as_function(own, module, name)
    if is_container(module):
        names = [name for name, _ in module.named_parameters()]

        def function(input: Tensor, *values: Tensor) -> Tensor:
            twin = Twin(module, input.dtype)
            twin.values = dict(zip(names, values, strict=True))
            return twin.forward(input)

        return function
    for kind in type(module).__mro__:
        if kind in REFERENCES:
            return REFERENCES[kind](module)
    return None


def as_function(reference: Any, module: Module, name: str = "reference") -> Function:
    """A `torch.nn.Module`, or a function, as a function of the inputs and of the module's parameters in order.

    The parameters of a `torch.nn.Module` are matched to the module's by name where names and shapes agree, else one by
    one in their order.

    Raises:
        ValueError: if the two have not the same parameter shapes.
        TypeError: if the reference is neither.
    """
    if not isinstance(reference, torch.nn.Module):
        if isinstance(reference, type):
            raise TypeError(f"{name} must be an object or a function, but got the class {reference.__name__}")
        if not callable(reference):
            raise TypeError(f"{name} must be a torch.nn.Module or a function, but got {type(reference).__name__}")
        return reference  # type: ignore[no-any-return]
    own = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    theirs = {name: tuple(parameter.shape) for name, parameter in reference.named_parameters()}
    names = list(own) if own == {name: theirs.get(name) for name in own} and len(own) == len(theirs) else list(theirs)
    if [theirs[name] for name in names] != list(own.values()):
        raise ValueError(f"{name} must have parameters of the shapes {own}, but has {theirs}")
    torch_module = copy.deepcopy(reference)

    def function(*arguments: Tensor) -> Tensor:
        count = len(arguments) - len(names)
        torch_module.to(arguments[0].dtype)  # buffers
        values = dict(zip(names, arguments[count:], strict=True))
        output: Tensor = torch.func.functional_call(torch_module, values, arguments[:count])
        return output

    return function


def reference_optimizer(optimizer: optim.Optimizer, tensors: Iterable[Tensor]) -> torch.optim.Optimizer | None:
    """PyTorch's counterpart of an optimizer with the same settings, on other tensors; None if there is none.

    A subclass has its base's, unless it says itself what its counterpart is: `pytorch_reference(tensors)`.
    """
    if hasattr(optimizer, "pytorch_reference"):
        own: torch.optim.Optimizer | None = optimizer.pytorch_reference(list(tensors))
        return own
    if isinstance(optimizer, optim.SGD):
        return torch.optim.SGD(tensors, lr=optimizer.lr, momentum=optimizer.momentum,
                               weight_decay=optimizer.weight_decay, nesterov=optimizer.nesterov)  # fmt: skip
    if isinstance(optimizer, optim.Adam):
        betas = (optimizer.betas[0], optimizer.betas[1])
        return torch.optim.Adam(tensors, lr=optimizer.lr, betas=betas, eps=optimizer.eps,
                                weight_decay=optimizer.weight_decay)  # fmt: skip
    return None


class Twin:
    """A network's weights and its sequence of modules in PyTorch's autograd.

    A module without a counterpart takes part with its own forward and backward, taken at their word.

    Args:
        network: what is copied; later changes of it do not reach the twin.
        dtype: of the twin's arithmetic.
    """

    def __init__(self, network: Module, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.network = converted(network, dtype)
        self.values: dict[str, Tensor] = {
            name: parameter.value.detach().clone().requires_grad_()
            for name, parameter in self.network.named_parameters()
        }
        # By the parameter, for one may stand at two places.
        self._names = {id(parameter): name for name, parameter in self.network.named_parameters()}

    def forward(self, input: Tensor) -> Tensor:
        """(n, c, H, W) -> (n, o, h, w) with a graph.

        Raises:
            BrokenReferenceError: if the counterparts do not fit together.
        """
        try:
            with torch.enable_grad():
                return self._apply(self.network, "", input)
        except Exception as error:
            raise BrokenReferenceError(f"the twin raised {type(error).__name__}: {error}") from error

    def _apply(self, module: Module, name: str, input: Tensor) -> Tensor:
        prefix = f"{name}." if name else ""
        if is_container(module) and isinstance(module, nn.Sequential):
            for child, inner in module.children():
                input = self._apply(inner, f"{prefix}{child}", input)
            return input
        if is_container(module) and isinstance(module, nn.Skip):
            output = self._apply(module.inner, f"{prefix}inner", input)
            return input + output if module.join == "add" else torch.cat([input, output], dim=1)
        values = [self.values[self._names[id(parameter)]] for parameter in module.parameters()]
        if (function := reference_for(module)) is not None:
            return function(input, *values)
        return cast(Tensor, AtItsWord.apply(module, name, input, *values))  # type: ignore[no-untyped-call]


def has_own_reference(module: Module) -> bool:
    """Whether a module says itself what its counterpart is."""
    return hasattr(foreign(module), "pytorch_reference")


def is_container(module: Module) -> bool:
    """Whether a module only joins the modules inside, as Sequential or Skip do; a subclass may do something else."""
    kind = type(module)
    plain = any(
        isinstance(module, known) and kind.forward is known.forward and kind.backward is known.backward
        for known in (nn.Sequential, nn.Skip)
    )
    return plain and not has_own_reference(module)


def leaves(network: Module) -> dict[str, Module]:
    """Dotted name -> module of those that are no containers; a composite of a user's own is one module."""
    found: dict[str, Module] = {}

    def visit(name: str, module: Module) -> None:
        if not is_container(module):
            found[name] = module
            return
        for child, inner in module.children():
            visit(f"{name}.{child}" if name else child, inner)

    visit("", network)
    return found


class AtItsWord(torch.autograd.Function):
    """A hand-written module as a node of autograd's graph: its own forward, its own backward."""

    @staticmethod
    def forward(ctx: Any, module: Module, name: str, input: Tensor, *values: Tensor) -> Tensor:
        """(module, its name, x, *parameters) -> the module's output."""
        ctx.module = module
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.value = value.detach()
        with seeded(name):
            return module.forward(input.detach().clone()).detach().clone()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        """The output's gradient -> those of x and of each parameter."""
        before = [parameter.grad.clone() for parameter in ctx.module.parameters()]
        grad_input = ctx.module.backward(grad_output.contiguous())
        added = [p.grad - start for p, start in zip(ctx.module.parameters(), before, strict=True)]
        return (None, None, grad_input.clone(), *added)


def gradients(twin: Twin) -> Mapping[str, Tensor]:
    """Name -> what backward has put into the twin's parameters; zeros where it has put nothing."""
    return {name: torch.zeros_like(value) if value.grad is None else value.grad for name, value in twin.values.items()}
