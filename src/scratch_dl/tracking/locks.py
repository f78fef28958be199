"""One process at a time: `folder_lock` for a run's folder, `exclusive_lock` for a file or database.

A file's lock is a `filelock.FileLock`; PostgreSQL's is an advisory lock, which also works between machines.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from scratch_dl.system.files import advice_suffix, file_errors, write_atomically
from scratch_dl.system.passwords import hide
from scratch_dl.tracking.errors import TrackingError, one_line
from scratch_dl.tracking.process import TEST_TIMEOUT_S, is_locked, this_process

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

CONNECT_TIMEOUT_S = 5
NOTICE_AFTER_S = 5.0
RUN_LOCK = "lock"

_INSTALL = 'pip install "scratch_dl[postgresql]"'
_LOCK_TIMEOUT_STATE = "55P03"


class BusyError(RuntimeError):
    """Another process is working in the run's folder."""


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder inside the block; the lock ends with its process at the latest.

    Raises:
        BusyError: naming the process that is working in the folder, and its machine.
        OSError: with the path, if nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / "owner.json"
    lock = FileLock(folder / RUN_LOCK)
    with file_errors(folder / RUN_LOCK):
        try:
            lock.acquire(timeout=TEST_TIMEOUT_S)
        except Timeout:
            raise BusyError(f"{_owner(owner)} is working in {folder}; wait for it or end it") from None
    try:
        write_atomically(owner, json.dumps(this_process()).encode())
        yield
    finally:
        lock.release()


def is_folder_locked(folder: Path) -> bool | None:
    """Return whether a process is working in a run's folder; None if folder or lock cannot be opened from here."""
    try:
        return is_locked(folder / RUN_LOCK) if folder.is_dir() else None
    except OSError:  # for example in a folder of another user
        return None


def _owner(file: Path) -> str:
    try:
        owner = json.loads(file.read_text())
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


@contextlib.contextmanager
def exclusive_lock(url: str, name: str, timeout_s: float) -> Iterator[None]:
    """Let only one process, and one thread of it, at a time execute the block for a database or file.

    The lock is released when its process dies. It is not reentrant.

    Args:
        url: `sqlite:///<path>` or the path of a file, which need not exist: a lock file beside it;
            `postgresql+psycopg://...`: an advisory lock in that database, held by a connection without a transaction.
        name: of the task; locks with different names do not exclude each other.
        timeout_s: how long to wait for the lock.

    Raises:
        TrackingError: if the lock is not free within that time, or the database or folder cannot be used; the message
            begins with the address, its password hidden, so that the setting's name and "=" can be put before it.
    """
    scheme = url.partition("://")[0].partition("+")[0] if "://" in url else "file"
    if scheme == "postgresql":
        lock = _advisory_lock(url, name, timeout_s)
    elif scheme in ("sqlite", "file"):
        lock = _file_lock(url, name, timeout_s)
    else:
        raise TrackingError(f"{hide(url)} supports no lock; use sqlite, PostgreSQL or a file")
    with lock:
        yield


@contextlib.contextmanager
def _file_lock(url: str, name: str, timeout_s: float) -> Iterator[None]:
    path = url.partition("?")[0]
    if "://" in url:
        path = path.partition("://")[2].removeprefix("/")
    if path in ("", ":memory:"):
        raise TrackingError(f"{url} has no file that other processes could share")
    file = Path(path)
    lock = FileLock(file.with_name(_lock_name(file, name)))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _acquire(lambda seconds: lock.acquire(timeout=seconds), timeout_s, hide(url))
    except Timeout:
        raise TrackingError(f"{url} has been locked by another process for over {timeout_s:g} s") from None
    except OSError as error:
        raise TrackingError(f"{url} cannot be written: {error.strerror}{advice_suffix(error)}") from None
    try:
        yield
    finally:
        lock.release()


def _acquire(acquire: Callable[[float], object], timeout_s: float, what: str) -> None:
    """Acquire a lock; if it is not free after NOTICE_AFTER_S, print a line, then wait for the rest of the time.

    Raises:
        Timeout: if the lock is not free within `timeout_s`.
    """
    if timeout_s <= NOTICE_AFTER_S:
        acquire(timeout_s)
        return
    try:
        acquire(NOTICE_AFTER_S)
    except Timeout:
        print(waiting_notice(what, timeout_s), flush=True)
        acquire(timeout_s - NOTICE_AFTER_S)


def waiting_notice(what: str, timeout_s: float) -> str:
    """Return the line that tells a user why nothing happens."""
    return f"{what} is locked by another process; waiting for up to {timeout_s:g} s"


def _lock_name(file: Path, name: str) -> str:
    """Return `.mlflow.db.lock` for mlflow.db and the name "mlflow"; for any other name `.mlflow.db.<name>.lock`."""
    if name == file.stem:
        return f".{file.name}.lock"
    slug = re.sub(r"[^\w.-]", "-", name)[:60]
    if slug != name:
        slug += f"-{_key(name):x}"
    return f".{file.name}.{slug}.lock"


def _key(name: str) -> int:
    """Return a number of 63 bits that identifies a lock; PostgreSQL's keys are signed 64-bit integers."""
    return int.from_bytes(hashlib.sha256(f"scratch_dl:{name}".encode()).digest()[:8]) >> 1


@contextlib.contextmanager
def _advisory_lock(url: str, name: str, timeout_s: float) -> Iterator[None]:
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    with connect(url) as connection:

        def acquire(seconds: float) -> None:
            # 0 would mean no limit.
            connection.execute(text(f"SET lock_timeout = {max(1, round(seconds * 1000))}"))
            try:
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _key(name)})
            except SQLAlchemyError as error:
                if getattr(getattr(error, "orig", None), "sqlstate", None) == _LOCK_TIMEOUT_STATE:
                    raise Timeout(hide(url)) from None
                raise

        try:
            # PostgreSQL then notices within a minute, not two hours, that a machine holding the lock has vanished.
            for setting, seconds in (("idle", 30), ("interval", 10), ("count", 3)):
                connection.execute(text(f"SET tcp_keepalives_{setting} = {seconds}"))
            _acquire(acquire, timeout_s, hide(url))
        except Timeout:
            raise TrackingError(f"{hide(url)} has been locked by another process for over {timeout_s:g} s") from None
        except SQLAlchemyError as error:
            raise TrackingError(f"{hide(url)} cannot be used: {_database_message(error)}") from None
        try:
            yield
        finally:
            # If the connection is lost, PostgreSQL has already released the lock.
            with contextlib.suppress(SQLAlchemyError):
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _key(name)})


@contextlib.contextmanager
def connect(url: str) -> Iterator["Connection"]:
    """Connect to a PostgreSQL database, outside any transaction.

    Raises:
        TrackingError: if it does not answer in time, rejects the name and password, or its driver is not installed;
            the message begins with the address, its password hidden.
    """
    from sqlalchemy.exc import SQLAlchemyError

    engine = _engine(url)
    try:
        connection = engine.connect()
    except SQLAlchemyError as error:
        raise TrackingError(f"{hide(url)} cannot be used: {_database_message(error)}") from None
    with connection:
        yield connection


def _engine(url: str) -> "Engine":
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError):  # their messages may quote a password that was mistaken for a port
        raise TrackingError(f"{hide(url)} is not the address of a database") from None
    if "@" in (parsed.host or ""):
        raise TrackingError(f"{hide(url)} is not the address of a database: write an '@' in a password as %40")
    try:
        if "connect_timeout" not in parsed.query and parsed.get_driver_name() in ("psycopg", "psycopg2"):
            parsed = parsed.update_query_dict({"connect_timeout": str(CONNECT_TIMEOUT_S)})
        return create_engine(parsed, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    except ImportError as error:
        missing = error.name or "psycopg"
        advice = _INSTALL if missing.startswith("psycopg") else "install it"
        if missing == "psycopg2":
            advice += " and write postgresql+psycopg://"
        raise TrackingError(f"{hide(url)} needs the package {missing}: {advice}") from None
    except SQLAlchemyError as error:
        raise TrackingError(f"{hide(url)} is not the address of a database: {_database_message(error)}") from None


def _database_message(error: Exception) -> str:
    """Return the message of the database itself, without what SQLAlchemy adds."""
    return hide(one_line(getattr(error, "orig", None) or error))
