"""What came of a trial, and a trial as reports show it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

COMPLETE, PRUNED, FAILED, REFUSED, KILLED = "complete", "pruned", "failed", "refused", "killed"
DISCARDED = "discarded"
RUNNING, WAITING = "running", "waiting"
COUNTED = (COMPLETE, PRUNED, FAILED)
"""The states that count towards `n_trials`."""
_ONE_VALUE = ("parameters", "training_s")


@dataclass(frozen=True)
class Outcome:
    """What came of one trial.

    Attributes:
        state: complete; pruned; failed, which it would do again; refused, before any training, by the configuration;
            killed, which is trained again as another trial; discarded, as another worker was training the same point.
        reason: why it is not complete, in one line.
        values: one an objective; None without any (a pruned trial has those of its epochs).
        cause: the diagnosis's, "healthy" among them; "" where there is none.
        verdict: the diagnosis in one line.
        cure: what mends the cause.
        output_class: what the network's output has become; "" if it was not looked at.
        verification: "passed", "off", or "FAILED" with the first module.
        run_id: in MLflow; "" without a run.
        experiment_id: MLflow's, of that run.
        folder: of the run's local files, where it was then.
        seconds: that the trial took.
        epochs: that were trained.
        parameters: how many numbers the network learns; 0 if not known.
        copied_from: the number of the trial that was the same point.
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
    copied_from: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Outcome":
        """What `to_json` was made of."""
        values = content.get("values")
        return cls(**{**content, "values": None if values is None else tuple(values)})


def is_copied(attributes: Mapping[str, Any]) -> bool:
    """Whether a trial of Optuna's with these attributes was not trained, as an earlier one was the same point."""
    return (attributes.get("outcome") or {}).get("copied_from") is not None


@dataclass(frozen=True)
class Row:
    """A trial of a study.

    Attributes:
        number: in the study; a process that was killed, and points that were refused, leave gaps among the counted.
        state: that of the outcome, or running, or waiting.
        params: the drawn settings, by their keys in the configuration.
        outcome: None while it is running or waiting.
        requeued_as: the number of the trial that trains a killed one again.
    """

    number: int
    state: str
    params: Mapping[str, Any]
    outcome: Outcome | None
    requeued_as: int | None = None

    @property
    def is_copy(self) -> bool:
        """Whether it was not trained, as an earlier trial was the same point."""
        return self.outcome is not None and self.outcome.copied_from is not None


@dataclass(frozen=True)
class Objective:
    """A number that is to become as large, or as small, as can be.

    Attributes:
        name: a metric that a run logs, `parameters`, or `training_s`.
        at: "best" or "last" of its values in a run.
        direction: "maximize" or "minimize".
    """

    name: str
    at: str
    direction: str

    def __str__(self) -> str:
        return self.name if self.name in _ONE_VALUE else f"{self.at} {self.name}"

    def pick(self, values: Sequence[float]) -> float:
        """The best, or the last, of a run's values."""
        if self.at == "last":
            return values[-1]
        return max(values) if self.direction == "maximize" else min(values)

    def better(self, one: float, other: float) -> bool:
        """Whether `one` is better than `other`."""
        return one > other if self.direction == "maximize" else one < other


@dataclass(frozen=True)
class Results:
    """A study as its report shows it.

    Attributes:
        study: its name.
        storage: where it is kept, without a password.
        space: name in the study, with its condition -> the distribution.
        objectives: one, or several.
        n_trials: how many were asked for.
        sampler, pruner, seed: as configured.
        rows: every trial, by number.
        best: numbers of the best trial, or of the Pareto front; empty if none is complete.
        retrain: commands that train the best one again, by what they do.
        test: metrics of the winner and the baselines on the test photographs; empty if not evaluated.
    """

    study: str
    storage: str
    space: Mapping[str, str]
    objectives: tuple[Objective, ...]
    n_trials: int
    sampler: str
    pruner: str
    seed: int
    rows: tuple[Row, ...]
    best: tuple[int, ...]
    retrain: Mapping[str, str]
    test: Mapping[str, float]

    def row(self, number: int) -> Row:
        """The trial of this number."""
        return next(row for row in self.rows if row.number == number)

    @staticmethod
    def page(outcome: Outcome) -> str:
        """MLflow's page of a trial's run, relative to its server; "" without a run."""
        if not outcome.run_id:
            return ""
        return f"#/experiments/{outcome.experiment_id}/runs/{outcome.run_id}"
