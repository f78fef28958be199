"""Observers: they see what passes through a module, for verification, diagnosis and timing."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from scratch_dl.nn.module import Module


class Observer:
    """Stands between the caller of a module and the module; a subclass notes or times what passes.

    Observers see the calls `module(input)` and `module.call_backward(grad_output)`, as Sequential and Skip make them,
    and not those of `module.forward` and `module.backward` by their names. An observed module is always called itself,
    never computed in one with its neighbour.
    """

    def forward(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Call `function`, the module's forward, and return its output."""
        return function(*inputs)

    def backward(self, function: Callable[..., Tensor], *grad_outputs: Tensor, **options: bool) -> Tensor:
        """Call `function`, the module's backward, with all arguments, and return the gradient of the input."""
        return function(*grad_outputs, **options)


@contextmanager
def observing(pairs: Iterable[tuple["Module", Observer]]) -> Iterator[None]:
    """Let each observer see the calls of its module within the context."""
    before: list[tuple[Module, tuple[Observer, ...]]] = []
    try:
        for module, observer in pairs:
            before.append((module, module.observers))
            module.observers = (*module.observers, observer)
        yield
    finally:
        for module, observers in reversed(before):
            module.observers = observers
