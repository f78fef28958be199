"""Time functions that do the same turn by turn in one process, so that all meet the same disturbances."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from scratch_dl.system.checks import integer

WARM_UP_ROUNDS = 2

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Quartiles:
    """The middle half of some numbers."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Quartiles":
        """First, second and third quartile, linear between neighbours; `values` must not be empty."""
        marks = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
        return cls(*torch.tensor(values, dtype=torch.float64).quantile(marks).tolist())

    @classmethod
    def of_ratio(cls, above: Sequence[float], below: Sequence[float]) -> "Quartiles":
        """Of above / below, taken pair by pair, so that a slow spell of the machine cancels."""
        return cls.of([one / other for one, other in zip(above, below, strict=True)])


class Side(NamedTuple):
    """One of the functions, and the context that it runs in, which is entered outside the time taken."""

    call: Callable[[], object]
    mode: Callable[[], AbstractContextManager[Any]] = torch.no_grad


def interleave(
    groups: Sequence[Sequence[Side]], rounds: int, calls: int, progress: Progress | None = None
) -> list[list[list[float]]]:
    """Time every side of every group once a round, the sides of a group one after the other, first another each round.

    Args:
        groups: sides that do the same stand in one group.
        rounds: values per side, after two rounds of warm-up.
        calls: calls per value, which is the mean over them.
        progress: told "timing" after every round.

    Returns:
        Microseconds a call, by group, side and round.

    Raises:
        ValueError: if `rounds` or `calls` is below 1.
    """
    integer("rounds", rounds, minimum=1)
    integer("calls", calls, minimum=1)
    found: list[list[list[float]]] = [[[] for _ in group] for group in groups]
    for turn in range(WARM_UP_ROUNDS + rounds):
        for group, values in zip(groups, found, strict=True):
            # Whoever comes later finds the input in the processor's cache.
            first = (turn + 1) % len(group)
            for place in [*range(first, len(group)), *range(first)]:
                with group[place].mode():
                    values[place].append(_microseconds(group[place].call, calls))
        if progress and turn >= WARM_UP_ROUNDS:
            progress("timing", turn + 1 - WARM_UP_ROUNDS, rounds)
    return [[side[WARM_UP_ROUNDS:] for side in values] for values in found]


def _microseconds(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(calls):
        call()
    return (time.perf_counter_ns() - start) / (1e3 * calls)
