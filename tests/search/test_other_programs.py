"""A study is an ordinary Optuna study: what other programs put into its queue, add or run is respected."""

import sys

import preloaded

SPACE = ("optimizer.lr=tag(log,interval(0.5,20.0))", "hydra.sweeper.pruner=none", "hydra.sweeper.sampler=random")
BEFORE = """
import sys, optuna
study = optuna.create_study(study_name="custom", storage=sys.argv[1], direction="maximize")
study.enqueue_trial({"optimizer.lr": 3.0})
study.enqueue_trial({"optimizer.lr": 300.0})
"""
BETWEEN = """
import sys, optuna
study = optuna.load_study(study_name="custom", storage=sys.argv[1])
study.optimize(lambda trial: 90.0 + trial.suggest_float("optimizer.lr", 0.5, 20.0, log=True) / 20.0, n_trials=1)
"""


def run(program, here):
    preloaded.run([sys.executable, "-c", program, here.storage], check=True, capture_output=True)


def test_a_search_adopts_the_queue_and_counts_the_trials_of_other_programs(place, search):
    here = place()
    run(BEFORE, here)
    done = search(here, *SPACE, "hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stderr
    assert (
        "#1 of the queue is refused: optimizer.lr must be in tag(log,interval(0.5,20.0)), but got 300.0" in done.stdout
    )
    assert here.states() == ["complete", "refused", "complete"]
    assert [trial.params.get("optimizer.lr") for trial in here.trials()] == [3.0, None, 1.0]
    run(BETWEEN, here)
    done = search(here, *SPACE, "hydra.sweeper.n_trials=4")
    assert done.returncode == 0, done.stderr
    assert here.states() == ["complete", "refused", "complete", None, "complete"]
    assert "trial 3 was trained by another program, so its test scores are unknown" in done.stdout
    assert "the best of 4 complete trials" in done.stdout
    assert here.runs()[0].data.tags["best.trial"] == "3"


OUTSIDE = """
import sys, optuna
study = optuna.load_study(study_name="custom", storage=sys.argv[1])
study.optimize(lambda trial: 90.0 + len(trial.suggest_categorical("model.upsampling", ["elsewhere"])), n_trials=1)
"""


def test_another_programs_best_trial_may_lie_outside_of_the_search(place, search):
    here = place()
    done = search(here, *SPACE, "hydra.sweeper.n_trials=1")
    assert done.returncode == 0, done.stderr
    run(OUTSIDE, here)
    done = search(here, *SPACE, "hydra.sweeper.n_trials=3")
    assert done.returncode == 0, done.stderr
    assert "trial 1 of another program lies outside of the search: model.upsampling is not searched" in done.stdout
    assert here.states() == ["complete", None, "complete"]
