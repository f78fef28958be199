"""Where runs are stored: a sqlite file or PostgreSQL with a folder of artifacts, or an MLflow server."""

import http.client
import shlex
import socket
import sqlite3
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scratch_dl.system.addresses import check_directory, check_uri
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.files import advice_suffix, is_read_only
from scratch_dl.system.passwords import hide, without_password
from scratch_dl.tracking.database import (
    create_missing_tables,
    preload_mlflow,
    retry_while_locked,
    sqlite_file,
    store_error_message,
)
from scratch_dl.tracking.errors import RefusedError, SettingError, TrackingError, UnavailableError, one_line
from scratch_dl.tracking.locks import exclusive_lock
from scratch_dl.tracking.mlflow_calls import mlflow_call, set_mlflow_environment
from scratch_dl.tracking.process import other_processes, register_process
from scratch_dl.tracking.relocation import update_addresses

PROBE_TIMEOUT_S = 5.0
_LOCK_TIMEOUT_S = 60.0
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


@dataclass(frozen=True)
class Store:
    """A place for runs: `directory` is absolute and contains the artifacts, unless `uri` names a server."""

    directory: Path
    uri: str

    @property
    def is_server(self) -> bool:
        """Whether the store is an MLflow server, not a database."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def shown(self) -> str:
        """The address for messages, with `***` in place of a password."""
        return hide(self.uri)

    @property
    def address(self) -> str:
        """The address without a password, for files and for comparing stores."""
        return without_password(self.uri)

    @property
    def name(self) -> str:
        """The address without a password; a sqlite file's is relative to `directory`, so that both may be moved."""
        file = sqlite_file(self.uri)
        if file is None or not file.is_relative_to(self.directory):
            return self.address
        return f"sqlite:///{file.relative_to(self.directory)}"

    @property
    def environment(self) -> str:
        """The variable assignment with which a command of MLflow finds this store."""
        return f"MLFLOW_TRACKING_URI={shlex.quote(self.shown)}"

    @property
    def artifact_location(self) -> str | None:
        """The URI of a new experiment's artifacts; None leaves the choice to the server."""
        return None if self.is_server else (self.directory / "artifacts").as_uri()


def open_store(directory: Path | str, uri: str | None = None) -> Store:
    """Prepare a store for use: create its folder and tables, or check that the server answers.

    Args:
        directory: the folder of all runs (`tracking.dir`); created if it is missing.
        uri: an MLflow server or database (`tracking.uri`); None for `mlflow.db` in `directory`.

    Raises:
        TrackingError: if the path cannot be used, the server does not answer (raised within 15 s), or the database
            was written by another version of MLflow.
    """
    folder = Path(directory).expanduser().absolute()
    store = Store(folder, full_uri(folder, uri))
    probe(store)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not store.is_server:
            (folder / "artifacts").mkdir(exist_ok=True)
    except OSError as error:
        raise TrackingError(f"tracking.dir={directory} cannot be used as a folder: {error.strerror}") from None
    make_ready(store)
    try:
        retry_while_locked(lambda: _ask(store), store.shown)
    except TrackingError as error:
        raise TrackingError(store_error_message(store.shown, error)) from None
    return store


def open_existing_store(settings: Mapping[str, Any], wanted: str | None = None) -> Store:
    """Prepare the store of the settings `tracking` for use as `open_store` does, without creating its database.

    Raises:
        ConfigError: if it does not exist, so that there is nothing that is `wanted`.
        TrackingError: as for `open_store`.
    """
    directory, uri = settings["dir"], settings["uri"]
    file = sqlite_file(full_uri(Path(directory).expanduser().absolute(), uri))
    if file is not None and not file.is_file():
        where = f"tracking.dir={directory}" if uri is None else f"tracking.uri={uri}"
        missing = f", so there is no {wanted}" if wanted else ""
        raise ConfigError(f"{where} holds no runs{missing}; train one: python -m scratch_dl.train")
    return open_store(directory, uri)


def probe(store: Store) -> None:
    """Check that a server answers; any other store passes, except a database server that does not answer.

    Raises:
        TrackingError: if the server does not answer.
    """
    if reason := unavailable_reason(store, PROBE_TIMEOUT_S):
        raise TrackingError(
            f"tracking.uri={store.shown} does not answer ({reason}); start the server or leave tracking.uri out"
        )


def make_ready(store: Store) -> None:
    """Create the database if there is none, update its addresses after a move, and register this process in the folder.

    Raises:
        TrackingError: if the database or the folder cannot be used.
    """
    try:
        if not store.uri.startswith(("sqlite:", "postgresql")):
            register_process(store.directory)
            return
        if is_read_only(store.directory):
            return  # the existing runs can be read; nothing can be written, so no lock is needed
        preload_mlflow(store.uri)
        with exclusive_lock(store.uri, "mlflow", _LOCK_TIMEOUT_S):
            create_missing_tables(store.uri, store.artifact_location)
            update_addresses(store.directory, store.uri)
            other_processes(store.directory)  # deletes the files of killed processes
            register_process(store.directory)
    except sqlite3.Error as error:
        raise TrackingError(f"tracking.uri={store.shown} is not a database that can be used: {error}") from None
    except OSError as error:
        where = error.filename or (sqlite_file(store.uri) or store.directory)
        raise TrackingError(
            f"tracking.dir={store.directory}: {where} cannot be written: {error.strerror}{advice_suffix(error)}"
        ) from None
    except (UnavailableError, RefusedError) as error:
        raise TrackingError(store_error_message(store.shown, error)) from None
    except TrackingError as error:
        text = str(error)
        raise TrackingError(text if text.startswith("tracking.") else f"tracking.uri={text}") from None


def _ask(store: Store) -> None:
    with mlflow_call():
        client(store).search_experiments(max_results=1)


def client(store: Store) -> Any:
    """Return the MlflowClient of a store."""
    return _client(store.uri)


@lru_cache(maxsize=8)
def _client(uri: str) -> Any:
    set_mlflow_environment()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def unavailable_reason(store: Store, timeout_s: float) -> str | None:
    """Return why a server does not answer; None if it does, or if the store needs no server.

    Callers check this before they call MLflow, which itself takes 4 s to 30 s to notice that a server is gone.
    """
    try:
        parts = urlsplit(store.address)  # has no password that an error could show
        if store.is_server:
            place = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            urllib.request.urlopen(place.rstrip("/") + "/health", timeout=timeout_s).close()
        elif parts.hostname and (port := parts.port or _PORTS.get(parts.scheme.partition("+")[0])):
            socket.create_connection((parts.hostname, port), timeout=timeout_s).close()
    except urllib.error.HTTPError as error:
        # A proxy may not forward /health (4xx); a gateway answers 5xx if the server behind it is down.
        return f"HTTP {error.code}" if error.code >= 500 else None
    except urllib.error.URLError as error:
        # MLflow has its own settings for certificates, so let MLflow check them.
        return None if isinstance(error.reason, ssl.SSLError) else one_line(error)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return one_line(error)
    return None


def full_uri(folder: Path, uri: str | None) -> str:
    """Return the address of a store in the form that MLflow accepts; that of a sqlite file has an absolute path.

    Raises:
        SettingError: if it cannot be used.
    """
    try:
        check_directory("tracking.dir", str(folder), holds_database=uri is None)
        uri = f"sqlite:///{folder / 'mlflow.db'}" if uri is None else check_uri("tracking.uri", uri)
    except ValueError as error:
        raise SettingError(str(error)) from None
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    return uri
