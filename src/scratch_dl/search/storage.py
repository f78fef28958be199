"""Where a study is kept: sqlite, a journal file or PostgreSQL, each usable by several processes at once."""

import contextlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scratch_dl.system.passwords import hide
from scratch_dl.tracking import TrackingError
from scratch_dl.tracking.locks import connected, exclusive

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

HEARTBEAT_S, GRACE_S = 30, 120
SCHEMA = "optuna"  # of a PostgreSQL database
_CONNECT_TIMEOUT_S = 10
_LOCK_TIMEOUT_S = 300.0
_SQLITE_TIMEOUT_S = 60.0


class StorageError(RuntimeError):
    """A study's storage cannot be used; the message is one line."""


@contextmanager
def quiet() -> Iterator[None]:
    """Talk to Optuna: its log lines and warnings, about its own ways, stay off the terminal.

    Raises:
        StorageError: in one line, if the storage does not answer.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        words = " ".join(str(getattr(cause, "orig", None) or cause or error).split())
        full = "; free some space, then run the same command again" if "disk is full" in words else ""
        raise StorageError(f"hydra.sweeper.storage cannot be used: {words[:300]}{full}") from error
    finally:
        optuna.logging.set_verbosity(level)


@contextmanager
def lock(url: str, name: str) -> Iterator[None]:
    """One process at a time, on every machine, does what is called so with the storage.

    Raises:
        StorageError: if the storage cannot be used.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(url, f"optuna {name}", _LOCK_TIMEOUT_S))
        except TrackingError as error:
            raise StorageError(f"hydra.sweeper.storage={error}") from None
        yield


@lru_cache(maxsize=4)
def open_storage(url: str) -> "BaseStorage":
    """Optuna's storage; its tables are made by one process at a time.

    Raises:
        StorageError: if it cannot be used.
    """
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        if "://" not in url or url.startswith("sqlite:"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        with lock(url, "schema"), quiet():
            if "://" not in url:
                return JournalStorage(JournalFileBackend(url))
            if url.startswith("sqlite:"):
                engine: dict[str, Any] = {"connect_args": {"timeout": _SQLITE_TIMEOUT_S}}
            else:
                engine = {"connect_args": _in_its_schema(url), "pool_pre_ping": True}
            return RDBStorage(url, engine, heartbeat_interval=HEARTBEAT_S, grace_period=GRACE_S)
    except ImportError as error:
        raise StorageError(
            f'hydra.sweeper.storage needs a driver: pip install "scratch_dl[postgresql]" ({error})'
        ) from None
    except OSError as error:
        raise StorageError(f"hydra.sweeper.storage={hide(url)} cannot be used: {error.strerror or error}") from None
    except TrackingError as error:
        raise StorageError(f"hydra.sweeper.storage={error}") from None


def _in_its_schema(url: str) -> dict[str, Any]:
    """Arguments of a connection to Optuna's tables, which are apart from MLflow's: some of both have the same names."""
    arguments: dict[str, Any] = {"connect_timeout": _CONNECT_TIMEOUT_S}
    if "search_path" in url:
        return arguments
    from sqlalchemy import text

    with connected(url) as connection:
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
    return {**arguments, "options": f"-csearch_path={SCHEMA}"}
