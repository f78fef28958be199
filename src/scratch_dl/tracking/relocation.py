"""Updates the addresses in a local database after its folder was moved, renamed or copied.

MLflow stores absolute addresses, so without this the runs of a moved folder would be written to the old place.
"""

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scratch_dl.tracking.database import LOCKED_TIMEOUT_S, sqlite_file
from scratch_dl.tracking.errors import TrackingError
from scratch_dl.tracking.process import other_processes

_ADDRESSES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
"""Tables and columns in which MLflow stores the addresses of artifacts."""
_FOLDER_TAG = "scratch_dl.folder"
_MADE_AS_DEFAULT = "0"
"""The id of the experiment that MLflow creates with the tables: its address shows where the database was then."""


def update_addresses(directory: Path, uri: str) -> None:
    """Let the addresses in a local sqlite store point to its current place; call it in one process at a time.

    Only addresses below the folder in which the store was created change, all of them or none. Nothing changes for a
    server, for PostgreSQL, or if the old folder is the same one under another name.

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
            if busy := other_processes(directory):
                raise TrackingError(
                    f"tracking.dir={directory} was moved from {before}, but {busy[0]} is still working in it; "
                    "wait for it or end it"
                )
            changed = _rewrite(database, before, directory)
    except sqlite3.Error as error:
        raise TrackingError(
            f"tracking.dir={directory} was moved, but the addresses in {file} cannot be updated: {error}"
        ) from None
    print(f"{directory} was moved from {before}: updated {changed} addresses in {file.name}", flush=True)


def _root(database: sqlite3.Connection) -> Path | None:
    """Return the folder of runs in which the database was created; None unless it stores artifacts in `artifacts`."""
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables >= {*_ADDRESSES, "tags"}:
        return None  # MLflow's own message about such a database is better
    row = database.execute(
        "SELECT artifact_location FROM experiments WHERE experiment_id = ?", (_MADE_AS_DEFAULT,)
    ).fetchone()
    location = local_path(row[0]) if row and row[0] else None
    if location is None or location.parent.name != "artifacts":
        return None
    return location.parent.parent


def local_path(address: str) -> Path | None:
    """Return the path of a file address or a plain path; None for any other address."""
    parts = urlsplit(address)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(address) if not parts.scheme else None


def _has_moved(database: sqlite3.Connection, before: Path, directory: Path, file: Path) -> bool:
    exists = _exists(before)
    if before == directory or (exists and _exists(directory) and before.samefile(directory)):
        return False
    if file.parent != directory:  # the database lies elsewhere, so its place does not show whether artifacts moved
        return not exists and _has_artifacts(database, directory)
    # After a copy, the original still exists with its database; otherwise artifacts of a run must have moved along.
    return not exists or (before / file.name).exists() or _has_artifacts(database, directory)


def _exists(folder: Path) -> bool:
    """Return whether a folder is visible from here; a folder of another user may be hidden."""
    try:
        return folder.exists()
    except OSError:
        return False


def _has_artifacts(database: sqlite3.Connection, directory: Path) -> bool:
    runs = database.execute("SELECT run_uuid FROM runs ORDER BY start_time DESC LIMIT 1000")
    return any((directory / "artifacts" / run_id).is_dir() for (run_id,) in runs)


def _rewrite(database: sqlite3.Connection, before: Path, now: Path) -> int:
    """Replace the folder `before` by `now` in every address, in one transaction; return the number of changes."""
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
    """Replace `old` by `new` at the beginning of a column's values, if they are `old` or a path below it."""
    cursor = database.execute(
        f"{update} ? || substr({column}, ?) WHERE {where} ({column} = ? OR substr({column}, 1, ?) = ?)",
        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
    )
    return cursor.rowcount
