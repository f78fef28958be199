"""A run's way into MLflow: written to a local file first, sent to the store second. Only this package imports mlflow.

store.py    where runs are kept, and made ready; mlflow kept quiet
locks.py    one process at a time, on one machine or on several
errors.py   what can go wrong, in one line
record.py   the append-only file of a run, and how much of it was sent
send.py     from the file to MLflow: each (metric, step) exactly once
run.py      what a training calls
parent.py   the run of a study, which several processes share
process.py  which process writes a run, and whether it lives
replay.py   sends later what could not be sent
lookup.py   runs left over, folders and files of runs already there
"""

from scratch_dl.tracking.errors import RefusedError, TrackingError, UnavailableError
from scratch_dl.tracking.locks import exclusive
from scratch_dl.tracking.lookup import close_orphans, download, find_folder
from scratch_dl.tracking.names import image_key
from scratch_dl.tracking.parent import DESCRIPTION, Parent
from scratch_dl.tracking.record import Record
from scratch_dl.tracking.replay import replay
from scratch_dl.tracking.run import ARTIFACTS, Run
from scratch_dl.tracking.store import Store, open_store

__all__ = [
    "ARTIFACTS",
    "DESCRIPTION",
    "Parent",
    "Record",
    "RefusedError",
    "Run",
    "Store",
    "TrackingError",
    "UnavailableError",
    "close_orphans",
    "download",
    "exclusive",
    "find_folder",
    "image_key",
    "open_store",
    "replay",
]
