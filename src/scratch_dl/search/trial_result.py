"""What came of a trial, what the objectives are, and the summary of a study that its reports show."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum, auto
from typing import Any

from scratch_dl.tracking.views import run_page


class State(StrEnum):
    """The state of a trial; see `TrialResult`."""

    COMPLETE = auto()
    PRUNED = auto()
    FAILED = auto()
    REFUSED = auto()
    KILLED = auto()
    REPEATED = auto()
    RUNNING = auto()
    WAITING = auto()
    FOREIGN = auto()


COUNTED = (State.COMPLETE, State.PRUNED, State.FAILED)
"""The states that count towards `n_trials`."""
_ONE_VALUE = ("parameters", "training_s")


@dataclass(frozen=True)
class TrialResult:
    """What came of one trial.

    Attributes:
        state: complete; pruned; failed, as it would be every time; refused by the configuration's checks, before any
            training; killed, so that another trial trains its point again; repeated, because an earlier trial is
            the same training.
        reason: why the trial is not complete, in one line.
        values: one per objective; None without any (a pruned trial has the values of the epochs it was trained for).
        cause: the diagnosis's cause, which may be "healthy"; "" without a diagnosis.
        verdict: the diagnosis in one line.
        cure: what removes the cause.
        output_class: what the network's output looks like; "" if it was not examined.
        verification: "passed", "off", or "FAILED" with the first module.
        run_id: MLflow's id of the run; "" without a run.
        experiment_id: MLflow's id of that run's experiment.
        folder: the run's local folder at the time.
        seconds: how long the trial took.
        epochs: how many epochs it was trained for.
        parameters: how many numbers the network learns; 0 if unknown.
    """

    state: str
    reason: str = ""
    values: tuple[float, ...] | None = None
    cause: str = ""
    verdict: str = ""
    cure: str = ""
    output_class: str = ""
    verification: str = ""
    run_id: str = ""
    experiment_id: str = ""
    folder: str = ""
    seconds: float = 0.0
    epochs: int = 0
    parameters: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain values, for the study's storage."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "TrialResult":
        """Return the result that `to_json` was called on."""
        values = content.get("values")
        return cls(**{**content, "values": None if values is None else tuple(values)})

    @property
    def page(self) -> str:
        """MLflow's page of the run, relative to its server; "" without a run."""
        return run_page("", self.experiment_id, self.run_id) if self.run_id else ""


@dataclass
class DrawnTrial:
    """A trial whose point has been drawn.

    Attributes:
        number: in the study.
        overrides: of its job, including those that are the same for every trial.
        params: the drawn settings, by key.
        result: if the trial is settled without a training, refused or repeated; else None.
        is_queued: whether another program has put the point into the study's queue.
    """

    number: int
    overrides: list[str]
    params: dict[str, Any]
    result: TrialResult | None = None
    is_queued: bool = False


def job_overrides(number: int, overrides: Sequence[str]) -> list[str]:
    """Return the overrides of the job that trains a trial, in a folder named by its number."""
    return [*overrides, f"hydra.sweeper.trial={number}", f"hydra.sweep.subdir='{number}'"]


@dataclass(frozen=True)
class TrialRow:
    """A trial as a row of its study's tables.

    Attributes:
        number: in the study. Refused points and killed processes leave gaps among the trials that count.
        state: the result's state, or running, or waiting; foreign for a trial of another program that runs or failed.
        params: the drawn settings, by their keys in the configuration.
        result: None while the trial is running or waiting.
        requeued_as: the number of the trial that trains a killed trial's point again; None if there is none.
        is_foreign: whether another program, such as one that calls `study.optimize`, trained it.
    """

    number: int
    state: str
    params: Mapping[str, Any]
    result: TrialResult | None
    requeued_as: int | None = None
    is_foreign: bool = False

    @property
    def values(self) -> tuple[float, ...]:
        """The values of the objectives; empty without any."""
        return (self.result.values if self.result else None) or ()


@dataclass(frozen=True)
class Objective:
    """A number to maximize or to minimize.

    Attributes:
        name: a metric that a run logs, `parameters`, or `training_s`.
        at: "best" or "last", of the metric's values in a run.
        direction: "maximize" or "minimize".
    """

    name: str
    at: str
    direction: str

    def __str__(self) -> str:
        return self.name if self.name in _ONE_VALUE else f"{self.at} {self.name}"

    @property
    def slug(self) -> str:
        """The objective as part of a file's name."""
        return re.sub(r"[^A-Za-z0-9_.]+", "-", str(self)).strip("-.")

    def pick(self, values: Sequence[float]) -> float:
        """Return the best or the last of a run's values."""
        if self.at == "last":
            return values[-1]
        return max(values) if self.direction == "maximize" else min(values)

    def is_better(self, value: float, other: float) -> bool:
        """Return whether `value` is better than `other`."""
        return value > other if self.direction == "maximize" else value < other


@dataclass(frozen=True)
class StudySummary:
    """A study as its reports show it.

    Attributes:
        study: its name.
        storage: its address, without a password.
        space: name in the study, with its condition -> the distribution.
        objectives: one or several.
        n_trials: how many trials were asked for.
        sampler, pruner, seed: as configured.
        rows: every trial, by number.
        best: the number of the best trial, or the numbers of the Pareto front; empty if no trial is complete.
        retrain: what a command does -> the command that trains the best trial's point again.
        test: metrics of the winner and the baselines on the test photographs; empty if they were not evaluated.
    """

    study: str
    storage: str
    space: Mapping[str, str]
    objectives: tuple[Objective, ...]
    n_trials: int
    sampler: str
    pruner: str
    seed: int
    rows: tuple[TrialRow, ...]
    best: tuple[int, ...]
    retrain: Mapping[str, str]
    test: Mapping[str, float]

    def row(self, number: int) -> TrialRow:
        """Return the trial of this number."""
        return next(row for row in self.rows if row.number == number)

    def ranked(self) -> list[TrialRow]:
        """Return the complete trials, the best by the first objective first."""
        rows = [row for row in self.rows if row.state == State.COMPLETE and row.values]
        sign = -1 if self.objectives[0].direction == "maximize" else 1
        return sorted(rows, key=lambda row: (sign * row.values[0], row.number))

    def test_psnr(self) -> dict[str, float]:
        """Return the winner's PSNR (dB) on the test photographs, and the baselines', by their names."""
        psnr = {}
        for name, value in self.test.items():
            metric = name.rpartition("/")[2]
            if metric.endswith("psnr_db"):
                psnr[metric.removesuffix("psnr_db").rstrip("_") or "the winner"] = value
        return psnr


def best_trials(rows: Sequence[TrialRow], objectives: Sequence[Objective]) -> tuple[int, ...]:
    """Return the number of the best complete trial, the first of equal ones; for several objectives, the Pareto front.

    The result is empty if no trial is complete.
    """
    complete = [row for row in rows if row.state == State.COMPLETE and row.values]

    def is_dominated(row: TrialRow, other: TrialRow) -> bool:
        """Return whether `other` is better in at least one objective and worse in none."""
        pairs = list(zip(objectives, row.values, other.values, strict=True))
        better = any(objective.is_better(theirs, own) for objective, own, theirs in pairs)
        return better and not any(objective.is_better(own, theirs) for objective, own, theirs in pairs)

    front = tuple(row.number for row in complete if not any(is_dominated(row, other) for other in complete))
    return front if len(objectives) > 1 else front[:1]
