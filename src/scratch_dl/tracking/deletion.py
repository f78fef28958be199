"""Deletes runs: first in MLflow, which keeps their numbers, and then their files here, which nothing brings back.

In this order, a crash leaves no run that MLflow still shows while its files are gone; `plan_deletions` with the run's
whole id and `delete_run` then remove what is left.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratch_dl.system.files import os_error_message
from scratch_dl.tracking.artifacts import ARTIFACTS
from scratch_dl.tracking.database import retry_while_locked
from scratch_dl.tracking.errors import SettingError, TrackingError, UnavailableError
from scratch_dl.tracking.journal import JOURNAL
from scratch_dl.tracking.locks import RUN_LOCK, BusyError, folder_lock, is_folder_locked
from scratch_dl.tracking.lookup import FOLDER_TAG, locate_folder, process_is_alive
from scratch_dl.tracking.mlflow_calls import mlflow_call
from scratch_dl.tracking.registry import CHAMPION
from scratch_dl.tracking.relocation import local_path
from scratch_dl.tracking.selection import BEST, LATEST, get_run, select_run
from scratch_dl.tracking.store import Store, client

_ACTIVE, _NOT_FOUND = "active", "RESOURCE_DOES_NOT_EXIST"
# What lies in a run's folder, with Hydra's own files and what a killed process leaves. A folder that a user chose as
# hydra.run.dir may have other things in it.
_OF_A_RUN = re.compile(
    r"artifacts|checkpoints|config\.yaml|summary\.json|journal\.jsonl|sent\.json|lock|owner\.json|output\.txt"
    r"|\.hydra|\w+\.log|.+\.tmp|tmp\w{8}"
)


@dataclass(frozen=True)
class Deletion:
    """What is deleted with a run.

    Attributes:
        run: MLflow's.
        models: ids of its logged models that MLflow shows.
        folder: the local one; None if it is not here.
        artifacts: folders below the store's artifacts: that of the run and those of its models.
        remote: the address of its artifacts if they are not there, and so are not deleted; else None.
    """

    run: Any
    models: tuple[str, ...]
    folder: Path | None
    artifacts: tuple[Path, ...]
    remote: str | None

    @property
    def is_shown(self) -> bool:
        """Whether MLflow still shows the run."""
        return bool(self.run.info.lifecycle_stage == _ACTIVE)


def plan_deletions(store: Store, names: Sequence[str], key: str = "runs") -> list[Deletion]:
    """Return what has to be deleted of the runs with these ids or beginnings of ids, each of which may be deleted.

    Raises:
        SettingError: if there is no such run, nothing of it is left, or it is named LATEST or BEST.
        TrackingError: if one is running, its model is the champion, or its folder has something else in it.
    """
    runs = {}
    for name in names:
        run_id = str(select_run(store, name, key).info.run_id)
        if name in (LATEST, BEST):
            raise SettingError(
                f"{key} must be ids, because {name} may be another run next time, but got {name!r}; now it is {run_id}"
            )
        runs[run_id] = get_run(store, run_id, key)  # as it is now, and with its models
    champions = list(_champions(store))
    return [_planned(store, run, champions, key) for run in runs.values()]


def _planned(store: Store, run: Any, champions: Sequence[Any], key: str) -> Deletion:
    run_id, tag = str(run.info.run_id), run.data.tags.get(FOLDER_TAG)
    title = f"{run_id} ({run.info.run_name})"
    folder = None if tag is None else locate_folder(run_id, Path(tag), store.directory)
    alive = process_is_alive(store, run) if folder is None else is_folder_locked(folder)
    if alive or (alive is None and run.info.status == "RUNNING"):
        how = "running" if alive else "RUNNING, and whether its process lives cannot be seen from here"
        raise TrackingError(f"{title} is {how}; wait for it or end it, then delete it")
    if folder is not None and (other := _other_thing(store, folder)) is not None:
        raise TrackingError(
            f"{title} has the folder {folder}, in which {other} is not its own; move that elsewhere, then delete it"
        )
    shown, known = _models(store, run)
    for version in champions:
        if any(each in f"{version.run_id} {version.source}" for each in (run_id, *known)):
            raise TrackingError(
                f"{title} is the {CHAMPION} of the registered model {version.name} (version {version.version}); give "
                "another version this alias first, for example in MLflow's pages: python -m scratch_dl.ui"
            )
    artifacts, remote = _artifacts(store, run, known)
    planned = Deletion(run, shown, folder, artifacts, remote)
    if not planned.is_shown and folder is None and not artifacts:
        raise SettingError(f"{key}={run_id} is deleted already, and nothing of it is left here")
    return planned


def delete_run(store: Store, deletion: Deletion) -> None:
    """Delete a run in MLflow, then its artifacts and models, then its folder, the journal last.

    Raises:
        TrackingError: if something cannot be deleted, for example because a process has begun to work in the folder;
            the message says whether MLflow still shows the run.
    """
    folder, run_id, is_shown = deletion.folder, str(deletion.run.info.run_id), deletion.is_shown
    try:
        with contextlib.nullcontext() if folder is None else folder_lock(folder):
            if is_shown:
                retry_while_locked(lambda: _call(store, "delete_run", run_id), store.shown)
                is_shown = False
            for model in deletion.models:
                _call(store, "delete_logged_model", model)
            for place in deletion.artifacts:
                _remove(place)
            if folder is not None:
                _remove_folder(folder)
    except (TrackingError, BusyError, OSError) as error:
        reason = os_error_message(error) if isinstance(error, OSError) else error
        state = "MLflow still shows it" if is_shown else "it is deleted in MLflow, but some of its files are left"
        raise TrackingError(f"{state} ({reason})") from error


def _call(store: Store, method: str, name: str) -> None:
    with mlflow_call():
        getattr(client(store), method)(name)


def _remove_folder(folder: Path) -> None:
    """Remove a run's folder; until the end it has the journal, which says whose it is, and the lock."""
    for path in sorted(folder.iterdir(), key=lambda path: (path.name == JOURNAL, path.name == RUN_LOCK)):
        _remove(path)
    folder.resolve().rmdir()
    if folder.is_symlink():
        folder.unlink()


def _remove(path: Path) -> None:
    """Remove a file, a link, or a folder with everything in it; links in it are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _other_thing(store: Store, folder: Path) -> Path | None:
    """Return something in a run's folder that is not the run's own, such as another run or the store; None if none."""
    for path in sorted(folder.iterdir()):
        if not _OF_A_RUN.fullmatch(path.name):
            return path
    if store.directory.resolve().is_relative_to(folder.resolve()):
        return store.directory
    return next((path.parent for path in folder.rglob(JOURNAL) if path.parent != folder), None)


def _models(store: Store, run: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the ids of a run's logged models: of those that MLflow shows, and of all, the deleted ones included.

    A search does not find a deleted model, but the run still names it as its output.
    """
    run_id, token, shown = run.info.run_id, None, []
    while token != "":
        with mlflow_call():
            page = client(store).search_logged_models(
                [run.info.experiment_id], f"source_run_id = '{run_id}'", page_token=token
            )
        shown += [str(model.model_id) for model in page]
        token = page.token or ""
    outputs = [str(output.model_id) for output in (run.outputs.model_outputs if run.outputs else [])]
    deleted = [model for model in outputs if model not in shown and _is_deleted(store, model)]
    return tuple(shown), (*shown, *deleted)


def _is_deleted(store: Store, model: str) -> bool:
    """Return whether a logged model is deleted; if it is not, a run that names it may not be the one that made it."""
    try:
        with mlflow_call():
            client(store).get_logged_model(model)
    except UnavailableError as error:
        if getattr(error.__cause__, "error_code", None) == _NOT_FOUND:
            return True
        raise
    return False


def _artifacts(store: Store, run: Any, models: Sequence[str]) -> tuple[tuple[Path, ...], str | None]:
    """Return the existing folders of a run's artifacts and models below the store's artifacts, and other artifacts."""
    address = str(run.info.artifact_uri)
    root = local_path(store.artifact_location or "none:")
    own = local_path(address)  # <an experiment's folder>/<the run's id>/artifacts
    if (
        root is None
        or own is None
        or (own.parent.name, own.name) != (run.info.run_id, ARTIFACTS)
        or not own.resolve().is_relative_to(root.resolve())
    ):
        return (), address
    folders = [own.parent, *(own.parents[1] / "models" / model for model in models if re.fullmatch(r"[\w-]+", model))]
    return tuple(folder for folder in folders if folder.is_dir()), None


def _champions(store: Store) -> Iterator[Any]:
    """Yield the version that has the alias CHAMPION, of every registered model that has one."""
    token = None
    while token != "":
        with mlflow_call():
            page = client(store).search_registered_models(page_token=token)
        for model in page:
            if CHAMPION in model.aliases:
                with mlflow_call():
                    version = client(store).get_model_version_by_alias(model.name, CHAMPION)
                yield version
        token = page.token or ""
