"""Refusals: what each check lets through, and the name, rule and value in what it says."""

import math

import pytest

from scratch_dl.system import checks


@pytest.mark.parametrize(("value", "minimum"), [(0, 0), (1, 1), (7, 1), (-2, -2)])
def test_a_whole_number_from_the_minimum_on_passes(value, minimum):
    assert checks.integer("x", value, minimum=minimum) == value


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        pytest.param(0, ValueError, r"^x must be >= 1, but got 0$", id="too-small"),
        pytest.param(True, TypeError, r"^x must be an integer >= 1, but got True$", id="bool"),
        pytest.param(1.0, TypeError, r"^x must be an integer >= 1, but got 1\.0$", id="float"),
        pytest.param("1", TypeError, r"^x must be an integer >= 1, but got '1'$", id="text"),
        pytest.param(None, TypeError, r"^x must be an integer >= 1, but got None$", id="none"),
    ],
)
def test_what_is_no_whole_number_is_refused(value, error, message):
    with pytest.raises(error, match=message):
        checks.integer("x", value, minimum=1)


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        pytest.param(0, {"minimum": 0}, id="at-the-minimum"),
        pytest.param(1.0, {"maximum": 1}, id="at-the-maximum"),
        pytest.param(1e-9, {"above": 0}, id="just-above"),
        pytest.param(0.999, {"below": 1}, id="just-below"),
        pytest.param(-1e300, {}, id="without-bounds"),
    ],
)
def test_a_number_within_its_bounds_passes_as_a_float(value, bounds):
    result = checks.real("x", value, **bounds)
    assert result == value
    assert type(result) is float


@pytest.mark.parametrize(
    ("value", "bounds", "error", "message"),
    [
        pytest.param(
            -0.1, {"minimum": 0}, ValueError, r"^x must be a finite number >= 0, but got -0\.1$", id="minimum"
        ),
        pytest.param(
            0, {"above": 0}, ValueError, r"^x must be a finite number > 0, but got 0$", id="above-is-exclusive"
        ),
        pytest.param(1.1, {"maximum": 1}, ValueError, r"^x must be a finite number <= 1, but got 1\.1$", id="maximum"),
        pytest.param(
            1, {"below": 1}, ValueError, r"^x must be a finite number < 1, but got 1$", id="below-is-exclusive"
        ),
        pytest.param(2, {"minimum": 0, "below": 1}, ValueError, r"number >= 0 and < 1, but got 2$", id="both"),
        pytest.param(math.nan, {}, ValueError, r"^x must be a finite number, but got nan$", id="nan"),
        pytest.param(math.inf, {"minimum": 0}, ValueError, r"^x must be a finite number >= 0, but got inf$", id="inf"),
        pytest.param(True, {}, TypeError, r"^x must be a finite number, but got True$", id="bool"),
        pytest.param("0.1", {}, TypeError, r"^x must be a finite number, but got '0\.1'$", id="text"),
        pytest.param(None, {"minimum": 0}, TypeError, r"^x must be a finite number >= 0, but got None$", id="none"),
        pytest.param(1j, {}, TypeError, r"^x must be a finite number, but got 1j$", id="complex"),
    ],
)
def test_what_is_no_number_within_the_bounds_is_refused(value, bounds, error, message):
    with pytest.raises(error, match=message):
        checks.real("x", value, **bounds)


def test_only_true_and_false_are_booleans():
    assert checks.boolean("x", True) is True
    assert checks.boolean("x", False) is False
    for value in (0, 1, "true", None):
        with pytest.raises(TypeError, match=r"^x must be true or false, but got "):
            checks.boolean("x", value)


def test_a_text_must_say_something():
    assert checks.text("x", " a ") == " a "
    for value in ("", "  ", None, 3):
        with pytest.raises(TypeError, match=r"^x must be a non-empty string, but got "):
            checks.text("x", value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param("maen", r"^x must be one of mean, sum, but got 'maen'; did you mean 'mean'\?$", id="near"),
        pytest.param("none at all", r"^x must be one of mean, sum, but got 'none at all'$", id="far"),
        pytest.param(None, r"^x must be one of mean, sum, but got None", id="none"),
        pytest.param(["mean"], r"^x must be one of mean, sum, but got \['mean'\]", id="list"),
    ],
)
def test_what_is_no_choice_is_refused_with_the_nearest(value, message):
    assert checks.choice("x", "sum", iter(["mean", "sum"])) == "sum"
    with pytest.raises(ValueError, match=message):
        checks.choice("x", value, iter(["mean", "sum"]))


@pytest.mark.parametrize(
    ("value", "pair"), [(3, (3, 3)), ((1, 2), (1, 2)), ([4, 0], (4, 0))], ids=["int", "tuple", "list"]
)
def test_an_int_or_a_pair_becomes_a_pair(value, pair):
    assert checks.pair("x", value, minimum=0) == pair


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        pytest.param(-1, ValueError, r"^x must be >= 0, but got -1$", id="negative"),
        pytest.param((0, -1), ValueError, r"^x must be >= 0, but got -1$", id="negative-second"),
        pytest.param((1,), ValueError, r"^x must be an int or an \(h, w\) pair, but got \(1,\)$", id="single"),
        pytest.param(
            [1, 2, 3], ValueError, r"^x must be an int or an \(h, w\) pair, but got \(1, 2, 3\)$", id="triple"
        ),
        pytest.param("12", TypeError, r"^x must be an integer >= 0, but got '12'$", id="text-of-two"),
        pytest.param((1, 2.0), TypeError, r"^x must be an integer >= 0, but got 2\.0$", id="float-in-pair"),
        pytest.param((True, 1), TypeError, r"^x must be an integer >= 0, but got True$", id="bool-in-pair"),
        pytest.param({1, 2}, TypeError, r"^x must be an integer >= 0, but got \{1, 2\}$", id="set"),
    ],
)
def test_what_is_no_pair_is_refused(value, error, message):
    with pytest.raises(error, match=message):
        checks.pair("x", value, minimum=0)
