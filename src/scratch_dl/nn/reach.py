"""All that an object holds: its attributes, and what these hold, through lists, tuples, dicts and further objects."""

import copy
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor

_CLOSED = (Tensor, type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, torch.Generator)


def reach(root: object) -> Iterator[tuple[str, object]]:
    """(dotted name, object) of everything in `root`, outermost first, each object once."""
    yield from _reach("", root, {id(root)})


def replace_tensors(root: object, change: Callable[[Tensor], Tensor]) -> None:
    """Put `change(tensor)` in the place of every tensor in `root`.

    One tensor at several places stays one. Lists, dicts and objects are changed in place, so that whoever holds one of
    them still does; a tuple is made anew.
    """
    _replaced(root, change, {})


def convert(tensor: Tensor, dtype: torch.dtype | None, device: torch.device | str | None) -> Tensor:
    """A tensor of the same class with another dtype, if it has floats, and device; itself if nothing changes."""
    data = tensor.detach().to(device=device, dtype=dtype if tensor.is_floating_point() else None)
    if (data.dtype, data.device) == (tensor.dtype, tensor.device):
        return tensor
    if not tensor.is_leaf:
        return data
    converted = copy.copy(tensor)
    converted.data = data
    return converted


def _reach(prefix: str, item: object, seen: set[int]) -> Iterator[tuple[str, object]]:
    for key, part in _parts(item):
        if id(part) not in seen:
            seen.add(id(part))
            name = f"{prefix}.{key}" if prefix else str(key)
            yield name, part
            yield from _reach(name, part, seen)


def _replaced(item: Any, change: Callable[[Tensor], Tensor], done: dict[int, tuple[Any, Any]]) -> Any:
    if id(item) in done:
        return done[id(item)][1]
    done[id(item)] = (item, item)  # the first one keeps the id from being given to another object
    if isinstance(item, Tensor):
        new = change(item)
        done[id(item)] = (item, new)
        if item.is_leaf and item.grad is not None:
            new.grad = _replaced(item.grad, change, done)
        return new
    parts = [(key, part, _replaced(part, change, done)) for key, part in _parts(item)]
    if all(part is new for _, part, new in parts):
        return item
    if isinstance(item, tuple):
        news = [new for _, _, new in parts]
        done[id(item)] = (item, type(item)(*news) if hasattr(item, "_fields") else type(item)(news))
        return done[id(item)][1]
    for key, part, new in parts:
        if part is new:
            continue
        if isinstance(item, dict | list):
            item[key] = new
        elif key in getattr(item, "__dict__", ()):
            item.__dict__[key] = new
        else:
            object.__setattr__(item, key, new)
    return item


def _parts(item: Any) -> list[tuple[Any, object]]:
    """(key, object) of what lies directly in an object."""
    if isinstance(item, dict):
        return list(item.items())
    if isinstance(item, list | tuple):
        return list(enumerate(item))
    if isinstance(item, _CLOSED):
        return []
    slots = [name for kind in type(item).__mro__ for name in _names(kind.__dict__.get("__slots__", ()))]
    slotted = [(name, getattr(item, name)) for name in slots if not name.startswith("__") and hasattr(item, name)]
    return [*getattr(item, "__dict__", {}).items(), *slotted]


def _names(slots: Any) -> list[str]:
    return [slots] if isinstance(slots, str) else list(slots)
