"""Which point comes next: what an earlier trial has tried is not tried again while anything else is left."""

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler
from optuna.trial import FrozenTrial

from scratch_dl.search.settings import SearchSettings
from scratch_dl.search.space import Space
from scratch_dl.search.trial_result import COUNTED, State, TrialResult, TrialRow

REDRAWS = 10
"""Repeats since the last new point, before the next one is drawn at random from the points not tried yet."""
MAX_REPEATS = 100
"""Repeats since the last new point, after which a space that cannot be enumerated counts as tried."""
MAX_REFUSALS = 300
"""Refused points since the last new point, after which the search gives up."""
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


def fruitless_draws(states: Sequence[str]) -> Counter[str]:
    """Return how many of the states at the end, after any other, are refused, or repeat an earlier trial."""
    return Counter(itertools.takewhile(lambda state: state in (State.REPEATED, State.REFUSED), reversed(states)))


def next_sampler(
    settings: SearchSettings,
    space: Space,
    setting: Callable[[str], Any],
    trials: Sequence[FrozenTrial],
    rows: Sequence[TrialRow],
) -> BaseSampler | None:
    """Return the sampler for the next trial, whose draw depends on its number and on the trials before it alone.

    Args:
        settings: of the search.
        space: what is searched.
        setting: returns a key's value in the configuration, for conditions on fixed settings.
        trials: the earlier ones.
        rows: the same, as rows of the study's tables.

    Returns:
        The sampler; None if no point is left that has not been tried.
    """
    digest = hashlib.sha256(f"{settings.seed} {len(trials)}".encode()).digest()
    seed = int.from_bytes(digest[:4])
    states = [row.state for row in rows]
    repeats = fruitless_draws(states)[State.REPEATED]
    is_grid, learns = settings.sampler.name == "grid", repeats < REDRAWS
    conditional = any(parameter.conditions for parameter in space.parameters)
    sampler: BaseSampler = RandomSampler(seed)
    if learns:
        sampler = settings.make_sampler(seed, conditional, states.count(State.REFUSED), repeats)
    if not is_grid and (learns or not space.is_enumerable):
        return sampler
    untried = _untried_points(space, setting, trials, rows)
    if not untried:
        return None
    point = untried[0] if is_grid else random.Random(seed).choice(untried)
    return PartialFixedSampler(point, sampler)


def _untried_points(
    space: Space, setting: Callable[[str], Any], trials: Sequence[FrozenTrial], rows: Sequence[TrialRow]
) -> list[Point]:
    """Return the points of a finite space that no trial has tried."""
    settled = (*_TRIED, State.REPEATED)
    tried = {point_key(trial.params) for trial, row in zip(trials, rows, strict=True) if row.state in settled}
    return [point for point in space.grid(setting) if point_key(point) not in tried]
