"""A trial inside its job: it trains, tells the study of each epoch, stops when told, and says what came of it."""

import contextlib
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from scratch_dl import tracking
from scratch_dl.cli.errors import in_one_line
from scratch_dl.config.build import build
from scratch_dl.config.composing import overrides_of
from scratch_dl.kernels.restoring import restored
from scratch_dl.models import count_parameters
from scratch_dl.search.outcomes import COMPLETE, FAILED, KILLED, PRUNED, is_copied
from scratch_dl.search.settings import Settings, read_settings
from scratch_dl.search.storage import StorageError, open_storage, quiet
from scratch_dl.system.checks import nearest
from scratch_dl.system.files import cure
from scratch_dl.training.result import RunResult, read_summary
from scratch_dl.training.run import train_run

if TYPE_CHECKING:
    import optuna

OUTPUT = "output.txt"
PARAMETERS = "parameters"


class Trial:
    """What a training is a part of: see `scratch_dl.training.description.Part`.

    Attributes:
        name: of its MLflow run.
        tags: of its MLflow run.
        pruned: why it was stopped; empty if it was not.
    """

    def __init__(self, settings: Settings, number: int, epochs: int) -> None:
        self.settings = settings
        self.number = number
        self.name = f"trial-{number}"
        self.pruned = ""
        self.epochs, self.length = 0, epochs
        with quiet():
            self._study = self._load()
            parent = (self._study.user_attrs.get("mlflow") or {}).get("run_id")
        self.tags: Mapping[str, str] = {"study": settings.study_name, "trial": str(number)}
        if parent:
            self.tags = {**self.tags, "mlflow.parentRunId": parent}

    def on_epoch(self, epoch: int, scores: Mapping[str, float]) -> str | None:
        """Tell the study of an epoch; why the training is to stop, or None."""
        import optuna

        self.epochs = epoch
        objective = self.settings.objectives[0]
        if self.settings.pruner.name == "none" or not math.isfinite(value := scores.get(objective.name, math.nan)):
            return None
        with quiet():
            storage = self._study._storage
            own = storage.get_trial_id_from_study_id_trial_number(self._study._study_id, self.number)
            trial = optuna.trial.Trial(self._study, own)
            trial.report(value, epoch)
            self._study.pruner = self.settings.make_pruner(self.length, self._copies())
            if epoch >= self.length or not trial.should_prune():
                return None
        self.pruned = f"pruned at epoch {epoch}: {objective.name} {value:.4g} is behind that of other trials"
        return self.pruned

    def _load(self) -> "optuna.Study":
        import optuna

        return optuna.load_study(study_name=self.settings.study_name, storage=open_storage(self.settings.storage))

    def _copies(self) -> int:
        """How many complete trials are copies of others."""
        from optuna.trial import TrialState

        trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return sum(is_copied(trial.user_attrs) for trial in trials)


@restored()
def run_trial(config: DictConfig, folder: Path, number: int) -> dict[str, Any]:
    """Train as a trial of a study; the outcome as plain values. What is printed meanwhile goes to a file in `folder`.

    Raises:
        Interrupted: by a signal that came outside of the training.
    """
    started = time.monotonic()
    settings = read_settings(HydraConfig.get(), config.tracking.dir)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / OUTPUT).open("w", encoding="utf-8") as output, contextlib.redirect_stdout(output):
        trial = Trial(settings, number, config.trainer.epochs)
        outcome = _attempt(config, folder, trial)
    return {**outcome, "folder": str(folder), "epochs": trial.epochs, "seconds": round(time.monotonic() - started, 2)}


def is_of_surroundings(error: Exception) -> bool:
    """Whether the environment caused the error (store unreachable, disk full), so that the trial is to be retried."""
    return isinstance(error, tracking.TrackingError | StorageError) or cure(error) is not None


def _attempt(config: DictConfig, folder: Path, trial: Trial) -> dict[str, Any]:
    known: dict[str, Any] = {"state": FAILED}
    try:
        setup = build(config)
        known["parameters"] = count_parameters(setup.network)
        result = train_run(setup, folder, overrides_of(HydraConfig.get()), part=trial)
    except Exception as error:
        if is_of_surroundings(error):
            raise
        known["reason"] = in_one_line(error)
    else:
        known |= _judged(result, trial, known["parameters"])
    return {**_told(folder), **known}


def _judged(result: RunResult, trial: Trial, parameters: int) -> dict[str, Any]:
    """State, reason and values of a training that came to an end."""
    if result.exit_status:
        return {"state": KILLED, "reason": "stopped by a signal", "exit_status": result.exit_status}
    history = tracking.Record(result.folder).history()
    history[PARAMETERS] = [(0, float(parameters))]
    values = []
    for objective in trial.settings.objectives:
        said = [value for _, value in history.get(objective.name, [])]
        if not said:
            near = nearest(objective.name, list(history)) or f"; there are: {', '.join(sorted(history))}"
            return {"state": FAILED, "reason": f"hydra.sweeper.objective: {objective.name} has no finite value{near}"}
        values.append(objective.pick(said))
    return {"state": PRUNED, "reason": trial.pruned, "values": values} if trial.pruned else {
        "state": COMPLETE, "values": values}  # fmt: skip


def _told(folder: Path) -> dict[str, Any]:
    """What the run's summary says."""
    summary = read_summary(folder)
    verdict = summary.get("diagnosis") or {}
    line = ""
    if verdict:
        from scratch_dl.diagnosis import Verdict

        line = Verdict.from_json(verdict).line
    return {
        "cause": verdict.get("cause", ""),
        "verdict": line,
        "cure": verdict.get("cure", ""),
        "output_class": summary.get("output_class") or "",
        "verification": summary.get("verification", ""),
        "run_id": summary.get("run_id", ""),
        "experiment_id": summary.get("experiment_id", ""),
    }
