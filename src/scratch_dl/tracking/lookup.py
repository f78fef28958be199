"""Experiments, runs left over, and the folders and files of runs already in a store."""

import difflib
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
from scratch_dl.tracking.journal import RECORD
from scratch_dl.tracking.locks import is_claimed
from scratch_dl.tracking.moved import local_path
from scratch_dl.tracking.process import is_alive, workers
from scratch_dl.tracking.quiet import conversation
from scratch_dl.tracking.store import Store, client, full_uri, open_store, probe

_PAGE = 1000
FOLDER_TAG = "scratch_dl.folder"


def experiment_id(store: Store, name: str) -> str:
    """Return the id of the experiment of this name, made if there is none.

    Its artifacts lie under the store's folder by ids, so that no name, however odd, becomes a path.

    Raises:
        TrackingError: if the name is empty or over 500 characters, or its experiment was deleted.
    """
    if not name.strip() or len(name) > 500:
        raise SettingError(f"tracking.experiment must be a name of 1 to 500 characters, but got {name[:40]!r}")
    with conversation():
        api = client(store)
        found = api.get_experiment_by_name(name)
        if found is None:
            try:
                return str(api.create_experiment(name, artifact_location=store.artifact_location))
            except Exception:
                found = api.get_experiment_by_name(name)  # another process was faster
                if found is None:
                    raise
    check_experiment(store, found)
    return str(found.experiment_id)


def check_store(directory: Path | str, uri: str | None, experiment: str, run_id: str | None = None) -> None:
    """Refuse a store, an experiment or a run in which a training could not begin, where that is known; no run is made.

    Raises:
        TrackingError: with what is wrong; a SettingError if it is a setting.
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
        raise SettingError(f"tracking.run_id={run_id} is not in tracking.uri={store.shown}, which is not there yet")
    else:
        return
    with conversation():
        found = client(store).get_experiment_by_name(experiment)
    if found is not None:  # else it will be made
        check_experiment(store, found)
    if run_id is not None:
        check_active(store, get_run(store, run_id, "tracking.run_id"))


def is_taken(store: Store, run_id: str) -> str | None:
    """Return the folder of the training that a run has already; None if it has none."""
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
    """Refuse a run whose artifacts cannot be written where its experiment keeps them, as on another machine.

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
    # An experiment of ours lies in a folder that was made with it: where that is not, it was made elsewhere.
    there = root if root.name == "artifacts" else next(path for path in (root, *root.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise TrackingError(
            f"{what} keeps its artifacts in {root}, which cannot be written here; choose another tracking.experiment"
            + ("" if store.is_server else " or tracking.dir")
        )


def close_orphans(store: Store) -> tuple[list[str], list[str]]:
    """Set runs that are RUNNING by name only to KILLED, in all experiments.

    The lock on a run's folder says whether its process lives, and for a study, which several processes work on, the
    locks of all of them.

    Returns:
        The ids of the runs closed, each with an end time and the tag `interrupted=true`; and of those that cannot be
        judged, since their folder or processes cannot be seen from here.

    Raises:
        TrackingError: if the store fails.
    """
    closed, unknown = [], []
    for run in _running(store):
        alive = _is_alive(store, run)
        if alive is None:
            unknown.append(str(run.info.run_id))
        elif not alive:
            with conversation():
                api = client(store)
                # It may have ended since it was listed. Its process cannot end it any more, so this is its last word.
                if api.get_run(run.info.run_id).info.status != "RUNNING":
                    continue
                api.set_tag(run.info.run_id, "interrupted", "true")
                api.set_terminated(run.info.run_id, "KILLED", int(time.time() * 1000))
            closed.append(str(run.info.run_id))
    return closed, unknown


def _running(store: Store) -> Iterator[Any]:
    """Every run of ours that is RUNNING, in whatever experiment."""
    with conversation():
        api = client(store)
        experiments = [each.experiment_id for each in api.search_experiments(max_results=_PAGE)]
        found = api.search_runs(experiments, "attributes.status = 'RUNNING'", max_results=_PAGE) if experiments else []
    return (run for run in found if any(key.startswith("scratch_dl.") for key in run.data.tags))


def _is_alive(store: Store, run: Any) -> bool | None:
    if (folder := run.data.tags.get(FOLDER_TAG)) is not None:
        # The same path may be another machine's, or a container's, with a run of its own.
        ours = _recorded_id(Path(folder)) in (run.info.run_id, None)
        return is_claimed(Path(folder)) if ours else None
    known = {key: is_alive(process, store.directory) for key, process in workers(run.data.tags)}
    dead = [key for key, alive in known.items() if alive is False]
    if len(dead) == len(known):
        return False if dead else None
    for key in dead:  # so that the machine of the last one can tell that it is
        with conversation():
            client(store).delete_tag(run.info.run_id, key)
    return True if True in known.values() else None


def find_folder(store: Store, run_id: str, key: str = "run") -> Path:
    """Return the local folder of a run: where its tag says, or else wherever below `tracking.dir` its record lies.

    Raises:
        TrackingError: if the store has no such run (the message names the nearest ones), or the run has no folder here.
    """
    folder = get_run(store, run_id, key).data.tags.get(FOLDER_TAG)
    if folder is None:
        raise TrackingError(f"{key}={run_id} was not made by scratch_dl: it has no tag {FOLDER_TAG}")
    if (found := folder_of(run_id, Path(folder), store.directory)) is not None:
        return found
    raise TrackingError(
        f"{key}={run_id} was made in {folder}; neither that folder nor one in tracking.dir={store.directory} has its "
        "record: give the folder itself, or the tracking.dir that it lies in"
    )


def folder_of(run_id: str, known: Path, directory: Path | None) -> Path | None:
    """Return the folder of a run: the one that it is known by, or else the one below `directory` with its record.

    The known one may be of before a move, or what somebody else has written: only the record says whose folder it is.
    """
    below: Iterable[Path] = () if directory is None else (path.parent for path in directory.rglob(RECORD))
    for folder in (known, *below):
        if _recorded_id(folder) == run_id:
            return folder.absolute()
    return None


def _recorded_id(folder: Path) -> str | None:
    try:
        with (folder / RECORD).open("rb") as file:
            return str(json.loads(file.readline())["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def get_run(store: Store, run_id: str, key: str = "run") -> Any:
    """Return a run of the store.

    Raises:
        SettingError: if there is none of this id; the message begins with `key` and names the nearest ones.
    """
    try:
        with conversation():
            return client(store).get_run(run_id)
    except TrackingError as error:
        with conversation():
            api = client(store)
            experiments = [each.experiment_id for each in api.search_experiments(max_results=_PAGE)]
            known = [run.info.run_id for run in api.search_runs(experiments, max_results=_PAGE)]
        if run_id in known:
            raise
        near = [each for each in known if run_id and each.startswith(run_id)][:3]
        near = near or difflib.get_close_matches(run_id, known, n=3, cutoff=0.3) or known[:3]
        hint = f"the nearest are {', '.join(near)}" if near else "it has no runs"
        raise SettingError(f"{key}={run_id} is not in tracking.uri={store.shown}; {hint}") from error
