"""A database made ready for MLflow: its tables whole or not there, waited for while it is locked."""

import contextlib
import errno
import importlib
import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from scratch_dl.system.files import remedy, sync_folder
from scratch_dl.system.passwords import hide
from scratch_dl.tracking.errors import TrackingError, UnavailableError
from scratch_dl.tracking.locks import NOTICE_AFTER_S, connected, waiting_for
from scratch_dl.tracking.quiet import conversation

LOCKED_TIMEOUT_S = 60.0
_LOCKED = "database is locked"
_SQLITE = "sqlite:///"
# What MLflow says of tables of another version; anything else with the word "schema" in it is another matter.
_OF_ANOTHER_VERSION = ("out-of-date database schema", "Can't locate revision")
T = TypeVar("T")


def sqlite_file(uri: str) -> Path | None:
    """The file of a sqlite address; None for another database, a server, or a database in memory."""
    path = uri.removeprefix(_SQLITE).partition("?")[0]
    return Path(path) if uri.startswith(_SQLITE) and path and path != ":memory:" else None


def load_mlflow(uri: str) -> None:
    """Import what makes the tables of a new database: seconds for which no other process is to wait."""
    file = sqlite_file(uri)
    if file is None or not file.exists():
        with conversation():
            importlib.import_module("mlflow.store.tracking.sqlalchemy_store")


def prepare(uri: str, artifact_location: str | None) -> None:
    """Make the tables if there are none. Call it in one process at a time: MLflow's own attempt races and crashes.

    Raises:
        TrackingError: if the database cannot be used; the message begins with its address.
        OSError: if its folder cannot be written.
        UnavailableError, RefusedError: with what MLflow says.
    """
    file = sqlite_file(uri)
    if file is None:
        if uri.startswith("postgresql") and _is_new_database(uri):
            _make_tables(uri, artifact_location)
    elif _is_new_file(file):
        _make_file(file, uri, artifact_location)


def patiently(ask: Callable[[], T], shown: str) -> T:
    """Ask a sqlite database that other processes may have locked, again and again for a minute; a line says so.

    Raises:
        UnavailableError: if it is still locked then; any other error of `ask` comes at once.
    """
    start, told = time.monotonic(), False
    while True:
        try:
            return ask()
        except UnavailableError as error:
            waited = time.monotonic() - start
            if _LOCKED not in str(error) or waited >= LOCKED_TIMEOUT_S:
                raise
            if waited >= NOTICE_AFTER_S and not told:
                print(waiting_for(shown, LOCKED_TIMEOUT_S), flush=True)
                told = True
            time.sleep(0.2)


def explain(shown: str, error: TrackingError) -> str:
    """What to say when MLflow cannot use the database at the address `shown`."""
    text = str(error)
    if any(words in text for words in _OF_ANOTHER_VERSION):
        import mlflow

        return (
            f"tracking.uri={shown} was written by another version of MLflow than this one, {mlflow.__version__}: "
            "use that version, or choose another tracking.dir"
        )
    advice = remedy(error)
    if "database or disk is full" in text:
        advice = remedy(OSError(errno.ENOSPC, text))
    elif "already exists" in text or "duplicate column" in text or "no such table" in text:
        advice = "; if it was never finished and holds no runs, delete it"
    return f"tracking.uri={shown} cannot be used: {hide(text)}{advice}"


def _is_new_file(file: Path) -> bool:
    if not file.exists() or not file.stat().st_size:
        return True

    def look() -> None:
        # MLflow itself would try ten times, over 100 s, to open what cannot be opened.
        try:
            with contextlib.closing(sqlite3.connect(file, timeout=1.0)) as database:
                database.execute("BEGIN IMMEDIATE")
                database.rollback()
        except sqlite3.OperationalError as error:
            if _LOCKED in str(error):
                raise UnavailableError(_LOCKED) from None
            raise

    try:
        patiently(look, f"{_SQLITE}{file}")
    except UnavailableError:
        raise TrackingError(
            f"{_SQLITE}{file} is locked by another process for over {LOCKED_TIMEOUT_S:g} s; end it, or wait for it"
        ) from None
    return False


def _make_file(file: Path, uri: str, artifact_location: str | None) -> None:
    """Make the tables under another name and move them into place: whoever is killed meanwhile leaves no half of it."""
    # A name of its own each time: MLflow keeps connections by address, to files that have gone too.
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    file.parent.mkdir(parents=True, exist_ok=True)
    for stray in file.parent.glob(f".{file.name}.*.tmp*"):
        stray.unlink(missing_ok=True)
    try:
        _make_tables(uri.replace(str(file), str(temporary), 1), artifact_location)
        temporary.replace(file)
    finally:
        for left in file.parent.glob(f"{temporary.name}*"):  # sqlite's journal as well
            left.unlink(missing_ok=True)
    sync_folder(file.parent)


def _make_tables(uri: str, artifact_location: str | None) -> None:
    with conversation():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        # Closed afterwards: the file is about to get another name.
        SqlAlchemyStore(uri, artifact_location).engine.dispose()


def _is_new_database(uri: str) -> bool:
    from sqlalchemy import inspect

    with connected(uri) as connection:
        tables = set(inspect(connection).get_table_names())
    # MLflow makes its last tables and this one in a single transaction, so a process killed in it leaves neither.
    if "alembic_version" not in tables:
        return True
    if "experiments" not in tables:  # both would keep the version of their tables in one table of this name
        raise TrackingError(
            f"{hide(uri)} holds the tables of another program, as Optuna; MLflow needs a database of its own"
        )
    return False
