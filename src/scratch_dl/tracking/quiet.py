"""Talk to MLflow without its words on the console: its errors come as ours, in one line."""

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
    # Its own lines have the address as it was given, password included.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow's own 7 retries of 120 s hold a training up for minutes when a server is gone.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # PostgreSQL's own is to wait for ever.
    "PGCONNECT_TIMEOUT": "10",
}
# Codes by which MLflow means "this entry is bad"; with any other one the entry is kept and sent again later.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "MALFORMED_REQUEST"}


def prepare_mlflow() -> None:
    """Set what MLflow reads when it is imported; a value the user has set stays."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def conversation() -> Iterator[None]:
    """Talk to MLflow: its log lines and warnings stay off the console, its errors come as ours, in one line.

    Raises:
        RefusedError: if the store will never take what was sent.
        UnavailableError: if the store does not answer.
        OSError: with the path, if a file could not be read or written.
    """
    prepare_mlflow()
    if "mlflow.exceptions" not in sys.modules:
        with warnings.catch_warnings():  # some come from the import itself
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
        except (requests.RequestException, SQLAlchemyError) as error:  # the first an OSError, but of the network
            raise UnavailableError(one_line(error)) from error


class _Silence:
    """No warnings, and no log lines of MLflow's, from the first conversation's start to the last one's end.

    Filters and levels belong to the process, and conversations go on in several threads at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._talking = 0

    def __enter__(self) -> None:
        with self._lock:
            self._talking += 1
            if self._talking > 1:
                return
            # Its warnings are about its own use of other libraries: nothing that a user could mend.
            self._warnings = warnings.catch_warnings()
            self._warnings.__enter__()
            warnings.simplefilter("ignore")
            # Only after the import, which sets the levels anew.
            self._levels = {name: logging.getLogger(name).level for name in _CHATTY}
            for name in _CHATTY:
                logging.getLogger(name).setLevel(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._talking -= 1
            if self._talking:
                return
            self._warnings.__exit__(None, None, None)
            for name, level in self._levels.items():
                logging.getLogger(name).setLevel(level)


_silence = _Silence()
