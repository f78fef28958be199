"""A run's way into MLflow: written to a local file first, sent to the store second. Only this package imports mlflow.

store.py    where runs are kept; errors in one line; mlflow kept quiet
record.py   the append-only file of a run, and how much of it was sent
send.py     from the file to MLflow: each (metric, step) exactly once
run.py      what a training calls
lookup.py   runs left over, folders and files of runs already there
"""

from scratch_dl.tracking.lookup import close_orphans, download, find_folder
from scratch_dl.tracking.record import Record
from scratch_dl.tracking.replay import replay
from scratch_dl.tracking.run import ARTIFACTS, Run
from scratch_dl.tracking.store import Store, TrackingError, open_store

__all__ = [
    "ARTIFACTS",
    "Record",
    "Run",
    "Store",
    "TrackingError",
    "close_orphans",
    "download",
    "find_folder",
    "open_store",
    "replay",
]
