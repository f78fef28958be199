"""A searched setting as an axis of a picture: every value between 0 and 1, and what stands beside it."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna.distributions import BaseDistribution

BAR = "#3b6ea8"
_SPREAD = 0.03
_LONGEST = 18
_MANY = 6


def blank(width: float, height: float) -> "Figure":
    """An empty figure of this size in inches, of which pyplot knows nothing."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


@dataclass(frozen=True)
class Axis:
    """A setting.

    Attributes:
        label: its name in the study, and "log" where it is drawn so.
        places: number of a trial -> where its value lies, from 0 to 1.
        ticks: (where, what is written there).
        step: the distance of neighbouring values of a choice or of integers; 0 of a continuous one.
    """

    label: str
    places: Mapping[int, float]
    ticks: tuple[tuple[float, str], ...]
    step: float


def axis_of(name: str, distribution: "BaseDistribution", values: Mapping[int, Any]) -> Axis:
    """The axis of a setting with the values it had in the trials, by their numbers."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        choices = _in_order(list(distribution.choices))
        step = 1 / max(1, len(choices) - 1)
        places = {number: choices.index(value) * step for number, value in values.items()}
        return Axis(name, places, tuple((place * step, _short(choice)) for place, choice in enumerate(choices)), step)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if not all(low <= value <= high for value in values.values()):  # of the first trial, which is no drawn one
        low, high = min(low, *values.values()), max(high, *values.values())
    scale = math.log if distribution.log else float
    span = scale(high) - scale(low) or 1.0
    places = {number: (scale(value) - scale(low)) / span for number, value in values.items()}
    whole = isinstance(distribution, IntDistribution)
    marks = _decades(low, high) if distribution.log else _round(low, high, whole)
    ticks = tuple(((scale(mark) - scale(low)) / span, f"{mark:.3g}" if mark < 1e3 else f"{mark:g}") for mark in marks)
    step = (distribution.step or 0) / span if whole and not distribution.log else 0.0
    return Axis(f"{name} (log)" if distribution.log else name, places, ticks, step)


def jittered(axis: Axis, number: int) -> float:
    """Where a trial is drawn: of values that many trials share, a little beside it; nan where it has none."""
    if number not in axis.places:
        return math.nan
    # A name of both as the seed: the same picture every time, and another jitter on the next axis.
    return axis.places[number] + random.Random(f"{axis.label} {number}").uniform(-1, 1) * min(_SPREAD, axis.step / 3)


def _in_order(choices: list[Any]) -> list[Any]:
    """Numbers by size, whatever the order in which they were given."""
    numbers = all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in choices)
    return sorted(choices) if numbers else choices


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _round(low: float, high: float, whole: bool) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    marks = MaxNLocator(5, integer=whole).tick_values(low, high)
    return [float(mark) for mark in marks if low <= mark <= high] or [low]


def _decades(low: float, high: float) -> list[float]:
    """The ends, and the powers of ten between them that are not too near to one."""
    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    near = 0.12 * math.log(high / low)
    inner = [mark for mark in powers if math.log(mark / low) > near and math.log(high / mark) > near]
    every = max(1, math.ceil(len(inner) / _MANY))
    return [low, *inner[::every], high]
