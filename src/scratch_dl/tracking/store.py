"""Where runs are kept: a sqlite file or PostgreSQL with a folder of artifacts, or a server."""

import http.client
import shlex
import socket
import sqlite3
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scratch_dl.system.addresses import check_directory, check_uri
from scratch_dl.system.files import is_read_only, remedy
from scratch_dl.system.passwords import hide, without_password
from scratch_dl.tracking.database import explain, load_mlflow, patiently, prepare, sqlite_file
from scratch_dl.tracking.errors import RefusedError, SettingError, TrackingError, UnavailableError, one_line
from scratch_dl.tracking.locks import exclusive
from scratch_dl.tracking.moved import follow
from scratch_dl.tracking.process import hold, others
from scratch_dl.tracking.quiet import conversation, prepare_mlflow

PROBE_TIMEOUT_S = 5.0
_LOCK_TIMEOUT_S = 60.0
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


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
    def name(self) -> str:
        """The address without a password; a sqlite file's from `directory`, so that it may be moved along with it."""
        file = sqlite_file(self.uri)
        if file is None or not file.is_relative_to(self.directory):
            return self.address
        return f"sqlite:///{file.relative_to(self.directory)}"

    @property
    def environment(self) -> str:
        """What to put before a command of MLflow's so that it finds this store."""
        return f"MLFLOW_TRACKING_URI={shlex.quote(self.shown)}"

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
        patiently(lambda: _ask(store), store.shown)
    except TrackingError as error:
        raise TrackingError(explain(store.shown, error)) from None
    return store


def probe(store: Store) -> None:
    """See whether a server answers.

    Raises:
        TrackingError: if it does not.
    """
    if reason := unavailable_reason(store, PROBE_TIMEOUT_S):
        raise TrackingError(
            f"tracking.uri={store.shown} does not answer ({reason}); start the server or leave tracking.uri out"
        )


def make_ready(store: Store) -> None:
    """Make the database if there is none, let it follow its folder, and work in the folder from now on.

    Raises:
        TrackingError: if something cannot be used.
    """
    try:
        if not store.uri.startswith(("sqlite:", "postgresql")):
            hold(store.directory)
            return
        if is_read_only(store.directory):
            return  # nothing can be written, so that nobody needs to be kept out; what is there can be looked at
        load_mlflow(store.uri)
        with exclusive(store.uri, "mlflow", _LOCK_TIMEOUT_S):
            prepare(store.uri, store.artifact_location)
            follow(store.directory, store.uri)
            others(store.directory)  # removes what killed processes have left
            hold(store.directory)
    except sqlite3.Error as error:
        raise TrackingError(f"tracking.uri={store.shown} is not a database that can be used: {error}") from None
    except OSError as error:
        where = error.filename or (sqlite_file(store.uri) or store.directory)
        raise TrackingError(
            f"tracking.dir={store.directory}: {where} cannot be written: {error.strerror}{remedy(error)}"
        ) from None
    except (UnavailableError, RefusedError) as error:
        raise TrackingError(explain(store.shown, error)) from None
    except TrackingError as error:
        text = str(error)
        raise TrackingError(text if text.startswith("tracking.") else f"tracking.uri={text}") from None


def _ask(store: Store) -> None:
    with conversation():
        client(store).search_experiments(max_results=1)


def client(store: Store) -> Any:
    """Return the MlflowClient of a store."""
    return _client(store.uri)


@lru_cache(maxsize=8)
def _client(uri: str) -> Any:
    prepare_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def unavailable_reason(store: Store, timeout_s: float) -> str | None:
    """Return why a server does not answer, or None if it does (or there is none to ask).

    Asked before every conversation, because MLflow itself takes 4 s to 30 s to find a server gone.
    """
    try:
        parts = urlsplit(store.address)  # without a password no error can show it
        if store.is_server:
            place = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            urllib.request.urlopen(place.rstrip("/") + "/health", timeout=timeout_s).close()
        elif parts.hostname and (port := parts.port or _PORTS.get(parts.scheme.partition("+")[0])):
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


def full_uri(folder: Path, uri: str | None) -> str:
    """Return the address of a store as MLflow takes it, of a sqlite file with its absolute path.

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
