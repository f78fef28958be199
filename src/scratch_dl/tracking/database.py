"""Prepares a database for MLflow: creates all of its tables or none, and waits while it is locked."""

import contextlib
import errno
import importlib
import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from scratch_dl.system.files import advice_suffix, sync_folder
from scratch_dl.system.passwords import hide
from scratch_dl.tracking.errors import TrackingError, UnavailableError
from scratch_dl.tracking.locks import NOTICE_AFTER_S, connect, waiting_notice
from scratch_dl.tracking.mlflow_calls import mlflow_call

LOCKED_TIMEOUT_S = 60.0
_LOCKED = "database is locked"
_SQLITE = "sqlite:///"
# MLflow's messages about tables of another version; other messages may contain the word "schema", too.
_VERSION_MESSAGES = ("out-of-date database schema", "Can't locate revision")
T = TypeVar("T")


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a sqlite address; None for another database, a server, or a database in memory."""
    path = uri.removeprefix(_SQLITE).partition("?")[0]
    return Path(path) if uri.startswith(_SQLITE) and path and path != ":memory:" else None


def preload_mlflow(uri: str) -> None:
    """Import what creates the tables of a new database: it takes seconds, so do it before taking the lock."""
    file = sqlite_file(uri)
    if file is None or not file.exists():
        with mlflow_call():
            importlib.import_module("mlflow.store.tracking.sqlalchemy_store")


def create_missing_tables(uri: str, artifact_location: str | None) -> None:
    """Create MLflow's tables if there are none.

    Call it in one process at a time: MLflow itself does this without a lock, and concurrent processes crash.

    Raises:
        TrackingError: if the database cannot be used; the message begins with its address.
        OSError: if its folder cannot be written.
        UnavailableError, RefusedError: with MLflow's message.
    """
    file = sqlite_file(uri)
    if file is None:
        if uri.startswith("postgresql") and _is_new_database(uri):
            _make_tables(uri, artifact_location)
    elif _is_new_file(file):
        _make_file(file, uri, artifact_location)


def retry_while_locked(query: Callable[[], T], shown: str) -> T:
    """Return the result of `query`; while another process locks the sqlite database, retry for up to a minute.

    Prints one line when the wait becomes noticeable.

    Raises:
        UnavailableError: if the database is still locked after that time; any other error of `query` is not caught.
    """
    start, notice_printed = time.monotonic(), False
    while True:
        try:
            return query()
        except UnavailableError as error:
            waited = time.monotonic() - start
            if _LOCKED not in str(error) or waited >= LOCKED_TIMEOUT_S:
                raise
            if waited >= NOTICE_AFTER_S and not notice_printed:
                print(waiting_notice(shown, LOCKED_TIMEOUT_S), flush=True)
                notice_printed = True
            time.sleep(0.2)


def store_error_message(shown: str, error: TrackingError) -> str:
    """Return the message for an error of MLflow about the database at the address `shown`."""
    text = str(error)
    if any(words in text for words in _VERSION_MESSAGES):
        import mlflow

        return (
            f"tracking.uri={shown} was written by another version of MLflow than this one, {mlflow.__version__}: "
            "use that version or choose another tracking.dir"
        )
    advice = advice_suffix(error)
    if "database or disk is full" in text:
        advice = advice_suffix(OSError(errno.ENOSPC, text))
    elif "already exists" in text or "duplicate column" in text or "no such table" in text:
        advice = "; if it is incomplete and contains no runs, delete it"
    return f"tracking.uri={shown} cannot be used: {hide(text)}{advice}"


def _is_new_file(file: Path) -> bool:
    if not file.exists() or not file.stat().st_size:
        return True

    def try_to_lock() -> None:
        # MLflow itself would retry ten times, over 100 s, to open a file that cannot be opened.
        try:
            with contextlib.closing(sqlite3.connect(file, timeout=1.0)) as database:
                database.execute("BEGIN IMMEDIATE")
                database.rollback()
        except sqlite3.OperationalError as error:
            if _LOCKED in str(error):
                raise UnavailableError(_LOCKED) from None
            raise

    try:
        retry_while_locked(try_to_lock, f"{_SQLITE}{file}")
    except UnavailableError:
        raise TrackingError(
            f"{_SQLITE}{file} has been locked by another process for over {LOCKED_TIMEOUT_S:g} s; end it or wait for it"
        ) from None
    return False


def _make_file(file: Path, uri: str, artifact_location: str | None) -> None:
    """Create the tables in a temporary file and rename it: a process killed meanwhile leaves no incomplete database."""
    # A different name each time, because MLflow caches connections by address, even to deleted files.
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    file.parent.mkdir(parents=True, exist_ok=True)
    for stray in file.parent.glob(f".{file.name}.*.tmp*"):
        stray.unlink(missing_ok=True)
    try:
        _make_tables(uri.replace(str(file), str(temporary), 1), artifact_location)
        temporary.replace(file)
    finally:
        for leftover in file.parent.glob(f"{temporary.name}*"):  # sqlite's own journal, too
            leftover.unlink(missing_ok=True)
    sync_folder(file.parent)


def _make_tables(uri: str, artifact_location: str | None) -> None:
    with mlflow_call():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        # Close the connections, because the file is about to be renamed.
        SqlAlchemyStore(uri, artifact_location).engine.dispose()


def _is_new_database(uri: str) -> bool:
    from sqlalchemy import inspect

    with connect(uri) as connection:
        tables = set(inspect(connection).get_table_names())
    # MLflow creates its last tables and this one in one transaction, so a process killed during it leaves neither.
    if "alembic_version" not in tables:
        return True
    if "experiments" not in tables:  # both programs would store the version of their tables in alembic_version
        raise TrackingError(
            f"{hide(uri)} contains the tables of another program, such as Optuna; MLflow needs its own database"
        )
    return False
