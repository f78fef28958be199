"""Creates or continues a training's run in MLflow, and its journal."""

import getpass
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scratch_dl.system.passwords import hide
from scratch_dl.tracking.database import retry_while_locked
from scratch_dl.tracking.errors import SettingError, TrackingError, UnavailableError
from scratch_dl.tracking.journal import Journal
from scratch_dl.tracking.lookup import FOLDER_TAG, check_active, check_artifacts, experiment_id, locate_folder
from scratch_dl.tracking.mlflow_calls import mlflow_call
from scratch_dl.tracking.process import this_process
from scratch_dl.tracking.selection import get_run
from scratch_dl.tracking.store import Store, client
from scratch_dl.tracking.values import clip_tag, texts


def start_run(
    store: Store, folder: Path, experiment: str, name: str | None, tags: Mapping[str, str], run_id: str | None
) -> Journal:
    """Create a run in MLflow and its journal in `folder`; see `Run.create`."""
    experiment, name = hide(experiment), None if name is None else hide(name)
    own = {key: clip_tag(key, text) for key, text in texts("tag", tags).items()}  # create_run cuts nothing
    every_tag = {**origin_tags(), **own, FOLDER_TAG: str(folder)}
    try:
        create = adopt_mlflow_run if run_id else create_mlflow_run
        info = retry_while_locked(lambda: create(store, run_id or experiment, name, every_tag), store.shown)
    except UnavailableError as error:
        raise TrackingError(f"tracking.uri={store.shown} could not create a run: {error}") from None
    place = {"uri": store.address, "directory": str(store.directory), "folder": str(folder)}
    header = {"run_id": info.run_id, "experiment_id": info.experiment_id, **place, **this_process()}
    try:
        return Journal.create(folder, header)
    except (OSError, TrackingError):
        with mlflow_call():
            client(store).set_terminated(info.run_id, "FAILED")
        raise


def continue_run(store: Store, folder: Path, step: int) -> Journal:
    """Set the run of `folder` RUNNING again, and drop unsent journal entries after `step`; see `Run.reopen`."""
    journal = Journal(folder)
    run_id = journal.header["run_id"]
    try:
        retry_while_locked(lambda: check_not_a_copy(store, run_id, folder), store.shown)
        retry_while_locked(lambda: set_running(store, run_id, {FOLDER_TAG: str(folder)}), store.shown)
    except UnavailableError as error:
        raise TrackingError(f"tracking.uri={store.shown} cannot continue the run of {folder}: {error}") from None
    for entry in journal.drop_unsent(lambda entry: entry["kind"] == "finish" or entry.get("step", 0) > step):
        for file in entry.get("files", ()):
            journal.inside(file).unlink(missing_ok=True)
    journal.append({"kind": "process", "reopened_at": step, **this_process()})
    return journal


def create_mlflow_run(store: Store, experiment: str, name: str | None, tags: Mapping[str, str]) -> Any:
    """Create a run in an experiment, which is created if it is missing, and return MLflow's RunInfo.

    Raises:
        TrackingError: if the experiment was deleted, or its artifacts cannot be written here.
    """
    with mlflow_call():
        info = client(store).create_run(experiment_id(store, experiment), run_name=name, tags=dict(tags)).info
    try:
        check_artifacts(store, info.artifact_uri, f"tracking.experiment={experiment}")
    except TrackingError:
        with mlflow_call():
            client(store).delete_run(info.run_id)
        raise
    return info


def adopt_mlflow_run(store: Store, run_id: str, name: str | None, tags: Mapping[str, str]) -> Any:
    """Use a run that another program created (a launcher that sets MLFLOW_RUN_ID), and return its RunInfo.

    Raises:
        TrackingError: if there is no such run, it was deleted, it was already used for a training, or its artifacts
            cannot be written.
    """
    run = get_run(store, run_id, "tracking.run_id")
    if FOLDER_TAG in run.data.tags:
        raise SettingError(
            f"run {run_id} was trained in {run.data.tags[FOLDER_TAG]}; tracking.run_id must name a new run"
        )
    check_artifacts(store, run.info.artifact_uri, f"run {run_id}")
    set_running(store, run_id, {key: value for key, value in tags.items() if key not in run.data.tags})
    if name is not None:
        with mlflow_call():
            client(store).update_run(run_id, name=name)
    return run.info


def check_not_a_copy(store: Store, run_id: str, folder: Path) -> None:
    """Refuse to continue in a copy of a run's folder while the original, which the store refers to, still exists.

    Raises:
        SettingError: naming both folders.
    """
    tag = get_run(store, run_id).data.tags.get(FOLDER_TAG)
    original = locate_folder(run_id, Path(tag), None) if tag else None
    if original is not None and original.resolve() != folder.resolve():
        raise SettingError(
            f"{folder} is a copy of the run in {original}, to which tracking.uri={store.shown} refers; continue there: "
            f"{shlex.quote(f'resume={original}')}, or copy the whole tracking.dir"
        )


def set_running(store: Store, run_id: str, tags: Mapping[str, str]) -> None:
    """Set a run RUNNING, and set its tags to those of the process that works on it now.

    Raises:
        TrackingError: if there is no such run, or it was deleted.
    """
    check_active(store, get_run(store, run_id))
    with mlflow_call():
        client(store).update_run(run_id, status="RUNNING")
        for key, value in tags.items():
            client(store).set_tag(run_id, key, value)


def origin_tags() -> dict[str, str]:
    """Return the tags that fill the columns User and Source of MLflow's table."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container the user may have no name
        user = "unknown"
    return {"mlflow.user": user, "mlflow.source.name": Path(sys.argv[0]).name, "mlflow.source.type": "LOCAL"}
