"""Many trainings as one study: in several processes, each outcome kept as it comes, and only what is missing trained.

`<directory>/studies/<study>.jsonl` has a line for each outcome, the last one of a name being the one that counts; the
folders of the runs are `<directory>/studies/<study>/<name>-<number>`. A change of the code makes no outcome stale:
remove the file to train everything anew.
"""

import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from scratch_dl.system.checks import integer
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import hidden

REFUSED = "REFUSED"
_SUMMARY = "summary.json"
_SAY_EVERY_S = 10.0
_PATIENCE_S = 20.0  # a run that is told to stop finishes its step and tells MLflow


class StudyError(RuntimeError):
    """Another process works on the study, or its file is damaged."""


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
class Outcome:
    """What came of a point.

    Attributes:
        name, overrides: the point's.
        run_id: in MLflow; None if no run began.
        folder: of the run's local files.
        status: FINISHED, FAILED, KILLED, or REFUSED by the configuration.
        reason: why it did not finish, in one line.
        summary: what the run's summary.json says; empty if there is none.
        seconds: that it took, the time to start a process left out.
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
        """Metric -> its (step, value) in the order of the steps, finite values alone; of a refused point, nothing."""
        from scratch_dl import tracking

        return tracking.Record(self.folder).history() if self.run_id else {}

    @property
    def settled(self) -> bool:
        """Whether training it again would change nothing: it was not cut off, and if it failed, then in a run."""
        return self.status in ("FINISHED", REFUSED) or (self.status == "FAILED" and bool(self.summary))


def run_all(
    study: str, points: Iterable[Point], workers: int, directory: Path, say: Callable[[str], object] = print
) -> dict[str, Outcome]:
    """Train what has no settled outcome yet, each point in one thread of one of the `workers` processes.

    A training that fails or is refused is an outcome. Ctrl-C ends the workers' runs as KILLED, and a later call trains
    them again, in fresh folders.

    Args:
        study: its name, and that of the MLflow experiment.
        points: in the order in which they are begun.
        workers: processes, each of which trains one point after the other.
        directory: `tracking.dir` of the runs.
        say: is given a line of progress now and then.

    Returns:
        The outcomes by the points' names, in the points' order.

    Raises:
        ValueError: if two points share a name, or `workers` is below 1.
        StudyError: if another process works on the study, or its file is damaged.
    """
    points, directory = list(points), Path(directory).expanduser().absolute()
    integer("workers", workers, minimum=1)
    names = [point.name for point in points]
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"points must have names of their own, but got {double[0]!r} twice")
    with _opened(directory / "studies", study) as file:
        found = {one.name: one for one in _read(file)}
        missing = deque(point for point in points if not _is_settled(point, found.get(point.name)))
        progress = _Progress(study, len(points), len(points) - len(missing), say)
        for outcome in _train_all(study, missing, workers, directory):
            _append(file, outcome)
            found[outcome.name] = outcome
            progress.one_more()
    return {name: found[name] for name in names}


def _is_settled(point: Point, outcome: Outcome | None) -> bool:
    """Whether nothing is to be trained for a point, of which the file may have an outcome."""
    return outcome is not None and list(outcome.overrides) == hidden(point.overrides) and outcome.settled


class _Progress:
    """A line at most every 10 s, and one at the end."""

    def __init__(self, study: str, total: int, done: int, say: Callable[[str], object]) -> None:
        self.study, self.total, self.done, self.say = study, total, done, say
        self.before = done
        self.started = self.told = time.monotonic()
        if done:
            say(f"{study}: {done} of {total} trained before")

    def one_more(self) -> None:
        self.done += 1
        now = time.monotonic()
        if now - self.told < _SAY_EVERY_S and self.done < self.total:
            return
        self.told, gone = now, now - self.started
        left = gone / (self.done - self.before) * (self.total - self.done)
        self.say(f"{self.study}: {self.done} of {self.total}, {_clock(gone)} gone, about {_clock(left)} left")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@contextmanager
def _opened(folder: Path, study: str) -> Iterator[Path]:
    """The study's file, which nobody else writes meanwhile."""
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


def _read(file: Path) -> Iterator[Outcome]:
    """Every outcome in the file; half a line at its end, of a process killed in the middle, is cut off."""
    content = file.read_bytes() if file.is_file() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(file, whole)
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            entry = json.loads(line)
            entry |= {"overrides": tuple(entry["overrides"]), "folder": file.parent / entry["folder"]}
            yield Outcome(**entry)
        except (ValueError, KeyError, TypeError):
            raise StudyError(f"{file} is damaged at line {number}; remove the line to train its point anew") from None


def _append(file: Path, outcome: Outcome) -> None:
    """One more line; the folder as seen from the file, so that both can be moved together."""
    entry = hidden(asdict(outcome)) | {"folder": outcome.folder.relative_to(file.parent).as_posix()}
    with file.open("ab") as stream:
        stream.write(json.dumps(entry).encode() + b"\n")


@dataclass
class _Job:
    """A point in training: its folder, and when it was begun."""

    point: Point
    folder: Path
    began: float


class _Worker:
    """A process that trains one point after the other, so that it imports torch and MLflow once."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.job: _Job | None = None

    def begin(self, study: str, point: Point, directory: Path) -> None:
        folder = _fresh(directory / "studies" / study, point.name)
        own = ("threads=1", f"tracking.dir='{directory}'", f"tracking.experiment='{study}'",
               f"tracking.run_name='{point.name}'", f"hydra.run.dir='{folder}'")  # fmt: skip
        self.job = _Job(point, folder, time.monotonic())
        self.connection.send([*point.overrides, *own])

    def end(self) -> Outcome:
        """The outcome of the job in hand; of a process that has died, too."""
        job, self.job = self.job, None
        assert job is not None
        try:
            status, reason, seconds = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            status, reason = "KILLED", f"its process ended with status {self.process.exitcode}"
            seconds = time.monotonic() - job.began
        path = job.folder / _SUMMARY
        summary = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return Outcome(
            job.point.name, job.point.overrides, summary.get("run_id"), job.folder, status,
            summary.get("reason") or reason, summary, round(seconds, 2),
        )  # fmt: skip


def _train_all(study: str, missing: deque[Point], workers: int, directory: Path) -> Iterator[Outcome]:
    """Each outcome as it comes; the processes end with this, whatever it ends by."""
    staff = [_Worker() for _ in range(min(workers, len(missing)))]
    try:
        while missing or any(worker.job for worker in staff):
            for place, worker in enumerate(staff):
                if worker.job is None and missing:
                    if not worker.process.is_alive():
                        worker = staff[place] = _Worker()
                    worker.begin(study, missing.popleft(), directory)
            busy = {worker.connection: worker for worker in staff if worker.job}
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                yield busy[connection].end()
    finally:
        for worker in staff:
            worker.connection.close()  # a worker that has told of its run finds nobody to ask for the next one
            worker.process.terminate()
        for worker in staff:
            worker.process.join(_PATIENCE_S)
            worker.process.kill()


def _fresh(folder: Path, name: str) -> Path:
    """The first of name-1, name-2, ... that is not there."""
    number = 1
    while (folder / f"{name}-{number}").exists():
        number += 1
    return folder / f"{name}-{number}"


def _work(connection: Connection) -> None:
    """What a worker does: it trains by the overrides that come, and says (status, reason, seconds) of each."""
    # A Ctrl-C in the terminal reaches this process as well; between trainings it is the parent's to end it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (as long as the process lives)
    try:
        while True:
            overrides = connection.recv()
            began = time.monotonic()
            connection.send((*_train(overrides), time.monotonic() - began))
    except (EOFError, ConnectionError):
        return


def _leave_with_parent() -> None:
    """A parent that is killed cannot end its workers; without this they would go on with the run in hand."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _train(overrides: list[str]) -> tuple[str, str | None]:
    """Status and reason of a training."""
    from scratch_dl.cli.errors import in_one_line
    from scratch_dl.train import train

    try:
        return train(overrides).status, None
    except ConfigError as error:
        return REFUSED, str(error)
    except Exception as error:
        return "FAILED", in_one_line(error)
