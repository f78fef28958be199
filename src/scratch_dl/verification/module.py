"""All checks of one module, and the smallest input at which one of them still fails."""

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor

from scratch_dl.checks import integer
from scratch_dl.nn import Module, adapt
from scratch_dl.seeding import seeded
from scratch_dl.verification.algebra import check_adjoint, check_linearity, numeric_gradient
from scratch_dl.verification.contract import check_contract
from scratch_dl.verification.oracle import LIMITS, check_oracle
from scratch_dl.verification.passes import (
    BrokenPassError,
    BrokenReferenceError,
    Function,
    direction_of,
    draw_like,
    foreign,
    forward,
    own_pass,
    reference_pass,
    takes_gradient,
)
from scratch_dl.verification.references import as_function, reference_for
from scratch_dl.verification.report import Finding, Report

NO_ORACLE = "compared with no reference: algebra cannot see a forward that is wrong consistently"
_LONG_AXIS = 8
_SHOWN = 9


def check_module(
    module: object,
    reference: Any = None,
    inputs: Any = None,
    *,
    name: str | None = None,
    draws: int = 3,
    oracle: bool = True,
    seed: int = 0,
) -> Report:
    """Check a hand-written module: in float64 and float32 against PyTorch, and by algebra alone.

    Nothing of the module is changed, since copies are checked, and no random state is.

    Args:
        module: a `scratch_dl.nn.Module`, or any object with `forward` and `backward`; its parameters by
            `parameters()`, `named_parameters()` or the (value, gradient) pairs of `param()`.
        reference: PyTorch's counterpart: a `torch.nn.Module` (its parameters take the module's values), or a function
            (*inputs, *parameters) -> output. None: the module's own `pytorch_reference()`, or the known counterpart
            of one of scratch_dl's modules; without any, algebra alone.
        inputs: the shape of the input, as (4, 3, 16, 16), from which N(0, 1) is drawn, or a tensor; a list of
            several if the forward takes several (a loss: output and target).
        name: of the module in the report; its class by default.
        draws: how many random inputs, upstream gradients and directions.
        oracle: whether a reference is used at all.
        seed: of the draws.

    Returns:
        The report; `assert report.passed, report` in a test.

    Raises:
        TypeError: if the module has no forward or backward, or an argument is not of its kind.
        ValueError: if the reference's parameters have other shapes.
    """
    start = time.perf_counter()
    with seeded("verification", seed):
        adapted = copy.deepcopy(adapt(module))
        kind = type(foreign(adapted)).__name__
        name = name or kind
        function = None
        if oracle:
            function = reference_for(adapted) if reference is None else as_function(reference, adapted)
        report = Report(f"verification of {kind}", kinds={name: kind})
        if function is None:
            report.note(NO_ORACLE)
        shapes = as_inputs(inputs)
        for number in range(integer("draws", draws, minimum=1)):
            report.add(all_checks(name, adapted, function, shapes, seed + number, report.note))
        explain(report, {name: adapted}, {name: function}, {name: shapes}, seed)
    report.seconds = time.perf_counter() - start
    return report


def as_inputs(inputs: Any, name: str = "inputs") -> list[Tensor | tuple[int, ...]]:
    """A shape, a tensor or a list of them, as a list with one for each argument of the forward.

    Raises:
        TypeError: if it is none of these.
        ValueError: if a size is below 0.
    """
    if isinstance(inputs, Tensor) or _is_shape(inputs):
        inputs = [inputs]
    if not isinstance(inputs, Sequence) or isinstance(inputs, str) or not inputs:
        raise TypeError(
            f"{name} must be a shape such as [4, 3, 16, 16], a tensor, or a list of them, but got {inputs!r}"
        )
    made: list[Tensor | tuple[int, ...]] = []
    for item in inputs:
        if isinstance(item, Tensor):
            made.append(item)
        elif _is_shape(item):
            made.append(tuple(integer(name, side, minimum=0) for side in item))
        else:
            raise TypeError(f"{name} must be shapes such as (4, 3, 16, 16) or tensors, but got {item!r}")
    return made


def all_checks(
    name: str,
    module: Module,
    function: Function | None,
    inputs: Sequence[Tensor | tuple[int, ...]],
    seed: int,
    note: Callable[[str], None],
    dtypes: Iterable[torch.dtype] = (torch.float64, torch.float32),
) -> list[Finding]:
    """Oracle in every dtype, algebra and contract in float64 (in float32 if the module takes nothing else)."""
    findings: list[Finding] = []
    algebra_done = False
    refused: list[Finding] = []
    for dtype in dtypes:
        generator = torch.Generator().manual_seed(seed)
        converted = _converted(module, dtype)
        drawn = draw(inputs, dtype, generator)
        try:
            output = forward(converted, drawn)
            if output.dtype != dtype:
                raise BrokenPassError("forward", f"returned {output.dtype} for an input of {dtype}")
        except BrokenPassError as error:
            what = f"a forward in {str(dtype).removeprefix('torch.')}"
            refused.append(Finding(name, error.direction, what, math.inf, LIMITS[dtype], detail=str(error)))
            continue
        if function is not None:
            grad_output = draw_like(output, generator) if takes_gradient(converted) else None
            findings += check_oracle(name, converted, function, drawn, grad_output)
        if not algebra_done:
            for check in (check_linearity, check_adjoint, check_contract):
                findings += check(name, converted, drawn, generator)
            algebra_done = True
    if not findings:
        return refused[:1]
    for finding in refused:  # one that takes the other dtype is not wrong, only less well checked
        note(f"{name} took no {finding.check.rpartition(' ')[2]}: its forward {finding.detail}")
    return findings


def draw(inputs: Sequence[Tensor | tuple[int, ...]], dtype: torch.dtype, generator: Generator) -> list[Tensor]:
    """N(0, 1) in each shape; a tensor as it is but for the dtype."""
    return [
        item.detach().to(dtype)
        if isinstance(item, Tensor)
        else torch.randn(item, generator=generator, dtype=torch.float64).to(dtype)
        for item in inputs
    ]


def explain(
    report: Report,
    modules: dict[str, Module],
    functions: dict[str, Function | None],
    inputs: dict[str, Sequence[Tensor | tuple[int, ...]]],
    seed: int,
) -> None:
    """Add to each verdict that failed the smallest input found at which it still does."""
    for failure in report.failures:
        name = failure.module
        if name in modules:
            found = smallest(failure, modules[name], functions[name], inputs[name], seed)
            said = "; ".join(part for part in (failure.detail, found) if part)
            report.findings[report.findings.index(failure)] = replace(failure, detail=said)


def smallest(
    failure: Finding, module: Module, function: Function | None, inputs: Sequence[Tensor | tuple[int, ...]], seed: int
) -> str:
    """Where the direction still fails: every axis made as short as it can be, one after the other."""

    def fails(shapes: Sequence[tuple[int, ...]]) -> bool:
        try:
            some = all_checks(failure.module, module, function, shapes, seed, lambda _: None)
        except BrokenReferenceError:
            return False
        return any(
            not finding.passed and finding.direction == failure.direction and not _raised(finding) for finding in some
        )

    shapes = [tuple(item.shape) if isinstance(item, Tensor) else item for item in inputs]
    if _raised(failure) or not fails(shapes):
        return f"at {describe_shapes(shapes)}"
    first = shapes[0]
    alike = all(shape == first for shape in shapes)  # a loss's two inputs shrink together
    for axis in range(len(first)):
        if axis == 1 and module.parameters():
            continue  # the channels, which the weights have settled
        for length in _lengths(first[axis]):
            shorter = (*first[:axis], length, *first[axis + 1 :])
            candidate = [shorter] * len(shapes) if alike else [shorter, *shapes[1:]]
            if fails(candidate):
                first, shapes = shorter, candidate
                break
    return f"smallest failing input {describe_shapes(shapes)}{_difference(failure, module, function, shapes, seed)}"


def describe_shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    """Shapes, for a message."""
    return " and ".join(str(list(shape)) for shape in shapes)


def _difference(
    failure: Finding, module: Module, function: Function | None, shapes: Sequence[tuple[int, ...]], seed: int
) -> str:
    """What was got and what was expected there, number by number or at the worst place."""
    generator = torch.Generator().manual_seed(seed)
    try:
        converted = _converted(module, torch.float64)
        drawn = [tensor.mul(10).round().div(10) for tensor in draw(shapes, torch.float64, generator)]
        output = forward(converted, drawn)
        u = draw_like(output, generator).mul(10).round().div(10) if takes_gradient(converted) else None
        own = own_pass(converted, drawn, u)
        keys = [key for key in own.gradients if direction_of(key, converted) == failure.direction]
        if failure.direction == "forward":
            if function is None:
                return ""
            got, expected = own.output, reference_pass(function, converted, drawn, u, torch.float64).output
        elif keys:
            key = keys[0]
            got = own.gradients[key]
            if function is not None:
                expected = reference_pass(function, converted, drawn, u, torch.float64).gradients[key]
            elif got.numel() <= 512:
                expected = numeric_gradient(converted, drawn, key, u)
            else:
                return ""
        else:
            return ""
    except BrokenPassError:
        return ""
    if got.shape != expected.shape:
        return f": shape {list(got.shape)}, expected {list(expected.shape)}"
    if got.numel() <= _SHOWN:
        given = f" with input {_numbers(drawn[0])}" if drawn[0].numel() <= _SHOWN else ""
        at = f" and upstream gradient {_numbers(u)}" if given and u is not None and u.numel() <= _SHOWN else ""
        return f"{given}{at}: got {_numbers(got)}, expected {_numbers(expected)}"
    worst = int((got - expected).abs().argmax())
    place = [int(i) for i in torch.unravel_index(torch.tensor(worst), got.shape)]
    return f": at {place} got {got.flatten()[worst]:.4g}, expected {expected.flatten()[worst]:.4g}"


def _numbers(tensor: Tensor) -> str:
    """Values, for a message."""
    return "[" + ", ".join(f"{value:.4g}" for value in tensor.flatten().tolist()) + "]"


def _lengths(length: int) -> list[int]:
    """Shorter lengths to try, shortest first."""
    small = list(range(1, min(length, _LONG_AXIS + 1)))
    return [*small, length // 2] if length > 2 * _LONG_AXIS else small


def _raised(finding: Finding) -> bool:
    """Whether the module raised, which at another shape may have another reason."""
    return finding.error == math.inf and finding.detail.startswith("raised")


def _converted(module: Module, dtype: torch.dtype) -> Module:
    return copy.deepcopy(module).to(dtype=dtype)


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and bool(value)
        and all(isinstance(side, int) and not isinstance(side, bool) for side in value)
    )
