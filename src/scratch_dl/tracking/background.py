"""Sends a run's record in a thread of its own, which the training never waits for."""

import logging
import math
import threading
import time

from scratch_dl.tracking.errors import TrackingError, UnavailableError, one_line
from scratch_dl.tracking.journal import Journal
from scratch_dl.tracking.sender import Sender
from scratch_dl.tracking.store import PROBE_TIMEOUT_S, Store, unavailable_reason

LOG = logging.getLogger("scratch_dl.tracking")
_RETRY_TIMEOUT_S = 2.0
_LOOK_EVERY_S = 0.1


class Background:
    """Sends what is asked for, in order; where the store does not answer, what is left is tried at the next request.

    Attributes:
        limit_s: how long `wait` waits at most while nothing more arrives; may be made smaller while it waits.
    """

    def __init__(self, store: Store, record: Journal, sender: Sender) -> None:
        self._store = store
        self._record = record
        self._sender = sender
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._asked = 0  # how many requests there were, how many of them were tried, and up to which byte
        self._tried = 0
        self._end = 0
        self._warned = False
        self._closed = False
        self.limit_s = math.inf

    def request(self) -> None:
        """Ask for everything said so far to be sent, and return at once."""
        with self._condition:
            self._asked += 1
            self._end = self._record.size
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="scratch_dl sender", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def wait(self, patience_s: float) -> bool:
        """Wait until what was asked for is sent, an attempt to do so has failed, or nothing moved for `patience_s`.

        Returns:
            Whether all that was asked for is sent.
        """
        moved, sent = time.monotonic(), self._record.sent_bytes
        with self._condition:
            while self._tried < self._asked:
                self._condition.wait(_LOOK_EVERY_S)
                if self._record.sent_bytes != sent:
                    moved, sent = time.monotonic(), self._record.sent_bytes
                patience_s = min(patience_s, self.limit_s)
                if time.monotonic() - moved > patience_s:
                    self._warn(f"nothing was taken for {patience_s:g} s")
                    return False
        return self._record.sent_bytes >= self._end

    def close(self) -> bool:
        """End the thread after what it is doing; whether it is idle, so that others may talk to the store."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
            return self._tried == self._asked

    def _work(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._tried < self._asked)
                if self._closed:
                    return
                asked, end = self._asked, self._end
            reason = self._attempt(end)
            with self._condition:
                if reason is not None:
                    self._warn(reason)
                elif self._warned:
                    LOG.info("tracking.uri=%s answers again; all is sent", self._store.shown)
                    self._warned = False
                self._tried = asked
                self._condition.notify_all()

    def _attempt(self, end: int) -> str | None:
        """Send the record's first `end` bytes, as far as they are not sent; why that failed, or None."""
        reason = unavailable_reason(self._store, _RETRY_TIMEOUT_S if self._warned else PROBE_TIMEOUT_S)
        if reason is not None:
            return reason
        try:
            self._sender.send(end, lambda: self._closed)
        except (UnavailableError, TrackingError) as error:
            return str(error)
        except OSError as error:
            return f"{error.filename}: {error.strerror}" if error.filename else one_line(error)
        except Exception as error:  # a thread has nobody to raise to, and what is not sent is kept
            return f"{type(error).__name__}: {one_line(error)}"
        return None

    def _warn(self, reason: str) -> None:
        if not self._warned and not self._closed:
            LOG.warning("tracking.uri=%s does not answer; metrics are kept in %s and sent later (%s)",
                        self._store.shown, self._record.path, reason)  # fmt: skip
        self._warned = True
