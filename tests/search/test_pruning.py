"""Pruning saves epochs: they are counted in each run's own record, with a pruner and without."""

from itertools import accumulate

import pytest

EPOCHS, TRIALS = 6, 6
SPACE = ("optimizer.lr=tag(log,interval(0.01,20.0))", f"trainer.epochs={EPOCHS}",
         f"hydra.sweeper.n_trials={TRIALS}", "hydra.sweeper.sampler=random", "data.crops_per_epoch=16")  # fmt: skip
MEDIAN = "hydra.sweeper.pruner={name: median, n_startup_trials: 2, n_warmup_steps: 0}"
HYPERBAND = "hydra.sweeper.pruner={name: hyperband, reduction_factor: 2}"
PRUNERS = {"none": "hydra.sweeper.pruner=none", "median": MEDIAN, "hyperband": HYPERBAND}


@pytest.fixture(scope="module")
def pruned(place, search):
    """Pruner -> the place of its search, and what was printed; made when it is asked for."""
    made = {}

    def of(pruner):
        if pruner not in made:
            here = place()
            made[pruner] = here, search(here, *SPACE, PRUNERS[pruner])
        here, done = made[pruner]
        assert done.returncode == 0, done.stderr
        return here, done

    return of


def epochs(here):
    """Those trained by each trial: its validations, but for the one before the first step."""
    return [len(here.history(number)) - 1 for number in range(TRIALS)]


def best_so_far(here, number):
    """The objective of a trial that would end after each of its epochs."""
    return list(accumulate(here.history(number)[1:], max))


@pytest.mark.exhaustive
def test_without_a_pruner_every_trial_has_all_its_epochs(pruned):
    here, _ = pruned("none")
    assert epochs(here) == [EPOCHS] * TRIALS
    assert here.states() == ["complete"] * TRIALS


@pytest.mark.exhaustive
@pytest.mark.parametrize("pruner", ["median", pytest.param("hyperband", marks=pytest.mark.exhaustive)])
def test_a_pruner_saves_epochs_and_changes_nothing_else(pruned, pruner):
    here, _ = pruned(pruner)
    whole, _ = pruned("none")
    cut = here.numbers("pruned")
    assert cut
    assert here.numbers("complete") == [number for number in range(TRIALS) if number not in cut]
    trained = epochs(here)
    assert all(0 < trained[number] < EPOCHS for number in cut)
    assert all(trained[number] == EPOCHS for number in here.numbers("complete"))
    assert sum(trained) < sum(epochs(whole)) == EPOCHS * TRIALS
    for number, (one, other) in enumerate(zip(here.trials(), whole.trials(), strict=True)):
        assert one.params == other.params
        assert here.history(number) == whole.history(number)[: trained[number] + 1]
        assert here.results()[number]["epochs"] == trained[number]


@pytest.mark.parametrize("pruner", ["median", pytest.param("hyperband", marks=pytest.mark.exhaustive)])
def test_what_optuna_was_told_of_each_epoch_is_what_the_run_has(pruned, pruner):
    here, _ = pruned(pruner)
    for number, trial in enumerate(here.trials()):
        told = [trial.intermediate_values[epoch] for epoch in sorted(trial.intermediate_values)]
        assert sorted(trial.intermediate_values) == list(range(1, epochs(here)[number] + 1))
        assert told == best_so_far(here, number)
        assert trial.state.name == ("PRUNED" if number in here.numbers("pruned") else "COMPLETE")
        assert trial.value == here.results()[number]["values"][0] == told[-1]


@pytest.mark.exhaustive
def test_the_median_pruner_has_cut_what_was_behind_the_median_of_that_epoch(pruned):
    """Computed anew from the records: its best value so far below the median of the earlier ones that got there."""
    from statistics import median

    here, _ = pruned("median")
    for number in here.numbers("pruned"):
        last = epochs(here)[number]
        earlier = [best_so_far(here, n)[last - 1] for n in range(number) if n in here.numbers("complete")]
        assert len(earlier) >= 2
        assert best_so_far(here, number)[-1] < median(earlier)


@pytest.mark.parametrize("pruner", ["median", pytest.param("hyperband", marks=pytest.mark.exhaustive)])
def test_a_pruned_trial_counts_is_told_with_its_reason_and_is_never_the_best(pruned, pruner):
    here, done = pruned(pruner)
    parent, nested = here.runs()
    assert sorted(nested) == list(range(TRIALS))
    cut = here.numbers("pruned")
    for number in cut:
        result, trained = here.results()[number], epochs(here)[number]
        best = best_so_far(here, number)[-1]
        assert result["reason"] == f"pruned at epoch {trained}: val/psnr_db {best:.4g} is behind that of other trials"
        assert nested[number].data.metrics["objective"] == best
        tags = nested[number].data.tags
        assert (tags["trial.state"], tags["trial.reason"]) == ("pruned", result["reason"])
        assert nested[number].info.status == "FINISHED"
    assert parent.data.tags["trials.pruned"] == str(len(cut))
    assert int(parent.data.tags["best.trial"]) not in cut
    assert sum(f" #{number} pruned" in line for number in cut for line in done.stdout.splitlines()) == len(cut)


@pytest.mark.exhaustive
def test_a_pruned_trial_is_not_the_best_even_if_its_value_is(place, search):
    """Here a pruner stops the best one, against all sense."""
    here = place()

    def prepare(patch):
        import optuna

        patch.setattr(optuna.trial.Trial, "should_prune", lambda self: self.number == 1)

    space = ("seed=choice(0,1,2)", "optimizer.lr=4.0", "hydra.sweeper.sampler=grid", "hydra.sweeper.n_trials=null")
    done = search(here, *space, "data.crops_per_epoch=80", prepare=prepare)
    assert done.returncode == 0, done.stderr
    assert here.numbers("pruned") == [1]
    assert epochs_of(here, 1) == 1
    best = int(here.runs()[0].data.tags["best.trial"])
    assert best in (0, 2)
    assert f"trial {best} again" in done.stdout


def epochs_of(here, number):
    return len(here.history(number)) - 1


@pytest.mark.exhaustive
def test_the_last_epoch_prunes_nothing(place, search):
    """However much the pruner would: there is nothing left to save."""
    here = place()

    def prepare(patch):
        import optuna

        asked = []
        patch.setattr(optuna.trial.Trial, "should_prune", lambda self: asked.append(self.number) or True)

    done = search(here, "seed=choice(0,1)", "trainer.epochs=1", "hydra.sweeper.n_trials=2", prepare=prepare)
    assert done.returncode == 0, done.stderr
    assert here.states() == ["complete"] * 2
