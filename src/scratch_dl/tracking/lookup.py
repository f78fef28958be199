"""Finds experiments, runs and their folders in a store, and closes runs whose process has died."""

import errno
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from scratch_dl.system.files import is_read_only
from scratch_dl.tracking.database import sqlite_file
from scratch_dl.tracking.errors import SettingError, TrackingError
from scratch_dl.tracking.journal import JOURNAL
from scratch_dl.tracking.locks import is_folder_locked
from scratch_dl.tracking.mlflow_calls import mlflow_call
from scratch_dl.tracking.process import is_alive, worker_processes
from scratch_dl.tracking.relocation import local_path
from scratch_dl.tracking.selection import get_run, search_runs, select_run
from scratch_dl.tracking.store import Store, client, full_uri, open_store, probe
from scratch_dl.tracking.views import describe_experiment

FOLDER_TAG = "scratch_dl.folder"


def experiment_id(store: Store, name: str) -> str:
    """Return the id of the experiment of this name, which is created if it does not exist; its pages are described.

    Its artifacts lie under the store's folder by ids, so an unusual name never becomes a path.

    Raises:
        TrackingError: if the name is empty or over 500 characters, or its experiment was deleted.
    """
    if not name.strip() or len(name) > 500:
        raise SettingError(f"tracking.experiment must be a name of 1 to 500 characters, but got {name[:40]!r}")
    with mlflow_call():
        api = client(store)
        experiment = api.get_experiment_by_name(name)
        if experiment is None:
            try:
                created = str(api.create_experiment(name, artifact_location=store.artifact_location))
                describe_experiment(api, created, {})
                return created
            except Exception:
                experiment = api.get_experiment_by_name(name)  # another process was faster
                if experiment is None:
                    raise
    check_experiment(store, experiment)
    with mlflow_call():
        describe_experiment(api, str(experiment.experiment_id), dict(experiment.tags))
    return str(experiment.experiment_id)


def check_store(directory: Path | str, uri: str | None, experiment: str, run_id: str | None = None) -> None:
    """Refuse a store, an experiment or a run that a training could not use, as far as can be seen without creating any.

    Raises:
        TrackingError: saying what is wrong; a SettingError if a setting is wrong.
        OSError: if the folder lies on a read-only file system.
    """
    folder = Path(directory).expanduser().absolute()
    store = Store(folder, full_uri(folder, uri))
    file = sqlite_file(store.uri)
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if is_read_only(nearest):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(nearest))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise SettingError(f"tracking.dir must be a folder that can be written, but {nearest} cannot; choose another")
    if store.is_server:
        probe(store)
    elif folder.is_dir() and (file is None or file.exists()):
        open_store(folder, uri)
    elif run_id is not None and file is not None:
        raise SettingError(f"tracking.run_id={run_id} is not in tracking.uri={store.shown}, which does not exist yet")
    else:
        return
    with mlflow_call():
        known = client(store).get_experiment_by_name(experiment)
    if known is not None:  # otherwise it will be created
        check_experiment(store, known)
    if run_id is not None:
        check_active(store, get_run(store, run_id, "tracking.run_id"))


def trained_folder(store: Store, run_id: str) -> str | None:
    """Return the folder of the training that already uses a run; None if there is none."""
    folder = get_run(store, run_id, "tracking.run_id").data.tags.get(FOLDER_TAG)
    return None if folder is None else str(folder)


def check_experiment(store: Store, experiment: Any) -> None:
    """Refuse an experiment that was deleted.

    Raises:
        SettingError: with the command that restores it.
    """
    if experiment.lifecycle_stage != "active":
        raise SettingError(
            f"tracking.experiment={experiment.name!r} was deleted; choose another name, or restore it: "
            f"{store.environment} mlflow experiments restore --experiment-id {experiment.experiment_id}"
        )


def check_active(store: Store, run: Any) -> None:
    """Refuse a run that was deleted.

    Raises:
        SettingError: with the command that restores it.
    """
    if run.info.lifecycle_stage != "active":
        raise SettingError(
            f"the run {run.info.run_id} is {run.info.lifecycle_stage}; restore it: "
            f"{store.environment} mlflow runs restore --run-id {run.info.run_id}"
        )


def check_artifacts(store: Store, address: str, what: str) -> None:
    """Refuse a run whose artifacts cannot be written where its experiment stores them, for example on another machine.

    Args:
        store: where the run is.
        address: of the run's artifacts, `<the experiment's>/<run id>/artifacts`.
        what: the setting that chose the experiment.

    Raises:
        TrackingError: naming the folder.
    """
    folder = local_path(address)
    if folder is None:
        return
    root = folder.parent.parent
    # Our experiments' folder is created together with them. If it is missing here, it was created on another machine.
    there = root if root.name == "artifacts" else next(path for path in (root, *root.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise TrackingError(
            f"{what} keeps its artifacts in {root}, which cannot be written here; choose another tracking.experiment"
            + ("" if store.is_server else " or tracking.dir")
        )


def close_orphans(store: Store) -> tuple[list[str], list[str]]:
    """Set RUNNING runs whose process has died to KILLED, in all experiments.

    The lock on a run's folder shows whether its process is alive; for a study, the locks of all of its processes do.

    Returns:
        The ids of the closed runs, which get an end time and the tag `interrupted=true`; and the ids of the runs that
        cannot be judged, because their folder or processes cannot be seen from here.

    Raises:
        TrackingError: if the store fails.
    """
    closed, unknown = [], []
    for run in _running(store):
        alive = process_is_alive(store, run)
        if alive is None:
            unknown.append(str(run.info.run_id))
        elif not alive:
            with mlflow_call():
                api = client(store)
                # It may have ended after it was listed. Its process is dead, so its status does not change any more.
                if api.get_run(run.info.run_id).info.status != "RUNNING":
                    continue
                api.set_tag(run.info.run_id, "interrupted", "true")
                api.set_terminated(run.info.run_id, "KILLED", int(time.time() * 1000))
            closed.append(str(run.info.run_id))
    return closed, unknown


def _running(store: Store) -> Iterator[Any]:
    """Yield every RUNNING run of scratch_dl, in all experiments."""
    runs = search_runs(store, "attributes.status = 'RUNNING'")
    return (run for run in runs if any(key.startswith("scratch_dl.") for key in run.data.tags))


def process_is_alive(store: Store, run: Any) -> bool | None:
    """Return whether a process works on a run; None if this cannot be seen from here.

    A training's process holds the lock of its folder; a study may have several, which its tags name.
    """
    if (folder := run.data.tags.get(FOLDER_TAG)) is not None:
        # On this machine, the same path may contain another run (the run's own may be on another machine or container).
        ours = _journal_run_id(Path(folder)) in (run.info.run_id, None)
        return is_folder_locked(Path(folder)) if ours else None
    workers = {key: is_alive(process, store.directory) for key, process in worker_processes(run.data.tags)}
    dead = [key for key, alive in workers.items() if alive is False]
    if len(dead) == len(workers):
        return False if dead else None
    for key in dead:  # so that the machine of the last living process can tell that no other one is alive
        with mlflow_call():
            client(store).delete_tag(run.info.run_id, key)
    return True if True in workers.values() else None


def find_folder(store: Store, run_id: str, key: str = "run") -> Path:
    """Return the local folder of a run: the one in its tag, or else the one below `tracking.dir` with its journal.

    Raises:
        TrackingError: if the store has no such run (the message names the nearest ones), or the run has no folder here.
    """
    run = select_run(store, run_id, key)
    folder = run.data.tags.get(FOLDER_TAG)
    if folder is None:
        raise TrackingError(f"{key}={run_id} was not created by scratch_dl: it has no tag {FOLDER_TAG}")
    if (located := locate_folder(run.info.run_id, Path(folder), store.directory)) is not None:
        return located
    raise TrackingError(
        f"{key}={run_id} was made in {folder}; neither that folder nor any in tracking.dir={store.directory} contains "
        "its journal: give the folder itself, or the tracking.dir that contains it"
    )


def locate_folder(run_id: str, known: Path, directory: Path | None) -> Path | None:
    """Return the folder that contains a run's journal: `known`, or else one below `directory`; None if there is none.

    `known` may be outdated after a move, or written by someone else: only the journal shows whose folder it is.
    """
    below: Iterable[Path] = () if directory is None else (path.parent for path in directory.rglob(JOURNAL))
    for folder in (known, *below):
        if _journal_run_id(folder) == run_id:
            return folder.absolute()
    return None


def _journal_run_id(folder: Path) -> str | None:
    try:
        with (folder / JOURNAL).open("rb") as file:
            return str(json.loads(file.readline())["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
