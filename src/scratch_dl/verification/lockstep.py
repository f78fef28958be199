"""Own network and PyTorch twin train side by side on the same batches; after every step all parameters must agree."""

import copy
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scratch_dl.config import Verification
from scratch_dl.nn import Module
from scratch_dl.optim import Optimizer
from scratch_dl.verification.optimizer import OPTIMIZER
from scratch_dl.verification.oracle import LIMITS, limit_of
from scratch_dl.verification.passes import BrokenPassError, relative_error
from scratch_dl.verification.references import Twin, reference_optimizer
from scratch_dl.verification.report import NETWORK, Finding
from scratch_dl.verification.trace import Batch, Trace, locate, own_step, twin_step

CHAOS = 1e-2
"""Where PyTorch's float32 is so far from its float64, rounding alone rules the training: no more comparing."""


class Pair:
    """A copy of network and optimizer, and their twin, in one dtype."""

    def __init__(self, network: Module, optimizer: Optimizer, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.network, self.optimizer = copy.deepcopy((network, optimizer))
        self.network.to(dtype=dtype)
        self.twin = Twin(network, dtype)
        self.twin_optimizer: Any = reference_optimizer(optimizer, list(self.twin.values.values()))
        if self.twin_optimizer is None:
            raise NotImplementedError(type(optimizer).__name__)

    def step(self, loss: Module, batch: Batch) -> tuple[Trace, Trace]:
        """One step of both.

        Raises:
            BrokenPassError: if a module of the network raises.
        """
        batch = batch.to(self.dtype)
        self.optimizer.zero_grad()
        own = own_step(self.network, loss, batch, clear=False)
        truth = twin_step(self.twin, loss, batch)
        self.optimizer.step()
        self.twin_optimizer.step()
        return own, truth

    def own_values(self) -> dict[str, Tensor]:
        """Name -> value of the network's parameters."""
        return {name: parameter.value for name, parameter in self.network.named_parameters()}


def check_lockstep(
    network: Module,
    optimizer: Optimizer,
    loss: Module,
    batches: Callable[[int], Batch],
    settings: Verification,
    note: Callable[[str], None],
) -> list[Finding]:
    """Train copies side by side, in float64 and, if asked for, float32 as well; compare after every step.

    Args:
        network: is copied, as is the optimizer.
        optimizer: of its parameters.
        loss: of the network's output and the target.
        batches: the batch of each step from 0.
        settings: how many steps, for how long at most, and whether in float32 too.
        note: is told why it ended early.

    Returns:
        A finding a dtype: the worst step's error, or the first one out of its band, with the module at fault.
    """
    try:
        exact = Pair(network, optimizer, torch.float64)
        single = Pair(network, optimizer, torch.float32) if settings.float32 else None
    except NotImplementedError as error:
        note(f"no lock-step: {error} has no counterpart in torch.optim")
        return []
    start, steps = time.monotonic(), settings.lockstep_steps
    found: dict[torch.dtype, Finding] = {}
    for step in range(1, steps + 1):
        batch = batches(step - 1)
        for pair in (exact, single):
            if pair is None or (pair.dtype in found and not found[pair.dtype].passed):
                continue
            finding = _compared(pair, exact, loss, batch, step)
            if pair.dtype not in found or finding.strain >= found[pair.dtype].strain:
                found[pair.dtype] = finding
        if any(not finding.passed for finding in found.values()):
            break
        why = _unsteady(exact, single)
        if not why and step < steps and time.monotonic() - start > settings.lockstep_max_s:
            why = f"lockstep_max_s={settings.lockstep_max_s:g} reached"
        if why:
            note(f"lock-step ended after step {step} of {steps}: {why}")
            break
    return list(found.values())


def _compared(pair: Pair, exact: Pair, loss: Module, batch: Batch, step: int) -> Finding:
    check = f"lock-step {str(pair.dtype).removeprefix('torch.')}"
    try:
        own, truth = pair.step(loss, batch)
    except BrokenPassError as error:
        detail = f"{error} at step {step}"
        return Finding(NETWORK, "lockstep", check, math.inf, LIMITS[pair.dtype], detail=detail)
    worst = Finding(NETWORK, "lockstep", check, 0.0, LIMITS[pair.dtype])
    for name, value in pair.own_values().items():
        theirs = pair.twin.values[name].detach()
        if not bool(torch.isfinite(theirs).all()) and torch.equal(torch.isfinite(value), torch.isfinite(theirs)):
            continue  # both have diverged
        limit = limit_of(pair.dtype, relative_error(theirs, exact.twin.values[name].detach()))
        finding = Finding(NETWORK, "lockstep", check, relative_error(value, theirs), limit)
        if finding.strain > worst.strain:
            worst = finding
    if worst.passed:
        return worst
    place = locate(own, truth)
    if place.startswith("no single"):
        place = f"first wrong in {OPTIMIZER}: the gradients agree, the step does not"
    return Finding(**{**vars(worst), "detail": f"at step {step} of the training {place}"})


def _unsteady(exact: Pair, single: Pair | None) -> str:
    """Why going on would compare nothing but rounding; empty if it would not."""
    if not all(bool(torch.isfinite(value).all()) for value in exact.twin.values.values()):
        return "at these settings PyTorch's training diverges too"
    if single is not None:
        far = max(
            relative_error(single.twin.values[name].detach(), value.detach())
            for name, value in exact.twin.values.items()
            if bool(value.any())
        )
        if far > CHAOS:
            return f"PyTorch's float32 is {far:.0e} away from its float64 by then"
    return ""
