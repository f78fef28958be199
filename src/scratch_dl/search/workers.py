"""Several processes that work on one study: each runs the same command again, and this process supervises them."""

import os
import signal
import subprocess
import sys
import time

from scratch_dl.cli.errors import TRACEBACK
from scratch_dl.config.environment import WORKER
from scratch_dl.search.study import Study

_POLL_S = 0.2
_PATIENCE_S = 60.0  # for a worker that finishes its step and writes its checkpoint
_REPLACEMENTS = 3  # per worker


def supervisor() -> int | None:
    """Return the id of the process that supervises this one; None if this one is not a worker."""
    return int(os.environ[WORKER]) if WORKER in os.environ else None


def supervise(study: Study, number: int) -> None:
    """Let `number` processes work on the study, and replace a process that dies while trials are missing."""
    replacements = _REPLACEMENTS * number
    workers = [_start_worker() for _ in range(number)]
    try:
        while workers:
            time.sleep(_POLL_S)
            for worker in [worker for worker in workers if worker.poll() is not None]:
                workers.remove(worker)
                if worker.returncode >= 0:
                    continue  # it printed why it failed, and a replacement would fail for the same reason
                print(f"a worker was killed by signal {-worker.returncode}; its trial is trained again", flush=True)
                if replacements and study.missing():
                    replacements -= 1
                    workers.append(_start_worker())
    finally:
        _end_workers(workers)


def _start_worker() -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "scratch_dl.train", *sys.argv[1:]]
    # This program sets HYDRA_FULL_ERROR for Hydra; it would make the worker print tracebacks.
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR" or TRACEBACK}
    return subprocess.Popen(command, env={**environment, WORKER: str(os.getpid())})


def _end_workers(workers: "list[subprocess.Popen[bytes]]") -> None:
    """End the workers that still run; they finish their step and write their checkpoint first."""
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE_S
    for worker in workers:
        try:
            worker.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
