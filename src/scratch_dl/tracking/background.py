"""Sends a run's journal in a separate thread, so that the training never waits for the store."""

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
_POLL_S = 0.1


class BackgroundSender:
    """Sends the journal up to the point of each request. If the store does not answer, the next request tries again.

    Attributes:
        limit_s: the longest time that `wait` waits without progress; may be lowered while it waits.
    """

    def __init__(self, store: Store, journal: Journal, sender: Sender) -> None:
        self._store = store
        self._journal = journal
        self._sender = sender
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._requested = 0  # number of requests
        self._attempted = 0  # number of requests that were attempted, successfully or not
        self._end = 0  # the journal's size at the last request
        self._warned = False
        self._closed = False
        self.limit_s = math.inf

    def request(self) -> None:
        """Request that everything in the journal so far is sent, and return at once."""
        with self._condition:
            self._requested += 1
            self._end = self._journal.size
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="scratch_dl sender", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def wait(self, patience_s: float) -> bool:
        """Wait until every request was attempted, or the store accepted nothing for `patience_s`.

        Returns:
            Whether everything requested has been sent.
        """
        last_progress, delivered = time.monotonic(), self._sender.delivered
        with self._condition:
            while self._attempted < self._requested:
                self._condition.wait(_POLL_S)
                if self._sender.delivered != delivered:
                    last_progress, delivered = time.monotonic(), self._sender.delivered
                patience_s = min(patience_s, self.limit_s)
                if time.monotonic() - last_progress > patience_s:
                    self._warn(f"it accepted nothing for {patience_s:g} s")
                    return False
        return self._journal.sent_bytes >= self._end

    def close(self) -> bool:
        """Let the thread end after its current batch.

        Returns:
            Whether the thread is idle, so that another one may call the store.
        """
        with self._condition:
            self._closed = True
            self._condition.notify_all()
            return self._attempted == self._requested

    def _work(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._attempted < self._requested)
                if self._closed:
                    return
                requested, end = self._requested, self._end
            reason = self._attempt(end)
            with self._condition:
                if reason is not None:
                    self._warn(reason)
                elif self._warned:
                    LOG.info("tracking.uri=%s answers again; everything was sent", self._store.shown)
                    self._warned = False
                self._attempted = requested
                self._condition.notify_all()

    def _attempt(self, end: int) -> str | None:
        """Send the unsent part of the journal's first `end` bytes; return why that failed, or None if it did not."""
        reason = unavailable_reason(self._store, _RETRY_TIMEOUT_S if self._warned else PROBE_TIMEOUT_S)
        if reason is not None:
            return reason
        try:
            self._sender.send(end, lambda: self._closed)
        except (UnavailableError, TrackingError) as error:
            return str(error)
        except OSError as error:
            return f"{error.filename}: {error.strerror}" if error.filename else one_line(error)
        except Exception as error:  # nobody catches an error of a thread; the unsent entries stay in the journal
            return f"{type(error).__name__}: {one_line(error)}"
        return None

    def _warn(self, reason: str) -> None:
        if not self._warned and not self._closed:
            LOG.warning(
                "tracking.uri=%s does not answer; metrics are kept in %s and sent later (%s)",
                self._store.shown,
                self._journal.path,
                reason,
            )
        self._warned = True
