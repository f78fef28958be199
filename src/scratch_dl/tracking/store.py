"""Where runs are kept: a sqlite file or PostgreSQL with a folder of artifacts, or a server."""

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

from scratch_dl.passwords import hide, without_password
from scratch_dl.tracking.errors import RefusedError, TrackingError, UnavailableError, one_line
from scratch_dl.tracking.locks import connected, exclusive

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
    # It would print the server's address, with the password in it, at a run's end.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # PostgreSQL's own is to wait for ever.
    "PGCONNECT_TIMEOUT": "10",
}
# Codes by which MLflow means "this entry is bad"; with any other one the entry is kept and sent again later.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "MALFORMED_REQUEST"}


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
    def shown(self) -> str:
        """The address as messages have it: `***` for a password."""
        return hide(self.uri)

    @property
    def address(self) -> str:
        """The address without a password: what files keep, and by which a store is told from another."""
        return without_password(self.uri)

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
            f"tracking.uri={store.shown} does not answer ({reason}); start the server or leave tracking.uri out"
        )
    if store.uri.startswith(("sqlite:", "postgresql")):
        _prepare_database(store)
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


def silence(store: Store, timeout_s: float) -> str | None:
    """Return why a server does not answer, or None if it does (or there is none to ask).

    Asked before every conversation, because MLflow itself takes 4 s to 30 s to find a server gone.
    """
    try:
        parts = urlsplit(store.address)  # without a password no error can show it
        if store.is_server:
            place = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            urllib.request.urlopen(place.rstrip("/") + "/health", timeout=timeout_s).close()
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
            f"tracking.uri={hide(uri)} must begin with http://, https://, sqlite:/// or another database's name"
        )
    if scheme == "sqlite" and uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    return uri


def _prepare_database(store: Store) -> None:
    """Create the tables, one process at a time: MLflow's own attempt races and crashes."""
    try:
        with exclusive(store.uri, "mlflow", _LOCK_TIMEOUT_S):
            # MLflow itself would try ten times, over 100 s, to open what cannot be opened.
            if _is_new_file(store.uri) if store.uri.startswith("sqlite:") else _is_new_database(store.uri):
                with conversation():
                    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

                    SqlAlchemyStore(store.uri, store.artifact_location)
    except sqlite3.Error as error:
        raise TrackingError(f"tracking.uri={store.shown} is no database that can be used: {error}") from None
    except OSError as error:
        raise TrackingError(f"tracking.uri={store.shown} cannot be written: {error.strerror}") from None
    except (UnavailableError, RefusedError) as error:
        raise TrackingError(_explain(store, error)) from None
    except TrackingError as error:
        raise TrackingError(f"tracking.uri={error}") from None


def _is_new_file(uri: str) -> bool:
    file = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    new = not file.exists() or not file.stat().st_size
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA schema_version").fetchone()
    return new


def _is_new_database(uri: str) -> bool:
    from sqlalchemy import inspect

    with connected(uri) as connection:
        tables = set(inspect(connection).get_table_names())
    # MLflow makes its last tables and this one in a single transaction, so a process killed in it leaves neither.
    if "alembic_version" not in tables:
        return True
    if "experiments" not in tables:  # both would keep the version of their tables in one table of this name
        raise TrackingError(
            f"{hide(uri)} holds the tables of another program, as Optuna; MLflow needs a database of its own"
        )
    return False


def _explain(store: Store, error: TrackingError) -> str:
    text = str(error)
    if "schema" in text or "Can't locate revision" in text:
        import mlflow

        return (
            f"tracking.uri={store.shown} was written by another version of MLflow than this one, {mlflow.__version__}: "
            "use that version, or choose another tracking.dir"
        )
    return f"tracking.uri={store.shown} cannot be used: {hide(text)}"
