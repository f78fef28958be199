"""The MLflow run of a study: several processes and machines say what they know of it, straight to the store.

Its truth lies elsewhere (in Optuna's storage), so nothing is kept here for a store that does not answer: every method
raises UnavailableError or RefusedError and nothing else, and a caller may well go on without it.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from scratch_dl.system import checks
from scratch_dl.system.passwords import hide
from scratch_dl.tracking.begin import origin
from scratch_dl.tracking.errors import RefusedError, TrackingError, UnavailableError
from scratch_dl.tracking.lookup import check_active, experiment_id
from scratch_dl.tracking.names import NAME_LENGTH, PARAM_LENGTH, check_name, clip
from scratch_dl.tracking.process import process_tags, worker_tag
from scratch_dl.tracking.quiet import conversation
from scratch_dl.tracking.run import STATUSES
from scratch_dl.tracking.store import Store, client, unavailable_reason
from scratch_dl.tracking.values import chunks, clip_tag, log_values, nonfinite_tags, now_ms, texts

_PARENT = "mlflow.parentRunId"
_TIMEOUT_S = 2.0


class SharedRun:
    """A run that others hang on.

    It goes on as long as one of the processes that made or reopened it lives; `close_orphans` closes it after that.

    Args:
        store: where the run is.
        run_id: of a run that `create` made, here or elsewhere.

    Raises:
        UnavailableError: if the store does not answer, or has no such run.
        RefusedError: if the run was deleted.

    Attributes:
        run_id: MLflow's name of the run.
        experiment_id: MLflow's name of its experiment, which nested runs share.
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
        """Begin a run that this process works on; passwords in the tags' values are hidden.

        Raises:
            UnavailableError: if the store does not answer.
            RefusedError: if the experiment was deleted, or a name cannot be used.
        """
        with _call(store):
            every_tag = {**origin(), **_created(tags), **worker_tag(store.directory)}
            made = client(store).create_run(
                experiment_id(store, experiment), run_name=clip(name, NAME_LENGTH), tags=every_tag
            )
        return cls(store, str(made.info.run_id))

    def reopen(self) -> None:
        """Set the run RUNNING; this process is now one of those that work on it."""
        with _call(self._store):
            api = client(self._store)
            # In this order, or another process could find it running with nobody at work, and close it.
            for key, value in worker_tag(self._store.directory).items():
                api.set_tag(self.run_id, key, value)
            api.update_run(self.run_id, status="RUNNING")
            if "interrupted" in api.get_run(self.run_id).data.tags:
                api.delete_tag(self.run_id, "interrupted")

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags, cut to 8000 characters; the one named DESCRIPTION, Markdown that MLflow shows, at a line's end."""
        self.tag_run(self.run_id, values)

    def tag_run(self, run_id: str, tags: Mapping[str, object]) -> None:
        """Set tags of another run, as a trial's that has ended."""
        with _call(self._store):
            self._log(run_id, tags=texts("tag", tags))

    def params(self, values: Mapping[str, object]) -> None:
        """Set parameters, each once: a tag `changed/<name>` has the value that came later and differs."""
        with _call(self._store):
            said = {key: clip(text, PARAM_LENGTH) for key, text in texts("parameter", values).items()}
        try:
            self._add_params(said)
        except RefusedError:  # another process said one of them in between
            self._add_params(said)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Set metrics at a step; what the step has already is not said twice, and another value comes after it.

        Of a value that is not finite the tag `nonfinite/<name>` has the step.
        """
        with _call(self._store):
            fresh = {}
            for key, value in values.items():
                check_name("metric", key)
                history = client(self._store).get_metric_history(self.run_id, key) if math.isfinite(value) else ()
                there = [each for each in history if each.step == step]
                if not there or max(there, key=lambda each: each.timestamp).value != float(value):
                    fresh[key] = value
            self._log(self.run_id, metrics=fresh, step=step)

    def files(self, paths: Iterable[Path | str]) -> None:
        """Keep files as artifacts at the run's root; one of the same name is overwritten."""
        with _call(self._store):
            for path in paths:
                if not Path(path).is_file():
                    raise RefusedError(f"{path} is no file, so it cannot be kept as an artifact")
                client(self._store).log_artifact(self.run_id, str(path))

    def finish(self, status: str) -> None:
        """End the run; this process works on it no longer.

        Args:
            status: FINISHED, FAILED or KILLED.
        """
        with _call(self._store):
            checks.choice("status", status, STATUSES)
            api = client(self._store)
            api.set_terminated(self.run_id, status)
            there = api.get_run(self.run_id).data.tags
            for key in worker_tag(self._store.directory).keys() & there.keys():
                api.delete_tag(self.run_id, key)

    def nested(self, name: str, tags: Mapping[str, object], params: Mapping[str, object],
               metrics: Mapping[str, float], step: int) -> str:  # fmt: skip
        """Record a trial that nothing was trained for, as its value is that of another one; it is FINISHED at once.

        Returns:
            The id of its run, which hangs on this one.
        """
        with _call(self._store):
            for key in metrics:
                check_name("metric", key)
            settings = texts("parameter", params)
            made = client(self._store).create_run(
                self.experiment_id,
                run_name=clip(name, NAME_LENGTH),
                tags={**origin(), **_created(tags), **process_tags(), _PARENT: self.run_id},
            )
            run_id = str(made.info.run_id)
            status = "FAILED"
            try:
                self._log(run_id, params=settings, metrics=metrics, step=step)
                status = "FINISHED"
            finally:
                client(self._store).set_terminated(run_id, status)
        return run_id

    def _add_params(self, said: Mapping[str, str]) -> None:
        with _call(self._store):
            there = client(self._store).get_run(self.run_id).data.params
            changed = {f"changed/{key}": text for key, text in said.items() if there.get(key, text) != text}
            fresh = {key: text for key, text in said.items() if key not in there}
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
        for some in chunks(params or {}):
            log_values(api, run_id, params=some)
        for some in chunks({**(tags or {}), **nonfinite_tags(numbers, step)}):
            log_values(api, run_id, tags=some)


@contextlib.contextmanager
def _call(store: Store) -> Iterator[None]:
    """Whatever goes wrong comes as UnavailableError or RefusedError, in one line that names the store."""
    if reason := unavailable_reason(store, _TIMEOUT_S):
        raise UnavailableError(f"tracking.uri={store.shown} does not answer ({reason})")
    where = f"tracking.uri={store.shown}"
    try:
        with conversation():
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
    """Return tags as `create_run` takes them, which does not cut them to MLflow's length."""
    return {key: clip_tag(key, text) for key, text in texts("tag", tags).items()}
