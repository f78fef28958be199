"""`exclusive_lock` on real files and a real PostgreSQL: between processes and threads, and after a SIGKILL."""

import signal
import subprocess
import sys
import threading
import time

import pytest
from sqlalchemy import text

from scratch_dl.system.passwords import hide, without_password
from scratch_dl.tracking import TrackingError, exclusive_lock
from scratch_dl.tracking.locks import connect

HOLD = """
import sys
from scratch_dl.tracking import exclusive_lock
with exclusive_lock(sys.argv[1], "name", 20.0):
    print("held", flush=True)
    sys.stdin.read()
"""
COUNT = """
import sys, time
from pathlib import Path
from scratch_dl.tracking import exclusive_lock
file = Path(sys.argv[2])
for _ in range(10):
    with exclusive_lock(sys.argv[1], "name", 60.0):
        number = int(file.read_text())
        time.sleep(0.01)
        file.write_text(str(number + 1))
"""


@pytest.fixture(params=["sqlite", "file", pytest.param("postgresql", marks=pytest.mark.exhaustive)])
def url(request, tmp_path):
    if request.param == "postgresql":
        return request.getfixturevalue("postgres")()
    return f"sqlite:///{tmp_path / 'new' / 'study.db'}" if request.param == "sqlite" else str(tmp_path / "study.log")


@pytest.fixture
def holder(url):
    """A process that holds the lock."""
    words = [sys.executable, "-c", HOLD, url]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_another_process_waits_and_is_told_when_it_waits_too_long(url, holder):
    with exclusive_lock(url, "another name", 0.2):
        pass
    start = time.monotonic()
    with (
        pytest.raises(TrackingError, match=r"has been locked by another process for over 0\.3 s") as error,
        exclusive_lock(url, "name", 0.3),
    ):
        pytest.fail("two hold the lock at once")
    assert 0.3 <= time.monotonic() - start < 5
    assert str(error.value).startswith(f"{hide(url)} has been locked")
    holder.stdin.close()
    with exclusive_lock(url, "name", 20.0):
        pass


def test_a_process_killed_releases_it(url, holder):
    holder.send_signal(signal.SIGKILL)
    with exclusive_lock(url, "name", 20.0):
        pass


def test_four_processes_take_turns(url, tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    words = [sys.executable, "-c", COUNT, url, str(counter)]
    started = [subprocess.Popen(words) for _ in range(4)]
    assert [process.wait(60) for process in started] == [0] * 4
    assert counter.read_text() == "40"


def test_threads_take_turns(url):
    inside, most = [], []

    def work():
        for _ in range(5):
            with exclusive_lock(url, "name", 60.0):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.005)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 20
    assert max(most) == 1, f"{max(most)} threads were inside at once"


def test_an_error_inside_passes_and_the_lock_goes(url):
    with pytest.raises(KeyError, match="mine"), exclusive_lock(url, "name", 1.0):
        raise KeyError("mine")
    with exclusive_lock(url, "name", 1.0):
        pass


def test_no_transaction_is_open_while_it_is_held(postgres):
    url = postgres()
    query = "SELECT state FROM pg_stat_activity WHERE query LIKE '%pg_advisory_lock%' AND pid <> pg_backend_pid()"
    with exclusive_lock(url, "name", 1.0), connect(url) as other:
        states = other.execute(text(query)).scalars().all()
    assert states == ["idle"]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        pytest.param("study", ".study.db.lock", id="the file's own"),
        pytest.param("optuna", ".study.db.optuna.lock", id="plain"),
        pytest.param("../a b", ".study.db...-a-b-*.lock", id="odd"),
    ],
)
def test_the_lock_file_lies_beside_the_file(tmp_path, name, file):
    with exclusive_lock(str(tmp_path / "study.db"), name, 1.0):
        there = list(tmp_path.iterdir())
    assert there == list(tmp_path.glob(file))


@pytest.mark.parametrize(
    ("url", "match"),
    [
        pytest.param("http://me:s3cret@127.0.0.1:9", r"http://me:\*\*\*@127.0.0.1:9 supports no lock", id="server"),
        pytest.param("sqlite://", "has no file", id="memory"),
        pytest.param("/proc/nothing/study.db", "cannot be written", id="folder"),
        pytest.param("postgresql+psycopg://me:s3cret@127.0.0.1:9/x", r"me:\*\*\*@127.0.0.1:9/x cannot be used: .*ref",
                     id="no server"),
        pytest.param("postgresql+psycopg://me:a@s3cret@127.0.0.1:9/x", r"'@' in a password as %40", id="an @"),
        pytest.param("postgresql+psycopg://me:s3cret@127.0.0.1:x/x", "is not the address of a database", id="port"),
        pytest.param("postgresql+nothing://me:s3cret@127.0.0.1:9/x", r"is not the address of a database: .*nothing",
                     id="unknown driver"),
        pytest.param("postgresql+pg8000://me:s3cret@127.0.0.1:9/x", "needs the package pg8000: install", id="driver"),
    ],
)  # fmt: skip
def test_a_lock_that_cannot_be_had_is_one_line_without_a_password(url, match):
    with pytest.raises(TrackingError, match=match) as error, exclusive_lock(url, "name", 1.0):
        pass
    assert "\n" not in str(error.value)
    assert "s3cret" not in str(error.value)


def test_a_missing_driver_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    lock = exclusive_lock("postgresql+psycopg://me@127.0.0.1:9/x", "name", 1.0)
    with pytest.raises(TrackingError, match=r'needs the package psycopg: pip install "scratch_dl\[postgresql\]"'), lock:
        pass


@pytest.mark.parametrize(
    ("url", "shown", "kept"),
    [
        ("postgresql+psycopg://me:s3cret@h:1/d", "postgresql+psycopg://me:***@h:1/d", "postgresql+psycopg://me@h:1/d"),
        ("postgresql://me:s/3:cret@h/d", "postgresql://me:***@h/d", "postgresql://me@h/d"),
        ("postgresql://h/d?user=me&password=s3cret&sslmode=require",
         "postgresql://h/d?user=me&password=***&sslmode=require", "postgresql://h/d?user=me&sslmode=require"),
        ("postgresql://h/d?password=s3cret", "postgresql://h/d?password=***", "postgresql://h/d"),
        ("http://me:s3cret@h:5000", "http://me:***@h:5000", "http://me@h:5000"),
        ("postgresql+psycopg://me@h/d", "postgresql+psycopg://me@h/d", "postgresql+psycopg://me@h/d"),
        ("postgresql://me:s/3@cret@h/d", "postgresql://me:***@h/d", "postgresql://me@h/d"),
        ("sqlite:////a/b:c@d.db", "sqlite:////a/b:c@d.db", "sqlite:////a/b:c@d.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)  # fmt: skip
def test_passwords_are_hidden_and_not_kept(url, shown, kept):
    assert (hide(url), without_password(url)) == (shown, kept)
    assert hide(f"train 'tracking.uri={url}' a=me@home") == f"train 'tracking.uri={shown}' a=me@home"
