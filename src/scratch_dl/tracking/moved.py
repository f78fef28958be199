"""Runs follow their folder: when it was moved, renamed or copied, the addresses in its database are written anew.

MLflow keeps absolute addresses, so that a moved folder would go on writing to where it was.
"""

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scratch_dl.tracking.database import LOCKED_TIMEOUT_S, sqlite_file
from scratch_dl.tracking.errors import TrackingError
from scratch_dl.tracking.process import others

_ADDRESSES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
"""Tables and columns in which MLflow keeps where artifacts are."""
_FOLDER_TAG = "scratch_dl.folder"
_MADE_AS_DEFAULT = "0"
"""The experiment that is made with the tables: its address says where the database was then."""


def follow(directory: Path, uri: str) -> None:
    """Let a local sqlite store point to where it lies now; call it in one process at a time.

    Only addresses below the folder that the store was made in are changed, all of them or none. Nothing is changed for
    a server, for PostgreSQL, or where the old folder is the same one by another name.

    Raises:
        TrackingError: if another process is working in the folder, or the database cannot be written.
    """
    file = sqlite_file(uri)
    if file is None or not file.is_file():
        return
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=LOCKED_TIMEOUT_S)) as database:
            before = _root(database)
            if before is None or not _has_moved(database, before, directory, file):
                return
            if busy := others(directory):
                raise TrackingError(
                    f"tracking.dir={directory} was moved from {before}, but {busy[0]} is still working in it; "
                    "wait for its end, or end it"
                )
            changed = _rewrite(database, before, directory)
    except sqlite3.Error as error:
        raise TrackingError(
            f"tracking.dir={directory} was moved, but {file} cannot be brought up to date: {error}"
        ) from None
    print(f"{directory} was moved from {before}: {changed} addresses in {file.name} follow", flush=True)


def _root(database: sqlite3.Connection) -> Path | None:
    """The folder of runs in which the database was made; None if no `artifacts` of a local folder are its artifacts."""
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables >= {*_ADDRESSES, "tags"}:
        return None  # MLflow says better what is wrong with such a database
    row = database.execute(
        "SELECT artifact_location FROM experiments WHERE experiment_id = ?", (_MADE_AS_DEFAULT,)
    ).fetchone()
    location = local_path(row[0]) if row and row[0] else None
    if location is None or location.parent.name != "artifacts":
        return None
    return location.parent.parent


def local_path(address: str) -> Path | None:
    """The path of a file address, or of a plain path; None for any other address."""
    parts = urlsplit(address)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(address) if not parts.scheme else None


def _has_moved(database: sqlite3.Connection, before: Path, directory: Path, file: Path) -> bool:
    there = _is_there(before)
    if before == directory or (there and _is_there(directory) and before.samefile(directory)):
        return False
    if file.parent != directory:  # it lies apart from the artifacts, and does not say whether they were moved
        return not there and _holds_artifacts(database, directory)
    # A copy leaves the original, database included; else some run's artifacts came along.
    return not there or (before / file.name).exists() or _holds_artifacts(database, directory)


def _is_there(folder: Path) -> bool:
    """Whether a folder can be seen from here: one of another user's may be hidden."""
    try:
        return folder.exists()
    except OSError:
        return False


def _holds_artifacts(database: sqlite3.Connection, directory: Path) -> bool:
    runs = database.execute("SELECT run_uuid FROM runs ORDER BY start_time DESC LIMIT 1000")
    return any((directory / "artifacts" / run_id).is_dir() for (run_id,) in runs)


def _rewrite(database: sqlite3.Connection, before: Path, now: Path) -> int:
    """Put the folder `now` for `before` in every address, in one transaction; the number of addresses changed."""
    changed = 0
    with database:
        database.execute("BEGIN IMMEDIATE")
        for old, new in ((before.as_uri(), now.as_uri()), (str(before), str(now))):
            for table, columns in _ADDRESSES.items():
                for column in columns:
                    changed += _replace(database, f"UPDATE {table} SET {column} =", column, "", old, new)
        changed += _replace(
            database, "UPDATE tags SET value =", "value", f"key = '{_FOLDER_TAG}' AND", str(before), str(now)
        )
    return changed


def _replace(database: sqlite3.Connection, update: str, column: str, where: str, old: str, new: str) -> int:
    """Change the beginning of a column, where it is `old` or a path below it."""
    done = database.execute(
        f"{update} ? || substr({column}, ?) WHERE {where} ({column} = ? OR substr({column}, 1, ?) = ?)",
        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
    )
    return done.rowcount
