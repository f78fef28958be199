"""Several processes on one study: together they come to the total, and one that is killed takes nothing with it."""

import os
import signal
import time

import psutil
import pytest

pytestmark = pytest.mark.exhaustive

SPACE = ("optimizer.lr=tag(log,interval(0.5,20.0))", "hydra.sweeper.pruner=none")
WORKERS = "hydra.sweeper.workers=2"
KILL = int(signal.SIGKILL)


def workers_of(process):
    """Its children that train."""
    return [one for one in psutil.Process(process.pid).children() if "scratch_dl.train" in " ".join(one.cmdline())]


def pids(here, *numbers):
    return [int(trial.user_attrs["worker"]["pid"]) for trial in here.trials() if trial.number in numbers]


def is_whole(here, n_trials):
    """As many counted trials as asked for, no point twice, each with its value and its run; nothing is left running."""
    counted = here.numbers("complete", "pruned", "failed")
    assert len(counted) == n_trials, here.states()
    points = [tuple(sorted(here.trials()[number].params.items())) for number in counted]
    assert len(set(points)) == n_trials
    assert all(trial.state.is_finished() for trial in here.trials())
    parent, nested = here.runs()
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["trials.complete"] == str(n_trials)
    assert "RUNNING" not in {run.info.status for run in nested.values()}
    for number in counted:
        assert here.trials()[number].value == max(here.history(number))
        assert nested[number].data.tags["trial.state"] == "complete"


@pytest.fixture(scope="module")
def killed(place, started, ended):
    """A search by two workers, of which the one of trial 2 is killed by SIGKILL in mid-trial."""
    here = place()
    process = started(here, *SPACE, WORKERS, "hydra.sweeper.n_trials=6", trial=2, step=5, signal=KILL, slow=0.1)
    return here, ended(process), int(process.flag.read_text())


def test_two_workers_come_to_the_total_though_one_is_killed_in_mid_trial(killed):
    here, done, _ = killed
    assert done.returncode == 0, done.stderr
    is_whole(here, 6)
    assert "a worker was killed by signal 9; its trial is trained again" in done.stdout


def test_the_workers_are_processes_of_their_own_and_share_the_trials(killed):
    here, _, victim = killed
    complete = pids(here, *here.numbers("complete"))
    assert len({*complete, victim}) >= 2
    assert pids(here, 2) == [victim]
    first = {trial.user_attrs["worker"]["pid"] for trial in here.trials()[:2]}
    assert len(first) == 2


def test_the_killed_ones_trial_is_trained_again_with_the_same_parameters(killed):
    here, _, _ = killed
    lost = here.trials()[2]
    assert (lost.state.name, here.states()[2]) == ("FAIL", None)
    (again,) = [trial for trial in here.trials() if trial.user_attrs.get("retries") == 2]
    assert again.params == lost.params
    assert again.state.name == "COMPLETE"
    assert [number for number, state in enumerate(here.states()) if state is None] == [2]


def test_each_trial_is_told_of_in_one_line_and_the_end_once(killed):
    _, done, _ = killed
    lines = done.stdout.splitlines()
    assert sum(" of 6 trained #" in line for line in lines) == 6
    assert sum("what came of the trials" in line for line in lines) == 1
    assert sum(line.startswith("study custom: 6 trials") for line in lines) == 1


@pytest.mark.exhaustive
def test_a_sweep_killed_whole_in_mid_trial_goes_on_to_its_total(place, started, ended, search, until):
    """Supervisor and workers by SIGKILL while trial 1 is trained; then the same command, with one process."""
    here = place()
    process = started(here, *SPACE, WORKERS, "hydra.sweeper.n_trials=4", trial=1, step=5)
    until(process.flag.exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    assert ended(process).returncode == -signal.SIGKILL
    before = {number: here.trials()[number].values for number in here.numbers("complete")}
    assert here.trials()[1].state.name == "RUNNING"
    assert here.runs()[0].info.status == "RUNNING"
    again = search(here, *SPACE, "hydra.sweeper.n_trials=4")
    assert again.returncode == 0, again.stderr
    is_whole(here, 4)
    assert {number: here.trials()[number].values for number in before} == before
    # One that the other process was just drawing has no point yet, and is not trained again.
    lost = [trial.number for trial in here.trials() if trial.state.name == "FAIL" and "overrides" in trial.user_attrs]
    assert 1 in lost
    for number in lost:
        (retried,) = [trial for trial in here.trials() if trial.user_attrs.get("retries") == number]
        assert retried.params == here.trials()[number].params


@pytest.mark.exhaustive
def test_the_workers_of_a_killed_supervisor_leave(place, started, until):
    """And write down that their trials were stopped."""
    here = place()
    process = started(here, *SPACE, WORKERS, "hydra.sweeper.n_trials=3", "trainer.epochs=100000", slow=0.05)

    until(lambda: len(list(here.folder.glob("hydra/*/*/*/checkpoints/last.pt"))) == 2, process)
    assert [trial.state.name for trial in here.trials()] == ["RUNNING"] * 2
    workers = workers_of(process)
    assert len(workers) == 2
    os.kill(process.pid, signal.SIGKILL)
    alive = psutil.wait_procs(workers, timeout=60)[1]
    assert not alive
    process.communicate()
    assert here.states() == ["killed"] * 2
    nested = here.runs()[1]
    assert {run.info.status for run in nested.values()} == {"KILLED"}


@pytest.mark.exhaustive
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"])
def test_a_signal_to_the_supervisor_stops_all_in_order(place, started, ended, until, number, status):
    """Ctrl-C comes to the workers too, as from a terminal; SIGTERM to the supervisor alone."""
    here = place()
    process = started(here, *SPACE, WORKERS, "hydra.sweeper.n_trials=3", "trainer.epochs=100000", slow=0.05)
    until(lambda: len(list(here.folder.glob("hydra/*/*/*/checkpoints/last.pt"))) == 2, process)
    workers = workers_of(process)
    began = time.monotonic()
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    done = ended(process, timeout=60)
    assert done.returncode == status, done.stderr
    assert time.monotonic() - began < 60
    assert not psutil.wait_procs(workers, timeout=1)[1]
    assert "Traceback" not in done.stderr
    assert here.states() == ["killed"] * 2
    parent, nested = here.runs()
    assert parent.info.status == "KILLED"
    assert {run.info.status for run in nested.values()} == {"KILLED"}
