"""Lock-step: network and twin train on the same batches, and after every step all parameters must agree."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from scratch_dl.config.schema import Verification
from scratch_dl.nn import Module
from scratch_dl.optim import Optimizer
from scratch_dl.verification.bands import ORACLE, limit_of, short
from scratch_dl.verification.blame import blame
from scratch_dl.verification.counterparts import pytorch_optimizer
from scratch_dl.verification.optimizer import OPTIMIZER
from scratch_dl.verification.passes import BrokenPassError, copied, flat, pass_errors, relative_error
from scratch_dl.verification.references import Twin
from scratch_dl.verification.report import NETWORK, Finding
from scratch_dl.verification.trace import Batch, Trace, own_step, training_step, twin_step

_FAR = 1e-3
"""Largest band of a step: where PyTorch's own float32 is farther from its float64, nothing is compared any more."""


class TrainingPair:
    """A fresh copy of network and optimizer, and their twin, in one dtype."""

    def __init__(self, network: Module, optimizer: Optimizer, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.network, self.optimizer = copied((network, optimizer))
        self.network.to(dtype=dtype)
        self.twin = Twin(network, dtype)
        self.twin_optimizer: Any = pytorch_optimizer(optimizer, list(self.twin.values.values()))
        # PyTorch's optimizer at the network's own numbers tells a wrong step from a right one with other gradients.
        self.shadow = {name: value.detach().clone() for name, value in self.twin.values.items()}
        self.shadow_optimizer: Any = pytorch_optimizer(optimizer, list(self.shadow.values()))
        self.before: dict[str, Tensor] = {}

    def step(self, loss: Module, batch: Batch) -> Trace:
        """Make one step of both, the network's own as a training does it, and return its trace.

        Raises:
            BrokenPassError: if a module or the optimizer raises.
        """
        with pass_errors("contract"):
            self.optimizer.zero_grad()
        self.before = {name: value.clone() for name, value in self.own_values().items()}
        own = training_step(self.network, loss, batch, clear=False)
        twin_step(self.twin, loss, batch)
        for name, value in self.shadow.items():
            value.copy_(self.before[name])
            value.grad = own.grads[name].clone()
        with pass_errors("contract"):
            self.optimizer.step()
        self.twin_optimizer.step()
        self.shadow_optimizer.step()
        return own

    def own_values(self) -> dict[str, Tensor]:
        """Name -> value of the network's parameters."""
        return {name: parameter.value for name, parameter in self.network.named_parameters()}

    def blame(self, loss: Module, batch: Batch, own: Trace) -> str:
        """The first piece of the last step that is wrong by itself; empty if there is none."""
        network = copied(self.network)
        for name, parameter in network.named_parameters():
            parameter.value = self.before[name]
        if place := blame(network, loss, batch, watched := own_step(network, loss, batch)):
            return place
        if not relative_error(flat(own.grads.values()), flat(watched.grads.values())) <= ORACLE[self.dtype]:
            return f"{NETWORK}: each module's gradients are right, those of several computed in one are not"
        for name, value in self.own_values().items():
            # A step much longer than what is left of the parameter leaves its rounding there.
            before, after = self.before[name], self.shadow[name]
            size = max(float(before.norm()), float(after.norm()), float((after - before).norm()))
            if not float((value - after).norm()) <= ORACLE[self.dtype] * size:
                return f"{OPTIMIZER}: the gradient of {name} is right, the step is not"
        return ""


def check_lockstep(
    network: Module,
    optimizer: Optimizer,
    loss: Module,
    batches: Callable[[int], Batch],
    dtypes: Sequence[torch.dtype],
    settings: Verification,
    note: Callable[[str], None],
) -> list[Finding]:
    """Train copies and their twins in one dtype or in two, and compare the parameters after every step.

    Args:
        network: is copied, as is the optimizer.
        optimizer: of its parameters.
        loss: of the network's output and the target.
        batches: returns the batch of a step, from 0.
        dtypes: the more exact one first; rounding in the second is judged by it.
        settings: how many steps, and for how long at most.
        note: is called with the reason if the comparison ends early.

    Returns:
        One finding per dtype: the worst step's error, or the first one out of its band, with the module at fault.
    """
    pairs = [TrainingPair(network, optimizer, dtype) for dtype in dtypes]
    if pairs[0].twin_optimizer is None:
        note(f"no lock-step: {type(optimizer).__name__} has no counterpart in torch.optim")
        return []
    start, steps = time.monotonic(), settings.lockstep_steps
    found: dict[torch.dtype, Finding] = {}
    exact = pairs[0]
    for step in range(1, steps + 1):
        batch = batches(step - 1)
        for position, pair in enumerate(pairs):
            finding = _compared(pair, exact, loss, batch.to(pair.dtype), step)
            if finding is None:
                note(
                    f"{_name(pair)} ended at step {step} of {steps}, where rounding alone parts the two: every piece "
                    "of that step agrees with PyTorch at its own numbers"
                )
                pairs = pairs[:position]  # float32 is judged by float64, so it ends with it
                break
            if pair.dtype not in found or finding.strain >= found[pair.dtype].strain:
                found[pair.dtype] = finding
        if any(not finding.passed for finding in found.values()) or not pairs:
            break
        if reason := _reason_to_end(pairs, settings, step, start):
            note(f"lock-step ended after step {step} of {steps}: {reason}")
            break
    return list(found.values())


def _reason_to_end(pairs: Sequence[TrainingPair], settings: Verification, step: int, start: float) -> str:
    """Why no further step says anything, or may be made; empty if there is no reason."""
    if not all(_finite(*pair.twin.values.values()) for pair in pairs):
        return "at these settings PyTorch's training diverges too"
    late = step < settings.lockstep_steps and time.monotonic() - start > settings.lockstep_max_s
    return f"lockstep_max_s={settings.lockstep_max_s:g} reached" if late else ""


def _compared(pair: TrainingPair, exact: TrainingPair, loss: Module, batch: Batch, step: int) -> Finding | None:
    """The worst parameter after one step; None if it is out of its band although no piece of the step is wrong."""
    worst = Finding(NETWORK, "lockstep", _name(pair), 0.0, ORACLE[pair.dtype])
    try:
        own = pair.step(loss, batch)
    except BrokenPassError as error:
        return replace(worst, error=math.inf, detail=f"{error} at step {step}")
    if not _finite(*pair.twin.values.values()):
        return worst  # which of the two overflows first is chance
    for name, value in pair.own_values().items():
        theirs = pair.twin.values[name].detach()
        rounding = relative_error(theirs, exact.twin.values[name].detach())
        limit = min(limit_of(pair.dtype, rounding), _FAR)
        finding = replace(worst, error=relative_error(value, theirs), limit=limit)
        if finding.strain > worst.strain:
            worst = finding
    if worst.passed:
        return worst
    place = pair.blame(loss, batch, own)
    return replace(worst, detail=f"at step {step} of the training first wrong in {place}") if place else None


def _name(pair: TrainingPair) -> str:
    return f"lock-step {short(pair.dtype)}"


def _finite(*tensors: Tensor) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
