"""`pytest -m soak -n 0 -s`: real commands, each killed from outside at a random moment of its life, then gone on with.

30 runs and 10 searches, in about 20 minutes on 2 cores; not part of the usual tests. SCRATCH_DL_SOAK_SEED chooses the
moments.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress

import psutil
import pytest

from scratch_dl import tracking
from scratch_dl.training import checkpoint

pytestmark = pytest.mark.soak
SEED = int(os.environ.get("SCRATCH_DL_SOAK_SEED", "0"))
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TINY = ("model.channels=[8,8,8]", "data.crop_size=16", "data.crops_per_epoch=64", "data.validation_crops=4",
        "trainer.batch_size=4", "verification=off", "threads=1")  # fmt: skip
RUN = (*TINY, "trainer.epochs=40", "trainer.checkpoint_every_steps=5")
SEARCH = ("search=custom", *TINY, "trainer.epochs=2", "diagnosis=off", "optimizer.lr=interval(0.1,2.0)",
          "hydra.sweeper.n_trials=5", "hydra.sweeper.workers=2", "hydra.sweeper.sampler=random")  # fmt: skip


def start(folder, *overrides):
    folder.mkdir(exist_ok=True)
    words = [sys.executable, "-m", "scratch_dl.train", *overrides]
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, start_new_session=True)


def ended(process, after=None, number=None, victim=None):
    """Wait for the process's end; after so many seconds give the signal to it, or to what `victim` makes of it."""
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            os.kill((victim or (lambda pid: pid))(process.pid), number)
        process.wait(180)
    return process.returncode


def weights(home):
    names = ("best.pt", "last.pt")
    return {name: checkpoint.digest(checkpoint.load(home / "checkpoints" / name)["network"]) for name in names}


def points(folder):
    """(metric, step) -> value of the one run that finished, and the statuses of all; each point stands once."""
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as database:
        statuses = dict(database.execute("SELECT run_uuid, status FROM runs").fetchall())
        finished = [run for run, status in statuses.items() if status == "FINISHED"]
        assert len(finished) == 1, statuses
        rows = database.execute(
            "SELECT key, step, value FROM metrics WHERE run_uuid = ? AND key NOT IN ('images_per_s', 'training_s') "
            "AND key NOT LIKE 'watch/%_s'", finished
        ).fetchall()  # fmt: skip
    assert len({row[:2] for row in rows}) == len(rows), "a metric stands twice at a step"
    return {row[:2]: row[2] for row in rows}, sorted(statuses.values())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """How long the command takes, and what it leaves."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    began = time.monotonic()
    assert ended(start(folder, *RUN, "hydra.run.dir=mlruns/hydra/one")) == 0, (folder / "log.txt").read_text()
    return time.monotonic() - began, weights(folder / "mlruns" / "hydra" / "one"), points(folder)[0]


@pytest.mark.parametrize("number", range(30))
def test_a_run_killed_at_a_random_moment_ends_with_the_same_bits(undisturbed, tmp_path, number):
    seconds, expected, metrics = undisturbed
    chance = random.Random(f"run {SEED} {number}")
    after, how = chance.uniform(0, seconds), chance.choice(SIGNALS)
    folder = tmp_path / "run"
    status = ended(start(folder, *RUN, "hydra.run.dir=mlruns/hydra/one"), after, how)
    allowed = {0, -how, 128 + how}
    assert status in allowed, (folder / "log.txt").read_text()
    home = folder / "mlruns" / "hydra" / "one"
    print(f"run {number}: {how.name} after {after:.1f} of {seconds:.1f} s, exit {status}", end="", flush=True)
    if (home / "checkpoints" / "last.pt").exists():
        print(f", goes on at step {checkpoint.load_last(home / 'checkpoints')['progress']['step']}", flush=True)
        status = ended(start(folder, f"resume={home}"))
    else:
        print(", starts again", flush=True)
        home = home.with_name("two")
        status = ended(start(folder, *RUN, "hydra.run.dir=mlruns/hydra/two"))
    assert status == 0, (folder / "log.txt").read_text()
    assert weights(home) == expected
    found, statuses = points(folder)
    assert found == metrics
    assert set(statuses) <= {"FINISHED", "KILLED", "FAILED"}, statuses
    assert not list(folder.rglob("*.tmp*")), "something half-written is left"
    json.loads((home / "summary.json").read_text())


def worker_or_supervisor(chance):
    """Chooses a process of the search: the one that was started, or one of its workers."""
    return lambda pid: chance.choice([pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))])


@pytest.mark.parametrize("number", range(10))
def test_a_search_killed_at_random_moments_has_its_trials_exactly(tmp_path, number):
    chance = random.Random(f"search {SEED} {number}")
    folder = tmp_path / "search"
    for _ in range(2):
        after, how = chance.uniform(1, 25), chance.choice(SIGNALS)
        status = ended(start(folder, *SEARCH), after, how, worker_or_supervisor(chance))
        print(f"search {number}: {how.name} after {after:.1f} s, exit {status}", flush=True)
    assert ended(start(folder, *SEARCH)) == 0, (folder / "log.txt").read_text()
    with closing(sqlite3.connect(folder / "mlruns" / "optuna.db")) as database:
        trials = database.execute("SELECT number, state FROM trials").fetchall()
    counted = [number for number, state in trials if state in ("COMPLETE", "PRUNED")]
    assert len(counted) == 5, trials
    assert not [number for number, state in trials if state in ("RUNNING", "WAITING")], trials
    store = tracking.open_store(folder / "mlruns")
    assert tracking.close_orphans(store) == ([], []) or not tracking.close_orphans(store)[1]
