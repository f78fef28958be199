"""The MLflow run of a study, to which several processes and machines write directly, without a journal.

The study's data are in Optuna's storage, so nothing is kept here if the store does not answer: every method raises only
UnavailableError or RefusedError, and a caller can continue without the run.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from scratch_dl.system import checks
from scratch_dl.system.passwords import hide
from scratch_dl.tracking.errors import RefusedError, TrackingError, UnavailableError
from scratch_dl.tracking.lookup import check_active, experiment_id
from scratch_dl.tracking.mlflow_calls import mlflow_call
from scratch_dl.tracking.names import NAME_LENGTH, PARAM_LENGTH, check_name, clip
from scratch_dl.tracking.process import worker_tag
from scratch_dl.tracking.run import STATUSES
from scratch_dl.tracking.start import origin_tags
from scratch_dl.tracking.store import Store, client, unavailable_reason
from scratch_dl.tracking.values import chunks, clip_tag, log_values, nonfinite_tags, now_ms, texts

_PARENT = "mlflow.parentRunId"
_TIMEOUT_S = 2.0


class SharedRun:
    """A run that several processes share and that has nested runs.

    It stays RUNNING while one of the processes that created or reopened it lives; then `close_orphans` closes it.

    Args:
        store: of the run.
        run_id: of a run that `create` created, in this process or another.

    Raises:
        UnavailableError: if the store does not answer, or has no such run.
        RefusedError: if the run was deleted.

    Attributes:
        run_id: MLflow's id of the run.
        experiment_id: MLflow's id of its experiment, which nested runs share.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self.run_id = run_id
        with _call(store):
            run = client(store).get_run(run_id)
            check_active(store, run)
        self.experiment_id = str(run.info.experiment_id)

    @classmethod
    def create(cls, store: Store, experiment: str, name: str, tags: Mapping[str, object]) -> "SharedRun":
        """Create a run and register this process as working on it; passwords in the tags' values are hidden.

        Raises:
            UnavailableError: if the store does not answer.
            RefusedError: if the experiment was deleted, or a name cannot be used.
        """
        with _call(store):
            every_tag = {**origin_tags(), **_created(tags), **worker_tag(store.directory)}
            run = client(store).create_run(
                experiment_id(store, experiment), run_name=clip(name, NAME_LENGTH), tags=every_tag
            )
        return cls(store, str(run.info.run_id))

    def reopen(self) -> None:
        """Set the run RUNNING, and register this process as working on it."""
        with _call(self._store):
            api = client(self._store)
            # In this order: otherwise another process could see a RUNNING run without a living process, and close it.
            for key, value in worker_tag(self._store.directory).items():
                api.set_tag(self.run_id, key, value)
            api.update_run(self.run_id, status="RUNNING")
            if "interrupted" in api.get_run(self.run_id).data.tags:
                api.delete_tag(self.run_id, "interrupted")

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags, cut to 8000 characters; DESCRIPTION, Markdown that MLflow shows, is cut at the end of a line."""
        with _call(self._store):
            self._log(self.run_id, tags=texts("tag", values))

    def describe_run(self, run_id: str, tags: Mapping[str, object], metrics: Mapping[str, float], step: int) -> None:
        """Set tags of another run, for example that of a finished trial, and log metrics of it."""
        with _call(self._store):
            for key in metrics:
                check_name("metric", key)
            self._log(run_id, tags=texts("tag", tags), metrics=metrics, step=step)

    def nested_tags(self) -> dict[str, dict[str, str]]:
        """Return the tags of every nested run, by its id."""
        with _call(self._store):
            api, query, token = client(self._store), f"tags.`{_PARENT}` = '{self.run_id}'", None
            found: dict[str, dict[str, str]] = {}
            while token != "":
                page = api.search_runs([self.experiment_id], query, page_token=token)
                found |= {str(run.info.run_id): dict(run.data.tags) for run in page}
                token = page.token or ""
        return found

    def params(self, values: Mapping[str, object]) -> None:
        """Set parameters that the run does not have yet; a tag `changed/<name>` gets a later value that differs."""
        with _call(self._store):
            params = {key: clip(text, PARAM_LENGTH) for key, text in texts("parameter", values).items()}
        try:
            self._add_params(params)
        except RefusedError:  # another process set one of them in the meantime
            self._add_params(params)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics at a step, except values that are already the step's latest.

        For a value that is NaN or infinite, the tag `nonfinite/<name>` gets the step instead.
        """
        with _call(self._store):
            fresh = {}
            for key, value in values.items():
                check_name("metric", key)
                history = client(self._store).get_metric_history(self.run_id, key) if math.isfinite(value) else ()
                stored = [metric for metric in history if metric.step == step]
                if not stored or max(stored, key=lambda metric: metric.timestamp).value != float(value):
                    fresh[key] = value
            self._log(self.run_id, metrics=fresh, step=step)

    def files(self, paths: Iterable[Path | str]) -> None:
        """Log files as artifacts at the run's root; an existing one of the same name is overwritten."""
        with _call(self._store):
            for path in paths:
                if not Path(path).is_file():
                    raise RefusedError(f"{path} is not a file, so it cannot be an artifact")
                client(self._store).log_artifact(self.run_id, str(path))

    def finish(self, status: str) -> None:
        """End the run, and unregister this process.

        Args:
            status: FINISHED, FAILED or KILLED.
        """
        with _call(self._store):
            checks.choice("status", status, STATUSES)
            api = client(self._store)
            api.set_terminated(self.run_id, status)
            tags = api.get_run(self.run_id).data.tags
            for key in worker_tag(self._store.directory).keys() & tags.keys():
                api.delete_tag(self.run_id, key)

    def _add_params(self, params: Mapping[str, str]) -> None:
        with _call(self._store):
            stored = client(self._store).get_run(self.run_id).data.params
            changed = {f"changed/{key}": text for key, text in params.items() if stored.get(key, text) != text}
            fresh = {key: text for key, text in params.items() if key not in stored}
            self._log(self.run_id, params=fresh, tags=changed)

    def _log(
        self,
        run_id: str,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        step: int = 0,
    ) -> None:
        numbers, api, time_ms = dict(metrics or {}), client(self._store), now_ms()
        if numbers:
            log_values(api, run_id, [(key, float(value), time_ms, step) for key, value in numbers.items()])
        for chunk in chunks(params or {}):
            log_values(api, run_id, params=chunk)
        for chunk in chunks({**(tags or {}), **nonfinite_tags(numbers, step)}):
            log_values(api, run_id, tags=chunk)


@contextlib.contextmanager
def _call(store: Store) -> Iterator[None]:
    """Call the store inside the block; every error becomes UnavailableError or RefusedError, in one line."""
    if reason := unavailable_reason(store, _TIMEOUT_S):
        raise UnavailableError(f"tracking.uri={store.shown} does not answer ({reason})")
    where = f"tracking.uri={store.shown}"
    try:
        with mlflow_call():
            yield
    except UnavailableError as error:
        raise UnavailableError(f"{where}: {hide(str(error))}") from error
    except TrackingError as error:
        raise RefusedError(f"{where}: {hide(str(error))}") from error
    except OSError as error:
        raise UnavailableError(f"{where}: {error.filename or 'a file'}: {error.strerror or error}") from error
    except (TypeError, ValueError) as error:
        raise RefusedError(f"{where}: {error}") from error


def _created(tags: Mapping[str, object]) -> dict[str, str]:
    """Return tags cut to MLflow's length, because `create_run` does not cut them."""
    return {key: clip_tag(key, text) for key, text in texts("tag", tags).items()}
