"""Times functions that do the same thing, in turn and in one process, so that disturbances affect all of them."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from scratch_dl.system.checks import integer

WARM_UP_ROUNDS = 2

Progress = Callable[[str, int, int], None]
"""Called with the name of the current task, the number of finished parts, and the number of all parts."""


@dataclass(frozen=True)
class Quartiles:
    """The first, second and third quartile of some numbers."""

    low: float
    median: float
    high: float

    @classmethod
    def from_values(cls, values: Sequence[float]) -> "Quartiles":
        """Return the quartiles of `values`, which must not be empty; linear interpolation between neighbours."""
        marks = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
        return cls(*torch.tensor(values, dtype=torch.float64).quantile(marks).tolist())

    @classmethod
    def from_ratios(cls, above: Sequence[float], below: Sequence[float]) -> "Quartiles":
        """Return the quartiles of above / below, pair by pair, so that a temporary slowdown of the machine cancels."""
        return cls.from_values([upper / lower for upper, lower in zip(above, below, strict=True)])


class Side(NamedTuple):
    """A function to be timed, and the context in which it runs; entering the context is not timed."""

    call: Callable[[], object]
    mode: Callable[[], AbstractContextManager[Any]] = torch.no_grad


def interleave(
    groups: Sequence[Sequence[Side]], rounds: int, calls: int, progress: Progress | None = None
) -> list[list[list[float]]]:
    """Time every side of every group once per round; the sides of a group in turn, starting with another each round.

    Args:
        groups: groups of sides that do the same thing.
        rounds: values per side, after WARM_UP_ROUNDS rounds of warm-up.
        calls: calls per value; the value is the mean over them.
        progress: called with "timing" after every round.

    Returns:
        Microseconds per call, by group, side and round.

    Raises:
        ValueError: if `rounds` or `calls` is below 1.
    """
    integer("rounds", rounds, minimum=1)
    integer("calls", calls, minimum=1)
    times: list[list[list[float]]] = [[[] for _ in group] for group in groups]
    for turn in range(WARM_UP_ROUNDS + rounds):
        for group, values in zip(groups, times, strict=True):
            # Later sides find the input in the processor's cache, so the first side changes.
            first = (turn + 1) % len(group)
            for place in [*range(first, len(group)), *range(first)]:
                with group[place].mode():
                    values[place].append(_microseconds(group[place].call, calls))
        if progress and turn >= WARM_UP_ROUNDS:
            progress("timing", turn + 1 - WARM_UP_ROUNDS, rounds)
    return [[side[WARM_UP_ROUNDS:] for side in values] for values in times]


def _microseconds(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(calls):
        call()
    return (time.perf_counter_ns() - start) / (1e3 * calls)
