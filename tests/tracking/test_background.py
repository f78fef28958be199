"""A store that answers but takes nothing: the training loses no time to it, and nothing is lost or doubled."""

import contextlib
import logging
import sqlite3
import threading
import time

import pytest

from scratch_dl import tracking
from scratch_dl.tracking import Run, open_store
from scratch_dl.tracking import run as run_module
from scratch_dl.tracking.mlflow_calls import mlflow_call
from scratch_dl.tracking.store import client, unavailable_reason


@pytest.fixture(params=["database", pytest.param("server", marks=pytest.mark.exhaustive)])
def store(request, tmp_path):
    """A store on a sqlite database, or a server on one: its /health answers whatever its database does."""
    local = open_store(tmp_path / "mlruns")
    if request.param == "database":
        yield local
        return
    with request.getfixturevalue("server")(local) as (port, _):
        yield open_store(tmp_path / "remote", f"http://127.0.0.1:{port}")


@pytest.fixture
def locked(tmp_path):
    """Keeps the database for itself while the context is open."""

    @contextlib.contextmanager
    def lock():
        with contextlib.closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db")) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield
            other.rollback()

    return lock


def test_a_training_loses_no_time_to_a_store_that_takes_nothing(store, locked, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(run_module, "PATIENCE_S", 1.0)
    others = set(threading.enumerate())  # senders that earlier tests have left idle
    run = Run.create(store, tmp_path / "run", "slow")
    run.metric("train/loss", 0.0, 0)
    assert run.flush()
    with locked():
        start = time.monotonic()
        for step in range(1, 6):
            run.metric("train/loss", float(step), step)
            run.sync()
        assert time.monotonic() - start < 0.5
        assert unavailable_reason(store, 5.0) is None, "it looks as if it could be used"
        assert not run.finish("FINISHED")
        assert time.monotonic() - start < 4
    assert len([one for one in caplog.records if "does not answer" in one.getMessage()]) == 1
    for thread in set(threading.enumerate()) - others:
        if thread.name == "scratch_dl sender":  # its current batch; a replay usually runs in another process
            thread.join(60)
    end = time.monotonic() + 60
    while not tracking.replay(run.folder):
        assert time.monotonic() < end
    with mlflow_call():
        history = client(store).get_metric_history(run.run_id, "train/loss")
        status = client(store).get_run(run.run_id).info.status
    assert sorted((each.step, each.value) for each in history) == [(step, float(step)) for step in range(6)]
    assert status == "FINISHED"


def test_what_comes_after_the_last_checkpoint_is_not_sent(tmp_path):
    store = open_store(tmp_path / "mlruns")
    run = Run.create(store, tmp_path / "run", "slow")
    run.metric("train/loss", 1.0, 1)
    run.sync()
    run.metric("train/loss", 2.0, 2)
    assert run._background.wait(60)
    with mlflow_call():
        assert [each.step for each in client(store).get_metric_history(run.run_id, "train/loss")] == [1]
