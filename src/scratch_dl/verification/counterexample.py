"""The smallest input at which a check still fails, and what came out there."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from scratch_dl.nn import Module
from scratch_dl.verification.algebra import numeric_gradient
from scratch_dl.verification.battery import Input, all_checks, draw
from scratch_dl.verification.passes import (
    BrokenPassError,
    BrokenReferenceError,
    Function,
    converted,
    direction_of,
    draw_like,
    forward,
    own_pass,
    reference_pass,
    relative_error,
    takes_gradient,
)
from scratch_dl.verification.report import Finding, Report

_LONG_AXIS = 8
_SHOWN = 9
_FEW = 512  # numbers of a gradient, of which each costs two forwards
_VISIBLE = 1e-6


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
    """What was got and what was expected there, number by number or at the worst place; empty if no numbers show it."""
    generator = torch.Generator().manual_seed(seed)
    exact = converted(module, torch.float64)
    for decimals in (1, 15):  # numbers that can be read, if they show the fault
        drawn = [tensor.round(decimals=decimals) for tensor in draw(shapes, torch.float64, generator)]
        try:
            output = forward(exact, drawn)
            if not output.is_floating_point():
                return ""
            u = draw_like(output, generator).round(decimals=decimals) if takes_gradient(exact, output) else None
            pairs = _got_and_expected(failure.direction, exact, function, drawn, u)
        except BrokenPassError:
            return ""
        got, expected = max(pairs, key=lambda pair: relative_error(*pair), default=(output, output))
        if got.shape != expected.shape:
            return f": shape {list(got.shape)}, expected {list(expected.shape)}"
        if relative_error(got, expected) > _VISIBLE:
            break
    else:
        return ""
    if got.numel() <= _SHOWN:
        given = f" with input {_numbers(drawn[0])}" if drawn[0].numel() <= _SHOWN else ""
        matters = u is not None and u.numel() <= _SHOWN and failure.direction != "forward"
        at = f" and upstream gradient {_numbers(u)}" if given and u is not None and matters else ""
        digits = 4 if _numbers(got, 4) != _numbers(expected, 4) else 10
        return f"{given}{at}: got {_numbers(got, digits)}, expected {_numbers(expected, digits)}"
    worst = int((got - expected).abs().argmax())
    place = [int(i) for i in torch.unravel_index(torch.tensor(worst), got.shape)]
    pair = got.flatten()[worst : worst + 1], expected.flatten()[worst : worst + 1]
    digits = 4 if _numbers(pair[0]) != _numbers(pair[1]) else 10
    return f": at {place} got {_numbers(pair[0], digits)[1:-1]}, expected {_numbers(pair[1], digits)[1:-1]}"


def _got_and_expected(
    direction: str, module: Module, function: Function | None, inputs: list[Tensor], grad_output: Tensor | None
) -> list[tuple[Tensor, Tensor]]:
    """The module's results in a direction, each beside the reference's, or else what central differences say."""
    own = own_pass(module, inputs, grad_output)
    keys = [key for key in own.gradients if direction_of(key, module) == direction]
    if function is not None:
        truth = reference_pass(function, module, inputs, grad_output, torch.float64)
        if direction == "forward":
            return [(own.output, truth.output)]
        return [(own.gradients[key], truth.gradients[key]) for key in keys if key in truth.gradients]
    return [
        (own.gradients[key], numeric_gradient(module, inputs, key, grad_output))
        for key in keys
        if own.gradients[key].numel() <= _FEW
    ]


def _numbers(tensor: Tensor, digits: int = 4) -> str:
    """Values, for a message."""
    return "[" + ", ".join(f"{value:.{digits}g}" for value in tensor.flatten().tolist()) + "]"


def _lengths(length: int) -> list[int]:
    """Shorter lengths to try, shortest first."""
    small = list(range(1, min(length, _LONG_AXIS + 1)))
    return [*small, length // 2] if length > 2 * _LONG_AXIS else small


def _raised(finding: Finding) -> bool:
    """Whether the module raised, which at another shape may have another reason."""
    return finding.error == math.inf and finding.detail.startswith("raised")
