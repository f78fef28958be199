"""The append-only file of a run: everything it said, one JSON object a line, and how much of it was sent.

The file is the truth and the store a copy of it. `sent.json` holds the length in bytes of the part that has been sent.
"""

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scratch_dl.system.files import write_atomically
from scratch_dl.tracking.errors import TrackingError

Entry = dict[str, Any]

RECORD = "journal.jsonl"
SENT = "sent.json"


class Journal:
    """The record in a run's folder; its first entry is the header, which says what run it is.

    Args:
        folder: of the run.
        mend: whether half an entry at the end is cut off; not where another process may be writing.

    Raises:
        TrackingError: if the folder holds no record, or the record is damaged other than at its end.
        OSError: with the path, if it cannot be read or written.
    """

    def __init__(self, folder: Path, mend: bool = True) -> None:
        self.folder = folder
        self.path = folder / RECORD
        if not self.path.is_file():
            raise TrackingError(f"{folder} holds no {RECORD}: it is no run's folder")
        content = self.path.read_bytes()
        # A process killed, or a disk full, in mid-line leaves half an entry at the end: it was never said.
        self._size = content.rfind(b"\n") + 1
        if mend and self._size < len(content):
            os.truncate(self.path, self._size)
        self.sent_bytes = self._read_sent()
        self.header: Entry = next((entry for _, entry in self._entries(0)), {})
        if self.header.get("kind") != "run":
            raise TrackingError(f"{self.path} does not begin with a run's header: the file is damaged")

    @classmethod
    def create(cls, folder: Path, header: Entry) -> "Journal":
        """Begin the record of a new run.

        Raises:
            TrackingError: if the folder has one already.
        """
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with (folder / RECORD).open("xb") as file:
                file.write(_line({"kind": "run", **header}))
        except FileExistsError:
            raise TrackingError(f"{folder} holds a run already; choose another folder or resume it") from None
        return cls(folder)

    def append(self, entry: Entry) -> None:
        """Write one entry; once this returns, the process may be killed without its loss.

        Raises:
            OSError: with the path; the record then is as before.
        """
        line = _line(entry)
        try:
            with self.path.open("ab", buffering=0) as file:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self.path, self._size)
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self._size += len(line)

    def entries(self) -> Iterator[Entry]:
        """Yield everything said so far, the header first."""
        return (entry for _, entry in self._entries(0))

    def history(self) -> dict[str, list[tuple[int, float]]]:
        """Metric -> its (step, value) in the order of the steps; values that are not finite are left out."""
        found: dict[str, dict[int, float]] = {}
        for entry in self.entries():
            for key, value in entry["values"].items() if entry["kind"] == "metrics" else ():
                if not isinstance(value, str):
                    found.setdefault(key, {}).setdefault(entry["step"], value)
        return {key: sorted(points.items()) for key, points in found.items()}

    def ending(self) -> tuple[str | None, str | None]:
        """Status and reason of the run's end; (None, None) if it has not ended, or has been taken up again since."""
        status = reason = None
        for entry in self.entries():
            if entry["kind"] == "process":
                status = reason = None
            elif entry["kind"] == "tags":
                reason = entry["values"].get("reason", reason)
            elif entry["kind"] == "finish":
                status = str(entry["status"])
        return status, reason

    def inside(self, file: str) -> Path:
        """Return the path of a file that an entry names; a record may come from somebody else.

        Raises:
            TrackingError: if it lies outside of the run's folder.
        """
        path = (self.folder / file).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise TrackingError(f"{self.path} names {file!r}, which lies outside of the run's folder")
        return path

    @property
    def size(self) -> int:
        """The length in bytes of what was said so far."""
        return self._size

    def unsent(self, end: int | None = None) -> Iterator[tuple[int, Entry]]:
        """Yield what has not been sent, each entry with the number of bytes up to its end; at most `end` bytes."""
        return ((size, entry) for size, entry in self._entries(self.sent_bytes) if end is None or size <= end)

    def mark_sent(self, size: int) -> None:
        """Remember that the first `size` bytes have been sent."""
        write_atomically(self.folder / SENT, json.dumps({"bytes": size}).encode())
        self.sent_bytes = size

    def drop_unsent(self, unwanted: Callable[[Entry], bool]) -> list[Entry]:
        """Take the unsent entries that are `unwanted` out of the record and return them."""
        dropped = [entry for _, entry in self.unsent() if unwanted(entry)]
        if dropped:
            kept = b"".join(_line(entry) for _, entry in self.unsent() if not unwanted(entry))
            content = self.path.read_bytes()[: self.sent_bytes] + kept
            write_atomically(self.path, content)
            self._size = len(content)
        return dropped

    def flush(self) -> None:
        """Make what was written outlive a loss of power."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def _entries(self, start: int) -> Iterator[tuple[int, Entry]]:
        with self.path.open("rb") as file:
            file.seek(start)
            end = start
            for line in file:
                end += len(line)
                if end > self._size:
                    return
                try:
                    yield end, json.loads(line)
                except ValueError:
                    raise TrackingError(f"{self.path} is damaged at byte {end - len(line)}: no JSON there") from None

    def _read_sent(self) -> int:
        path = self.folder / SENT
        try:
            size = int(json.loads(path.read_bytes())["bytes"])
        except FileNotFoundError:
            return 0
        except (ValueError, KeyError, TypeError):
            return 0  # what is sent again is compared with what the store has
        return size if 0 <= size <= self._size else 0


def _line(entry: Entry) -> bytes:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"
