"""A run's way into MLflow: written to a local file first, sent to the store second. Only this package imports mlflow.

store.py       where runs are kept
database.py    its tables, made whole or not at all;  moved.py  its addresses, which follow a moved folder
quiet.py       talk to MLflow without its words on the console
locks.py       one process at a time, on one machine or on several, and in a run's folder
process.py     which processes work on something, and whether they live
errors.py      what can go wrong, in one line
record.py      the append-only file of a run, and how much of it was sent
send.py        from the file to MLflow: each (metric, step) exactly once;  background.py  in a thread of its own
begin.py       how a run begins;  run.py  what a training calls
shared_run.py   the run of a study, which several processes share
replay.py      sends later what could not be sent
tracked.py     the run of a command that trains nothing
lookup.py      runs left over, experiments and folders of runs already there
"""

from scratch_dl.tracking.artifacts import ARTIFACTS
from scratch_dl.tracking.errors import RefusedError, SettingError, TrackingError, UnavailableError
from scratch_dl.tracking.journal import Journal
from scratch_dl.tracking.locks import BusyError, claimed, exclusive
from scratch_dl.tracking.lookup import check_store, close_orphans, find_folder, folder_of, is_taken
from scratch_dl.tracking.names import image_key
from scratch_dl.tracking.replay import replay, whereabouts
from scratch_dl.tracking.run import Run
from scratch_dl.tracking.shared_run import SharedRun
from scratch_dl.tracking.store import Store, open_store
from scratch_dl.tracking.tracked import Untracked, tracked_run
from scratch_dl.tracking.values import DESCRIPTION

__all__ = [
    "ARTIFACTS",
    "DESCRIPTION",
    "BusyError",
    "Journal",
    "RefusedError",
    "Run",
    "SettingError",
    "SharedRun",
    "Store",
    "TrackingError",
    "UnavailableError",
    "Untracked",
    "check_store",
    "claimed",
    "close_orphans",
    "exclusive",
    "find_folder",
    "folder_of",
    "image_key",
    "is_taken",
    "open_store",
    "replay",
    "tracked_run",
    "whereabouts",
]
