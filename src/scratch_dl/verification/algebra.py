"""What a module's backward can be held to without any reference: algebra alone, in float64.

J is the Jacobian of the forward at one point, u a random upstream gradient, v a random direction.

    linearity             backward(0) = 0, backward(2u) = 2 backward(u), backward(u + u') = backward(u) + backward(u')
    adjoint               <J v, u> = <v, J^T u>, with J v exact where the forward is affine along v
    central differences   the same with J v = (f(x + hv) - f(x - hv)) / 2h; outputs at a kink get no weight
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from scratch_dl.nn import Module
from scratch_dl.verification.bands import ALGEBRA, DIFFERENCES
from scratch_dl.verification.passes import (
    INPUT,
    BrokenPassError,
    compare,
    direction_of,
    draw_like,
    forward,
    nothing_beside,
    own_pass,
    relative_error,
    takes_gradient,
)
from scratch_dl.verification.report import Finding

PROJECTIONS = 3
# A right gradient agrees with the difference quotient at some step; a wrong one at none.
STEPS = {torch.float64: (1e-5, 1e-6, 1e-7, 1e-4), torch.float32: (1e-2, 3e-3, 3e-2)}
_DRAWS = 4  # of directions: a wrong gradient is wrong along all, a kink inside of a composite is met along one
_HIDDEN = 1e-2  # a slope of which rounding may be so large a share shows nothing
_KINK = {torch.float64: 1e-2, torch.float32: 0.3}
"""An output whose slopes on both sides differ by more than this share of its slope lies at a kink."""


def check_linearity(name: str, module: Module, inputs: Sequence[Tensor], generator: Generator) -> list[Finding]:
    """Backward is linear in the output's gradient; a loss, whose backward is given none, has nothing to check."""
    limit = ALGEBRA[inputs[0].dtype]
    try:
        output = forward(module, inputs)
        if not takes_gradient(module, output):
            return []
        u, other = draw_like(output, generator), draw_like(output, generator)
        zero, one, two, second, both = (
            own_pass(module, inputs, g).gradients for g in (0 * u, u, 2 * u, other, u + other)
        )
    except BrokenPassError as error:
        return [Finding(name, error.direction, "linearity", math.inf, limit, detail=str(error))]
    nothing = nothing_beside(one.values(), inputs[0].dtype)
    findings = []
    for key, at_zero in zero.items():
        direction = direction_of(key, module)
        size = float(one[key].norm())
        # An error relative to 0 has no meaning: relative to the gradient at u.
        left = float(at_zero.norm())
        error_at_zero = 0.0 if left <= nothing else _number(left / size if size else math.inf)
        zeros = torch.zeros_like(at_zero)
        found = compare(name, direction, "linearity: backward(0) = 0", at_zero, zeros, limit)
        findings.append(replace(found, error=error_at_zero))
        findings.append(
            compare(
                name, direction, "linearity: backward(2u) = 2 backward(u)", two[key], 2 * one[key], limit, "", nothing
            )
        )
        findings.append(
            compare(
                name, direction, "linearity: backward(u + u')", both[key], one[key] + second[key], limit, "", nothing
            )
        )
    return findings


def check_adjoint(name: str, module: Module, inputs: Sequence[Tensor], generator: Generator) -> list[Finding]:
    """Each gradient against the slope of the forward along random directions, in the input and in each parameter."""
    findings = []
    for key in (INPUT, *(name for name, _ in module.named_parameters())):
        direction = direction_of(key, module)
        try:
            for _ in range(_DRAWS):
                found = _check_along(name, module, inputs, key, direction, generator)
                if all(finding.passed for finding in found):
                    break
            findings += found
        except BrokenPassError as error:
            findings.append(
                Finding(
                    name,
                    error.direction,
                    "central differences",
                    math.inf,
                    DIFFERENCES[inputs[0].dtype],
                    detail=str(error),
                )
            )
    return findings


def _check_along(
    name: str, module: Module, inputs: Sequence[Tensor], key: str, direction: str, generator: Generator
) -> list[Finding]:
    dtype = inputs[0].dtype
    at = _point(module, inputs, key)
    output = forward(module, inputs)
    unit = [draw_like(at, generator) for _ in range(PROJECTIONS)]
    upstream = [draw_like(output, generator) for _ in range(PROJECTIONS)]
    detail = "" if key in (INPUT, "weight", "bias") else f"parameter {key}"
    size = _scale(at)

    def found(check: str, limit: float, along: list[Tensor], slopes: list[_Slope]) -> Finding:
        got, expected = _projections(module, inputs, key, along, upstream, slopes)
        limit = max(limit, *(slope.rounding for slope in slopes))
        return compare(name, direction, check, got, expected, limit, detail)

    along = [max(size, 1.0) * v for v in unit]
    slopes = [_slope(module, inputs, key, v, 1.0, output) for v in along]
    if all(slope.affine for slope in slopes):
        return [found("adjoint", ALGEBRA[dtype], along, slopes)]
    tried = []
    along = [(size or 1.0) * v for v in unit]
    for h in STEPS[dtype]:
        slopes = [_slope(module, inputs, key, v, h, output) for v in along]
        if any(bool(slope.keep.any()) for slope in slopes) and all(slope.rounding < _HIDDEN for slope in slopes):
            tried.append(found("central differences", DIFFERENCES[dtype], along, slopes))
            if tried[-1].passed:
                break
    return [min(tried, key=lambda finding: finding.strain)] if tried else []


class _Slope(NamedTuple):
    """J v by differences.

    Attributes:
        value: in the output's shape.
        keep: which outputs lie at no kink.
        rounding: how far it may have moved `value`, relatively.
        affine: whether the forward is, along v.
    """

    value: Tensor
    keep: Tensor
    rounding: float
    affine: bool


def _slope(module: Module, inputs: Sequence[Tensor], key: str, v: Tensor, h: float, middle: Tensor) -> _Slope:
    above, below = (_moved(module, inputs, key, sign * h * v) for sign in (1, -1))
    value = (above - below) / (2 * h)
    bend = ((above - middle) - (middle - below)).abs() / h
    size = _scale(value)
    rounding = 16 * torch.finfo(middle.dtype).eps * _scale(middle) / (h * size) if size else 0.0
    affine = relative_error(above - middle, middle - below) < max(1e-11, rounding) or not bool(bend.any())
    # By each output's own slope, for at a kink both are as small as v is there; below 1e-6 of the mean nothing matters.
    return _Slope(value, bend <= _KINK[middle.dtype] * value.abs().clamp(min=1e-6 * size), rounding, affine)


def _projections(
    module: Module,
    inputs: Sequence[Tensor],
    key: str,
    along: Sequence[Tensor],
    upstream: Sequence[Tensor],
    slopes: Sequence[_Slope],
) -> tuple[Tensor, Tensor]:
    """<v, J^T u> by backward and <J v, u> by the slopes, one of each a projection."""
    got, expected = [], []
    for v, u, slope in zip(along, upstream, slopes, strict=True):
        gradient = takes_gradient(module, u)
        weights = u * slope.keep if gradient else torch.ones_like(u)
        result = own_pass(module, inputs, weights if gradient else None).gradients[key]
        if result.shape != v.shape:
            raise BrokenPassError(
                direction_of(key, module), f"gradient of shape {tuple(result.shape)} instead of {tuple(v.shape)}"
            )
        got.append((v.double() * result.double()).sum())
        expected.append((slope.value.double() * weights.double()).sum())
    return torch.stack(got), torch.stack(expected)


def numeric_gradient(module: Module, inputs: Sequence[Tensor], key: str, grad_output: Tensor | None) -> Tensor:
    """J^T u by central differences, number by number: what a small counterexample should have given."""
    at = _point(module, inputs, key)
    h = STEPS[at.dtype][0] * (_scale(at) or 1.0)
    numeric = torch.zeros_like(at)
    for position in range(at.numel()):
        unit = torch.zeros_like(at)
        unit.view(-1)[position] = h
        difference = _moved(module, inputs, key, unit) - _moved(module, inputs, key, -unit)
        weighted = difference if grad_output is None else difference * grad_output
        numeric.view(-1)[position] = weighted.sum() / (2 * h)
    return numeric


def _moved(module: Module, inputs: Sequence[Tensor], key: str, step: Tensor) -> Tensor:
    """The output where the input or one parameter is moved by `step`; the parameter is put back."""
    if key == INPUT:
        return forward(module, [inputs[0] + step, *inputs[1:]])
    parameter = dict(module.named_parameters())[key]
    before = parameter.value.detach().clone()
    parameter.value = before + step
    try:
        return forward(module, inputs)
    finally:
        dict(module.named_parameters())[key].value = before


def _point(module: Module, inputs: Sequence[Tensor], key: str) -> Tensor:
    """What is moved: the input or a parameter; a copy."""
    at = inputs[0] if key == INPUT else dict(module.named_parameters())[key].value
    return at.detach().clone(memory_format=torch.contiguous_format)


def _scale(tensor: Tensor) -> float:
    """Root mean square; 0 of nothing."""
    return float(tensor.double().square().mean().sqrt()) if tensor.numel() else 0.0


def _number(error: float) -> float:
    return math.inf if math.isnan(error) else error
