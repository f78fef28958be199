"""One forward and one backward of a module, own or PyTorch's, and how far two tensors are apart."""

import copy
import inspect
import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from scratch_dl.nn import Module
from scratch_dl.nn.adapter import Adapted
from scratch_dl.nn.reach import reach
from scratch_dl.system.seeding import seeded
from scratch_dl.verification.bands import NOTHING
from scratch_dl.verification.report import Finding

T = TypeVar("T")
INPUT = "input"
_SMALL = 1e-140  # squares of less are 0
Function = Callable[..., Tensor]
"""(*inputs, *parameters) -> output, in PyTorch's differentiable arithmetic."""


@dataclass(frozen=True)
class Pass:
    """What came out of one forward and one backward; `gradients` has "input" and each parameter's name."""

    output: Tensor
    gradients: dict[str, Tensor]


class BrokenPassError(Exception):
    """A module raised an exception or returned something other than a tensor.

    Attributes:
        direction: where it happened: "forward", "grad_input" (the backward), or "contract" (another method).
    """

    def __init__(self, direction: str, message: str) -> None:
        super().__init__(message)
        self.direction = direction


class BrokenReferenceError(ValueError):
    """The reference raised an exception, so that nothing can be compared with it."""


def own_pass(module: Module, inputs: Sequence[Tensor], grad_output: Tensor | None) -> Pass:
    """Clear the gradients, go forward and backward once, and copy what came out.

    Raises:
        BrokenPassError: if the module raises an exception or returns something other than a tensor.
    """
    with torch.no_grad():
        with pass_errors("contract"):
            module.zero_grad()
        # Subtracted below: what zero_grad does not clear breaks the contract, and does not make the gradient wrong.
        before = {name: parameter.grad.clone() for name, parameter in module.named_parameters()}
        output = forward(module, inputs)
        with pass_errors("grad_input"):
            # A copy, since a module that works in place must not change what the reference is given.
            grad_input = module.backward() if grad_output is None else module.backward(grad_output.clone())
        if not isinstance(grad_input, Tensor):
            raise BrokenPassError("grad_input", f"backward returned {type(grad_input).__name__} instead of a tensor")
        gradients = {name: parameter.grad - before[name] for name, parameter in module.named_parameters()}
        return Pass(output, {INPUT: grad_input.detach().clone(), **gradients})


def forward(module: Module, inputs: Sequence[Tensor]) -> Tensor:
    """The output of copies of `inputs`, itself a copy.

    Raises:
        BrokenPassError: if the module raises an exception or returns something other than a tensor.
    """
    # Seeded alike each time, a module that draws, as dropout does, is one function.
    with torch.no_grad(), pass_errors("forward"), seeded("forward"):
        output = module.forward(*(tensor.clone() for tensor in inputs))
    if not isinstance(output, Tensor):
        raise BrokenPassError("forward", f"forward returned {type(output).__name__} instead of a tensor")
    return output.detach().clone()


def reference_pass(
    function: Function, module: Module, inputs: Sequence[Tensor], grad_output: Tensor | None, dtype: torch.dtype
) -> Pass:
    """One forward and backward of a reference by PyTorch's autograd in `dtype`, at the module's parameters.

    Gradients are those of the first input and of the parameters.

    Raises:
        BrokenReferenceError: if the reference raises.
    """
    names = [name for name, _ in module.named_parameters()]
    with torch.enable_grad():
        first, *others = (converted_to(tensor, dtype) for tensor in inputs)
        values = [p.value.detach().to(dtype).clone().requires_grad_() for p in module.parameters()]
        try:
            output = function(first.requires_grad_(), *others, *values)
            if not isinstance(output, Tensor):
                raise TypeError(f"it returned {type(output).__name__} instead of a tensor")
        except Exception as error:
            first_line = " ".join(str(error).splitlines()[:1])
            raise BrokenReferenceError(
                f"reference must take what the module takes, but raised {type(error).__name__}: {first_line}"
            ) from error
        upstream = torch.ones_like(output) if grad_output is None else grad_output.to(dtype)
        if upstream.shape != output.shape:
            return Pass(output.detach(), {})
        grads = torch.autograd.grad(output, [first, *values], upstream, allow_unused=True)
    filled = [
        torch.zeros_like(at) if grad is None else grad.detach()
        for grad, at in zip(grads, [first, *values], strict=True)
    ]
    return Pass(output.detach(), dict(zip([INPUT, *names], filled, strict=True)))


def takes_gradient(module: Module, output: Tensor) -> bool:
    """Whether backward takes the output's gradient; that of a loss, whose output is one number, takes nothing."""
    try:
        signature = inspect.signature(foreign(module).backward)
        signature.bind()
    except (TypeError, ValueError):
        return True
    return output.ndim > 0 and any(p.kind is not p.VAR_KEYWORD for p in signature.parameters.values())


def converted_to(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy in another dtype; integers, such as the classes of a target, keep their dtype."""
    return tensor.detach().to(dtype if tensor.is_floating_point() else tensor.dtype).clone()


def foreign(module: Module) -> Any:
    """The object that an adapted module is made of, or the module itself."""
    return module.inner if isinstance(module, Adapted) else module


def nothing_beside(gradients: Iterable[Tensor], dtype: torch.dtype) -> float:
    """The norm below which one of the gradients is rounding alone."""
    return NOTHING[dtype] * max((float(grad.double().norm()) for grad in gradients), default=0.0)


def direction_of(name: str, module: Module) -> str:
    """Which of the directions the gradient `name` of a pass belongs to."""
    if name == INPUT:
        return "grad_input"
    last = name.rpartition(".")[2]
    if last.isdigit():
        shape = dict(module.named_parameters())[name].shape
        return "grad_bias" if len(shape) <= 1 else "grad_weight"
    return "grad_bias" if last == "b" or "bias" in last else "grad_weight"


def relative_error(got: Tensor, expected: Tensor, nothing: float = 0.0) -> float:
    """||got - expected|| / ||expected||, in float64; inf if the shapes differ or only one of them is finite.

    Two tensors whose norms are both at most `nothing` count as equal.
    """
    if got.shape != expected.shape:
        return math.inf
    a, b = got.detach().double(), expected.detach().double()
    if not a.numel():
        return 0.0
    distance, size = float((a - b).norm()), float(b.norm())
    if not (distance < math.inf and _SMALL < size < math.inf):  # then scale first
        same = (a == b) | (a.isnan() & b.isnan())  # inf - inf is NaN
        difference, b = torch.where(same, 0.0, a - b), torch.where(same & ~b.isfinite(), 0.0, b)
        scale = float(torch.maximum(difference.abs().max(), b.abs().max())) or 1.0
        distance, size = scale * float((difference / scale).norm()), scale * float((b / scale).norm())
    if distance + size <= nothing:
        return 0.0
    if not math.isfinite(distance):
        return math.inf
    return distance / size if size else (0.0 if distance == 0 else math.inf)


def mean_abs_error(got: Tensor, expected: Tensor) -> float:
    """Mean |got - expected|, the paper's measure; NaN if the shapes differ or the tensors are empty."""
    if got.shape != expected.shape or not got.numel():
        return math.nan
    return float((got.double() - expected.double()).abs().mean())


def compare(
    module: str,
    direction: str,
    check: str,
    got: Tensor,
    expected: Tensor,
    limit: float,
    detail: str = "",
    nothing: float = 0.0,
) -> Finding:
    """The finding of a comparison of two tensors, whose norms count as zero up to `nothing`; the rest as in `Finding`.

    It has eight parameters, since a finding has as many fields.
    """
    if got.shape != expected.shape:
        shapes = f"shape {tuple(got.shape)} instead of {tuple(expected.shape)}"
        detail = f"{detail}, {shapes}" if detail else shapes
    return Finding(
        module, direction, check, relative_error(got, expected, nothing), limit, mean_abs_error(got, expected), detail
    )


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """All numbers of the tensors in one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def unlisted(module: Module) -> list[str]:
    """Names of the tensors in a user's own object that look like parameters but are not listed as such."""
    if not isinstance(module, Adapted):
        return []
    known = {tensor.data_ptr() for p in module.parameters() for tensor in (p.value, p.grad) if tensor.numel()}
    return [
        name
        for name, item in reach(module.inner)
        if isinstance(item, Tensor) and item.is_floating_point() and item.numel() and item.data_ptr() not in known
    ]


def copied(thing: T) -> T:
    """A deep copy of a module, or of several things together, whatever tensors lie in it.

    Tensors of an autograd graph are detached, and a parameter takes its gradient along.
    """
    memo: dict[int, Any] = {}
    for _, item in reach([thing]):
        if isinstance(item, Tensor) and id(item) not in memo and (not item.is_leaf or item.grad is not None):
            twin = item.detach().clone() if not item.is_leaf else copy.deepcopy(item)
            if item.is_leaf and item.grad is not None:
                twin.grad = item.grad.detach().clone()
                memo[id(item.grad)] = twin.grad
            memo[id(item)] = twin
    return copy.deepcopy(thing, memo)


def converted(module: Module, dtype: torch.dtype) -> Module:
    """A copy in another dtype."""
    return copied(module).to(dtype=dtype)


def draw_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """N(0, 1) in the shape, dtype and on the device of `tensor`; an integer tensor as it is."""
    if not tensor.is_floating_point():
        return tensor
    return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)


def step_aside(network: Module, generator: torch.Generator) -> None:
    """Move every parameter by a thousandth of its size, to a point that is not exactly at a ReLU's kink."""
    for parameter in network.parameters():
        size = float(parameter.value.square().mean().sqrt()) or 1.0
        parameter.value = parameter.value + 1e-3 * size * draw_like(parameter.value, generator)


@contextmanager
def pass_errors(direction: str) -> Iterator[None]:
    """Turn any exception into an error that says in which direction the module raised it.

    Raises:
        BrokenPassError: in place of the exception.
    """
    try:
        yield
    except Exception as error:
        first = " ".join(str(error).splitlines()[:1])
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}, line {frame.lineno}"
        raise BrokenPassError(direction, f"raised {type(error).__name__}: {first} ({where})") from error
