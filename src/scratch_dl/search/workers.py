"""Several processes on one study: each is the same command again, and this one looks after them."""

import os
import signal
import subprocess
import sys
import threading
import time

from scratch_dl.cli.errors import TRACEBACK
from scratch_dl.config.environment import WORKER
from scratch_dl.search.study import Study

_LOOK_EVERY_S = 0.2
_PATIENCE_S = 60.0
_REPLACEMENTS = 3  # for each worker


def is_worker() -> bool:
    """Whether this process is one of several that another one looks after."""
    return WORKER in os.environ


def supervise(study: Study, number: int) -> None:
    """Let `number` processes work on the study, and replace one that dies while trials are missing."""
    parent, left = os.getpid(), _REPLACEMENTS * number
    workers = [_start(parent) for _ in range(number)]
    try:
        while workers:
            time.sleep(_LOOK_EVERY_S)
            for worker in [worker for worker in workers if worker.poll() is not None]:
                workers.remove(worker)
                if worker.returncode >= 0:
                    continue  # what it failed by, it has said, and another one would fail by too
                print(f"a worker was killed by signal {-worker.returncode}; its trial is trained again", flush=True)
                if left and study.missing():
                    left -= 1
                    workers.append(_start(parent))
    finally:
        _end(workers)


def leave_with_parent() -> None:
    """A parent that is killed cannot end its workers; this makes them leave by themselves."""
    parent = int(os.environ[WORKER])

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, daemon=True).start()


def _start(parent: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "scratch_dl.train", *sys.argv[1:]]
    # Set by this program for Hydra, it would make the worker print tracebacks.
    settings = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR" or TRACEBACK}
    return subprocess.Popen(command, env={**settings, WORKER: str(parent)})


def _end(workers: "list[subprocess.Popen[bytes]]") -> None:
    """Those that still work finish their step and write their checkpoint first."""
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
