"""Modules that consist of modules: a sequence, and a skip connection around a module."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scratch_dl.nn import fusion
from scratch_dl.nn.adapter import Adapted, adapt
from scratch_dl.nn.module import Module, check_floats, check_grad_output
from scratch_dl.system.checks import Pair, choice


class _Container(Module):
    """Takes any object with a forward and a backward as a module, also where one replaces another."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, Module) or isinstance(vars(self).get(name), Module):
            value = adapt(value, name)
            others = [module for other, module in self.children() if other != name]
            every = [_identity(inner) for module in [*others, value] for _, inner in module.named_modules()]
            if len(set(every)) != len(every):
                raise ValueError("modules must be distinct objects, but one of them stands at two places")
        super().__setattr__(name, value)


def _identity(module: Module) -> int:
    return id(module.inner if isinstance(module, Adapted) else module)


class Sequential(_Container):
    """One module after another; of none, the identity.

    A convolution and the activation after it, and a ReLU's gradient and that of the convolution after it, are computed
    in one where `fusion` allows it: with the same numbers, and each module keeps and adds what it would alone.

    Args:
        modules: the modules in order, named "0", "1", ...; or one dict of names and modules. A module is then an
            attribute of that name, and assigning another one to the attribute replaces it in its place. An object
            that is not a Module but has a forward and a backward is wrapped by `adapt`.

    Raises:
        TypeError: if one of them has no forward or no backward.
        ValueError: if a name is taken or has a dot, or one module stands at two places (it has one cache only).
    """

    def __init__(self, *modules: Any) -> None:
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named: dict[str, Any] = dict(modules[0])
        else:
            named = {str(position): module for position, module in enumerate(modules)}
        for name, module in named.items():
            adapted = adapt(module, f"modules[{name!r}]")
            if not isinstance(name, str) or not name or "." in name or hasattr(self, name):
                raise ValueError(f"a module's name must be new, not empty and without dots, but got {name!r}")
            setattr(self, name, adapted)

    def output_size(self, size: Pair) -> Pair:
        """(height, width) through all the modules."""
        for _, module in self.children():
            size = module.output_size(size)
        return size

    def forward(self, input: Tensor) -> Tensor:
        """Through the modules, first to last."""
        modules = [module for _, module in self.children()]
        while modules:
            module = modules.pop(0)
            activation = fusion.activation_of(module, modules[0]) if modules else None
            if activation is None:
                input = module(input)
            else:
                input = module.forward(input, activation)
                modules.pop(0)._keep(input)
        return input

    def backward(self, grad_output: Tensor, input_grad: bool = True) -> Tensor:
        """Through the modules, last to first.

        Args:
            grad_output: the gradient of the output.
            input_grad: whether the gradient of the input is needed; if not, the returned tensor may be empty.
        """
        modules = [module for _, module in self.children()]
        while modules:
            module = modules.pop()
            if modules and fusion.passes_relu(modules[-1], module):
                grad_output = module.backward(grad_output, through_relu=True)
                modules.pop()._take()
            elif modules or input_grad:
                grad_output = module.call_backward(grad_output)
            else:
                grad_output = parameter_gradients(module, grad_output)
        return grad_output

    def __len__(self) -> int:
        return len(list(self.children()))

    def __getitem__(self, position: int) -> Module:
        return list(self.children())[position][1]


def parameter_gradients(module: Module, grad_output: Tensor) -> Tensor:
    """The module's backward as a training needs it: without the input's gradient, where the module can leave it out."""
    if isinstance(module, (*fusion.CONVOLUTIONS, Sequential, Skip)) and fusion.has_own_methods(module):
        return module.call_backward(grad_output, input_grad=False)
    return module.call_backward(grad_output)


class Skip(_Container):
    """Carry the input past a module and join it with the output (a skip connection).

    join "concatenate" (U-Net): Z = [X, f(X)] along the channels; dL/dX = G_X + f'(G_f), with G = [G_X, G_f].
    join "add" (ResNet):        Z = X + f(X);                     dL/dX = G + f'(G).

    Args:
        inner: f, a module, or an object with a forward and a backward, that keeps the size, and for "add" the shape.
        join: "concatenate" or "add".

    Raises:
        TypeError: if `inner` has no forward or no backward.
        ValueError: if `join` is neither.
    """

    def __init__(self, inner: Any, join: str = "concatenate") -> None:
        module = adapt(inner, "inner")
        self.join = choice("join", join, ("concatenate", "add"))
        self.inner = module

    def output_size(self, size: Pair) -> Pair:
        """The input's.

        Raises:
            ValueError: if the inner module does not keep the size.
        """
        if (inner := self.inner.output_size(size)) != size:
            raise ValueError(f"inner must keep the size {size[0]}x{size[1]}, but makes it {inner[0]}x{inner[1]}")
        return size

    def forward(self, input: Tensor) -> Tensor:
        """(n, c, H, W) -> (n, c + o, H, W) for "concatenate", (n, c, H, W) for "add".

        Raises:
            ValueError: if the shapes cannot be joined.
        """
        input = check_floats("input", input)
        output = self.inner(input)
        add = self.join == "add"
        if output.shape[2:] != input.shape[2:] or (add and output.shape != input.shape):
            raise ValueError(f"{self.join} needs matching shapes, but got {tuple(input.shape)}, {tuple(output.shape)}")
        joined = input + output if add else torch.cat([input, output], dim=1)
        self._keep(input.shape[1], tuple(joined.shape), input.new_empty(0))
        return joined

    def backward(self, grad_output: Tensor, input_grad: bool = True) -> Tensor:
        """The output's shape -> the input's; `input_grad` as in Sequential."""
        channels, shape, like = self._take()
        past = through = check_grad_output(grad_output, shape, like)
        if self.join == "concatenate":
            past, through = past[:, :channels], past[:, channels:]
        if not input_grad:
            return parameter_gradients(self.inner, through)
        return past + self.inner.call_backward(through)

    def _describe(self) -> str:
        return f"join={self.join!r}"


fusion.register(Sequential, Skip)
