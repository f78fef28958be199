"""Adapts other people's modules: any object that has a forward and a backward becomes a Module."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from scratch_dl.nn.module import Module, Parameter, check_floats
from scratch_dl.nn.reach import convert, reach, replace_tensors


def adapt(module: object, name: str = "module") -> Module:
    """A Module as it is; any other object with a forward and a backward as an `Adapted`.

    Args:
        module: the object.
        name: what an error calls it.

    Raises:
        TypeError: if it has no forward or no backward, or lists parameters that cannot be read.
        ValueError: if two of its parameters have one name.
    """
    if isinstance(module, Module):
        return module
    if isinstance(module, type) or not all(callable(getattr(module, way, None)) for way in ("forward", "backward")):
        got = f"the class {module.__name__}" if isinstance(module, type) else type(module).__name__
        missing = [way for way in ("forward", "backward") if not callable(getattr(module, way, None))]
        lacks = f", which has no {' and no '.join(missing)}" if missing else ", not an object of it"
        raise TypeError(f"{name} must have a forward and a backward, but got {got}{lacks}")
    return Adapted(module)


class Adapted(Module):
    """A Module around an object that has a forward and a backward of its own; nothing else is asked of it.

    Its parameters are what its `named_parameters()` gives as (name, parameter), else what `parameters()` or `param()`
    lists, else the Parameters among its attributes. One of them is a pair (value, grad) of tensors, an object with
    `value` and `grad`, or a tensor with its `grad`; a gradient of None counts as zeros, and None or (None, None) as no
    parameter. What has no name has that of the attribute that holds it, or else its position.

    forward and backward run without autograd and are given contiguous tensors: those of this package lie channels last
    in memory, which a `view` in the object's code may not be able to take.

    Attributes:
        inner: the object.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        if isinstance(getattr(inner, "training", None), bool):
            self.training = inner.training
        self._parameters: dict[str, LiveParameter] = {}
        seen: set[int] = set()
        entries = _entries(inner)
        names = _attribute_names(inner, [entry for _, entry in entries])
        for position, (given, entry) in enumerate(entries):
            if _is_nothing(entry):
                continue
            name = given if given is not None else names.get(position, str(position))
            value, _ = _value_and_grad(entry, f"{type(inner).__name__}'s parameter {name!r}")
            if name in self._parameters:
                raise ValueError(f"the parameters of {type(inner).__name__} must have distinct names, but got {name!r}")
            if id(value) not in seen:
                seen.add(id(value))
                self._parameters[name] = LiveParameter(self, position, name)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The object's output for the inputs.

        Raises:
            TypeError: if that is neither a tensor nor a tuple or list of one.
        """
        return self._call("forward", inputs)

    def backward(self, *grad_outputs: Tensor) -> Tensor:
        """The object's gradient of its input, from that of its output (without one, if it is a loss).

        Raises:
            TypeError: if that is neither a tensor nor a tuple or list of one.
        """
        return self._call("backward", grad_outputs)

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The object's own answer.

        Raises:
            TypeError: if it has no `output_size`; `scratch_dl.models.trace` finds the size by running the module.
        """
        if not callable(getattr(self.inner, "output_size", None)):
            raise TypeError(f"{type(self.inner).__name__} has no output_size, so its output's size is not known")
        height, width = self.inner.output_size(size)
        return height, width

    def zero_grad(self) -> None:
        """Set every gradient to zero, by the object's own zero_grad if it has one."""
        if not _call_without_arguments(self.inner, "zero_grad"):
            super().zero_grad()

    def _call(self, method: str, tensors: tuple[Any, ...]) -> Tensor:
        plain = [item.detach().contiguous() if isinstance(item, Tensor) else item for item in tensors]
        with torch.no_grad():
            output = getattr(self.inner, method)(*plain)
        if isinstance(output, tuple | list) and len(output) == 1:
            output = output[0]
        if not isinstance(output, Tensor):
            got = type(output).__name__
            raise TypeError(f"{type(self.inner).__name__}.{method} must return a torch.Tensor, but returned {got}")
        return output.detach()

    def _own_parameters(self) -> Iterator[tuple[str, Parameter]]:
        yield from self._parameters.items()

    def _convert(self, dtype: torch.dtype | None, device: torch.device | str | None) -> None:
        replace_tensors(self.inner, lambda tensor: convert(tensor, dtype, device))

    def _set_mode(self, training: bool) -> None:
        super()._set_mode(training)
        if not _call_without_arguments(self.inner, "train" if training else "eval"):
            for _, item in reach(self.inner):
                if isinstance(item, Module):
                    item.train(training)

    def _describe(self) -> str:
        return type(self.inner).__name__


class LiveParameter(Parameter):
    """A parameter of an adapted object: reading looks the tensors up in the object, where it may have put new ones.

    What is assigned is copied into the object's tensor, which keeps its dtype and device.
    """

    def __init__(self, owner: Adapted, position: int, name: str) -> None:
        # By position, not by tensor: a copy, by copy or pickle, has a copy of the owner, and reads that one's object.
        self._owner, self._position, self._name = owner, position, name

    @property
    def value(self) -> Tensor:
        """The object's tensor as it is now."""
        return self._look_up()[0].detach()

    @value.setter
    def value(self, value: Tensor) -> None:
        self.value.copy_(self._same_shape("value", value))

    @property
    def grad(self) -> Tensor:
        """The object's gradient as it is now; zeros where it has none.

        Raises:
            ValueError: if its shape is not the value's.
        """
        value, grad = self._look_up()
        if grad is None:
            return torch.zeros_like(value.detach())
        if grad.shape != value.shape:
            raise ValueError(
                f"the gradient of {self._label} must have the value's shape {tuple(value.shape)}, "
                f"but got {tuple(grad.shape)}"
            )
        return grad.detach()

    @grad.setter
    def grad(self, grad: Tensor) -> None:
        new = self._same_shape("grad", grad)
        if self._look_up()[1] is not None:
            self.grad.copy_(new)
            return
        entry = self.entry
        if isinstance(entry, tuple | list):
            raise ValueError(f"{self._label} has no gradient to assign to: it is a pair (value, None)")
        entry.grad = new.to(self.value)

    def zero_grad(self) -> None:
        """Set the gradient to zero in place; one of None stays."""
        _, grad = self._look_up()
        if grad is not None:
            grad.detach().zero_()

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """Convert the whole object, which could not compute with one parameter converted."""
        self._owner._convert(dtype, device)
        return self

    @property
    def _label(self) -> str:
        return f"{type(self._owner.inner).__name__}'s parameter {self._name!r}"

    @property
    def entry(self) -> Any:
        """What the object lists: a pair of tensors, an object with value and grad, or a tensor."""
        entries = _entries(self._owner.inner)
        if self._position >= len(entries):
            raise ValueError(f"{self._label} is not listed any more")
        return entries[self._position][1]

    def _look_up(self) -> tuple[Tensor, Tensor | None]:
        return _value_and_grad(self.entry, self._label)


def _entries(inner: Any) -> list[tuple[str | None, Any]]:
    """(name, if it has one, and entry) of everything that the object lists as a parameter, in its order."""
    for method in ("named_parameters", "parameters", "param"):
        if not callable(getattr(inner, method, None)):
            continue
        listed = getattr(inner, method)()
        if isinstance(listed, Mapping):
            return [(str(name), entry) for name, entry in listed.items()]
        if method != "named_parameters":
            return [(None, entry) for entry in listed]
        return [(str(name), entry) for name, entry in listed]
    return [(name, item) for name, item in reach(inner) if isinstance(item, Parameter)]


def _value_and_grad(entry: Any, label: str) -> tuple[Tensor, Tensor | None]:
    """The two tensors of an entry.

    Raises:
        TypeError: if it has none, or they are not of floats.
    """
    if isinstance(entry, Tensor):
        value, grad = entry, entry.grad if entry.is_leaf else None
    elif isinstance(entry, tuple | list) and len(entry) == 2:
        value, grad = entry
    elif hasattr(entry, "value") and hasattr(entry, "grad"):
        value, grad = entry.value, entry.grad
    else:
        raise TypeError(
            f"{label} must be a pair (value, grad) of tensors, an object with value and grad, or a tensor, "
            f"but got {type(entry).__name__}"
        )
    check_floats(f"the value of {label}", value)
    if grad is not None:
        check_floats(f"the gradient of {label}", grad)
    return value, grad


def _is_nothing(entry: Any) -> bool:
    return entry is None or (isinstance(entry, tuple | list) and all(item is None for item in entry))


def _attribute_names(inner: Any, entries: list[Any]) -> dict[int, str]:
    """By position, the dotted name of the attribute that holds an entry or its value."""
    positions: dict[int, int] = {}
    for position, entry in enumerate(entries):
        value = entry[0] if isinstance(entry, tuple | list) and entry else getattr(entry, "value", entry)
        for item in (entry, value):
            if item is not None:
                positions.setdefault(id(item), position)
    names: dict[int, str] = {}
    for name, item in reach(inner):
        if id(item) in positions:
            names.setdefault(positions[id(item)], name)
    return names


def _call_without_arguments(inner: Any, method: str) -> bool:
    """Call a method that the object may have; one that needs arguments is another thing of the same name."""
    function = getattr(inner, method, None)
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return False
    function()
    return True
