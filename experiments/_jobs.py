"""Run many jobs in processes, and write each result to a file of JSON lines as soon as there is one.

Each line is the result of a job and has its "name"; the last line of a name counts. When a study is started again, it
runs only the jobs whose results are missing. A change of the code does not invalidate a line: remove the file to run
everything again.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from scratch_dl.system.checks import integer
from scratch_dl.system.processes import end_with_parent
from scratch_dl.training.signals import Interrupted, handling, interrupt

Entry = dict[str, Any]
PROGRESS_INTERVAL_S = 10.0
_LOKY_PROCESS = "popen_loky"  # is in the command line of each of joblib's processes


class StudyError(RuntimeError):
    """Another process works on the study, its file is damaged, or one of its processes was killed."""


def run_jobs(
    file: Path,
    jobs: Mapping[str, Any],
    function: Callable[[str, Any], Entry | None],
    is_done: Callable[[Entry, Any], bool],
    workers: int,
    say: Callable[[str], object] = print,
) -> dict[str, Entry]:
    """Return the result of every job: from the file if it is there, otherwise from `function` in a process.

    After Ctrl-C no further job starts, and the current ones get SIGTERM, as they do when this process dies. Inside
    `function` the signal raises `Interrupted`, unless it installs a handler of its own.

    Args:
        file: of the results; created if missing. Its stem names the study in messages.
        jobs: name -> what `function` and `is_done` need; started in this order.
        function: is called as function(name, job), and returns a dictionary that JSON can express and that has the
            "name", or None if it was interrupted. It must be importable by another process.
        is_done: is called as is_done(entry, job): whether a line of the file still is the result of the job.
        workers: the number of jobs that run at once.
        say: is called with a line of progress now and then.

    Returns:
        The results by the jobs' names, in the jobs' order.

    Raises:
        ValueError: if `workers` is below 1.
        StudyError: if another process works on the study, the file is damaged, or a process was killed.
        KeyboardInterrupt: after Ctrl-C, once the current jobs have stopped.
    """
    integer("workers", workers, minimum=1)
    with _locked(file):
        entries = {entry["name"]: entry for entry in _read(file)}
        missing = {name: job for name, job in jobs.items() if not _is_done(file, entries.get(name), job, is_done)}
        progress = _Progress(file.stem, len(jobs), len(jobs) - len(missing), say)
        for entry in _results(file.stem, missing, function, workers):
            with file.open("ab") as stream:
                stream.write(json.dumps(entry).encode() + b"\n")
            entries[entry["name"]] = entry
            progress.count()
    return {name: entries[name] for name in jobs}


def _results(
    study: str, jobs: Mapping[str, Any], function: Callable[[str, Any], Entry | None], workers: int
) -> Iterator[Entry]:
    """Yield each result when its job ends, in whatever order that is."""
    stopping: list[int] = []

    def stop(number: int, _: object) -> None:
        if stopping:
            raise KeyboardInterrupt  # a second Ctrl-C waits for nothing
        stopping.append(number)
        for child in psutil.Process().children():
            if _LOKY_PROCESS in " ".join(child.cmdline()):
                child.terminate()

    calls = (delayed(_call)(function, name, job, os.getpid()) for name, job in jobs.items() if not stopping)
    # With n_jobs=1 joblib would run the jobs in this process; `pre_dispatch` is how many run at once.
    pool = Parallel(n_jobs=max(2, workers), pre_dispatch=workers, batch_size=1, return_as="generator_unordered")
    previous = signal.signal(signal.SIGINT, stop)
    try:
        for entry in pool(calls) if jobs else ():
            if entry is not None:
                yield entry
    except TerminatedWorkerError as error:
        raise StudyError(f"a process of the study {study} was killed; the same command continues it") from error
    finally:
        signal.signal(signal.SIGINT, previous)
    if stopping:
        raise KeyboardInterrupt


def _call(function: Callable[[str, Any], Entry | None], name: str, job: Any, parent: int) -> Entry | None:
    """Call the function in a process of joblib's; None if SIGTERM interrupted it."""
    end_with_parent(parent)
    # In a terminal Ctrl-C reaches this process as well as the parent; between jobs only the parent's death counts.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _exit_if_orphaned(parent))
    try:
        with handling(interrupt):
            entry = function(name, job)
    except Interrupted:
        entry = None
    _exit_if_orphaned(parent)
    return entry


def _exit_if_orphaned(parent: int) -> None:
    """End this process if its parent is dead: a process of joblib's would wait for another five minutes."""
    if os.getppid() != parent:
        os._exit(0)


def _is_done(file: Path, entry: Entry | None, job: Any, is_done: Callable[[Entry, Any], bool]) -> bool:
    if entry is None:
        return False
    try:
        return is_done(entry, job)
    except (ValueError, KeyError, TypeError):
        raise StudyError(f"{file}: the line of {entry['name']!r} is damaged; remove it to run its job again") from None


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Keep other processes from the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StudyError(f"another process is working on the study {file.stem}; wait for it or end it") from None
    try:
        yield
    finally:
        lock.release()


def _read(file: Path) -> Iterator[Entry]:
    """Yield every line of the file; half a line at its end, left by a process that was killed, is cut off."""
    content = file.read_bytes() if file.is_file() else b""
    complete = content.rfind(b"\n") + 1
    if complete < len(content):
        os.truncate(file, complete)
    for number, line in enumerate(content[:complete].splitlines(), 1):
        try:
            entry = json.loads(line)
            entry["name"]
        except (ValueError, KeyError, TypeError):
            raise StudyError(f"{file} is damaged at line {number}; remove the line to run its job again") from None
        yield entry


class _Progress:
    """Say a line at most every PROGRESS_INTERVAL_S, and one at the end."""

    def __init__(self, study: str, total: int, done: int, say: Callable[[str], object]) -> None:
        self.study, self.total, self.done, self.say = study, total, done, say
        self.done_before = done
        self.started = self.last = time.monotonic()
        if done:
            say(f"{study}: {done} of {total} were done before")

    def count(self) -> None:
        """Count one more job."""
        self.done += 1
        now = time.monotonic()
        if now - self.last < PROGRESS_INTERVAL_S and self.done < self.total:
            return
        self.last, elapsed = now, now - self.started
        left = elapsed / (self.done - self.done_before) * (self.total - self.done)
        self.say(f"{self.study}: {self.done} of {self.total}, {_clock(elapsed)} elapsed, about {_clock(left)} left")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
