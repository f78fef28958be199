"""Writes files completely or not at all, and names the path in errors."""

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_CURES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EROFS: "make the file system writable",
    errno.EIO: "check the disk",
}
"""What to do about an error of the disk, by error number; afterwards the same command works."""


def disk_advice(error: BaseException | None) -> str | None:
    """Return what to do about an error of the disk, or an error caused by one; None for any other error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _CURES:
            return _CURES[error.errno]
        error = error.__cause__
    return None


def advice_suffix(error: BaseException) -> str:
    """Return what to append to the message of an error of the disk; "" for any other error."""
    advice = disk_advice(error)
    return f"; {advice}, then run the same command again" if advice else ""


def os_error_message(error: OSError) -> str:
    """Return one line about an error of a file: the path, the problem, and what to do about it if that is known."""
    problem = error.strerror or " ".join(str(error).split())
    if str(disk_advice(error)) not in problem:
        problem += advice_suffix(error)
    return f"{Path(os.fsdecode(error.filename)).absolute()}: {problem}" if error.filename else problem


@contextlib.contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Add the path to an OSError without one, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), error.filename or str(path)) from None


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a temporary file beside `path`, sync it, and rename it: readers find the old content or the new one.

    Temporary files left by killed processes are deleted.

    Raises:
        OSError: with the path, if it cannot be written; the old content is then unchanged.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for stray in path.parent.glob(f"{_literal(path.name)}.*.tmp"):
            stray.unlink(missing_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def as_json(value: Any) -> bytes:
    """Return plain values as JSON, with null for NaN and infinity, which JSON cannot represent."""

    def finite(item: Any) -> Any:
        if isinstance(item, Mapping):
            return {key: finite(inner) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            return [finite(inner) for inner in item]
        return None if isinstance(item, float) and not math.isfinite(item) else item

    return json.dumps(finite(value), indent=2, allow_nan=False).encode()


def link_or_copy(path: Path, name: Path) -> None:
    """Make `name` a hard link to the file `path`, replacing what was there; copy it if links are not supported.

    Raises:
        OSError: with the path, if neither is possible; what was there before is then unchanged.
    """
    temporary = name.with_name(f"{name.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:  # exFAT, FAT and some network file systems have no links, and raise various errors
        write_atomically(name, path.read_bytes())
        return
    temporary.replace(name)


def is_read_only(folder: Path) -> bool:
    """Return whether a folder exists and lies on a file system that is mounted read-only."""
    return folder.is_dir() and hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that a rename in it survives a power failure; do nothing if the file system cannot do this."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _literal(name: str) -> str:
    """Return a glob pattern that matches only `name`."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
