"""Send later what a run could not send: `replay(folder)`."""

import logging
from pathlib import Path

from scratch_dl.system.passwords import hide
from scratch_dl.tracking.database import sqlite_file
from scratch_dl.tracking.errors import TrackingError, UnavailableError
from scratch_dl.tracking.journal import Journal
from scratch_dl.tracking.locks import BusyError, folder_lock
from scratch_dl.tracking.sender import Sender
from scratch_dl.tracking.store import Store, open_store

LOG = logging.getLogger("scratch_dl.tracking")


def replay(folder: Path | str, directory: Path | str | None = None, uri: str | None = None) -> bool:
    """Send what a run could not send before it ended, including its final status.

    Args:
        folder: the run's folder.
        directory: with `uri`, the store to send to (see `open_store`); None for the store that the run belongs to.
        uri: see `directory`.

    Returns:
        Whether everything has been sent.

    Raises:
        TrackingError: if the folder contains no run, the run's process is still alive, or the store does not answer.
    """
    folder = Path(folder).absolute()
    journal = Journal(folder, repair=False)
    if journal.ending()[0] is not None and next(journal.unsent(), None) is None:
        return True
    try:
        with folder_lock(folder):
            journal = Journal(folder)
            store = _open(*(store_location(folder) if directory is None else (directory, uri)))
            try:
                Sender(store, journal, sole_sender=False).send()
            except UnavailableError as error:
                LOG.warning(
                    "tracking.uri=%s stopped answering; call replay again to send the rest (%s)", store.shown, error
                )
                return False
            return True
    except BusyError as error:
        raise TrackingError(f"the run has not ended: {error}") from None


def _open(directory: Path | str, uri: str | None) -> Store:
    try:
        return open_store(directory, uri)
    except TrackingError as error:
        if "password" not in str(error):
            raise
        raise TrackingError(
            f"{error}; a run stores no password: give it by tracking.uri=..., PGPASSWORD or ~/.pgpass"
        ) from None


def store_location(folder: Path, check: bool = True) -> tuple[Path, str | None]:
    """Return `tracking.dir` and `tracking.uri` of the store of the run in `folder`.

    Args:
        folder: of the run, absolute.
        check: whether a sqlite file must exist, because the store will be used.

    Raises:
        TrackingError: if the store is a sqlite file that no longer exists, or the folder contains no run.
    """
    directory, uri = _location_after_move(folder)
    file = sqlite_file(uri)
    if check and file is not None and not file.exists():
        # Opening it would create an empty database without the run.
        raise TrackingError(
            f"tracking.uri={hide(uri)}, where the run of {folder} was made, is missing; "
            "give the tracking.dir or tracking.uri that contains the run"
        )
    return directory, None if file == directory / "mlflow.db" else uri


def _location_after_move(folder: Path) -> tuple[Path, str]:
    """Return the journal's `tracking.dir` and `tracking.uri`, corrected if the run's folder was moved.

    A run's folder always has the same place below `tracking.dir`. If it was moved, so was `tracking.dir`, along with
    a database in it.
    """
    header = Journal(folder, repair=False).header
    made_in, directory, uri = Path(header["folder"]), Path(header["directory"]), str(header["uri"])
    if folder == made_in or not made_in.is_relative_to(directory):
        return directory, uri
    inside = made_in.relative_to(directory)
    moved_to = folder.parents[len(inside.parts) - 1]
    if moved_to / inside != folder:
        return directory, uri
    file = sqlite_file(uri)
    if file is not None and file.is_relative_to(directory):
        uri = f"sqlite:///{moved_to / file.relative_to(directory)}"
    return moved_to, uri
