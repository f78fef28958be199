"""Whole training steps: zero_grad, forward, mean squared error, backward, SGD with momentum."""

import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from scratch_dl.benchmarks.cases import (
    DEFAULT,
    LARGE,
    NEAREST,
    SMALL,
    TRANSPOSED,
    UNET,
    BenchCase,
    Contender,
    own,
    pytorch,
)
from scratch_dl.benchmarks.part_result import Comparison, ComparisonTable, PartResult
from scratch_dl.benchmarks.settings import BenchSettings
from scratch_dl.system.timing import Side, interleave
from scratch_dl.verification.counterparts import AT_A_KINK, check_equal

_EAGER, _LAST, _COMPILED, _COMPILED_LAST = "eager", "eager, channels_last", "compiled", "compiled, channels_last"


def measure(settings: BenchSettings) -> PartResult:
    """Time every case's step by hand and by PyTorch, after checking that both compute the same."""
    notes: list[str] = ["compiled: left out of a smoke run"] if settings.smoke else []
    found: list[Comparison] = []
    for case in SMALL if settings.smoke else (NEAREST, TRANSPOSED, DEFAULT, LARGE, UNET):
        mine, rivals, note = contestants(case, settings)
        notes += [note] if note else []
        sides = [Side(mine.step), *(Side(rival.step, torch.enable_grad) for rival in rivals.values())]
        (times,) = interleave([sides], settings.rounds, case.calls)
        found += comparisons(case, times[0], dict(zip(rivals, times[1:], strict=True)))
    legend = f"{settings.rounds} rounds; last: channels_last; better, compiled: the faster of both"
    return ComparisonTable("steps", "Training step", legend, "ms").result(settings.threads, found, notes)


def contestants(case: BenchCase, settings: BenchSettings) -> tuple[Contender, dict[str, Contender], str]:
    """The hand-written one, PyTorch's by name, and why one is left out, if it is.

    Raises:
        UnequalError: if one computes something else.
    """
    check_same(case, settings)
    generator = settings.generator()
    network = case.build(generator)
    images, target = case.images(generator), case.images(generator)
    rivals = {
        _EAGER: pytorch(network, images, target),
        _LAST: pytorch(network, images, target, channels_last=True),
    }
    note = ""
    torch.compiler.reset()  # or it stops compiling what it has compiled for many sizes
    for name in () if settings.smoke else (_COMPILED, _COMPILED_LAST):
        compiled = pytorch(network, images, target, channels_last=name == _COMPILED_LAST, compiled=True)
        try:
            with torch.enable_grad():
                compiled.grads()
        except Exception as error:  # torch's compiler raises what its many parts raise
            words = (str(error).splitlines() or [""])[0][:120]
            note = f"{name}, {case.label}: left out, {type(error).__name__}: {words}"
        else:
            rivals[name] = compiled
    mine = own(network, images, target)
    for name, rival in rivals.items():
        check_equal(f"{case.label}, {name}", _passed(mine, torch.no_grad), _passed(rival, torch.enable_grad), AT_A_KINK)
    return mine, rivals, note


def check_same(case: BenchCase, settings: BenchSettings) -> None:
    """Refuse a network and a twin that compute different things, in float64, where no rounding crosses a ReLU's kink.

    Raises:
        UnequalError: naming what differs.
    """
    generator = settings.generator()
    network = case.build(generator).to(torch.float64)
    images, target = case.images(generator).double(), case.images(generator).double()
    for channels_last in (False, True):
        rival = pytorch(network, images, target, channels_last=channels_last)
        mine = own(network, images, target)
        check_equal(case.label, _passed(mine, torch.no_grad), _passed(rival, torch.enable_grad))


def _passed(rival: Contender, mode: Callable[[], AbstractContextManager[Any]]) -> tuple[Tensor, list[Tensor]]:
    with mode():
        return rival.output(), rival.grads()


def comparisons(case: BenchCase, mine: Sequence[float], rivals: dict[str, list[float]]) -> list[Comparison]:
    """With both eager ones, with the better of them, and with the better compiled one; better by the median."""

    def better(*names: str) -> str:
        return min((name for name in names if name in rivals), key=lambda name: statistics.median(rivals[name]))

    beside = [("eager", _EAGER, _EAGER), ("channels_last", _LAST, _LAST), ("better", "better", better(_EAGER, _LAST))]
    if {_COMPILED, _COMPILED_LAST} & set(rivals):
        beside.append(("compiled", "compiled", better(_COMPILED, _COMPILED_LAST)))
    return [
        Comparison.of(f"steps/{case.name}/{name}", case.label, label, mine, rivals[rival], 1e-3)
        for name, label, rival in beside
    ]
