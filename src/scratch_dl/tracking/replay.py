"""Send later what a run could not send, by one command: `replay(folder)`."""

import logging
from pathlib import Path

from scratch_dl.system.passwords import hide
from scratch_dl.tracking.database import sqlite_file
from scratch_dl.tracking.errors import TrackingError, UnavailableError
from scratch_dl.tracking.journal import Journal
from scratch_dl.tracking.locks import BusyError, claimed
from scratch_dl.tracking.sender import Sender
from scratch_dl.tracking.store import Store, open_store

LOG = logging.getLogger("scratch_dl.tracking")


def replay(folder: Path | str, directory: Path | str | None = None, uri: str | None = None) -> bool:
    """Send what a run could not send before it ended, its final status included.

    Args:
        folder: the run's folder.
        directory: with `uri` the store to send to, as `open_store` takes them; None is the one the run belongs to.
        uri: see `directory`.

    Returns:
        Whether all is sent now.

    Raises:
        TrackingError: if the folder holds no run, its process still lives, or the store does not answer.
    """
    folder = Path(folder).absolute()
    record = Journal(folder, mend=False)
    if record.ending()[0] is not None and next(record.unsent(), None) is None:
        return True
    try:
        with claimed(folder):
            record = Journal(folder)
            store = _open(*(whereabouts(folder) if directory is None else (directory, uri)))
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


def _open(directory: Path | str, uri: str | None) -> Store:
    try:
        return open_store(directory, uri)
    except TrackingError as error:
        if "password" not in str(error):
            raise
        raise TrackingError(
            f"{error}; a run keeps no password: give it by tracking.uri=..., by PGPASSWORD or by ~/.pgpass"
        ) from None


def whereabouts(folder: Path, check: bool = True) -> tuple[Path, str | None]:
    """Where the store of the run in `folder` is: `tracking.dir` and `tracking.uri`.

    Args:
        folder: of the run, absolute.
        check: whether the store is to be used, so that it must be there.

    Raises:
        TrackingError: if it was a sqlite file that is not there any more, or the folder holds no run.
    """
    directory, uri = _moved_along(folder)
    file = sqlite_file(uri)
    if check and file is not None and not file.exists():
        # Opening it would make an empty one, which knows no such run.
        raise TrackingError(
            f"tracking.uri={hide(uri)}, where the run of {folder} was made, is missing; "
            "give the tracking.dir or tracking.uri that has the run"
        )
    return directory, None if file == directory / "mlflow.db" else uri


def _moved_along(folder: Path) -> tuple[Path, str]:
    """The recorded folder of runs and address, moved along with the run's folder.

    A run's folder lies at the same place below `tracking.dir` for ever, so that where the one was moved, so was the
    other, and with it a database that lies there.
    """
    header = Journal(folder, mend=False).header
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
