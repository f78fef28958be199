"""Processes that end with their parent."""

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1  # of prctl(2)
_POLL_S = 1.0


def end_with_parent(parent: int | None = None) -> None:
    """Let this process get SIGTERM when its parent dies: a parent that is killed cannot end its children itself.

    On Linux the kernel sends it, as soon as the parent's thread that started this process has ended. Elsewhere a thread
    looks every second whether the parent is still the same.

    Args:
        parent: the id of the process that started this one. It tells a parent that died before this call from one that
            lives; None: the parent lives.
    """
    parent = os.getppid() if parent is None else parent
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
    else:
        threading.Thread(target=_poll, args=(parent,), daemon=True).start()


def _poll(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
