"""Which processes work on something, and whether each still lives, by locks of the operating system.

A process that works in a `tracking.dir` holds the lock of a file of its own in `<tracking.dir>/processes`. The kernel
releases it when the process ends, however it ends; neither a stepped clock nor a container's host name matters.
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
_PLACE = "id"
_WORKER = "scratch_dl.worker."
_held: dict[Path, tuple[int, str, FileLock]] = {}


def this_process() -> dict[str, str]:
    """Return host and pid of this process, for people to read."""
    return {"host": socket.gethostname(), "pid": str(os.getpid())}


def hold(directory: Path) -> str:
    """Hold a lock in the folder of runs `directory` for the rest of this process's life.

    Returns:
        The process's name there, which `is_alive` takes.

    Raises:
        OSError: with the path, if nothing can be written there.
    """
    folder = directory / PROCESSES
    pid, name, _ = _held.get(folder, (0, "", None))
    if pid == os.getpid() and (folder / name).exists():
        return f"{_place(folder)}/{name}"
    folder.mkdir(parents=True, exist_ok=True)
    mine = this_process()
    name = f"{mine['host']}.{mine['pid']}.{secrets.token_hex(4)}.lock"
    lock = FileLock(folder / name)
    lock.acquire(timeout=0)
    _held[folder] = (os.getpid(), name, lock)
    atexit.register(_leave, folder)
    return f"{_place(folder)}/{name}"


def is_alive(process: str, directory: Path) -> bool | None:
    """Whether the process of this name (see `hold`) lives; None if that cannot be told from `directory`."""
    folder = directory / PROCESSES
    place, _, name = process.partition("/")
    if not name or "/" in name or not (folder / _PLACE).is_file() or _place(folder) != place:
        return None  # it worked in another folder of runs, perhaps on another machine
    return is_locked(folder / name)


def others(directory: Path) -> list[str]:
    """Return host and pid of every other living process that works in `directory`; what dead ones left is removed."""
    folder = directory / PROCESSES
    own = {name for pid, name, _ in _held.values() if pid == os.getpid()}  # also of before the folder was moved
    found = []
    for file in sorted(folder.glob("*.lock")):
        if file.name in own:
            continue
        if is_locked(file) is False:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
        else:
            host, pid, *_ = file.name.rsplit(".", 3)
            found.append(f"process {pid} on {host}")
    return found


def is_locked(file: Path) -> bool | None:
    """Whether a process holds the lock of a file: not if there is no such file; None if the file cannot be opened."""
    lock = FileLock(file)
    try:
        if not file.is_file():
            return False
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # another user's, or on a file system that is read-only
        return None
    lock.release()
    return False


def process_tags(folder: Path | None = None) -> dict[str, str]:
    """Return the tags that tell a person where a run is made, and by which its folder is found, if it has one."""
    tags = {f"scratch_dl.{key}": value for key, value in this_process().items()}
    return tags if folder is None else {**tags, "scratch_dl.folder": str(folder)}


def worker_tag(directory: Path) -> dict[str, str]:
    """Return the tag that says that this process, perhaps beside others, works on a run."""
    mine = this_process()
    return {f"{_WORKER}{mine['host']}.{mine['pid']}": hold(directory)}


def workers(tags: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the tag's key and the process's name (see `hold`) of each process that works on a run."""
    return ((key, process) for key, process in tags.items() if key.startswith(_WORKER))


def _place(folder: Path) -> str:
    """The folder's own id, made once: a name in it says nothing about a folder on another machine."""
    file = folder / _PLACE
    if not file.is_file():
        with FileLock(folder / f"{_PLACE}.guard"):
            if not file.is_file():
                write_atomically(file, secrets.token_hex(8).encode())
    return file.read_text()


def _leave(folder: Path) -> None:
    pid, name, lock = _held.get(folder, (0, "", None))
    if pid == os.getpid() and lock is not None:
        with contextlib.suppress(OSError):
            (folder / name).unlink(missing_ok=True)
        lock.release()
