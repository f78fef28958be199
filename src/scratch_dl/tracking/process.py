"""Which processes work in a folder of runs, and whether each is still alive, by locks of the operating system.

A process that works in a `tracking.dir` holds the lock of its own file in `<tracking.dir>/processes`. The kernel
releases the lock when the process ends, however it ends. Clock changes and the host names of containers do not matter.
"""

import atexit
import contextlib
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from scratch_dl.system.files import write_atomically

PROCESSES = "processes"
TEST_TIMEOUT_S = 1.0
"""How long to wait for a lock that should be free: a process that tests it (`is_locked`) holds it for an instant."""
_FOLDER_ID = "id"
_WORKER = "scratch_dl.worker."
_held: dict[Path, tuple[int, str, FileLock]] = {}


def this_process() -> dict[str, str]:
    """Return host name and pid of this process, for people to read."""
    return {"host": socket.gethostname(), "pid": str(os.getpid())}


def register_process(directory: Path) -> str:
    """Hold a lock in the folder of runs `directory` until this process ends.

    Returns:
        The process's name there, for `is_alive`.

    Raises:
        OSError: with the path, if nothing can be written there.
    """
    folder = directory / PROCESSES
    pid, name, _ = _held.get(folder, (0, "", None))
    if pid == os.getpid() and (folder / name).exists():
        return f"{_folder_id(folder)}/{name}"
    folder.mkdir(parents=True, exist_ok=True)
    mine = this_process()
    name = f"{mine['host']}.{mine['pid']}.{secrets.token_hex(4)}.lock"
    lock = FileLock(folder / name)
    lock.acquire(timeout=TEST_TIMEOUT_S)
    _held[folder] = (os.getpid(), name, lock)
    atexit.register(_unregister, folder)
    return f"{_folder_id(folder)}/{name}"


def is_alive(process: str, directory: Path) -> bool | None:
    """Return whether the process of this name (see `register_process`) is alive; None if this cannot be told."""
    folder = directory / PROCESSES
    folder_id, _, name = process.partition("/")
    if not name or "/" in name or not (folder / _FOLDER_ID).is_file() or _folder_id(folder) != folder_id:
        return None  # it worked in another folder of runs, perhaps on another machine
    return is_locked(folder / name)


def other_processes(directory: Path) -> list[str]:
    """Return pid and host of every other living process that works in `directory`; delete the files of dead ones."""
    folder = directory / PROCESSES
    own = {name for pid, name, _ in _held.values() if pid == os.getpid()}  # including those from before a move
    alive = []
    for file in sorted(folder.glob("*.lock")):
        if file.name in own:
            continue
        if is_locked(file) is False:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
        else:
            host, pid, *_ = file.name.rsplit(".", 3)
            alive.append(f"process {pid} on {host}")
    return alive


def is_locked(file: Path) -> bool | None:
    """Return whether a process holds the lock of a file: False if there is no file, None if it cannot be opened."""
    lock = FileLock(file)
    try:
        if not file.is_file():
            return False
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # a file of another user, or on a read-only file system
        return None
    lock.release()
    return False


def worker_tag(directory: Path) -> dict[str, str]:
    """Return the tag by which this process, perhaps one of several, declares that it works on a run."""
    mine = this_process()
    return {f"{_WORKER}{mine['host']}.{mine['pid']}": register_process(directory)}


def worker_processes(tags: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield tag key and process name (see `register_process`) of each process that works on the run with these tags."""
    return ((key, process) for key, process in tags.items() if key.startswith(_WORKER))


def _folder_id(folder: Path) -> str:
    """Return the folder's random id, created once: it distinguishes folders of the same path on different machines."""
    file = folder / _FOLDER_ID
    if not file.is_file():
        with FileLock(folder / f"{_FOLDER_ID}.guard"):
            if not file.is_file():
                write_atomically(file, secrets.token_hex(8).encode())
    return file.read_text()


def _unregister(folder: Path) -> None:
    pid, name, lock = _held.get(folder, (0, "", None))
    if pid == os.getpid() and lock is not None:
        with contextlib.suppress(OSError):
            (folder / name).unlink(missing_ok=True)
        lock.release()
