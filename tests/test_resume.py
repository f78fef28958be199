"""What may differ when a run goes on, and what `resume=` becomes."""

import pytest

from scratch_dl import resume
from scratch_dl.arguments import expand


def test_resume_makes_hydra_write_nothing_of_its_own():
    assert expand(["resume=abc", "trainer.epochs=6"]) == [
        "resume.run='abc'",
        "hydra.run.dir=.",
        "trainer.epochs=6",
    ]
    assert expand(["seed=1", "resume.allow=[seed]"]) == ["seed=1", "resume.allow=[seed]"]


RECORDED = {"optimizer": {"_target_": "SGD", "lr": 1.0, "momentum": 0.9}, "seed": 1, "model": {"channels": [1, 2, 3]}}


@pytest.mark.parametrize(
    ("command", "given", "changes"),
    [
        pytest.param({"seed": 1}, ["seed=1"], {}, id="said-again"),
        pytest.param({"seed": 2}, [], {}, id="a-default-is-not-said"),
        pytest.param({"seed": 2}, ["seed=2"], {"seed": (1, 2)}, id="a-value"),
        pytest.param(
            {"model": {"channels": [1, 2, 4]}},
            ["model.channels=[1,2,4]"],
            {"model.channels": ([1, 2, 3], [1, 2, 4])},
            id="a-list",
        ),
        pytest.param(
            {"optimizer": {"_target_": "Adam", "lr": 1.0}},
            ["optimizer=adam"],
            {"optimizer": (RECORDED["optimizer"], {"_target_": "Adam", "lr": 1.0})},
            id="a-group",
        ),
        pytest.param({"extra": 1}, ["+extra=1"], {"extra": (None, 1)}, id="an-addition"),
    ],
)
def test_only_what_the_command_says_otherwise_counts_as_a_change(command, given, changes):
    assert resume._changes(RECORDED, {**RECORDED, **command}, given) == changes


@pytest.mark.parametrize(
    ("key", "allowed", "depends_on_length", "free"),
    [
        ("optimizer.lr", [], False, False),
        ("optimizer.lr", ["optimizer.lr"], False, True),
        ("optimizer.lr", ["optimizer"], False, True),
        ("optimizer.lr", ["opt"], False, False),
        ("trainer.epochs", [], False, True),
        ("trainer.epochs", [], True, False),
        ("trainer.epochs", ["trainer.epochs"], True, True),
        ("trainer.max_minutes", [], True, True),
        ("verification", [], True, True),
        ("verification.on_failure", [], True, True),
        ("verificationx.enabled", [], True, False),
    ],
)
def test_a_setting_that_changes_the_result_needs_permission(key, allowed, depends_on_length, free):
    assert resume._free(key, allowed, depends_on_length) is free
