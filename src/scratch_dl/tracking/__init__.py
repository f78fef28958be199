"""A run's way into MLflow: written to a local file first, sent to the store second. Only this package imports mlflow.

run.py           `Run`, which a training calls;  start.py  creates or continues its MLflow run
tracked.py       the run of a command that trains nothing
shared_run.py    the run of a study, which several processes share
journal.py       the append-only file of a run, and how much of it has been sent
sender.py        from the journal to MLflow, each (metric, step) exactly once;  background.py  does so in a thread
replay.py        sends later what could not be sent
store.py         where runs are stored;  database.py  creates its tables;  relocation.py  updates addresses after a move
lookup.py        finds experiments, runs and their folders, and closes abandoned runs
selection.py     finds the runs that a person means;  deletion.py  deletes them with their files
locks.py         one process at a time;  process.py  which processes are alive
mlflow_calls.py  calls MLflow without its console output, and translates its errors (errors.py)
values.py        tags, parameters and metrics as MLflow accepts them;  names.py  their names;  artifacts.py  files
"""

from scratch_dl.tracking.artifacts import ARTIFACTS
from scratch_dl.tracking.errors import RefusedError, SettingError, TrackingError, UnavailableError
from scratch_dl.tracking.journal import Journal
from scratch_dl.tracking.locks import BusyError, exclusive_lock, folder_lock
from scratch_dl.tracking.lookup import check_store, close_orphans, find_folder, locate_folder, trained_folder
from scratch_dl.tracking.names import image_key
from scratch_dl.tracking.replay import replay, store_location
from scratch_dl.tracking.run import Run
from scratch_dl.tracking.selection import MODELS
from scratch_dl.tracking.shared_run import SharedRun
from scratch_dl.tracking.store import Store, open_store
from scratch_dl.tracking.tracked import Untracked, tracked_run
from scratch_dl.tracking.values import DESCRIPTION

__all__ = [
    "ARTIFACTS",
    "DESCRIPTION",
    "MODELS",
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
    "close_orphans",
    "exclusive_lock",
    "find_folder",
    "folder_lock",
    "image_key",
    "locate_folder",
    "open_store",
    "replay",
    "store_location",
    "tracked_run",
    "trained_folder",
]
