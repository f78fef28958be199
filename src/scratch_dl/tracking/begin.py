"""How a run begins, or goes on, in MLflow."""

import getpass
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scratch_dl.system.passwords import hide
from scratch_dl.tracking.database import patiently
from scratch_dl.tracking.errors import SettingError, TrackingError, UnavailableError
from scratch_dl.tracking.journal import Journal
from scratch_dl.tracking.lookup import FOLDER_TAG, check_active, check_artifacts, experiment_id, folder_of, get_run
from scratch_dl.tracking.process import process_tags, this_process
from scratch_dl.tracking.quiet import conversation
from scratch_dl.tracking.store import Store, client
from scratch_dl.tracking.values import texts


def new_record(
    store: Store, folder: Path, experiment: str, name: str | None, tags: Mapping[str, str], run_id: str | None
) -> Journal:
    """Begin a run in MLflow, and its record in `folder`; see `Run.create`."""
    experiment, name = hide(experiment), None if name is None else hide(name)
    every_tag = {**origin(), **texts("tag", tags), **process_tags(folder)}
    try:
        begin = adopted if run_id else begun
        info = patiently(lambda: begin(store, run_id or experiment, name, every_tag), store.shown)
    except UnavailableError as error:
        raise TrackingError(f"tracking.uri={store.shown} began no run: {error}") from None
    place = {"uri": store.address, "directory": str(store.directory), "folder": str(folder)}
    header = {"run_id": info.run_id, "experiment_id": info.experiment_id, **place, **this_process()}
    try:
        return Journal.create(folder, header)
    except (OSError, TrackingError):
        with conversation():
            client(store).set_terminated(info.run_id, "FAILED")
        raise


def resumed_record(store: Store, folder: Path, step: int) -> Journal:
    """Set the run of `folder` RUNNING again, and take out of its record what lies after `step`; see `Run.reopen`."""
    record = Journal(folder)
    run_id = record.header["run_id"]
    try:
        patiently(lambda: check_not_a_copy(store, run_id, folder), store.shown)
        patiently(lambda: taken_up(store, run_id, process_tags(folder)), store.shown)
    except UnavailableError as error:
        raise TrackingError(f"tracking.uri={store.shown} cannot go on with the run of {folder}: {error}") from None
    for entry in record.drop_unsent(lambda entry: entry["kind"] == "finish" or entry.get("step", 0) > step):
        for file in entry.get("files", ()):
            record.inside(file).unlink(missing_ok=True)
    record.append({"kind": "process", "reopened_at": step, **this_process()})
    return record


def begun(store: Store, experiment: str, name: str | None, tags: Mapping[str, str]) -> Any:
    """Begin a run in an experiment, which is made if it is missing, and return what MLflow says of it.

    Raises:
        TrackingError: if the experiment was deleted, or its artifacts cannot be written here.
    """
    with conversation():
        info = client(store).create_run(experiment_id(store, experiment), run_name=name, tags=dict(tags)).info
    try:
        check_artifacts(store, info.artifact_uri, f"tracking.experiment={experiment}")
    except TrackingError:
        with conversation():
            client(store).delete_run(info.run_id)
        raise
    return info


def adopted(store: Store, run_id: str, name: str | None, tags: Mapping[str, str]) -> Any:
    """Use a run that another program has made, as a launcher that sets MLFLOW_RUN_ID; return what MLflow says of it.

    Raises:
        TrackingError: if there is no such run, it was deleted or trained already, or its artifacts cannot be written.
    """
    run = get_run(store, run_id, "tracking.run_id")
    if FOLDER_TAG in run.data.tags:
        raise SettingError(
            f"run {run_id} was trained in {run.data.tags[FOLDER_TAG]}; tracking.run_id is for a run that is new"
        )
    check_artifacts(store, run.info.artifact_uri, f"run {run_id}")
    taken_up(store, run_id, {key: value for key, value in tags.items() if key not in run.data.tags})
    if name is not None:
        with conversation():
            client(store).update_run(run_id, name=name)
    return run.info


def check_not_a_copy(store: Store, run_id: str, folder: Path) -> None:
    """Refuse to go on in a copy of a run's folder while the store knows the run by the original.

    Raises:
        SettingError: naming both folders.
    """
    known = get_run(store, run_id).data.tags.get(FOLDER_TAG)
    original = folder_of(run_id, Path(known), None) if known else None
    if original is not None and original.resolve() != folder.resolve():
        raise SettingError(
            f"{folder} is a copy of the run in {original}, by which tracking.uri={store.shown} knows it; go on there: "
            f"{shlex.quote(f'resume={original}')}, or copy the whole tracking.dir"
        )


def taken_up(store: Store, run_id: str, tags: Mapping[str, str]) -> None:
    """Set a run RUNNING, with the tags of the process that works on it now.

    Raises:
        TrackingError: if there is no such run, or it was deleted.
    """
    check_active(store, get_run(store, run_id))
    with conversation():
        client(store).update_run(run_id, status="RUNNING")
        for key, value in tags.items():
            client(store).set_tag(run_id, key, value)


def origin() -> dict[str, str]:
    """Return the tags that fill the columns User and Source of MLflow's table."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "unknown"
    return {"mlflow.user": user, "mlflow.source.name": Path(sys.argv[0]).name, "mlflow.source.type": "LOCAL"}
