"""A trial inside its job: it trains, reports each epoch to the study, stops when told to, and returns its result."""

import contextlib
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from scratch_dl import tracking
from scratch_dl.cli.errors import in_one_line
from scratch_dl.config.build import build
from scratch_dl.config.composing import given_overrides
from scratch_dl.config.metrics import metric_names
from scratch_dl.diagnosis import Verdict
from scratch_dl.kernels.restoring import restored
from scratch_dl.models import count_parameters
from scratch_dl.search.settings import SearchSettings, read_settings
from scratch_dl.search.storage import StorageError, open_storage, quiet
from scratch_dl.search.stored_trials import trial_id
from scratch_dl.search.trial_result import State
from scratch_dl.system.checks import nearest
from scratch_dl.system.files import disk_advice
from scratch_dl.training.result import RunResult, read_summary
from scratch_dl.training.run import train_run

OUTPUT = "output.txt"
PARAMETERS = "parameters"


class Trial:
    """What the training is a part of: see `scratch_dl.training.description.Part`.

    Args:
        settings: of the search.
        number: of the trial.
        epochs: how many are asked for.

    Attributes:
        name: of its MLflow run.
        tags: of its MLflow run.
        pruned: why the training was stopped; "" if it was not.
        epochs: how many have been trained.
    """

    def __init__(self, settings: SearchSettings, number: int, epochs: int) -> None:
        self.settings = settings
        self.number = number
        self.name = f"trial-{number}"
        self.pruned = ""
        self.epochs, self.n_epochs = 0, epochs
        self._values: list[float] = []
        with quiet():
            self._study = optuna.load_study(study_name=settings.study_name, storage=open_storage(settings.storage))
            parent = (self._study.user_attrs.get("mlflow") or {}).get("run_id")
        self.tags: Mapping[str, str] = {"study": settings.study_name, "trial": str(number)}
        if parent:
            self.tags = {**self.tags, "mlflow.parentRunId": parent}

    def on_epoch(self, epoch: int, scores: Mapping[str, float]) -> str | None:
        """Report an epoch to the study; return why the training is to stop, or None."""
        self.epochs = epoch
        objective = self.settings.objectives[0]
        if self.settings.pruner.name == "none" or not math.isfinite(value := scores.get(objective.name, math.nan)):
            return None
        # What the objective would be if the training ended here, so that a pruned trial has one value everywhere.
        self._values.append(value)
        value = objective.pick(self._values)
        with quiet():
            trial = optuna.trial.Trial(self._study, trial_id(self._study, self.number))
            trial.report(value, epoch)
            self._study.pruner = self.settings.make_pruner(self.n_epochs)
            if epoch >= self.n_epochs or not trial.should_prune():
                return None
        self.pruned = f"pruned at epoch {epoch}: {objective.name} {value:.4g} is behind that of other trials"
        return self.pruned


@restored()
def run_trial(config: DictConfig, folder: Path, number: int) -> dict[str, Any]:
    """Train as a trial of a study; what is printed meanwhile goes to a file in `folder`.

    Returns:
        The trial's result as plain values and, after a signal, an `exit_status`.

    Raises:
        Interrupted: by a signal that came outside the training.
        TrackingError, StorageError, OSError: if the environment caused an error, see `is_environment_error`.
    """
    started = time.monotonic()
    settings = read_settings(HydraConfig.get(), config.tracking.dir, metric_names(config.metrics))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / OUTPUT).open("w", encoding="utf-8") as output, contextlib.redirect_stdout(output):
        trial = Trial(settings, number, config.trainer.epochs)
        result = _train(config, folder, trial)
    return {**result, "folder": str(folder), "epochs": trial.epochs, "seconds": round(time.monotonic() - started, 2)}


def is_environment_error(error: Exception) -> bool:
    """Whether the environment caused the error (store unreachable, disk full).

    If so, the trial should be retried rather than marked as failed.
    """
    return isinstance(error, tracking.TrackingError | StorageError) or disk_advice(error) is not None


def _train(config: DictConfig, folder: Path, trial: Trial) -> dict[str, Any]:
    result: dict[str, Any] = {"state": State.FAILED}
    try:
        setup = build(config)
        result["parameters"] = count_parameters(setup.network)
        run_result = train_run(setup, folder, given_overrides(HydraConfig.get()), part=trial)
    except Exception as error:
        if is_environment_error(error):
            raise
        result["reason"] = in_one_line(error)
    else:
        result |= _state_and_values(run_result, trial, result["parameters"])
    return {**_from_summary(folder), **result}


def _state_and_values(run_result: RunResult, trial: Trial, parameters: int) -> dict[str, Any]:
    """Return state, reason and values for a training that was not ended by an error."""
    if run_result.exit_status:
        return {"state": State.KILLED, "reason": "stopped by a signal", "exit_status": run_result.exit_status}
    history = tracking.Journal(run_result.folder).history()
    history[PARAMETERS] = [(0, float(parameters))]
    values = []
    for objective in trial.settings.objectives:
        logged = [value for _, value in history.get(objective.name, [])]
        if not logged:
            near = nearest(objective.name, list(history)) or f"; there are: {', '.join(sorted(history))}"
            return {
                "state": State.FAILED,
                "reason": f"hydra.sweeper.objective: {objective.name} has no finite value{near}",
            }
        values.append(objective.pick(logged))
    return {"state": State.PRUNED if trial.pruned else State.COMPLETE, "reason": trial.pruned, "values": values}


def _from_summary(folder: Path) -> dict[str, Any]:
    """Return what the run's summary adds to the trial's result; empty texts if the run has written none."""
    summary = read_summary(folder)
    verdict = summary.get("diagnosis") or {}
    return {
        "cause": verdict.get("cause", ""),
        "verdict": Verdict.from_json(verdict).line if verdict else "",
        "cure": verdict.get("cure", ""),
        "output_class": summary.get("output_class") or "",
        "verification": summary.get("verification", ""),
        "run_id": summary.get("run_id", ""),
        "experiment_id": summary.get("experiment_id", ""),
    }
