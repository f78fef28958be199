"""How a training reacts to SIGINT, SIGTERM and SIGHUP: it finishes the step at hand, and then stops."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none


class Interrupted(BaseException):
    """A signal asked for a stop. Like KeyboardInterrupt it is not an Exception, so that no library swallows it.

    Attributes:
        exit_status: of the command, by the shell's convention: 128 + the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_status = 128 + number


@contextmanager
def handling(handler: Callable[[int, Any], None]) -> Iterator[dict[int, Any]]:
    """Let `handler` handle SIGINT, SIGTERM and SIGHUP inside the block; yields the previous handlers by signal number.

    A SIGHUP that is ignored, as it is under nohup, stays ignored. Python lets only the main thread set handlers; in
    another thread nothing changes.
    """
    previous: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for stop in _stopping_signals():
                previous[int(stop)] = signal.getsignal(stop)
                signal.signal(stop, handler)
        yield previous
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def interrupt(number: int, _: Any) -> None:
    """Handle a signal outside the loop, where there is no step to finish.

    Raises:
        Interrupted: always.
    """
    raise Interrupted(number)


def _stopping_signals() -> tuple[signal.Signals, ...]:
    hangup = () if _HANGUP is None or signal.getsignal(_HANGUP) == signal.SIG_IGN else (_HANGUP,)
    return (signal.SIGINT, signal.SIGTERM, *hangup)
