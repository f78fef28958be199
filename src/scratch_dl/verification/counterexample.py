"""The smallest input at which a check still fails, and what came out there."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from scratch_dl.nn import Module
from scratch_dl.verification.algebra import numeric_gradient
from scratch_dl.verification.battery import Input, all_checks, converted, draw
from scratch_dl.verification.passes import (
    BrokenPassError,
    BrokenReferenceError,
    Function,
    direction_of,
    draw_like,
    forward,
    own_pass,
    reference_pass,
    takes_gradient,
)
from scratch_dl.verification.report import Finding, Report

_LONG_AXIS = 8
_SHOWN = 9


def explain(
    report: Report,
    modules: dict[str, Module],
    functions: dict[str, Function | None],
    inputs: dict[str, Sequence[Input]],
    seed: int,
) -> None:
    """Add to each verdict that failed the smallest input found at which it still does."""
    for failure in report.failures:
        name = failure.module
        if name in modules:
            found = smallest(failure, modules[name], functions[name], inputs[name], seed)
            said = "; ".join(part for part in (failure.detail, found) if part)
            report.findings[report.findings.index(failure)] = replace(failure, detail=said)


def smallest(failure: Finding, module: Module, function: Function | None, inputs: Sequence[Input], seed: int) -> str:
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
        exact = converted(module, torch.float64)
        drawn = [tensor.mul(10).round().div(10) for tensor in draw(shapes, torch.float64, generator)]
        output = forward(exact, drawn)
        u = draw_like(output, generator).mul(10).round().div(10) if takes_gradient(exact) else None
        own = own_pass(exact, drawn, u)
        keys = [key for key in own.gradients if direction_of(key, exact) == failure.direction]
        if failure.direction == "forward":
            if function is None:
                return ""
            got, expected = own.output, reference_pass(function, exact, drawn, u, torch.float64).output
        elif keys:
            key = keys[0]
            got = own.gradients[key]
            if function is not None:
                expected = reference_pass(function, exact, drawn, u, torch.float64).gradients[key]
            elif got.numel() <= 512:
                expected = numeric_gradient(exact, drawn, key, u)
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
