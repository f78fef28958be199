"""Trials that fail, diverge, raise or are refused; searches of nothing else; and a search that is interrupted."""

import contextlib
import re
import signal
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from scratch_dl.search.run import _Worker
from scratch_dl.search.trial_result import DrawnTrial
from scratch_dl.tracking import SharedRun, TrackingError

SPACE = ("optimizer.lr=choice(1.0,1e30)", "model.padding=choice(same,0)", "seed=choice(0,1,2)")


@pytest.fixture(scope="module")
def mixed(place, search):
    """A search with diverging, raising and refused trials among good ones."""
    here = place()

    def prepare(patch):
        from scratch_dl.training.loop import Training

        fit = Training.fit

        def failing(self):
            if self.setup.seed == 2:
                raise ZeroDivisionError("a mistake of its own\nwith a second line")
            return fit(self)

        patch.setattr(Training, "fit", failing)

    more = ("hydra.sweeper.sampler=random", "hydra.sweeper.pruner=none", "hydra.sweeper.n_trials=5")
    return here, search(here, *SPACE, *more, "hydra.sweeper.seed=5", prepare=prepare)


def of(here, **params):
    """Numbers of the trials that were trained, with these settings."""
    names = {"lr": "optimizer.lr", "seed": "seed"}
    return [
        trial.number for trial in here.trials()
        if trial.user_attrs["result"]["state"] not in ("refused", "repeated")
        and all(trial.params[names[key]] == value for key, value in params.items())
    ]  # fmt: skip


def test_failing_trials_do_not_end_the_search(mixed):
    here, done = mixed
    assert done.returncode == 0, done.stderr
    assert {"complete", "failed", "refused"} <= set(here.states()) <= {"complete", "failed", "refused", "repeated"}
    assert len(here.numbers("complete", "failed")) == 5


def test_a_diverging_trial_fails_with_the_reason(mixed):
    here, _ = mixed
    diverging = [number for number in of(here, lr=1e30) if number not in of(here, seed=2)]
    assert diverging
    nested = here.runs()[1]
    for number in diverging:
        result = here.results()[number]
        assert result["state"] == "failed"
        assert re.match(r"train/loss became (nan|inf) at step \d+", result["reason"]), result
        assert here.trials()[number].state.name == "FAIL"
        run = nested[number]
        assert run.data.tags["trial.state"] == "failed"
        assert run.info.status == "FAILED"
        assert run.data.tags["trial.reason"] == result["reason"]


def test_a_trial_that_raises_fails_with_class_and_message_in_one_line(mixed):
    here, _ = mixed
    raising = of(here, seed=2)
    assert raising
    for number in raising:
        result = here.results()[number]
        assert result["state"] == "failed"
        assert result["reason"].startswith("ZeroDivisionError: a mistake of its own")
        assert "\n" not in result["reason"]
        assert here.runs()[1][number].info.status == "FAILED"


def test_the_best_is_one_that_is_complete(mixed):
    here, done = mixed
    good = here.numbers("complete")
    assert set(good) == {*of(here, lr=1.0)} - {*of(here, seed=2)}
    best = max(good, key=lambda number: here.trials()[number].value)
    assert here.runs()[0].data.tags["best.trial"] == str(best)
    assert f"trial {best} again, at full length" in done.stdout


def test_a_refused_geometry_is_counted_drawn_again_and_never_trained(mixed):
    here, done = mixed
    refused = here.numbers("refused")
    assert refused
    for number in refused:
        trial, result = here.trials()[number], here.results()[number]
        assert trial.params["model.padding"] != "same"
        assert result["reason"].startswith("model: the output must have the input's size")
        assert (result["run_id"], result["folder"], result["epochs"]) == ("", "", 0)
    assert not set(refused) & set(here.runs()[1])
    assert here.runs()[0].data.tags["trials.refused"] == str(len(refused))
    assert f"{len(refused)}" in next(line for line in done.stdout.splitlines() if "geometry refused" in line)


def test_the_end_counts_the_trials_by_cause(mixed):
    here, done = mixed
    end = done.stdout[done.stdout.index("what came of the trials") :]
    line = re.compile(r"(?m)^ *(\d+) +\d+%(?: +[-\d.]+)? +(.*)$")
    counts = {match[2].strip(): int(match[1]) for match in line.finditer(end)}
    assert sum(counts.values()) == len(here.trials()) - here.states().count("repeated")
    raising = of(here, seed=2)
    assert sum(count for cause, count in counts.items() if "ZeroDivisionError" in cause) == len(raising)
    diverged = [number for number in of(here, lr=1e30) if number not in raising]
    assert sum(count for cause, count in counts.items() if cause.startswith("diverged")) == len(diverged)
    tags = here.runs()[0].data.tags
    assert int(tags["trials.failed"]) == len(here.numbers("failed"))
    report = (here.folder / "sweeps" / "custom" / "report.md").read_text()
    assert "ZeroDivisionError" in report
    assert "geometry refused" in report


@pytest.mark.exhaustive
def test_if_every_trial_fails_one_line_says_so_and_why(place, search):
    here = place()
    done = search(here, "optimizer.lr=1e30", "seed=0,1", "hydra.sweeper.n_trials=2")
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: not one of 2 trials is complete; \d times?: train/loss became (nan|inf) at step \d+.*\n", done.stderr
    ), done.stderr
    assert here.states() == ["failed"] * 2
    parent, nested = here.runs()
    assert parent.info.status == "FAILED"
    assert {run.info.status for run in nested.values()} == {"FAILED"}
    assert parent.data.tags["best.trial"] == ""
    assert "No trial is complete" in (here.folder / "sweeps" / "custom" / "report.md").read_text()
    again = search(here, "optimizer.lr=1e30", "seed=0,1", "hydra.sweeper.n_trials=2")
    assert (again.returncode, again.stderr) == (1, done.stderr)
    assert here.states() == ["failed"] * 2


RESUMED = ("optimizer.lr=tag(log,interval(0.5,20.0))", "hydra.sweeper.n_trials=3", "tracking.experiment=custom")


@pytest.fixture(scope="module")
def undisturbed(place, search):
    here = place()
    assert search(here, *RESUMED).returncode == 0
    return here


@pytest.mark.exhaustive
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"])
def test_a_signal_in_mid_trial_ends_the_search_and_the_same_command_finishes_it(
    undisturbed, place, search, started, ended, number, status
):
    here = place()
    done = ended(started(here, *RESUMED, trial=1, step=5, signal=int(number)))
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert here.states() == ["complete", "killed"]
    parent, nested = here.runs()
    assert (parent.info.status, nested[1].info.status) == ("KILLED", "KILLED")
    assert parent.info.end_time
    assert nested[1].info.end_time
    assert nested[0].info.status == "FINISHED"

    again = search(here, *RESUMED)
    assert again.returncode == 0, again.stderr
    assert "goes on after 1 draws" in again.stdout
    assert here.states() == ["complete", "killed", "complete", "complete"]
    retried = here.trials()[2]
    assert retried.user_attrs["retries"] == 1
    assert retried.params == here.trials()[1].params == undisturbed.trials()[1].params
    assert retried.values == undisturbed.trials()[1].values
    parent, nested = here.runs()
    assert parent.info.status == "FINISHED"
    assert {key: run.info.status for key, run in nested.items()} == {
        0: "FINISHED", 1: "KILLED", 2: "FINISHED", 3: "FINISHED"
    }  # fmt: skip
    assert not [trial for trial in here.trials() if not trial.state.is_finished()]


@pytest.mark.exhaustive
def test_a_signal_while_a_point_is_drawn_leaves_nothing_running(place, search):
    """Most of such a search's time, where trainings are short; the same command then goes on to the total."""
    here = place()

    def prepare(patch):
        import os

        from scratch_dl.search import study

        build, seen = study.build, []

        def interrupted(config):
            seen.append(config)
            if len(seen) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return build(config)

        patch.setattr(study, "build", interrupted)

    done = search(here, *RESUMED, prepare=prepare)
    assert done.returncode == 130, done.stderr
    assert here.runs()[0].info.status == "KILLED"
    assert "in training elsewhere" not in done.stdout
    again = search(here, *RESUMED)
    assert again.returncode == 0, again.stderr
    assert len(here.numbers("complete")) == 3
    assert not [trial for trial in here.trials() if not trial.state.is_finished()]
    assert here.runs()[0].info.status == "FINISHED"


def test_a_killed_search_leaves_a_record_that_the_same_command_closes(undisturbed, place, search, started, ended):
    """SIGKILL: neither the trial's run nor the study's stays RUNNING, and nothing trained is lost."""
    here = place()
    done = ended(started(here, *RESUMED, trial=1, step=5, signal=int(signal.SIGKILL)))
    assert done.returncode == -signal.SIGKILL
    parent, nested = here.runs()
    assert {parent.info.status, nested[1].info.status} == {"RUNNING"}
    again = search(here, *RESUMED)
    assert again.returncode == 0, again.stderr
    assert here.states() == ["complete", None, "complete", "complete"]
    values = [(here.trials()[number].params, here.trials()[number].values) for number in (0, 2)]
    assert values == [(trial.params, trial.values) for trial in undisturbed.trials()[:2]]
    parent, nested = here.runs()
    assert parent.info.status == "FINISHED"
    assert "RUNNING" not in {run.info.status for run in nested.values()}
    assert not [trial for trial in here.trials() if not trial.state.is_finished()]
    assert parent.data.tags["trials.complete"] == "3"


def test_what_others_of_a_batch_have_is_kept_before_an_outage_ends_the_search():
    class Gone:
        @property
        def return_value(self):
            raise TrackingError("the server does not answer")

    told = []
    draws = [DrawnTrial(number, [], {}) for number in range(3)]
    study = SimpleNamespace(
        ask=iter(draws).__next__, tell=lambda draw, result: told.append((draw.number, result.state)) is None,
        heartbeats=lambda _: contextlib.nullcontext(),
    )  # fmt: skip
    done = SimpleNamespace(return_value={"state": "complete", "values": [1.0]})
    launcher = Mock(launch=Mock(return_value=[Gone(), done, done]))
    with pytest.raises(TrackingError, match="does not answer"):
        _Worker(study, Mock(), launcher, at_once=3).work()
    assert told == [(1, "complete"), (2, "complete")]


@pytest.mark.parametrize("calls", range(1, 8))
def test_what_mlflow_did_not_accept_is_sent_by_the_next_call(place, search, calls):
    """The store refuses everything after so many writes, as if the process had been killed there."""

    def prepare(patch):
        log, done = SharedRun._log, []

        def silent(self, *arguments, **more):
            done.append(arguments)
            if len(done) > calls:
                raise OSError("the store is gone")
            log(self, *arguments, **more)

        patch.setattr(SharedRun, "_log", silent)

    here, command = place(), ("optimizer.lr=choice(0.5,1.0)", "hydra.sweeper.n_trials=2")
    assert search(here, *command, prepare=prepare).returncode == 0
    assert search(here, *command).returncode == 0
    parent, nested = here.runs()
    steps = {point.step for point in here.client().get_metric_history(parent.info.run_id, "trial/val/psnr_db")}
    assert steps == set(here.numbers("complete"))
    best = [point.value for point in here.client().get_metric_history(parent.info.run_id, "best/val/psnr_db")]
    assert len(best) == 2
    assert max(best) == max(here.trials()[number].value for number in steps)
    assert "best.trial" in parent.data.tags
    for number, run in nested.items():
        assert run.data.tags["trial.state"] == "complete"
        assert run.data.metrics["objective"] == here.trials()[number].value
