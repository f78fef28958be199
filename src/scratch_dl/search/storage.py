"""Where a study is kept: SQLite, a journal file, PostgreSQL or Optuna's gRPC proxy, for several processes at once."""

import contextlib
import io
import pickle
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
from optuna.samplers import CmaEsSampler
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import hide
from scratch_dl.tracking import TrackingError
from scratch_dl.tracking.locks import connect, exclusive_lock

HEARTBEAT_S, GRACE_S = 30, 120
GRPC = "grpc://"
SCHEMA = "optuna"  # of a PostgreSQL database
_CONNECT_TIMEOUT_S = 10
_LOCK_TIMEOUT_S = 300.0
_SQLITE_TIMEOUT_S = 60.0
_SAMPLER_STATE = {
    ("cmaes._cma", "CMA"),
    ("cmaes._cmawm", "CMAwM"),
    ("cmaes._sepcma", "SepCMA"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
}
"""Everything that a CMA-ES sampler's state consists of, by module and name."""


class StorageError(RuntimeError):
    """A study's storage cannot be used; the message is one line."""


@contextmanager
def quiet() -> Iterator[None]:
    """Talk to Optuna without its log lines and warnings, which are about its own workings.

    Raises:
        StorageError: in one line, if the storage does not answer.
    """
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        if type(error).__module__.startswith("grpc"):
            words = f"the proxy does not answer: {getattr(error, 'details', str)() or type(error).__name__}"
            raise StorageError(f"hydra.sweeper.storage cannot be used: {words}") from error
        if not isinstance(error, SQLAlchemyError | optuna.exceptions.StorageInternalError):
            raise
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        words = " ".join(str(getattr(cause, "orig", None) or cause or error).split())
        full = "; free some space, then run the same command again" if "disk is full" in words else ""
        raise StorageError(f"hydra.sweeper.storage cannot be used: {words[:300]}{full}") from error
    finally:
        optuna.logging.set_verbosity(level)


@contextmanager
def locked(url: str, name: str) -> Iterator[None]:
    """Hold the lock of this name in the storage: one process at a time, on all machines.

    Raises:
        StorageError: if the storage cannot be used.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(url, f"optuna {name}", _LOCK_TIMEOUT_S))
        except TrackingError as error:
            raise StorageError(f"hydra.sweeper.storage={error}") from None
        yield


@lru_cache(maxsize=4)
def open_storage(url: str) -> BaseStorage:
    """Return Optuna's storage at an address; one process at a time creates its tables, unless a proxy has.

    Raises:
        StorageError: if it cannot be used.
    """
    try:
        if url.startswith(GRPC):
            return _proxy(url)
        if "://" not in url or url.startswith("sqlite:"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        with locked(url, "schema"), quiet():
            if "://" not in url:
                return JournalStorage(JournalFileBackend(url))
            if url.startswith("sqlite:"):
                engine: dict[str, Any] = {"connect_args": {"timeout": _SQLITE_TIMEOUT_S}}
            else:
                engine = {"connect_args": _postgresql_arguments(url), "pool_pre_ping": True}
            return RDBStorage(url, engine, heartbeat_interval=HEARTBEAT_S, grace_period=GRACE_S)
    except ImportError as error:
        extra = "grpc" if url.startswith(GRPC) else "postgresql"
        raise StorageError(
            f'hydra.sweeper.storage needs a driver: pip install "scratch_dl[{extra}]" ({error})'
        ) from None
    except OSError as error:
        raise StorageError(f"hydra.sweeper.storage={hide(url)} cannot be used: {error.strerror or error}") from None
    except TrackingError as error:
        raise StorageError(f"hydra.sweeper.storage={error}") from None


def _proxy(url: str) -> BaseStorage:
    """Return a client of Optuna's gRPC proxy, `grpc://host:port`.

    Raises:
        StorageError: if it does not answer.
        ImportError: without gRPC.
    """
    import grpc  # noqa: F401, as Optuna imports it only when it is used

    where = urlsplit(url)
    with quiet():  # it warns that the proxy is experimental
        storage = GrpcStorageProxy(host=str(where.hostname), port=int(where.port or 0))
        try:
            storage.wait_server_ready(timeout=_CONNECT_TIMEOUT_S)
        except ConnectionError:
            raise StorageError(
                f"hydra.sweeper.storage={url} did not answer within {_CONNECT_TIMEOUT_S} s; start the proxy "
                "(optuna.storages.run_grpc_proxy_server)"
            ) from None
    return storage


def _postgresql_arguments(url: str) -> dict[str, Any]:
    """Return arguments that connect to a schema of Optuna's own: some of MLflow's tables have the same names."""
    arguments: dict[str, Any] = {"connect_timeout": _CONNECT_TIMEOUT_S}
    if "search_path" in url:
        return arguments
    with connect(url) as connection:
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
    return {**arguments, "options": f"-csearch_path={SCHEMA}"}


class SafeCmaEs(CmaEsSampler):
    """Optuna's CMA-ES, which keeps its state as a pickle in the storage: here it is read without running anything.

    Others may write to a storage, so the state may name nothing but the sampler's own classes and arrays.
    """

    def _restore_optimizer(self, completed_trials: Sequence[FrozenTrial]) -> Any:
        for trial in reversed(completed_trials):
            parts = {
                key: value for key, value in trial.system_attrs.items() if key.startswith(self._attr_key_optimizer)
            }
            if parts:
                return _StateReader(io.BytesIO(bytes.fromhex(self._concat_optimizer_attrs(parts)))).load()
        return None


class _StateReader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _SAMPLER_STATE:
            raise ConfigError(
                f"hydra.sweeper.storage holds a state of the sampler that asks for {module}.{name}, which is not "
                "part of it; choose another hydra.sweeper.study_name or sampler"
            )
        return super().find_class(module, name)
