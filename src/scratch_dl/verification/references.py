"""The reference of each module as a differentiable function, and a network's twin in PyTorch's autograd: the oracle.

A user's own module may bring its reference along by a method `pytorch_reference`, which returns a `torch.nn.Module` or
a function (*inputs, *parameters) -> output in PyTorch's differentiable arithmetic, or None for "there is none".
"""

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from scratch_dl.nn import Module
from scratch_dl.system.seeding import seeded
from scratch_dl.verification.counterparts import assembled, has_own_reference, is_container, pytorch_module
from scratch_dl.verification.passes import BrokenReferenceError, Function, converted, foreign


def reference_for(module: Module) -> Function | None:
    """The reference of a module: its own, else PyTorch's counterpart of its class; None if there is none.

    A subclass has its base's; one that computes something else needs a `pytorch_reference`.
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
            twin.values.update(zip(names, values, strict=True))
            return twin.forward(input)

        return function
    counterpart = pytorch_module(module)
    return None if counterpart is None else as_function(counterpart, module)


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
    has_buffers = bool(list(torch_module.buffers()))

    def function(*arguments: Tensor) -> Tensor:
        count = len(arguments) - len(names)
        if has_buffers:
            torch_module.to(arguments[0].dtype)
        values = dict(zip(names, arguments[count:], strict=True))
        output: Tensor = torch.func.functional_call(torch_module, values, arguments[:count])
        return output

    return function


class Twin:
    """A network's weights and modules in PyTorch's autograd.

    A module without a reference takes part with its own forward and backward, which are trusted.

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
        # By the parameter, since one may stand at two places.
        self._names = {id(parameter): name for name, parameter in self.network.named_parameters()}
        self._model = assembled(self.network, self._leaf)

    def forward(self, input: Tensor) -> Tensor:
        """(n, c, H, W) -> (n, o, h, w) with a graph.

        Raises:
            BrokenReferenceError: if the counterparts do not fit together.
        """
        try:
            with torch.enable_grad():
                return cast(Tensor, self._model(input))
        except Exception as error:
            raise BrokenReferenceError(f"the twin raised {type(error).__name__}: {error}") from error

    def _leaf(self, name: str, module: Module) -> torch.nn.Module:
        return _Leaf(name, module, self.values, [self._names[id(parameter)] for parameter in module.parameters()])


class _Leaf(torch.nn.Module):
    """A module of a twin: its reference, or where it has none the module itself, at the twin's values."""

    def __init__(self, name: str, module: Module, values: Mapping[str, Tensor], keys: list[str]) -> None:
        super().__init__()
        self.name, self.module, self.values, self.keys = name, module, values, keys
        self.function: Function | None = None

    def forward(self, input: Tensor) -> Tensor:
        """The module's input -> its output with a graph."""
        values = [self.values[key] for key in self.keys]
        self.function = self.function or reference_for(self.module)
        if self.function is not None:
            return self.function(input, *values)
        return cast(Tensor, TrustedModule.apply(self.module, self.name, input, *values))  # type: ignore[no-untyped-call]


def leaves(network: Module) -> dict[str, Module]:
    """Dotted name -> module, without containers; a user's own composite is one module."""
    found: dict[str, Module] = {}

    def visit(name: str, module: Module) -> None:
        if not is_container(module):
            found[name] = module
            return
        for child, inner in module.children():
            visit(f"{name}.{child}" if name else child, inner)

    visit("", network)
    return found


class TrustedModule(torch.autograd.Function):
    """A hand-written module as a node of autograd's graph, with its own forward and backward."""

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
    """Name -> gradient of the twin's parameters after a backward; zeros where there is none."""
    return {name: torch.zeros_like(value) if value.grad is None else value.grad for name, value in twin.values.items()}
