"""How long a call of each module takes, and one of its twin of torch.nn (Table III).

Both are timed in one process, turn by turn, so that both meet the same disturbances.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator

from scratch_dl import nn
from scratch_dl.paper.table_modules import SHAPE, Figure, TableModule
from scratch_dl.system.timing import Progress, Quartiles, Side, interleave


class Spread(NamedTuple):
    """Mean, standard deviation and largest of a figure over the runs; NaN if any run gave NaN."""

    mean: float
    std: float
    worst: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value; the deviation of one alone is 0."""
        numbers = torch.tensor(values, dtype=torch.float64)
        return cls(float(numbers.mean()), float(numbers.std()) if len(values) > 1 else 0.0, float(numbers.max()))


@dataclass(frozen=True)
class TimedPair:
    """Two functions that do the same.

    Attributes:
        subject: whose call it is.
        part: "forward", or "full" for forward and backward.
        ours: one call of the hand-written module; it runs without autograd.
        pytorch: one of its twin; it runs with autograd.
    """

    subject: TableModule
    part: str
    ours: Callable[[], object]
    pytorch: Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """One row of Table III.

    Attributes:
        name, label, part: as in `TableModule` and `TimedPair`.
        paper_us: the paper's figures, for a forward alone.
        ours, pytorch: microseconds per call, one value per round.
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


def timed_pairs(subject: TableModule, generator: Generator) -> Iterator[TimedPair]:
    """The forward of a subject, and its forward and backward, each as a user calls it."""
    own, twin = subject.pair(generator)
    input = subject.input(generator)
    leaf = input.clone().requires_grad_()
    if isinstance(own, nn.MSELoss):
        target = torch.randn(SHAPE, generator=generator)
        yield TimedPair(subject, "forward", lambda: own(input, target), lambda: twin(input, target))
        grad_output = torch.ones(())
    else:
        target = None
        yield TimedPair(subject, "forward", lambda: own(input), lambda: twin(input))
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

    yield TimedPair(subject, "full", ours, pytorch)


def time_pairs(
    timed_pairs: Sequence[TimedPair], rounds: int, calls: int, progress: Progress | None = None
) -> tuple[Timing, ...]:
    """Time every pair once per round, ours and PyTorch's one after the other.

    Args:
        timed_pairs: what to time.
        rounds: values per pair, after two rounds of warm-up.
        calls: calls per value, which is the mean over them.
        progress: told "timing" after every round.

    Raises:
        ValueError: if `rounds` or `calls` is below 1.
    """
    groups = [(Side(pair.ours), Side(pair.pytorch, torch.enable_grad)) for pair in timed_pairs]
    measured = interleave(groups, rounds, calls, progress)
    return tuple(_timing(pair, *sides) for pair, sides in zip(timed_pairs, measured, strict=True))


def _timing(pair: TimedPair, ours: Sequence[float], pytorch: Sequence[float]) -> Timing:
    subject, ratio = pair.subject, Quartiles.from_ratios(ours, pytorch)
    paper_us = subject.paper_us if pair.part == "forward" else None
    return Timing(
        subject.name,
        subject.label,
        pair.part,
        paper_us,
        Quartiles.from_values(ours),
        Quartiles.from_values(pytorch),
        ratio,
    )
