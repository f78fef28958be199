"""One process at a time: `exclusive`, on one machine or on several; `claimed`, the folder of a run."""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from scratch_dl.system.files import file_errors, remedy, write_atomically
from scratch_dl.system.passwords import hide
from scratch_dl.tracking.errors import TrackingError, one_line
from scratch_dl.tracking.process import is_locked, this_process

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

CONNECT_TIMEOUT_S = 5
NOTICE_AFTER_S = 5.0
RUN_LOCK = "lock"
_CLAIM_TIMEOUT_S = 1.0
_INSTALL = 'pip install "scratch_dl[postgresql]"'
_LOCK_TIMEOUT_STATE = "55P03"


class BusyError(RuntimeError):
    """Another process works in the run's folder."""


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder for the life of the run; the lock goes with its process.

    Raises:
        BusyError: naming the process that works in it, and its machine.
        OSError: with the path, if nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / "owner.json"
    lock = FileLock(folder / RUN_LOCK)
    with file_errors(folder / RUN_LOCK):
        try:
            # Not at once: who asks whether the run lives holds the lock for an instant.
            lock.acquire(timeout=_CLAIM_TIMEOUT_S)
        except Timeout:
            raise BusyError(f"{_owner(owner)} works in {folder}; wait for it, or end it") from None
    try:
        write_atomically(owner, json.dumps(this_process()).encode())
        yield
    finally:
        lock.release()


def is_claimed(folder: Path) -> bool | None:
    """Whether a process works in a run's folder; None if folder or lock cannot be opened from here."""
    try:
        return is_locked(folder / RUN_LOCK) if folder.is_dir() else None
    except OSError:  # in a folder of another user, perhaps
        return None


def _owner(file: Path) -> str:
    try:
        owner = json.loads(file.read_text())
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


@contextlib.contextmanager
def exclusive(url: str, name: str, timeout_s: float) -> Iterator[None]:
    """Let one process, and one thread of it, at a time do something with a database or file.

    The lock goes when its process dies. Whoever holds it must not take it again.

    Args:
        url: `sqlite:///<path>` or the path of a file, which need not exist: a lock file beside it;
            `postgresql+psycopg://...`: an advisory lock in that database, of a connection without a transaction.
        name: of what is to be done; locks of other names do not exclude one another.
        timeout_s: how long to wait for the lock.

    Raises:
        TrackingError: if it is not to be had in that time, or the database or folder cannot be used; the message
            begins with the address, its password hidden, so that the setting's name and "=" can be put before it.
    """
    scheme = url.partition("://")[0].partition("+")[0] if "://" in url else "file"
    if scheme == "postgresql":
        lock = _of_postgresql(url, name, timeout_s)
    elif scheme in ("sqlite", "file"):
        lock = _of_file(url, name, timeout_s)
    else:
        raise TrackingError(f"{hide(url)} knows no lock; use sqlite, PostgreSQL or a file")
    with lock:
        yield


@contextlib.contextmanager
def _of_file(url: str, name: str, timeout_s: float) -> Iterator[None]:
    path = url.partition("?")[0]
    if "://" in url:
        path = path.partition("://")[2].removeprefix("/")
    if path in ("", ":memory:"):
        raise TrackingError(f"{url} has no file that other processes could share")
    file = Path(path)
    lock = FileLock(file.with_name(_lock_name(file, name)))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _patiently(lambda seconds: lock.acquire(timeout=seconds), timeout_s, hide(url))
    except Timeout:
        raise TrackingError(f"{url} is locked by another process for over {timeout_s:g} s") from None
    except OSError as error:
        raise TrackingError(f"{url} cannot be written: {error.strerror}{remedy(error)}") from None
    try:
        yield
    finally:
        lock.release()


def _patiently(acquire: Callable[[float], object], timeout_s: float, what: str) -> None:
    """Acquire a lock; if that takes longer than a moment, say so in a line, and wait for the rest of the time.

    Raises:
        Timeout: if the lock cannot be had in that time.
    """
    if timeout_s <= NOTICE_AFTER_S:
        acquire(timeout_s)
        return
    try:
        acquire(NOTICE_AFTER_S)
    except Timeout:
        print(waiting_for(what, timeout_s), flush=True)
        acquire(timeout_s - NOTICE_AFTER_S)


def waiting_for(what: str, timeout_s: float) -> str:
    """The line that says why nothing happens."""
    return f"{what} is locked by another process; waiting for up to {timeout_s:g} s"


def _lock_name(file: Path, name: str) -> str:
    """`.mlflow.db.lock` of mlflow.db and the name "mlflow"; of another name `.mlflow.db.<name>.lock`."""
    if name == file.stem:
        return f".{file.name}.lock"
    slug = re.sub(r"[^\w.-]", "-", name)[:60]
    if slug != name:
        slug += f"-{_key(name):x}"
    return f".{file.name}.{slug}.lock"


def _key(name: str) -> int:
    """63 bits, since PostgreSQL's numbers have a sign."""
    return int.from_bytes(hashlib.sha256(f"scratch_dl:{name}".encode()).digest()[:8]) >> 1


@contextlib.contextmanager
def _of_postgresql(url: str, name: str, timeout_s: float) -> Iterator[None]:
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    with connected(url) as connection:

        def acquire(seconds: float) -> None:
            # 0 would be no limit.
            connection.execute(text(f"SET lock_timeout = {max(1, round(seconds * 1000))}"))
            try:
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _key(name)})
            except SQLAlchemyError as error:
                if getattr(getattr(error, "orig", None), "sqlstate", None) == _LOCK_TIMEOUT_STATE:
                    raise Timeout(hide(url)) from None
                raise

        try:
            # So a machine that vanished while it held the lock is noticed in a minute, not in two hours.
            for setting, seconds in (("idle", 30), ("interval", 10), ("count", 3)):
                connection.execute(text(f"SET tcp_keepalives_{setting} = {seconds}"))
            _patiently(acquire, timeout_s, hide(url))
        except Timeout:
            raise TrackingError(f"{hide(url)} is locked by another process for over {timeout_s:g} s") from None
        except SQLAlchemyError as error:
            raise TrackingError(f"{hide(url)} cannot be used: {_said(error)}") from None
        try:
            yield
        finally:
            # A connection that has gone has released the lock already.
            with contextlib.suppress(SQLAlchemyError):
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _key(name)})


@contextlib.contextmanager
def connected(url: str) -> Iterator["Connection"]:
    """Connect to a PostgreSQL database, outside of any transaction.

    Raises:
        TrackingError: if it does not answer in time, or lets nobody in by this name and password, or has no driver
            here; the message begins with the address, its password hidden.
    """
    from sqlalchemy.exc import SQLAlchemyError

    engine = _engine(url)
    try:
        connection = engine.connect()
    except SQLAlchemyError as error:
        raise TrackingError(f"{hide(url)} cannot be used: {_said(error)}") from None
    with connection:
        yield connection


def _engine(url: str) -> "Engine":
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError):  # whose text may quote a password that was taken for a port
        raise TrackingError(f"{hide(url)} is no address of a database") from None
    if "@" in (parsed.host or ""):
        raise TrackingError(f"{hide(url)} is no address of a database: an '@' in a password is written %40")
    try:
        if "connect_timeout" not in parsed.query and parsed.get_driver_name() in ("psycopg", "psycopg2"):
            parsed = parsed.update_query_dict({"connect_timeout": str(CONNECT_TIMEOUT_S)})
        return create_engine(parsed, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    except ImportError as error:
        missing = error.name or "psycopg"
        mend = _INSTALL if missing.startswith("psycopg") else "install it"
        if missing == "psycopg2":
            mend += " and write postgresql+psycopg://"
        raise TrackingError(f"{hide(url)} needs the package {missing}: {mend}") from None
    except SQLAlchemyError as error:
        raise TrackingError(f"{hide(url)} is no address of a database: {_said(error)}") from None


def _said(error: Exception) -> str:
    """What the database itself says, without SQLAlchemy's words around it."""
    return hide(one_line(getattr(error, "orig", None) or error))
