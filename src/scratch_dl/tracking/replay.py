"""Send later what a run could not send, by one command: `replay(folder)`."""

import logging
from pathlib import Path

from scratch_dl.passwords import hide
from scratch_dl.tracking.database import sqlite_file
from scratch_dl.tracking.errors import TrackingError, UnavailableError
from scratch_dl.tracking.locks import BusyError, claimed
from scratch_dl.tracking.record import Record
from scratch_dl.tracking.send import Sender
from scratch_dl.tracking.store import Store, open_store

LOG = logging.getLogger("scratch_dl.tracking")


def replay(folder: Path | str, store: Store | None = None) -> bool:
    """Send what a run could not send before it ended, its final status included.

    Args:
        folder: the run's folder.
        store: where to; None is the store the run was made in.

    Returns:
        Whether all is sent now.

    Raises:
        TrackingError: if the folder holds no run, its process still lives, or the store does not answer.
    """
    folder = Path(folder).absolute()
    record = Record(folder, mend=False)
    try:
        with claimed(folder):
            if next(record.unsent(), None) is None:
                return True
            record = Record(folder)
            store = store or home(folder)
            try:
                Sender(store, record, certain=False).send()
            except UnavailableError as error:
                LOG.warning(
                    "tracking.uri=%s stopped answering; what is left is sent by another replay (%s)", store.shown, error
                )
                return False
            return True
    except BusyError as error:
        raise TrackingError(f"the run still goes on: {error}") from None


def home(folder: Path) -> Store:
    """Open the store that the run of a folder belongs to.

    Raises:
        TrackingError: if there is none any more, or it cannot be used.
    """
    directory, uri = whereabouts(folder)
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        # Opening it would make an empty one, which knows no such run.
        raise TrackingError(
            f"tracking.uri={hide(uri)}, where the run was made, has gone; name the tracking.dir or tracking.uri "
            "where its record is"
        )
    try:
        return open_store(directory, uri)
    except TrackingError as error:
        if "password" not in str(error):
            raise
        raise TrackingError(
            f"{error}; a run keeps no password: give it by tracking.uri=..., by PGPASSWORD or by ~/.pgpass"
        ) from None


def whereabouts(folder: Path) -> tuple[Path, str]:
    """Where the store of the run in `folder` is: `tracking.dir` and the address of the database.

    A run's folder lies at the same place below `tracking.dir` for ever, so that where the one was moved, so was the
    other, and with it a database that lies there.
    """
    header = Record(folder, mend=False).header
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
