"""Calls to MLflow: nothing on the console, and its errors become `TrackingError`s with a message of one line."""

import contextlib
import importlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator

from scratch_dl.tracking.errors import RefusedError, UnavailableError, one_line

_CHATTY = ("mlflow", "alembic", "urllib3.connectionpool")
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow's own messages contain the address as it was given, including a password.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # By default MLflow retries 7 times with 120 s each, which delays a training for minutes when a server is gone.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # By default PostgreSQL waits forever.
    "PGCONNECT_TIMEOUT": "10",
}
# MLflow's error codes for an entry that it will never accept; after any other error the entry is sent again later.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "MALFORMED_REQUEST"}


def set_mlflow_environment() -> None:
    """Set the environment variables that MLflow reads when it is imported; those that the user has set stay."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def mlflow_call() -> Iterator[None]:
    """Call MLflow inside the block: its log lines and warnings are not shown, and its errors become ours, in one line.

    Raises:
        RefusedError: if the store will never accept what was sent.
        UnavailableError: if the store does not answer.
        OSError: with the path, if a file could not be read or written.
    """
    set_mlflow_environment()
    if "mlflow.exceptions" not in sys.modules:
        with warnings.catch_warnings():  # the import itself warns, too
            warnings.simplefilter("ignore")
            importlib.import_module("mlflow.exceptions")
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    with _silence:
        try:
            yield
        except MlflowException as error:
            kind = RefusedError if error.error_code in _REFUSALS else UnavailableError
            raise kind(one_line(error)) from error
        except (requests.RequestException, SQLAlchemyError) as error:  # a RequestException is an OSError as well
            raise UnavailableError(one_line(error)) from error


class _Silence:
    """Silences warnings and MLflow's log lines from the start of the first concurrent call to the end of the last.

    Warning filters and log levels belong to the process, while several threads may call MLflow at the same time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0

    def __enter__(self) -> None:
        with self._lock:
            self._calls += 1
            if self._calls > 1:
                return
            # MLflow's warnings are about its own use of other libraries, which a user cannot change.
            self._warnings = warnings.catch_warnings()
            self._warnings.__enter__()
            warnings.simplefilter("ignore")
            # After the import, because that resets the levels.
            self._levels = {name: logging.getLogger(name).level for name in _CHATTY}
            for name in _CHATTY:
                logging.getLogger(name).setLevel(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._calls -= 1
            if self._calls:
                return
            self._warnings.__exit__(None, None, None)
            for name, level in self._levels.items():
                logging.getLogger(name).setLevel(level)


_silence = _Silence()
