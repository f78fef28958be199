"""Experiments, runs left over, and the folders and files of runs already in a store."""

import difflib
import socket
import time
from pathlib import Path, PurePosixPath
from typing import Any

from scratch_dl.tracking.errors import TrackingError
from scratch_dl.tracking.process import is_alive, workers
from scratch_dl.tracking.store import Store, client, conversation

_PAGE = 1000


def experiment_id(store: Store, name: str) -> str:
    """Return the id of the experiment of this name, made if there is none.

    Its artifacts lie under the store's folder by ids, so that no name, however odd, becomes a path.

    Raises:
        TrackingError: if the name is empty or over 500 characters, or its experiment was deleted.
    """
    if not name.strip() or len(name) > 500:
        raise TrackingError(f"tracking.experiment must be a name of 1 to 500 characters, but got {name[:40]!r}")
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
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"tracking.experiment={name!r} was deleted; choose another name, or restore it: MLFLOW_TRACKING_URI="
            f"{store.shown} mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return str(found.experiment_id)


def close_orphans(store: Store, experiment: str) -> list[str]:
    """Set runs that are RUNNING by name only to KILLED: their process, on this host, is dead.

    A run that several processes work on (`Parent`) is one when the last of them is dead; those of other hosts are taken
    to live until a call there finds them dead.

    Returns:
        The ids of the runs closed; each has an end time and the tag `interrupted=true`.

    Raises:
        TrackingError: if the store fails.
    """
    host = socket.gethostname()
    closed = []
    with conversation():
        api = client(store)
        found = api.get_experiment_by_name(experiment)
        if found is None:
            return []
        for run in api.search_runs([found.experiment_id], "attributes.status = 'RUNNING'", max_results=_PAGE):
            if _is_abandoned(store, run, host):
                api.set_tag(run.info.run_id, "interrupted", "true")
                api.set_terminated(run.info.run_id, "KILLED", int(time.time() * 1000))
                closed.append(run.info.run_id)
    return closed


def _is_abandoned(store: Store, run: Any, host: str) -> bool:
    tags = run.data.tags
    if tags.get("scratch_dl.host") == host:
        return not is_alive(tags.get("scratch_dl.pid", ""), tags.get("scratch_dl.pid_started", ""))
    at_work = workers(tags)
    dead = [
        key
        for key, worker in at_work.items()
        if worker["host"] == host and not is_alive(worker["pid"], worker["pid_started"])
    ]
    if len(dead) == len(at_work):
        return bool(dead)
    for key in dead:  # so that the host of the last one can tell that it is
        client(store).delete_tag(run.info.run_id, key)
    return False


def find_folder(store: Store, run_id: str) -> Path:
    """Return the local folder of a run.

    Raises:
        TrackingError: if the store has no such run (the message names the nearest ones), or the run has no folder here.
    """
    folder = _get_run(store, run_id).data.tags.get("scratch_dl.folder")
    if folder is None:
        raise TrackingError(f"run={run_id} was not made by scratch_dl: it has no tag scratch_dl.folder")
    if not Path(folder).is_dir():
        raise TrackingError(f"run={run_id} was made in {folder}, which is not on this machine or was moved")
    return Path(folder)


def download(store: Store, run_id: str, artifact_path: str, into: Path) -> Path:
    """Copy an artifact (a file or a folder) of a run into the folder `into`, and return where it lies.

    Raises:
        TrackingError: if the store has no such run or artifact.
    """
    if PurePosixPath(artifact_path).is_absolute() or ".." in PurePosixPath(artifact_path).parts:
        raise TrackingError(f"an artifact's path must be relative and without '..', but got {artifact_path!r}")
    _get_run(store, run_id)
    into.mkdir(parents=True, exist_ok=True)
    try:
        with conversation():
            return Path(client(store).download_artifacts(run_id, artifact_path, str(into)))
    except (OSError, TrackingError):
        with conversation():
            folder = str(PurePosixPath(artifact_path).parent)
            there = [file.path for file in client(store).list_artifacts(run_id, None if folder == "." else folder)]
        raise TrackingError(
            f"run={run_id} has no artifact {artifact_path!r}; beside it there are: {', '.join(there) or 'none'}"
        ) from None


def _get_run(store: Store, run_id: str) -> Any:
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
        hint = f"the nearest are {', '.join(near)}" if near else "it has no runs: train first"
        raise TrackingError(f"run={run_id} is not in tracking.uri={store.shown}; {hint}") from error
