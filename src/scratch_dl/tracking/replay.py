"""Send later what a run could not send, by one command: `replay(folder)`."""

import logging
from pathlib import Path

from scratch_dl.passwords import hide
from scratch_dl.tracking.errors import TrackingError, UnavailableError
from scratch_dl.tracking.process import is_alive, this_process
from scratch_dl.tracking.record import Entry, Record
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
    record = Record(Path(folder).absolute())
    writer = last = record.header
    for last in record.entries():
        writer = last if last["kind"] == "process" else writer
    mine = this_process()
    elsewhere = writer["host"] == mine["host"] and writer["pid"] != mine["pid"]
    if last["kind"] != "finish" and elsewhere and is_alive(writer["pid"], writer["pid_started"]):
        raise TrackingError(f"the run of {folder} still goes on, as process {writer['pid']}; wait for its end")
    if next(record.unsent(), None) is None:
        return True
    store = store or _store_of(record.header)
    try:
        Sender(store, record, certain=False).send()
    except UnavailableError as error:
        LOG.warning(
            "tracking.uri=%s stopped answering; what is left is sent by another replay (%s)", store.shown, error
        )
        return False
    return True


def _store_of(header: Entry) -> Store:
    uri, directory = header["uri"], header["directory"]
    if uri.startswith("sqlite:") and not Path(uri.removeprefix("sqlite:///")).exists():
        # Opening it would make an empty one, which knows no such run.
        raise TrackingError(f"tracking.uri={hide(uri)}, where the run was made, has gone; name another store")
    try:
        return open_store(directory, uri)
    except TrackingError as error:
        if "password" not in str(error):
            raise
        raise TrackingError(f"{error}; a run keeps no password: give it by PGPASSWORD or ~/.pgpass") from None
