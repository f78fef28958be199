"""Checks of the whole network: gradients against autograd, the slope of the loss, and a batch given twice."""

import math
from dataclasses import replace

import torch
from torch import Generator, Tensor

from scratch_dl.nn import Module
from scratch_dl.verification.bands import DIFFERENCES, ORACLE, limit_of, short
from scratch_dl.verification.blame import blame
from scratch_dl.verification.passes import (
    BrokenPassError,
    BrokenReferenceError,
    compare,
    copied,
    direction_of,
    flat,
    nothing_beside,
    relative_error,
    step_aside,
)
from scratch_dl.verification.references import Twin
from scratch_dl.verification.report import NETWORK, Finding
from scratch_dl.verification.trace import Batch, Trace, own_step, training_step, twin_step

EXACT = ORACLE[torch.float64]
SLOPE_LIMIT = DIFFERENCES[torch.float64]
_HIDDEN = 1e-2
_POINTS = 4
# A ReLU at its kink spoils one step size, a wrong gradient spoils all.
_STEPS = (1e-5, 1e-6, 1e-7, 1e-4, 1e-3)


def check_composed(network: Module, loss: Module, batch: Batch, exact: torch.dtype = torch.float64) -> list[Finding]:
    """Output, input gradient and every parameter's gradient of the network against autograd on its twin in `exact`."""
    dtype = batch.input.dtype
    check = f"autograd {short(dtype)}"
    try:
        own = own_step(network, loss, batch)
    except BrokenPassError as error:
        return [Finding(NETWORK, error.direction, check, math.inf, EXACT, detail=str(error))]
    in_one = _computed_in_one(network, loss, batch, own)
    try:
        truth, rounded = (twin_step(Twin(network, kind), loss, batch) for kind in (exact, torch.float32))
    except BrokenReferenceError as error:
        return [Finding(NETWORK, "forward", check, math.inf, EXACT, detail=str(error))]
    place: str | None = None
    nothing = nothing_beside(truth.grads.values(), dtype)

    def finding(direction: str, got: Tensor, expected: Tensor, theirs: Tensor, what: str) -> Finding:
        nonlocal place
        limit = limit_of(dtype, relative_error(theirs, expected))
        least = 0.0 if direction == "forward" else nothing
        found = compare(NETWORK, direction, check, got, expected, limit, what, least)
        if found.passed:
            return found
        place = blame(network, loss, batch, own) if place is None else place
        if place:
            return replace(found, detail=f"{what}; first wrong in {place}")
        # Every piece is right at its own numbers: a ReLU at its kink, or a sum that cancels, has amplified rounding.
        return replace(found, limit=max(limit, found.error), detail=f"{what}; by rounding alone")

    findings = [finding("forward", own.outputs[""], truth.outputs[""], rounded.outputs[""], "output")]
    findings.append(
        finding("grad_input", own.grad_inputs[""], truth.grad_inputs[""], rounded.grad_inputs[""], "of the images")
    )
    for name, expected in truth.grads.items():
        direction = direction_of(name, network)
        findings.append(finding(direction, own.grads[name], expected, rounded.grads[name], f"of {name}"))
    return [*findings, in_one]


def _computed_in_one(network: Module, loss: Module, batch: Batch, own: Trace) -> Finding:
    """Compare a step as a training does it with `own`, which was observed module by module."""
    dtype = batch.input.dtype
    check = f"as in training, modules computed in one, {short(dtype)}"
    try:
        step = training_step(network, loss, batch)
    except BrokenPassError as error:
        return Finding(NETWORK, error.direction, check, math.inf, ORACLE[dtype], detail=str(error))
    got, expected = (flat([some.outputs[""], *some.grads.values()]) for some in (step, own))
    return compare(NETWORK, "contract", check, got, expected, ORACLE[dtype])


def check_slope(network: Module, loss: Module, batch: Batch, generator: Generator) -> list[Finding]:
    """Check by central differences that the loss has the slope -||g|| along minus its gradient g; and double a batch.

    Where a ReLU is exactly at its kink, as at a bias of 0 over black pixels, the loss has two slopes: then a nearby
    point is taken. A wrong gradient is wrong there too.
    """
    network = copied(network)
    try:
        step = own_step(network, loss, batch)
        findings = _slope(network, loss, batch, step)
        for _ in range(_POINTS - 1):
            if all(finding.passed for finding in findings):
                break
            step_aside(network, generator)
            findings = _slope(network, loss, batch, own_step(network, loss, batch))
        if getattr(loss, "reduction", None) == "mean":
            double = Batch(torch.cat([batch.input] * 2), torch.cat([batch.target] * 2))
            once, twice = own_step(network, loss, batch), own_step(network, loss, double)
            check = "a batch doubled leaves a mean loss and its gradient unchanged"
            a, b = (torch.tensor(some.loss) for some in (twice, once))
            findings.append(compare(NETWORK, "contract", check, a, b, EXACT))
            a, b = (flat(some.grads.values()) for some in (twice, once))
            findings.append(compare(NETWORK, "contract", check, a, b, EXACT))
    except BrokenPassError as error:
        return [Finding(NETWORK, error.direction, "slope of the loss", math.inf, SLOPE_LIMIT, detail=str(error))]
    return findings


def _slope(network: Module, loss: Module, batch: Batch, step: Trace) -> list[Finding]:
    """The finding; none where the gradient is zero, or so small that the loss's last digit hides the slope."""
    check = "slope of the loss along minus the gradient"
    norm = float(flat(step.grads.values()).norm())
    if not math.isfinite(norm):
        return [Finding(NETWORK, "contract", check, math.inf, SLOPE_LIMIT, detail=f"the gradient's norm is {norm:g}")]
    start = {name: parameter.value.clone() for name, parameter in network.named_parameters()}
    tried: list[Finding] = []
    for h in _STEPS if norm else ():
        losses = []
        for sign in (1, -1):
            for name, parameter in network.named_parameters():
                parameter.value = start[name] - sign * h / norm * step.grads[name]
            with torch.no_grad():
                losses.append(float(loss.forward(network.forward(batch.input.clone()), batch.target)))
        slope = (losses[0] - losses[1]) / (2 * h)
        rounding = 8 * torch.finfo(torch.float64).eps * abs(step.loss) / (h * norm)
        if rounding < _HIDDEN:
            detail = f"the loss falls by {-slope:.6g} per unit along minus the gradient, whose norm is {norm:.6g}"
            error, limit = abs(slope + norm) / norm, max(SLOPE_LIMIT, rounding)
            tried.append(Finding(NETWORK, "contract", check, error, limit, abs(slope + norm), detail))
            if tried[-1].passed:
                break
    for name, parameter in network.named_parameters():
        parameter.value = start[name]
    return [min(tried, key=lambda finding: finding.strain)] if tried else []
