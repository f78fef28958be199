"""Which point comes next: what an earlier trial has tried is not tried again while anything else is left."""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler
from optuna.trial import FrozenTrial

from scratch_dl.search.settings import SearchSettings
from scratch_dl.search.space import Space
from scratch_dl.search.trial_result import COUNTED, State, TrialResult, TrialRow

REDRAWS = 10
"""Draws in a row that repeat a point, before the next ones are drawn at random from the points not tried yet."""
MAX_REPEATS = 100
"""Draws in a row that repeat a point, after which a space that cannot be enumerated counts as tried."""
_TRIED = (*COUNTED, State.RUNNING, State.REFUSED)

Point = dict[str, Any]


def point_key(params: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return drawn parameters in a form that tells 1, 1.0 and True apart, and can be compared and hashed."""
    return tuple(sorted((name, repr(value)) for name, value in params.items()))


def repeated(identity: object, identities: Mapping[int, object], rows: Sequence[TrialRow]) -> TrialResult | None:
    """Return the result of a trial of this identity if it repeats an earlier one; else None.

    Args:
        identity: of the trial.
        identities: those of earlier trials, by their numbers.
        rows: the earlier trials.
    """
    same = (row.number for row in rows if row.state in _TRIED and identities[row.number] == identity)
    number = next(same, None)
    return None if number is None else TrialResult(State.REPEATED, reason=f"trial {number} is the same point")


def repeats_in_a_row(states: Sequence[str]) -> int:
    """Return how many of the last trials repeat an earlier one."""
    return next((place for place, state in enumerate(reversed(states)) if state != State.REPEATED), len(states))


def untried_points(
    space: Space, setting: Callable[[str], Any], trials: Sequence[FrozenTrial], rows: Sequence[TrialRow]
) -> list[Point]:
    """Return the points of a finite space that no trial has tried."""
    settled = (*_TRIED, State.REPEATED)
    tried = {point_key(trial.params) for trial, row in zip(trials, rows, strict=True) if row.state in settled}
    return [point for point in space.grid(setting) if point_key(point) not in tried]


def make_sampler(
    settings: SearchSettings, space: Space, number: int, refused: int, untried: Sequence[Point] | None, repeats: int
) -> BaseSampler:
    """Make the sampler for the next trial, whose draw depends on its number and on the trials before it alone.

    Args:
        settings: of the search.
        space: what is searched.
        number: of the trial.
        refused: how many points have been refused.
        untried: the points that are left, if they are wanted and can be enumerated.
        repeats: how many of the last trials repeat an earlier one.
    """
    digest = hashlib.sha256(f"{settings.seed} {number}".encode()).digest()
    seed = int.from_bytes(digest[:4])
    if repeats < REDRAWS:
        conditional = any(parameter.condition for parameter in space.parameters)
        sampler = settings.make_sampler(seed, conditional, refused)
    else:
        sampler = RandomSampler(seed)
    if not untried:
        return sampler
    point = untried[0] if settings.sampler.name == "grid" else random.Random(seed).choice(untried)
    return PartialFixedSampler(point, sampler)
