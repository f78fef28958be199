"""The runs that are compared, and what each has recorded."""

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratch_dl import tracking
from scratch_dl.system.errors import ConfigError
from scratch_dl.tracking.selection import best_of_experiment, get_run
from scratch_dl.tracking.store import open_existing_store
from scratch_dl.training.result import CONFIG, read_summary
from scratch_dl.training.resume import find_folder, recorded_config

MARKS = string.ascii_uppercase
_NAME = "mlflow.runName"


@dataclass(frozen=True)
class ComparedRun:
    """What a run has recorded.

    Attributes:
        mark: the letter that stands for it in tables and pictures.
        name: of the run.
        run_id: in MLflow.
        folder: of its local files.
        config: its settings, nested.
        summary: the content of its summary.json; empty if it has none.
        history: (step, value) of every metric.
        status: FINISHED, FAILED or KILLED; None if it has not ended.
        tags: as MLflow has them; empty if its store cannot be asked.
        environment: of the process that trained it; empty if it was not recorded.
        digest: of its data; "" if it was not recorded.
        parameters: how many the network has; None if that was not recorded.
    """

    mark: str
    name: str
    run_id: str
    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    history: dict[str, list[tuple[int, float]]]
    status: str | None
    tags: dict[str, str]
    environment: dict[str, Any]
    digest: str
    parameters: int | None

    @property
    def label(self) -> str:
        """Mark and name."""
        return f"{self.mark} {self.name}"


def chosen_folders(settings: Mapping[str, Any]) -> tuple[list[Path], Path]:
    """Return the folders of the runs to compare, each once, and that of the baseline.

    Raises:
        ConfigError: if a run or the experiment does not exist, there are fewer than two or too many runs, or the
            baseline is none of them.
    """
    words, where = settings["runs"], settings["tracking"]
    if not isinstance(words, list):
        raise ConfigError(f"runs must be a list of runs, for example scratch-dl compare latest best, but got {words!r}")
    folders = [find_folder(str(word), where, "runs") for word in words]
    if (experiment := settings["best_of"]) is not None:
        store = open_existing_store(where, f"experiment {experiment!r}")
        best = best_of_experiment(store, str(experiment), settings["best"])
        folders += [find_folder(run.info.run_id, where, "experiment") for run in best]
    folders = list(dict.fromkeys(folder.resolve() for folder in folders))
    if len(folders) < 2:
        given = f"{len(folders)} ({', '.join(folder.name for folder in folders)})" if folders else "none"
        raise ConfigError(
            f"runs must be at least two different runs, but got {given}; for example: scratch-dl compare latest best, "
            "or experiment=<name> best=5"
        )
    if len(folders) > len(MARKS):
        raise ConfigError(f"runs must be at most {len(MARKS)}, but got {len(folders)}; compare fewer at a time")
    for folder in folders:
        if not (folder / CONFIG).is_file():
            raise ConfigError(f"runs must be trainings, but the run in {folder} has no {CONFIG}; leave it out")
    if settings["baseline"] is None:
        return folders, folders[0]
    baseline = find_folder(str(settings["baseline"]), where, "baseline").resolve()
    if baseline not in folders:
        names = ", ".join(folder.name for folder in folders)
        raise ConfigError(
            f"baseline={settings['baseline']} must be one of the compared runs, {names}; name it among them, "
            "or leave baseline out"
        )
    return folders, baseline


def read_runs(folders: Sequence[Path], settings: Mapping[str, Any]) -> list[ComparedRun]:
    """Return what the runs have recorded, marked in their order.

    Raises:
        ConfigError: if a folder lacks what every run has, or contains something damaged.
    """
    return [_read(folder, mark, settings) for folder, mark in zip(folders, MARKS, strict=False)]


def _read(folder: Path, mark: str, settings: Mapping[str, Any]) -> ComparedRun:
    try:
        journal = tracking.Journal(folder, repair=False)
        history, (status, _) = journal.history(), journal.ending()
        entries = [entry for entry in journal.entries() if entry["kind"] in ("params", "dataset")]
    except tracking.TrackingError as error:
        raise ConfigError(f"runs: {error}; leave it out") from error
    params = {key: value for entry in entries if entry["kind"] == "params" for key, value in entry["values"].items()}
    digests = [str(entry["description"]["digest"]) for entry in entries if entry["kind"] == "dataset"]
    run_id = str(journal.header["run_id"])
    tags = _tags(folder, run_id, settings)
    count = str(params.get("parameters", ""))
    return ComparedRun(
        mark=mark,
        name=tags.get(_NAME) or folder.name,
        run_id=run_id,
        folder=folder,
        config=recorded_config(folder),
        summary=read_summary(folder),
        history=history,
        status=status,
        tags=tags,
        environment=_environment(folder),
        digest=digests[-1] if digests else "",
        parameters=int(count) if count.isdecimal() else None,
    )


def _tags(folder: Path, run_id: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the run's tags from the store of the settings, or else from the one that it was recorded in."""
    for own in (False, True):
        try:
            if own:
                store = tracking.open_store(*tracking.store_location(folder))
            else:
                store = open_existing_store(settings["tracking"])
            return dict(get_run(store, run_id).data.tags)
        except (tracking.TrackingError, ConfigError, OSError):
            continue
    return {}


def _environment(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / tracking.ARTIFACTS / "environment.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
