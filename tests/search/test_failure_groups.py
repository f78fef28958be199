"""Trials are grouped by why they ended as they did, and what a group has in common is true, and no accident."""

import random
from dataclasses import replace

import pytest

from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config
from scratch_dl.diagnosis.causes import HEALTHY, UNKNOWN
from scratch_dl.diagnosis.output_class import CLASSES
from scratch_dl.search.failure_groups import cause_label, common_settings, group_by_cause
from scratch_dl.search.trial_result import Objective, State, StudySummary, TrialResult, TrialRow
from scratch_dl.system.errors import ConfigError

RATE = "learning_rate_too_large"
RESULTS = [
    pytest.param(TrialResult(State.COMPLETE, cause=HEALTHY, output_class="better_than_blur"),
                 "healthy, better than blur", id="best"),
    pytest.param(TrialResult(State.COMPLETE, cause=HEALTHY, output_class="worse_than_blur"),
                 "healthy, worse than blur", id="poor"),
    pytest.param(TrialResult(State.COMPLETE, cause=HEALTHY), "healthy", id="healthy-and-not-looked-at"),
    pytest.param(TrialResult(State.COMPLETE, cause=RATE, output_class="zeros"), f"collapsed to zero ({RATE})",
                 id="zeros"),
    pytest.param(TrialResult(State.COMPLETE, cause=UNKNOWN, output_class="ones"),
                 "not diagnosed, collapsed to one", id="unknown"),
    pytest.param(TrialResult(State.COMPLETE), "not diagnosed", id="nothing-known"),
    pytest.param(TrialResult(State.PRUNED, cause=HEALTHY, output_class="worse_than_blur"), "pruned", id="pruned"),
    pytest.param(TrialResult(State.PRUNED, cause="dead_units", output_class="zeros"), "pruned (dead_units)",
                 id="pruned-sick"),
    pytest.param(TrialResult(State.KILLED, reason="its job ended without a word"), "killed", id="killed"),
    pytest.param(TrialResult(State.FAILED, reason="train/loss became nan at step 12; a smaller optimizer.lr"),
                 "diverged", id="nan"),
    pytest.param(TrialResult(State.FAILED, reason="Diverged: train/loss became inf at step 12", cause=RATE),
                 f"diverged ({RATE})", id="inf"),
    pytest.param(TrialResult(State.FAILED, reason="verification failed, first at conv1 forward", cause="forward_wrong"),
                 "verification failed (forward_wrong)", id="verification"),
    pytest.param(TrialResult(State.FAILED, reason="hydra.sweeper.objective: val/psnr has no finite value",
                             cause=HEALTHY),
                 "objective not finite", id="objective"),
    pytest.param(TrialResult(State.FAILED, reason="my_layers.ShapeError: no (HYDRA_FULL_ERROR=1 shows where)"),
                 "error of class ShapeError", id="own-class"),
    pytest.param(TrialResult(State.FAILED, reason="its process died, 3 times in a row"), "its process died",
                 id="process"),
    pytest.param(TrialResult(State.FAILED, reason="the disk is full"), "failed", id="no-class"),
    pytest.param(TrialResult(State.REFUSED, reason="model.kernel_size must be >= 1, but got 0"), "geometry refused",
                 id="kernel"),
    pytest.param(TrialResult(State.REFUSED, reason="optimizer.lr must be a finite number >= 0, but got -1"),
                 "setting refused", id="lr"),
]  # fmt: skip


@pytest.mark.parametrize(("result", "expected"), RESULTS)
def test_a_trial_is_named_by_what_came_of_it(result, expected):
    assert cause_label(TrialRow(0, result.state, {}, result)) == expected


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.padding=[0,1,2,0]", "geometry refused"),
        ("model.channels=[8,0,8]", "geometry refused"),
        ("optimizer.momentum=1.5", "setting refused"),
        ("trainer.batch_size=100000", "setting refused"),
    ],
)
def test_the_messages_of_refused_configurations_are_told_apart(override, expected):
    with pytest.raises(ConfigError) as refused:
        build(compose_config("train", [override]))
    assert (
        cause_label(TrialRow(0, State.REFUSED, {}, TrialResult(State.REFUSED, reason=str(refused.value)))) == expected
    )


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_of_outputs_has_words_of_its_own(name):
    said = cause_label(
        TrialRow(0, State.COMPLETE, {}, TrialResult(State.COMPLETE, cause="dead_units", output_class=name))
    )
    assert said.endswith(" (dead_units)")
    assert "_" not in said.removesuffix(" (dead_units)")


def study(*results, direction="maximize", params=None):
    rows = tuple(
        TrialRow(number, result.state if result else State.RUNNING, params[number] if params else {}, result)
        for number, result in enumerate(results)
    )
    objective = Objective("val/psnr_db", "best", direction)
    return StudySummary("s", "sqlite://", {}, (objective,), len(rows), "tpe", "none", 0, rows, (), {}, {})


GOOD = TrialResult(State.COMPLETE, values=(28.0,), cause=HEALTHY, verdict=HEALTHY, output_class="better_than_blur")
ZERO = TrialResult(State.COMPLETE, values=(11.0,), cause=RATE, verdict=f"{RATE}: relu3, from step 4",
               cure="a smaller optimizer.lr", output_class="zeros")  # fmt: skip
NO = TrialResult(State.REFUSED, reason="model.padding must be >= 0, but got -1")


def test_groups_have_shares_the_best_value_and_an_example_with_its_cure():
    found = group_by_cause(study(GOOD, ZERO, replace(GOOD, values=(29.0,)), replace(ZERO, values=(12.0,)), GOOD, None,
                         NO,
                         TrialResult(State.REPEATED, reason="trial 3 is the same point")))  # fmt: skip
    assert [(group.label, len(group.rows), group.best) for group in found] == [
        ("healthy, better than blur", 3, 29.0),
        (f"collapsed to zero ({RATE})", 2, 12.0),
        ("geometry refused", 1, None),
    ]
    assert [group.share for group in found] == [3 / 6, 2 / 6, 1 / 6]
    assert [group.example for group in found] == [
        "",
        f"trial 3: {RATE}: relu3, from step 4; cure: a smaller optimizer.lr",
        "trial 6: model.padding must be >= 0, but got -1",
    ]


def test_the_best_value_of_what_is_minimized_is_the_least():
    assert group_by_cause(study(GOOD, replace(GOOD, values=(27.0,)), direction="minimize"))[0].best == 27.0


def test_trained_trials_are_not_compared_with_refused_ones():
    """Those refused for their padding were never trained at their learning rate."""
    params = [
        *({"lr": 10.0 + number} for number in range(6)),
        *({"lr": 1.0} for _ in range(8)),
        *({"lr": 12.0} for _ in range(9)),
    ]
    found = group_by_cause(study(*[ZERO] * 6, *[GOOD] * 8, *[NO] * 9, params=params))
    common = {group.label: group.common for group in found}
    assert common[f"collapsed to zero ({RATE})"] == (
        "lr >= 10 in all 6, and in none of 8 others, which are at most 1",
    )  # fmt: skip


def test_refused_trials_are_compared_with_those_that_were_not():
    """What the other refused ones were drawn with may have been as wrong."""
    slow = TrialResult(State.REFUSED, reason="trainer.epochs must be >= 1, but got 0")
    params = [*({"pad": 3} for _ in range(12)), *({"pad": number % 2} for number in range(8))]
    found = group_by_cause(study(*[NO] * 6, *[slow] * 6, *[GOOD] * 8, params=params))
    common = {group.label: group.common for group in found}
    assert common["geometry refused"] == ("pad >= 3 in all 6, and in none of 8 others, which are at most 1",)


COMMON = [
    pytest.param([4.096, 5.0, 9.0], [0.1, 1.0, 2.0, 3.0, 3.199],
                 ("x >= 4 in all 3, and in none of 5 others, which are at most 3.2",), id="rounded-into-the-gap"),
    pytest.param([4.096, 5.0, 9.0, 20.0], [0.1, 1.0, 2.0, 3.0, 4.0],
                 ("x >= 4.09 in all 4, and in none of 5 others, which are at most 4",), id="as-many-digits-as-needed"),
    pytest.param([1, 2, 1, 2], [3, 5, 7, 9],
                 ("x <= 2 in all 4, and in none of 4 others, which are at least 3",), id="at-most"),
    pytest.param([7, 8, 9] * 2, [1, 2, 3, 4] * 5 + [8, 8],
                 ("x >= 7 in all 6, and in 2 of 22 others",), id="nearly"),
    pytest.param([3, 3, 3, 3], [2, 4, 2, 4, 2, 4], ("x=3 in all 4, and in none of 6 others",), id="number-as-a-choice"),
    pytest.param(["a"] * 6, ["b"] * 7 + ["a"], ("x=a in all 6, and in 1 of 8 others",), id="choice-always"),
    pytest.param(["a"] * 5 + ["b"] * 5, ["b"] * 10, ("x=a in 5 of 10, and in none of 10 others",), id="choice-only"),
    pytest.param([None] * 4, [True] * 5, ("x=None in all 4, and in none of 5 others",), id="none-and-true"),
    pytest.param([1.0, 5.0, 9.0], [2.0, 4.0, 6.0, 8.0], (), id="no-threshold"),
    pytest.param([5.0], [1.0] * 30, (), id="one-trial"),
    pytest.param([5.0] * 30, [1.0], (), id="one-other"),
    pytest.param([5.0, 6.0], [1.0, 2.0], (), id="luck"),
    pytest.param([], [1.0, 2.0], (), id="empty"),
]  # fmt: skip


@pytest.mark.parametrize(("mine", "theirs", "expected"), COMMON)
def test_what_separates_a_group_is_said_with_its_counts(mine, theirs, expected):
    found = common_settings([{"x": value} for value in mine], [{"x": value} for value in theirs])
    assert found == expected


def test_a_conditional_setting_is_compared_among_those_that_have_it():
    mine = [{"m": 0.9 + number / 100} for number in range(5)] + [{}]
    theirs = [{"m": number / 10} for number in range(7)] + [{}] * 3
    assert common_settings(mine, theirs) == (
        "m >= 0.9 in all 5, and in none of 7 others, which are at most 0.6 (of those that have it)",
    )


def test_the_clearest_three_settings_come_first():
    mine = [{"a": 5 + n, "b": 5, "c": 9, "d": 7, "e": n} for n in range(5)]
    theirs = [{"a": n % 4, "b": 4 if n else 5, "c": 1, "d": 2, "e": n} for n in range(10)]
    assert [line.split()[0] for line in common_settings(mine, theirs)] == ["a", "c", "d"]


def test_nothing_is_said_of_settings_that_have_nothing_to_do_with_it():
    """Of ten unrelated settings one seldom separates: 0.05 of all groups at most."""
    draws = random.Random(0)
    spoken = 0
    for _ in range(200):
        rows = [{f"x{key}": draws.choice("ab") if key % 2 else draws.random() for key in range(10)} for _ in range(15)]
        spoken += bool(common_settings(rows[:4], rows[4:]))
    assert spoken <= 20, spoken
