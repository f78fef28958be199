"""Schedules: their ends, their middle, and that they only fall."""

from itertools import pairwise

import pytest

from scratch_dl.schedule import Constant, Cosine, LinearRampDown

FACTORS = [  # schedule, progress, factor
    pytest.param(Constant(), 0.0, 1.0, id="constant-at-first"),
    pytest.param(Constant(), 0.999, 1.0, id="constant-at-last"),
    pytest.param(LinearRampDown(), 0.0, 1.0, id="ramp-at-first"),
    pytest.param(LinearRampDown(), 0.6, 1.0, id="ramp-begins"),
    pytest.param(LinearRampDown(), 0.8, 0.5, id="ramp-half-way"),
    pytest.param(LinearRampDown(), 1.0, 0.0, id="ramp-ends"),
    pytest.param(LinearRampDown(0.5, 0.2), 0.75, 0.6, id="ramp-to-a-fifth-half-way"),
    pytest.param(LinearRampDown(0.5, 0.2), 1.0, 0.2, id="ramp-to-a-fifth-ends"),
    pytest.param(LinearRampDown(1.0), 0.25, 0.75, id="ramp-from-the-start"),
    pytest.param(LinearRampDown(0.4, 1.0), 0.9, 1.0, id="ramp-that-is-none"),
    pytest.param(Cosine(), 0.0, 1.0, id="cosine-at-first"),
    pytest.param(Cosine(), 0.5, 0.5, id="cosine-half-way"),
    pytest.param(Cosine(), 1 / 3, 0.75, id="cosine-after-a-third"),
    pytest.param(Cosine(), 1.0, 0.0, id="cosine-ends"),
    pytest.param(Cosine(0.1), 0.0, 1.0, id="cosine-to-a-tenth-at-first"),
    pytest.param(Cosine(0.1), 0.5, 0.55, id="cosine-to-a-tenth-half-way"),
    pytest.param(Cosine(0.1), 1.0, 0.1, id="cosine-to-a-tenth-ends"),
]


@pytest.mark.parametrize(("schedule", "progress", "factor"), FACTORS)
def test_the_factor_is_that_of_the_formula(schedule, progress, factor):
    assert schedule.factor(progress) == pytest.approx(factor, abs=1e-15)


@pytest.mark.parametrize(
    "schedule",
    [Constant(), LinearRampDown(), LinearRampDown(0.3, 0.1), Cosine(), Cosine(0.2)],
    ids=["constant", "ramp", "short-ramp", "cosine", "cosine-to-a-fifth"],
)
def test_the_factor_never_rises_and_stays_between_its_ends(schedule):
    factors = [schedule.factor(step / 1000) for step in range(1001)]
    assert all(later <= earlier for earlier, later in pairwise(factors))
    assert factors[0] == 1
    assert factors[-1] >= getattr(schedule, "end", 0)


def test_only_the_constant_does_not_ask_for_the_trainings_length():
    assert not Constant().depends_on_length
    assert LinearRampDown().depends_on_length
    assert Cosine().depends_on_length


REFUSED = [
    pytest.param(
        LinearRampDown, {"share": 0}, ValueError, r"share must be a finite number > 0 and <= 1, but got 0", id="share-0"
    ),
    pytest.param(
        LinearRampDown, {"share": 1.5}, ValueError, r"share must be .* <= 1, but got 1\.5", id="share-above-1"
    ),
    pytest.param(LinearRampDown, {"share": "0.4"}, TypeError, r"share must be .*, but got '0\.4'", id="share-text"),
    pytest.param(
        LinearRampDown, {"end": -0.1}, ValueError, r"end must be .* >= 0 and <= 1, but got -0\.1", id="ramp-end"
    ),
    pytest.param(Cosine, {"end": 2}, ValueError, r"end must be .* <= 1, but got 2", id="cosine-end-above-1"),
    pytest.param(
        Cosine, {"end": float("nan")}, ValueError, r"end must be a finite number .*, but got nan", id="cosine-end-nan"
    ),
    pytest.param(Cosine, {"end": None}, TypeError, r"end must be .*, but got None", id="cosine-end-none"),
]


@pytest.mark.parametrize(("kind", "arguments", "error", "message"), REFUSED)
def test_a_bad_argument_is_named_with_its_value_and_the_rule(kind, arguments, error, message):
    with pytest.raises(error, match=message):
        kind(**arguments)
