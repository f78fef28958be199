"""The append-only file of a run: all of its entries, one JSON object per line, and how much of it has been sent.

The journal is authoritative and the store a copy of it. `sent.json` contains the length in bytes of the sent part.
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

JOURNAL = "journal.jsonl"
SENT = "sent.json"


class Journal:
    """The journal in a run's folder; its first entry is the header, which identifies the run.

    Args:
        folder: of the run.
        repair: whether to cut off an incomplete entry at the end. Use False if another process may be writing.

    Raises:
        TrackingError: if the folder contains no journal, or the journal is damaged other than at its end.
        OSError: with the path, if it cannot be read or written.
    """

    def __init__(self, folder: Path, repair: bool = True) -> None:
        self.folder = folder
        self.path = folder / JOURNAL
        if not self.path.is_file():
            raise TrackingError(f"{folder} contains no {JOURNAL}: it is not the folder of a run")
        content = self.path.read_bytes()
        # If the process was killed or the disk was full in the middle of a line, the incomplete entry does not count.
        self._size = content.rfind(b"\n") + 1
        if repair and self._size < len(content):
            os.truncate(self.path, self._size)
        self.sent_bytes = self._read_sent()
        self.header: Entry = next((entry for _, entry in self._entries(0)), {})
        if self.header.get("kind") != "run":
            raise TrackingError(f"{self.path} does not begin with a run's header: the file is damaged")

    @classmethod
    def create(cls, folder: Path, header: Entry) -> "Journal":
        """Create the journal of a new run.

        Raises:
            TrackingError: if the folder already contains one.
        """
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with (folder / JOURNAL).open("xb") as file:
                file.write(_line({"kind": "run", **header}))
        except FileExistsError:
            raise TrackingError(f"{folder} already contains a run; choose another folder or resume it") from None
        return cls(folder)

    def append(self, entry: Entry) -> None:
        """Write one entry; once this returns, the entry survives if the process is killed.

        Raises:
            OSError: with the path; the journal is then as it was before.
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
        """Yield all entries, the header first."""
        return (entry for _, entry in self._entries(0))

    def history(self) -> dict[str, list[tuple[int, float]]]:
        """Return (step, value) of every metric, ordered by step; NaN and infinite values are omitted."""
        values_by_step: dict[str, dict[int, float]] = {}
        for entry in self.entries():
            for key, value in entry["values"].items() if entry["kind"] == "metrics" else ():
                if not isinstance(value, str):
                    values_by_step.setdefault(key, {}).setdefault(entry["step"], value)
        return {key: sorted(points.items()) for key, points in values_by_step.items()}

    def ending(self) -> tuple[str | None, str | None]:
        """Return status and reason of the run's end; (None, None) if it has not ended, or was resumed afterwards."""
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
        """Return the path of a file that an entry names, after checking it: a journal may come from someone else.

        Raises:
            TrackingError: if it lies outside the run's folder.
        """
        path = (self.folder / file).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise TrackingError(f"{self.path} names {file!r}, which lies outside the run's folder")
        return path

    @property
    def size(self) -> int:
        """The journal's length in bytes, without an incomplete entry at its end."""
        return self._size

    def unsent(self, end: int | None = None) -> Iterator[tuple[int, Entry]]:
        """Yield the unsent entries among the first `end` bytes (None: all), each with the position of its end."""
        return ((size, entry) for size, entry in self._entries(self.sent_bytes) if end is None or size <= end)

    def mark_sent(self, size: int) -> None:
        """Store that the first `size` bytes have been sent."""
        write_atomically(self.folder / SENT, json.dumps({"bytes": size}).encode())
        self.sent_bytes = size

    def drop_unsent(self, unwanted: Callable[[Entry], bool]) -> list[Entry]:
        """Remove the unsent entries for which `unwanted` is true from the journal, and return them."""
        dropped = [entry for _, entry in self.unsent() if unwanted(entry)]
        if dropped:
            remaining = b"".join(_line(entry) for _, entry in self.unsent() if not unwanted(entry))
            content = self.path.read_bytes()[: self.sent_bytes] + remaining
            write_atomically(self.path, content)
            self._size = len(content)
        return dropped

    def flush(self) -> None:
        """Sync the journal to the disk, so that it survives a power failure."""
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
                    raise TrackingError(
                        f"{self.path} is damaged at byte {end - len(line)}, which is not JSON"
                    ) from None

    def _read_sent(self) -> int:
        path = self.folder / SENT
        try:
            size = int(json.loads(path.read_bytes())["bytes"])
        except FileNotFoundError:
            return 0
        except (ValueError, KeyError, TypeError):
            return 0  # everything is sent again, and the sender skips what the store has already
        return size if 0 <= size <= self._size else 0


def _line(entry: Entry) -> bytes:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"
