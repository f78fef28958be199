"""Ends a process together with its parent, or together with all processes that it started."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import psutil

_PR_SET_PDEATHSIG = 1  # of prctl(2)
_POLL_S = 1.0


def end_with_parent(parent: int | None = None) -> None:
    """Let this process receive SIGTERM when its parent dies, since a killed parent cannot end its children itself.

    On Linux the kernel sends it as soon as the parent's thread that started this process has ended. On other systems a
    thread checks every second whether the parent is still the same.

    Args:
        parent: the id of the process that started this one, to detect that it died before this call; None if it is
            known to be alive.
    """
    parent = os.getppid() if parent is None else parent
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
    else:
        threading.Thread(target=_poll, args=(parent,), daemon=True).start()


def end_family(process: "subprocess.Popen[bytes]", timeout_s: float = 10.0) -> None:
    """End a process that this one started, and every process that it started in turn.

    The process gets SIGTERM, and is killed if it has not ended after `timeout_s` seconds; then the remaining processes
    are ended.
    """
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(family, timeout=1)
    for child in alive:
        child.terminate()
    for child in psutil.wait_procs(alive, timeout=2)[1]:
        child.kill()


def _poll(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
