"""How long a call of each module takes, and one of its twin of torch.nn (Table III).

Both are timed in one process, turn by turn, so that both meet the same disturbances.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator

from scratch_dl import nn
from scratch_dl.checks import integer
from scratch_dl.verification.subjects import SHAPE, Figure, Subject

_WARM_UP_ROUNDS = 2

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


class Spread(NamedTuple):
    """Mean, standard deviation and largest of a figure over the runs; nan if any run gave nan."""

    mean: float
    std: float
    worst: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value; the deviation of one alone is 0."""
        numbers = torch.tensor(values, dtype=torch.float64)
        return cls(float(numbers.mean()), float(numbers.std()) if len(values) > 1 else 0.0, float(numbers.max()))


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


@dataclass(frozen=True)
class Contest:
    """Two functions that do the same.

    Attributes:
        subject: whose call it is.
        part: "forward", or "full" for forward and backward.
        ours: one call of the hand-written module; it runs without autograd.
        pytorch: one of its twin; it runs with autograd.
    """

    subject: Subject
    part: str
    ours: Callable[[], object]
    pytorch: Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """One row of Table III.

    Attributes:
        name, label, part: as in `Subject` and `Contest`.
        paper_us: the paper's figures, for a forward alone.
        ours, pytorch: microseconds per call, a value a round.
        ratio: ours / PyTorch, taken round by round, so that a slow spell of the machine cancels.
    """

    name: str
    label: str
    part: str
    paper_us: tuple[Figure, Figure] | None
    ours: Quartiles
    pytorch: Quartiles
    ratio: Quartiles

    def row(self) -> tuple[str, ...]:
        """The label, the paper's two times if there are any, ours, PyTorch's, and the ratio with its quartiles."""
        paper = [f"{mean:.1f}\u00b1{std:.1f}" for mean, std in self.paper_us or ()] or ["-", "-"]
        ratio = f"{self.ratio.median:.2f} ({self.ratio.low:.2f} to {self.ratio.high:.2f})"
        return self.label, *paper, f"{self.ours.median:.1f}", f"{self.pytorch.median:.1f}", ratio


def contests(subject: Subject, generator: Generator) -> Iterator[Contest]:
    """The forward of a subject, and its forward and backward, each as a user calls it."""
    own, twin = subject.pair(generator)
    input = subject.input(generator)
    leaf = input.clone().requires_grad_()
    if isinstance(own, nn.MSELoss):
        target = torch.randn(SHAPE, generator=generator)
        yield Contest(subject, "forward", lambda: own(input, target), lambda: twin(input, target))
        grad_output = torch.ones(())
    else:
        target = None
        yield Contest(subject, "forward", lambda: own(input), lambda: twin(input))
        with torch.no_grad():
            shape = twin(input).shape
        grad_output = torch.randn(shape, generator=generator) / shape.numel()

    def ours() -> None:
        if target is None:
            own(input)
            own.backward(grad_output)
        else:
            own(input, target)
            own.backward()

    def pytorch() -> None:
        leaf.grad = None
        output = twin(leaf) if target is None else twin(leaf, target)
        output.backward(grad_output)

    yield Contest(subject, "full", ours, pytorch)


def compete(
    contests: Sequence[Contest], rounds: int, calls: int, progress: Progress | None = None
) -> tuple[Timing, ...]:
    """Time every contest once a round, ours and PyTorch's one after the other.

    Args:
        contests: what to time.
        rounds: values per contest, after two rounds of warm-up.
        calls: calls per value, which is the mean over them.
        progress: told "timing" after every round.

    Raises:
        ValueError: if `rounds` or `calls` is below 1.
    """
    integer("rounds", rounds, minimum=1)
    integer("calls", calls, minimum=1)
    ours: list[list[float]] = [[] for _ in contests]
    pytorch: list[list[float]] = [[] for _ in contests]
    for turn in range(_WARM_UP_ROUNDS + rounds):
        for contest, mine, theirs in zip(contests, ours, pytorch, strict=True):
            sides = [(mine, contest.ours, torch.no_grad), (theirs, contest.pytorch, torch.enable_grad)]
            # Whoever comes second finds the input in the processor's cache.
            for values, call, mode in sides if turn % 2 else reversed(sides):
                with mode():
                    values.append(_microseconds(call, calls))
        if progress and turn >= _WARM_UP_ROUNDS:
            progress("timing", turn + 1 - _WARM_UP_ROUNDS, rounds)
    return tuple(
        _timing(contest, mine[_WARM_UP_ROUNDS:], theirs[_WARM_UP_ROUNDS:])
        for contest, mine, theirs in zip(contests, ours, pytorch, strict=True)
    )


def _microseconds(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(calls):
        call()
    return (time.perf_counter_ns() - start) / (1e3 * calls)


def _timing(contest: Contest, ours: Sequence[float], pytorch: Sequence[float]) -> Timing:
    ratios = [mine / theirs for mine, theirs in zip(ours, pytorch, strict=True)]
    subject, spreads = contest.subject, (Quartiles.of(values) for values in (ours, pytorch, ratios))
    paper_us = subject.paper_us if contest.part == "forward" else None
    return Timing(subject.name, subject.label, contest.part, paper_us, *spreads)
