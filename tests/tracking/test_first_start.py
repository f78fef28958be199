"""The first start in a folder, ended at any moment of it: the next one works, and nothing half-made is left."""

import contextlib
import json
import re
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from scratch_dl import tracking
from scratch_dl.tracking import TrackingError, database, open_store

# Everything is imported once; each moment then costs a fork, and the tables.
KILL = """
import contextlib, json, os, signal, sys, time
from pathlib import Path
from scratch_dl.tracking import open_store
from scratch_dl.tracking.mlflow_calls import mlflow_call

with mlflow_call():
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

def child(work, *arguments):
    pid = os.fork()
    if pid == 0:
        try:
            work(*arguments)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    return pid

def largest(folder):
    # Of what is becoming a database, in bytes; -1 if there is nothing yet.
    sizes = [-1]
    for path in folder.glob("*mlflow.db*"):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(-1 if path.suffix == ".lock" else path.stat().st_size)
    return max(sizes)

for number, (name, size) in enumerate(json.loads(sys.argv[2])):
    folder = Path(sys.argv[1]) / str(number)
    victim, ended = child(open_store, folder), 0
    while not ended:
        if largest(folder) >= size:
            os.kill(victim, getattr(signal, name))
            ended = os.waitpid(victim, 0)[1]
        else:
            ended = os.waitpid(victim, os.WNOHANG)[0]
    again = os.waitpid(child(open_store, folder), 0)[1]
    print(json.dumps([name, size, again, sorted(path.name for path in folder.iterdir())]), flush=True)
"""
MOMENTS = [  # and the size in bytes, of 950,000, that the database has at this moment
    ("SIGKILL", 0),
    ("SIGTERM", 1),
    ("SIGKILL", 163_840),
    ("SIGTERM", 350_000),
    ("SIGKILL", 600_000),
    ("SIGKILL", 900_000),
]


@pytest.fixture(autouse=True)
def tables_by_mlflow(tables_made_once, monkeypatch):
    """No copies here."""
    monkeypatch.setattr(database, "_make_tables", tables_made_once)


@pytest.mark.exhaustive
def test_a_kill_while_the_database_is_made_leaves_a_folder_that_works(tmp_path):
    words = [sys.executable, "-c", KILL, str(tmp_path), json.dumps(MOMENTS)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    ended = [json.loads(line) for line in done.stdout.splitlines()]
    assert [tuple(row[:2]) for row in ended] == MOMENTS
    assert [row for row in ended if row[2]] == [], "the next start failed"
    left = {name for row in ended for name in row[3]}
    assert left == {"mlflow.db", ".mlflow.db.lock", "artifacts", "processes"}


@pytest.mark.parametrize(
    "room", ["300k", *(pytest.param(room, marks=pytest.mark.exhaustive) for room in ("16k", "700k"))]
)
def test_a_full_disk_while_the_database_is_made_says_so(mounted, room):
    folder = mounted("tmpfs", room)
    with pytest.raises(TrackingError, match=r"; free some space, then run the same command again$") as error:
        open_store(folder / "mlruns")
    assert str(folder) in str(error.value)
    assert "another version" not in str(error.value)
    subprocess.run(["mount", "-o", "remount,size=20m", str(folder)], check=True)
    store = open_store(folder / "mlruns")
    assert tracking.Run.create(store, folder / "one", "demo").finish("FINISHED")


def test_a_database_without_rights_to_it_says_what_the_database_says(postgres, tmp_path):
    """Its words have "schema" in them, and no version of MLflow is to blame."""
    from sqlalchemy import text

    from scratch_dl.tracking.locks import connect

    uri = postgres()
    with connect(uri) as connection:
        connection.execute(text("CREATE ROLE guest LOGIN PASSWORD 'guest'"))
    with pytest.raises(TrackingError, match="permission denied for schema public") as error:
        open_store(tmp_path, re.sub(r"//[^@]*@", "//guest:guest@", uri))
    assert "version" not in str(error.value)


def test_a_database_that_is_locked_is_waited_for_with_a_word(tmp_path, capsys, monkeypatch):
    open_store(tmp_path)
    monkeypatch.setattr("scratch_dl.tracking.database.NOTICE_AFTER_S", 0.5)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db", check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        timer = threading.Timer(1.5, other.rollback)
        timer.start()
        start = time.monotonic()
        store = open_store(tmp_path)
        assert time.monotonic() - start > 1.2
        timer.join()
    said = capsys.readouterr().out.splitlines()
    assert said == [f"sqlite:///{tmp_path}/mlflow.db is locked by another process; waiting for up to 60 s"]
    assert tracking.Run.create(store, tmp_path / "one", "demo").finish("FINISHED")


def test_a_database_that_stays_locked_is_one_line(tmp_path, monkeypatch):
    open_store(tmp_path)
    monkeypatch.setattr("scratch_dl.tracking.database.LOCKED_TIMEOUT_S", 0.5)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackingError, match=r"has been locked by another process for over 0\.5 s"):
            open_store(tmp_path)


def test_a_database_that_another_program_left_half_made_says_what_to_do(tmp_path):
    """As `mlflow ui` leaves it when it is killed: its first tables, with the columns of their first version."""
    open_store(tmp_path / "whole")
    with contextlib.closing(sqlite3.connect(tmp_path / "whole" / "mlflow.db")) as whole:
        tables = [row[0] for row in whole.execute("SELECT sql FROM sqlite_master WHERE name IN ('trace_info', 'runs')")]
    (tmp_path / "half").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "half" / "mlflow.db")) as half:
        for statement in tables:
            half.execute(statement)
    with pytest.raises(TrackingError, match=r"; if it is incomplete and contains no runs, delete it$") as error:
        open_store(tmp_path / "half")
    assert str(tmp_path / "half" / "mlflow.db") in str(error.value)
