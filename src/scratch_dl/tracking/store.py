"""Where runs are kept: a sqlite file with a folder of artifacts, or a server."""

import contextlib
import http.client
import logging
import os
import socket
import sqlite3
import ssl
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

PROBE_TIMEOUT_S = 5.0
_LOCK_TIMEOUT_S = 120.0
_DATABASES = {"sqlite": 0, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_CHATTY = ("mlflow", "alembic", "urllib3.connectionpool")
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow's own 7 retries of 120 s hold a training up for minutes when a server is gone.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
# Codes by which MLflow means "this entry is bad"; with any other one the entry is kept and sent again later.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "MALFORMED_REQUEST"}


class TrackingError(RuntimeError):
    """The store cannot be used as asked; the message is one line and says what to change."""


class UnavailableError(TrackingError):
    """The store does not answer, or not usefully: what was to be sent has to be kept."""


class RefusedError(TrackingError):
    """The store answers, and will never take this entry."""


@dataclass(frozen=True)
class Store:
    """A place for runs: `directory` is absolute and holds the artifacts unless `uri` names a server."""

    directory: Path
    uri: str

    @property
    def is_server(self) -> bool:
        """Whether an MLflow server is asked rather than a database."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def artifact_location(self) -> str | None:
        """Where an experiment's artifacts go, as a URI; None leaves it to the server."""
        return None if self.is_server else (self.directory / "artifacts").as_uri()


def open_store(directory: Path | str, uri: str | None = None) -> Store:
    """Make the store ready for use: its folder, its tables, or a look whether the server answers.

    Args:
        directory: the folder of all runs (`tracking.dir`); made if missing.
        uri: an MLflow server or database (`tracking.uri`); None is `mlflow.db` in `directory`.

    Raises:
        TrackingError: if the path cannot be used, the server does not answer (told within 15 s), or the database
            was written by another version of MLflow.
    """
    folder = Path(directory).expanduser().absolute()
    store = Store(folder, _full_uri(folder, uri))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not store.is_server:
            (folder / "artifacts").mkdir(exist_ok=True)
    except OSError as error:
        raise TrackingError(f"tracking.dir={directory} cannot be used as a folder: {error.strerror}") from None
    if reason := silence(store, PROBE_TIMEOUT_S):
        raise TrackingError(
            f"tracking.uri={store.uri} does not answer ({reason}); start the server or leave tracking.uri out"
        )
    if store.uri.startswith("sqlite:"):
        _prepare_sqlite(store)
    try:
        with conversation():
            client(store).search_experiments(max_results=1)
    except TrackingError as error:
        raise TrackingError(_explain(store, error)) from None
    return store


def client(store: Store) -> Any:
    """Return the MlflowClient of a store."""
    return _client(store.uri)


@lru_cache(maxsize=8)
def _client(uri: str) -> Any:
    prepare_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def prepare_mlflow() -> None:
    """Set what MLflow reads when it is imported; a value the user has set stays."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def conversation() -> Iterator[None]:
    """Talk to MLflow: its log lines stay off the console, its errors come as ours, in one line.

    Raises:
        RefusedError: if the store will never take what was sent.
        UnavailableError: if the store does not answer.
        OSError: with the path, if a file could not be read or written.
    """
    # Its warnings are about its own use of other libraries: nothing that a user could mend.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepare_mlflow()
        import requests
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        # Only after the import, which sets the levels anew.
        levels = {name: logging.getLogger(name).level for name in _CHATTY}
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            yield
        except MlflowException as error:
            kind = RefusedError if error.error_code in _REFUSALS else UnavailableError
            raise kind(one_line(error)) from error
        except (requests.RequestException, SQLAlchemyError) as error:  # the first an OSError, but of the network
            raise UnavailableError(one_line(error)) from error
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def one_line(error: BaseException) -> str:
    """Return what an error says as one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def silence(store: Store, timeout_s: float) -> str | None:
    """Return why a server does not answer, or None if it does (or there is none to ask).

    Asked before every conversation, because MLflow itself takes 4 s to 30 s to find a server gone.
    """
    parts = urlsplit(store.uri)
    try:
        if store.is_server:
            urllib.request.urlopen(store.uri.rstrip("/") + "/health", timeout=timeout_s).close()
        elif parts.hostname and (port := parts.port or _DATABASES.get(parts.scheme.partition("+")[0])):
            socket.create_connection((parts.hostname, port), timeout=timeout_s).close()
    except urllib.error.HTTPError as error:
        # Something behind a proxy may know no /health; a gateway's 5xx says that nobody is behind it.
        return f"HTTP {error.code}" if error.code >= 500 else None
    except urllib.error.URLError as error:
        # MLflow has settings of its own for certificates, so let it judge them.
        return None if isinstance(error.reason, ssl.SSLError) else one_line(error)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return one_line(error)
    return None


def _full_uri(folder: Path, uri: str | None) -> str:
    if uri is None:
        if odd := set(str(folder)) & set("?%"):
            raise TrackingError(
                f"tracking.dir={folder} must not contain {odd.pop()!r}, which has a meaning in an address"
            )
        return f"sqlite:///{folder / 'mlflow.db'}"
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme not in {"http", "https", *_DATABASES}:
        raise TrackingError(
            f"tracking.uri={uri} must begin with http://, https://, sqlite:/// or another database's name"
        )
    if scheme == "sqlite" and uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    return uri


def _prepare_sqlite(store: Store) -> None:
    """Create the tables, one process at a time: MLflow's own attempt races and crashes."""
    file = Path(store.uri.removeprefix("sqlite:///").partition("?")[0])
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(f".{file.name}.lock"), timeout=_LOCK_TIMEOUT_S):
            new = not file.exists() or not file.stat().st_size
            # MLflow itself would try ten times, over 100 s, to open what cannot be opened.
            with contextlib.closing(sqlite3.connect(file)) as database:
                database.execute("PRAGMA schema_version").fetchone()
            if new:
                with conversation():
                    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

                    SqlAlchemyStore(store.uri, store.artifact_location)
    except Timeout:
        raise TrackingError(f"tracking.uri={store.uri} is locked for over {_LOCK_TIMEOUT_S:g} s") from None
    except sqlite3.Error as error:
        raise TrackingError(f"tracking.uri={store.uri} is no database that can be used: {error}") from None
    except OSError as error:
        raise TrackingError(f"tracking.uri={store.uri} cannot be written: {error.strerror}") from None
    except (UnavailableError, RefusedError) as error:
        raise TrackingError(_explain(store, error)) from None


def _explain(store: Store, error: TrackingError) -> str:
    text = str(error)
    if "schema" in text or "Can't locate revision" in text:
        import mlflow

        return (
            f"tracking.uri={store.uri} was written by another version of MLflow than this one, {mlflow.__version__}: "
            "use that version, or choose another tracking.dir"
        )
    return f"tracking.uri={store.uri} cannot be used: {text}"
