"""Which process writes a run, and whether it still lives."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import psutil

# A start time is computed from the machine's boot time, which the kernel corrects a little now and then.
_TOLERANCE_S = 2.0
_WORKER = "scratch_dl.worker."


def this_process() -> dict[str, str]:
    """Return host, pid and start time (seconds since 1970) of this process."""
    return {
        "host": socket.gethostname(),
        "pid": str(os.getpid()),
        "pid_started": f"{psutil.Process().create_time():.2f}",
    }


def process_tags(folder: Path | None = None) -> dict[str, str]:
    """Return the tags by which a run left over, and a run's folder if it has one, are found again."""
    tags = {f"scratch_dl.{key}": value for key, value in this_process().items()}
    return tags if folder is None else {**tags, "scratch_dl.folder": str(folder)}


def worker_tag() -> dict[str, str]:
    """Return the tag that says that this process, perhaps beside others, works on a run."""
    mine = this_process()
    return {f"{_WORKER}{mine['host']}.{mine['pid']}": mine["pid_started"]}


def workers(tags: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return host, pid and start time of each process that works on a run by such tags, by the tag's name."""
    found = {}
    for key, started in tags.items():
        if key.startswith(_WORKER):
            host, _, pid = key.removeprefix(_WORKER).rpartition(".")
            found[key] = {"host": host, "pid": pid, "pid_started": started}
    return found


def is_alive(pid: str, started: str) -> bool:
    """Whether the process of this number, on this host, is the one that started then; a zombie is dead."""
    try:
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(started)) < _TOLERANCE_S
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, ValueError):
        return False
