"""What the studies share: arguments, many trainings at once, the tables of a README, and an MLflow run of their own.

`<directory>/studies/<study>.jsonl` has a line for each training; the last line of a name counts. The folders of the
runs are `<directory>/studies/<study>/<name>-<number>`. A change of the code makes no line stale: remove the file to
train everything again.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from scratch_dl import tracking
from scratch_dl.system import provenance
from scratch_dl.system.checks import integer
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import hidden
from scratch_dl.system.processes import end_with_parent

BEGIN, END = "<!-- tables: written by run.py -->", "<!-- end of tables -->"
REFUSED = "REFUSED"
_PROGRESS_EVERY_S = 10.0


def parser(doc: str, workers: bool = True) -> argparse.ArgumentParser:
    """Return a parser with the arguments that every study has; `doc` is that of its run.py."""
    made = argparse.ArgumentParser(description=doc.splitlines()[0])
    made.add_argument("--smoke", action="store_true", help="everything at a small size, nothing written")
    if workers:
        made.add_argument("--workers", type=int, default=2, help="processes, each of one thread")
        made.add_argument("--directory", type=Path, default=Path("mlruns"), help="tracking.dir of the runs")
    return made


def write_results(folder: Path, results: Mapping[str, Any], text: str) -> None:
    """Write results.json, and put the text between the two comments of README.md."""
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    readme = folder / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Return what the results were computed on."""
    environment = provenance.environment()
    return {name: environment[name] for name in ("cpu", "usable_cores", "python", "platform")}


@contextmanager
def mlflow_run(study: str, name: str, directory: Path | str = "mlruns", **params: object) -> Iterator[tracking.Run]:
    """An MLflow run in the study's experiment, which ends with the block.

    Args:
        study: the name of the experiment.
        name: of the run.
        directory: `tracking.dir`.
        params: of the run.
    """
    folder = (
        Path(directory).absolute() / "hydra" / time.strftime("%Y-%m-%d") / f"{time.strftime('%H-%M-%S')}-{os.getpid()}"
    )
    where = {"dir": str(directory), "uri": None, "experiment": study, "run_name": name, "tags": {}}
    with tracking.tracked_run({**params, "tracking": where}, folder, name) as run:
        yield run


class StudyError(RuntimeError):
    """Another process works on the study, its file is damaged, or one of its processes was ended."""


@dataclass(frozen=True)
class Point:
    """A training of a study.

    Attributes:
        name: unique in the study; letters, digits, '_', '.' and '-', as it names a folder.
        overrides: those of `scratch_dl.train`.
    """

    name: str
    overrides: tuple[str, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_][\w.\-]*", self.name, re.ASCII):
            raise ValueError(f"a point's name must be letters, digits, '_', '.' and '-', but got {self.name!r}")


@dataclass(frozen=True)
class TrainingRow:
    """The result of a point, a line of the study's file.

    Attributes:
        name: of the point.
        overrides: of the point.
        run_id: in MLflow; None if no run began.
        folder: of the run's local files.
        status: FINISHED, FAILED, or REFUSED by the configuration.
        reason: why it did not finish, in one line.
        summary: content of the run's summary.json; empty if there is none.
        seconds: that it took, without the start of a process.
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
    def settled(self) -> bool:
        """Whether training it again would change nothing: it ended by itself, and if it failed, then in a run."""
        return self.status in ("FINISHED", REFUSED) or (self.status == "FAILED" and bool(self.summary))


def train_all(
    study: str, points: Iterable[Point], workers: int, directory: Path, say: Callable[[str], object] = print
) -> dict[str, TrainingRow]:
    """Train every point that has no settled row yet, each in one thread of one of the `workers` processes.

    A training that fails or is refused has a row, too. Ctrl-C ends the current runs as KILLED; a later call trains them
    again, in fresh folders.

    Args:
        study: its name, and that of the MLflow experiment.
        points: in the order in which they are begun.
        workers: processes, each of which trains one point after the other.
        directory: `tracking.dir` of the runs.
        say: is called with a line of progress now and then.

    Returns:
        The rows by the points' names, in the points' order.

    Raises:
        ValueError: if two points share a name, or `workers` is below 1.
        StudyError: if another process works on the study, its file is damaged, or one of its processes was ended.
    """
    points, directory = list(points), Path(directory).expanduser().absolute()
    integer("workers", workers, minimum=1)
    names = [point.name for point in points]
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"points must have names of their own, but got {double[0]!r} twice")
    with _opened(directory / "studies", study) as file:
        rows = {row.name: row for row in _read(file)}
        missing = [point for point in points if not _is_settled(point, rows.get(point.name))]
        progress = _Progress(study, len(points), len(points) - len(missing), say)
        for row in _train(study, missing, workers, directory):
            _append(file, row)
            rows[row.name] = row
            progress.count()
    return {name: rows[name] for name in names}


def _is_settled(point: Point, row: TrainingRow | None) -> bool:
    return row is not None and list(row.overrides) == hidden(point.overrides) and row.settled


def _train(study: str, points: list[Point], workers: int, directory: Path) -> Iterator[TrainingRow]:
    """Yield each row as it comes. After Ctrl-C no further point begins, and the current ones stop in order."""
    stopping: list[int] = []

    def stop(number: int, _: object) -> None:
        if stopping:
            raise KeyboardInterrupt  # a second Ctrl-C waits for nothing
        stopping.append(number)
        for child in psutil.Process().children():
            if "popen_loky" in " ".join(child.cmdline()):
                child.terminate()

    jobs = (delayed(_train_point)(study, point, directory, os.getpid()) for point in points if not stopping)
    # With n_jobs=1 joblib would train in this process; `pre_dispatch` is how many trainings run at once.
    pool = Parallel(n_jobs=max(2, workers), pre_dispatch=workers, batch_size=1, return_as="generator_unordered")
    previous = signal.signal(signal.SIGINT, stop)
    try:
        for row in pool(jobs) if points else ():
            if row.status != "KILLED":  # a run that was told to stop is trained again
                yield row
    except TerminatedWorkerError as error:
        raise StudyError(f"a process of the study {study} was ended; the same command continues it") from error
    finally:
        signal.signal(signal.SIGINT, previous)
    if stopping:
        raise KeyboardInterrupt


def _train_point(study: str, point: Point, directory: Path, parent: int) -> TrainingRow:
    """Train a point in a process of joblib's; it stops at SIGTERM, which it also gets when its parent dies."""
    from scratch_dl.cli.errors import in_one_line
    from scratch_dl.train import train
    from scratch_dl.training.result import read_summary
    from scratch_dl.training.signals import Interrupted, handling, interrupt

    end_with_parent(parent)
    # In a terminal Ctrl-C reaches this process as well as the parent; between trainings only the parent's death counts.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _leave_orphaned(parent))
    folder = _fresh(directory / "studies" / study, point.name)
    own = (
        "threads=1",
        f"tracking.dir='{directory}'",
        f"tracking.experiment='{study}'",
        f"tracking.run_name='{point.name}'",
        f"hydra.run.dir='{folder}'",
    )
    status, reason, began = "FAILED", None, time.monotonic()
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        handling(interrupt),
    ):
        try:
            status = train([*point.overrides, *own]).status
        except Interrupted as stopped:
            status, reason = "KILLED", str(stopped)
        except ConfigError as error:
            status, reason = REFUSED, str(error)
        except Exception as error:
            reason = in_one_line(error)
    _leave_orphaned(parent)
    summary = read_summary(folder)
    seconds = round(time.monotonic() - began, 2)
    reason = summary.get("reason") or reason
    return TrainingRow(point.name, point.overrides, summary.get("run_id"), folder, status, reason, summary, seconds)


def _leave_orphaned(parent: int) -> None:
    """End this process if its parent is dead: joblib's would wait for another five minutes."""
    if os.getppid() != parent:
        os._exit(0)


def _fresh(folder: Path, name: str) -> Path:
    """Return the first of name-1, name-2, ... that does not exist."""
    number = 1
    while (folder / f"{name}-{number}").exists():
        number += 1
    return folder / f"{name}-{number}"


class _Progress:
    """Says a line at most every 10 s, and one at the end."""

    def __init__(self, study: str, total: int, done: int, say: Callable[[str], object]) -> None:
        self.study, self.total, self.done, self.say = study, total, done, say
        self.before = done
        self.started = self.last = time.monotonic()
        if done:
            say(f"{study}: {done} of {total} trained before")

    def count(self) -> None:
        """Count one more training."""
        self.done += 1
        now = time.monotonic()
        if now - self.last < _PROGRESS_EVERY_S and self.done < self.total:
            return
        self.last, gone = now, now - self.started
        left = gone / (self.done - self.before) * (self.total - self.done)
        self.say(f"{self.study}: {self.done} of {self.total}, {_clock(gone)} gone, about {_clock(left)} left")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@contextmanager
def _opened(folder: Path, study: str) -> Iterator[Path]:
    """Yield the study's file, which no other process writes meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{study}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StudyError(f"another process works on the study {study}; wait for it, or end it") from None
    try:
        yield folder / f"{study}.jsonl"
    finally:
        lock.release()


def _read(file: Path) -> Iterator[TrainingRow]:
    """Yield every row of the file; half a line at its end, from a process that was killed, is cut off."""
    content = file.read_bytes() if file.is_file() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(file, whole)
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            entry = json.loads(line)
            entry |= {"overrides": tuple(entry["overrides"]), "folder": file.parent / entry["folder"]}
            yield TrainingRow(**entry)
        except (ValueError, KeyError, TypeError):
            raise StudyError(f"{file} is damaged at line {number}; remove the line to train its point again") from None


def _append(file: Path, row: TrainingRow) -> None:
    """Add a line; the folder is relative to the file, so that both can be moved together."""
    entry = hidden(asdict(row)) | {"folder": row.folder.relative_to(file.parent).as_posix()}
    with file.open("ab") as stream:
        stream.write(json.dumps(entry).encode() + b"\n")
