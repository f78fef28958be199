"""Train many configurations at once; the result of each is a row of the study's file.

The file is `<directory>/studies/<study>.jsonl` (see `_jobs.py`), and the folder of a run
`<directory>/studies/<study>/<name>-<number>`.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from _jobs import Entry, run_jobs
from scratch_dl import tracking
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import hidden

REFUSED = "REFUSED"


@dataclass(frozen=True)
class Point:
    """A training of a study.

    Attributes:
        name: unique in the study; letters, digits, '_', '.' and '-', because it names a folder.
        overrides: those of `scratch_dl.train`.
    """

    name: str
    overrides: tuple[str, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_][\w.\-]*", self.name, re.ASCII):
            raise ValueError(f"a point's name must be letters, digits, '_', '.' and '-', but got {self.name!r}")


@dataclass(frozen=True)
class TrainingRow:
    """The result of training a point, a line of the study's file.

    Attributes:
        name: of the point.
        overrides: of the point.
        run_id: in MLflow; None if no run began.
        folder: of the run's local files.
        status: FINISHED, FAILED, KILLED, or REFUSED by the configuration.
        reason: why it did not finish, in one line.
        summary: content of the run's summary.json; empty if there is none.
        seconds: the duration, without the start of a process.
    """

    name: str
    overrides: tuple[str, ...]
    run_id: str | None
    folder: Path
    status: str
    reason: str | None
    summary: Mapping[str, Any]
    seconds: float

    @cached_property
    def history(self) -> dict[str, list[tuple[int, float]]]:
        """Metric -> its (step, value) in the order of the steps, finite values only; empty for a refused point."""
        return tracking.Journal(self.folder).history() if self.run_id else {}

    @property
    def is_settled(self) -> bool:
        """Whether training it again would change nothing: it finished, was refused, or failed within a run."""
        return self.status in ("FINISHED", REFUSED) or (self.status == "FAILED" and bool(self.summary))

    @property
    def progress(self) -> Mapping[str, Any]:
        """How far the training came, from summary.json."""
        return self.summary.get("progress") or {}

    @property
    def scores(self) -> Mapping[str, float]:
        """Scores by metric name, from summary.json."""
        return self.summary.get("scores") or {}

    @property
    def diagnosis(self) -> Mapping[str, Any]:
        """The diagnosis's verdict, from summary.json; empty if there is none."""
        return self.summary.get("diagnosis") or {}

    def to_entry(self, studies: Path) -> Entry:
        """Return the line of the file; the run's folder is relative to `studies`, so that both can be moved."""
        return hidden(asdict(self)) | {"folder": self.folder.relative_to(studies).as_posix()}

    @classmethod
    def from_entry(cls, entry: Entry, studies: Path) -> "TrainingRow":
        """Return the row of a line."""
        return cls(**{**entry, "overrides": tuple(entry["overrides"]), "folder": studies / entry["folder"]})


def train_all(
    study: str, points: Iterable[Point], workers: int, directory: Path, say: Callable[[str], object] = print
) -> dict[str, TrainingRow]:
    """Train every point that has no settled row yet, each in one thread of one of the `workers` processes.

    A training that fails or is refused has a row, too. Ctrl-C ends the current runs as KILLED; a later call trains them
    again, in new folders.

    Args:
        study: its name, and that of the MLflow experiment.
        points: in the order in which they are started.
        workers: the number of trainings that run at once.
        directory: `tracking.dir` of the runs.
        say: is called with a line of progress now and then.

    Returns:
        The rows by the points' names, in the points' order.

    Raises:
        ValueError: if two points share a name, or `workers` is below 1.
        StudyError: if another process works on the study, its file is damaged, or one of its processes was killed.
    """
    points, studies = list(points), Path(directory).expanduser().absolute() / "studies"
    names = [point.name for point in points]
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"points must have names of their own, but got {double[0]!r} twice")

    def is_done(entry: Entry, overrides: tuple[str, ...]) -> bool:
        row = TrainingRow.from_entry(entry, studies)
        return list(row.overrides) == hidden(overrides) and row.is_settled

    jobs = {point.name: point.overrides for point in points}
    entries = run_jobs(studies / f"{study}.jsonl", jobs, partial(_train, studies / study), is_done, workers, say)
    return {name: TrainingRow.from_entry(entry, studies) for name, entry in entries.items()}


def _train(study: Path, name: str, overrides: tuple[str, ...]) -> Entry | None:
    """Train a point in a new folder within `study`; None if it was stopped."""
    # A process needs these for its trainings; the study itself does without them.
    from scratch_dl.cli.errors import in_one_line
    from scratch_dl.train import train
    from scratch_dl.training.result import read_summary

    folder = _new_folder(study, name)
    own = (
        "threads=1",
        f"tracking.dir='{study.parents[1]}'",
        f"tracking.experiment='{study.name}'",
        f"tracking.run_name='{name}'",
        f"hydra.run.dir='{folder}'",
    )
    status, reason, began = "FAILED", None, time.monotonic()
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            status = train([*overrides, *own]).status
        except ConfigError as error:
            status, reason = REFUSED, str(error)
        except Exception as error:
            reason = in_one_line(error)
    seconds = round(time.monotonic() - began, 2)
    if status == "KILLED":  # by a stop of the study, which trains it again
        return None
    summary = read_summary(folder)
    reason = summary.get("reason") or reason
    row = TrainingRow(name, overrides, summary.get("run_id"), folder, status, reason, summary, seconds)
    return row.to_entry(study.parent)


def _new_folder(study: Path, name: str) -> Path:
    """Return the first of name-1, name-2, ... that does not exist."""
    number = 1
    while (study / f"{name}-{number}").exists():
        number += 1
    return study / f"{name}-{number}"
