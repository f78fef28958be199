"""Files that are whole or not there, and errors that name the path."""

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
"""What to do about an error of the disk, by its number. It is nobody's mistake, and the same command works then."""


def cure(error: BaseException | None) -> str | None:
    """What to do about an error of the disk, or about one that such an error caused; None for any other."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _CURES:
            return _CURES[error.errno]
        error = error.__cause__
    return None


def remedy(error: BaseException) -> str:
    """What to add to a message about an error of the disk; nothing for any other."""
    what = cure(error)
    return f"; {what}, then run the same command again" if what else ""


def in_words(error: OSError) -> str:
    """An error of a file in one line: the path, what is wrong, and what to do about it where that is known."""
    said = error.strerror or " ".join(str(error).split())
    if str(cure(error)) not in said:
        said += remedy(error)
    return f"{Path(os.fsdecode(error.filename)).absolute()}: {said}" if error.filename else said


@contextlib.contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Put the path into an OSError that lacks it, as the error of a full disk does."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), error.filename or str(path)) from None


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a temporary file beside `path`, sync it, and rename it: readers find the old content or the new one.

    A temporary file that a killed process left behind is removed.

    Raises:
        OSError: with the path, if it cannot be written; the old content is still there.
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
    """Plain values as JSON, with null for a number that is NaN or infinite, which JSON does not have."""

    def finite(item: Any) -> Any:
        if isinstance(item, Mapping):
            return {key: finite(inner) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            return [finite(inner) for inner in item]
        return None if isinstance(item, float) and not math.isfinite(item) else item

    return json.dumps(finite(value), indent=2, allow_nan=False).encode()


def keep_as(path: Path, name: Path) -> None:
    """Give the file `path` a second name, in place of what has that name; where there are no hard links, copy it.

    Raises:
        OSError: with the path, if neither can be done; what had the name before is still there.
    """
    temporary = name.with_name(f"{name.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:  # exFAT, FAT and some network file systems have none, and say so by various errors
        write_atomically(name, path.read_bytes())
        return
    temporary.replace(name)


def is_read_only(folder: Path) -> bool:
    """Whether a folder that is there lies on a file system that is mounted read-only."""
    return folder.is_dir() and hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder outlive a loss of power; a file system that cannot do it is left alone."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _literal(name: str) -> str:
    """A name as a pattern that matches nothing but itself."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
