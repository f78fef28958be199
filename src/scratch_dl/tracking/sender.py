"""Sends a run's journal to MLflow: in batches, which files may overtake, each (metric, step) exactly once.

Every kind of entry can be sent twice without harm: files are overwritten, tags and parameters get the same value
again, and what MLflow would store twice (metrics, models) is looked up first whenever it may have arrived already.
"""

import importlib.metadata
import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from scratch_dl import __version__
from scratch_dl.tracking.errors import RefusedError, UnavailableError
from scratch_dl.tracking.journal import Entry, Journal
from scratch_dl.tracking.mlflow_calls import mlflow_call
from scratch_dl.tracking.names import check_artifact_path
from scratch_dl.tracking.store import Store, client
from scratch_dl.tracking.values import BATCH, BATCH_TOTAL, DESCRIPTION, log_values

LOG = logging.getLogger("scratch_dl.tracking")
MODEL_NAME = "model"
MODEL_CODE = Path(__file__).parents[1] / "training" / "pyfunc_model.py"
_MODEL_PARAMS = ("model", "noise", "fault", "parameters", "seed")
_MODEL_TAGS = ("mlflow.user", "mlflow.source.name", "mlflow.source.type")
_MODEL_METRICS = ("val/psnr_db", "val/gain_db", "test/psnr_db", "val_whole/psnr_db")
_FIRST = ("val/psnr_db", "test/psnr_db", "train/loss", "val/loss", "val/", "test/", "val_whole/", "baseline/")
_FILES = ("artifact", "image")
_DIGEST_LENGTH = 36  # characters, MLflow's limit


class Sender:
    """Sends the entries of one journal to one store.

    Args:
        store: of the run.
        journal: of the run.
        sole_sender: whether no other object has ever sent entries of the journal, so that nothing must be looked up.

    Attributes:
        delivered: how many groups of entries the store has accepted.
    """

    def __init__(self, store: Store, journal: Journal, *, sole_sender: bool) -> None:
        self._store = store
        self._journal = journal
        self._sole_sender = sole_sender
        self._stored_steps: dict[str, set[int]] = {}
        self.delivered = 0
        self._run_id = str(journal.header["run_id"])
        self._experiment_id = str(journal.header["experiment_id"])

    def send(self, end: int | None = None, stop: Callable[[], bool] = lambda: False) -> None:
        """Send the unsent part of the journal's first `end` bytes; batches before an error are marked as sent.

        Args:
            end: None for all of it.
            stop: called before each batch; if it returns True, nothing more is sent.

        Raises:
            UnavailableError: if the store stops answering.
            OSError: with the path, if a file cannot be read or written.
        """
        for size, entries in _batches(self._journal.unsent(end)):
            if stop():
                return
            try:
                self._deliver(entries)
            except BaseException:
                # Including Ctrl-C: the store may have accepted all of the batch, or nothing.
                self._sole_sender = False
                self._stored_steps.clear()
                raise
            self.delivered += 1
            if size is not None:
                self._journal.mark_sent(size)

    def terminate(self, status: str, end_time_ms: int) -> None:
        """Set the run's status and end time."""
        with mlflow_call():
            client(self._store).set_terminated(self._run_id, status, end_time_ms)

    def _deliver(self, entries: list[Entry]) -> None:
        try:
            with mlflow_call():
                if all(entry["kind"] in BATCH for entry in entries):
                    self._batch(entries)
                else:
                    getattr(self, f"_send_{entries[0]['kind']}")(entries[0])
        except RefusedError as error:
            self._check_run()
            if len(entries) > 1:  # send them one by one, to omit only the refused one
                for entry in entries:
                    self._deliver([entry])
                return
            LOG.warning("MLflow refused an entry, which is now only in %s: %s", self._journal.path, error)

    def _check_run(self) -> None:
        """Raise UnavailableError if the run is deleted: MLflow then refuses every entry, whatever it contains."""
        with mlflow_call():
            stage = client(self._store).get_run(self._run_id).info.lifecycle_stage
        if stage != "active":
            raise UnavailableError(f"the run {self._run_id} is {stage}")

    def _batch(self, entries: list[Entry]) -> None:
        metrics: list[tuple[str, float, int, int]] = []
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        for entry in entries:
            if entry["kind"] == "metrics":
                for key, value in entry["values"].items():
                    number = float(value)
                    if math.isfinite(number) and not self._is_stored(key, entry["step"]):
                        metrics.append((key, number, entry["time"], entry["step"]))
            elif entry["kind"] == "params":
                params.update(entry["values"])
            else:
                tags.update(entry["values"])
        if not entries:
            return
        metrics.sort(key=lambda metric: _rank(metric[0]))
        log_values(client(self._store), self._run_id, metrics, params, tags)

    def _is_stored(self, key: str, step: int) -> bool:
        if self._sole_sender:
            return False
        if key not in self._stored_steps:
            history = client(self._store).get_metric_history(self._run_id, key)
            self._stored_steps[key] = {metric.step for metric in history}
        return step in self._stored_steps[key]

    def _send_artifact(self, entry: Entry) -> None:
        file = self._journal.inside(entry["file"])
        if not file.is_file():
            LOG.warning("%s was deleted before it was sent to MLflow; it is omitted", file)
            return
        into = entry["into"] and str(check_artifact_path(entry["into"]))
        client(self._store).log_artifact(self._run_id, str(file), into or None)

    def _send_image(self, entry: Entry) -> None:
        if not self._sole_sender:
            # A killed process may have sent this picture with another time in its file name.
            start = f"images/{entry['key']}+step+{entry['step']}+"
            listed = [file.path for file in client(self._store).list_artifacts(self._run_id, "images")]
            ours = {f"images/{Path(file).name}" for file in entry["files"]}
            if any(path.startswith(start) and path not in ours for path in listed):
                return
        for file in entry["files"]:
            self._send_artifact({"file": file, "into": "images"})
        client(self._store).set_tag(self._run_id, "mlflow.loggedImages", "True")

    def _send_dataset(self, entry: Entry) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        description = dict(entry["description"])
        dataset = Dataset(
            name=str(description.pop("name")),
            digest=str(description.pop("digest"))[:_DIGEST_LENGTH],
            source_type="local",
            source=json.dumps({"uri": str(description.get("source", "scratch_dl"))}),
            profile=json.dumps(description),
        )
        tag = InputTag("mlflow.data.context", entry["context"])
        client(self._store).log_inputs(self._run_id, [DatasetInput(dataset, [tag])])

    def _send_model(self, entry: Entry) -> None:
        from mlflow import pyfunc
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model

        api = client(self._store)
        if not self._sole_sender:
            for model in api.search_logged_models([self._experiment_id], f"source_run_id = '{self._run_id}'"):
                if model.name == MODEL_NAME and str(model.status) == "READY":
                    return
                api.delete_logged_model(model.model_id)  # incomplete, from a killed process
        run = api.get_run(self._run_id)
        known = {**run.data.params, **run.data.tags}
        model = api.create_logged_model(
            self._experiment_id,
            MODEL_NAME,
            source_run_id=self._run_id,
            params={key: known[key] for key in _MODEL_PARAMS if key in known},
            tags={
                DESCRIPTION: f"The best weights of the run {run.info.run_name}, of step {entry['step']}.",
                **{key: known[key] for key in _MODEL_TAGS if key in known},
            },
        )
        with tempfile.TemporaryDirectory(dir=self._journal.folder) as folder:
            path = str(Path(folder) / MODEL_NAME)
            pyfunc.save_model(
                path,
                python_model=str(MODEL_CODE),  # MLflow executes it, so it must not come from the journal
                artifacts={"weights": str(self._journal.inside(entry["weights"]))},
                pip_requirements=_requirements(),
                signature=_signature(entry["shape"]),
                mlflow_model=Model(
                    artifact_path=model.artifact_location,
                    model_uuid=model.model_id,
                    run_id=self._run_id,
                    model_id=model.model_id,
                ),
            )
            api.log_model_artifacts(model.model_id, path)
        self._log_model_metrics(model.model_id, entry["step"])
        api.finalize_logged_model(model.model_id, "READY")
        api.log_outputs(self._run_id, [LoggedModelOutput(model.model_id, step=entry["step"])])

    def _log_model_metrics(self, model_id: str, step: int) -> None:
        """Give a model the run's scores: those of the step of its weights, and those on whole photographs."""
        from mlflow.entities import Metric

        api, points = client(self._store), []
        for key in _MODEL_METRICS:
            history = api.get_metric_history(self._run_id, key)
            at = [point for point in history if point.step == step] if key.startswith("val/") else history[-1:]
            # With the time of the run's own point, MLflow does not store it twice in the run.
            points += [Metric(key, p.value, p.timestamp, p.step, model_id=model_id) for p in at]
        if points:
            api.log_batch(self._run_id, points)

    def _send_finish(self, entry: Entry) -> None:
        self.terminate(entry["status"], entry["time"])

    def _send_process(self, entry: Entry) -> None:
        """Do nothing: which process wrote the journal is not sent."""

    _send_run = _send_process


def _rank(metric: str) -> int:
    """Return a metric's place on a run's page, which lists metrics in the order in which they first arrived."""
    return next((place for place, start in enumerate(_FIRST) if metric.startswith(start)), len(_FIRST)) + (
        len(_FIRST) if metric.startswith(("verify/", "watch/")) else 0
    )


def _requirements() -> list[str]:
    torch = importlib.metadata.version("torch").partition("+")[0]
    return [f"scratch_dl=={__version__}", f"torch=={torch}"]


def _signature(shape: Iterable[int]) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    # Without a name; with one, predict(array) would receive a dict.
    spec = TensorSpec(np.dtype("float32"), tuple(shape))
    return ModelSignature(inputs=Schema([spec]), outputs=Schema([spec]))


def _batches(unsent: Iterable[tuple[int, Entry]]) -> Iterator[tuple[int | None, list[Entry]]]:
    """Yield groups of entries that fit in one batch, with the position up to which everything has been yielded then.

    An entry whose kind cannot be batched is a group of its own. Files overtake the group that is being collected, so
    that they do not split it; the position is None as long as earlier entries are missing. Values that only the folder
    keeps are left out; the last group may be empty because of them.
    """
    group: list[Entry] = []
    counts = dict.fromkeys(BATCH, 0)
    reached, skipped = 0, False
    for end, entry in unsent:
        kind = entry["kind"]
        if entry.get("local"):
            reached, skipped = end, True
            continue
        size = len(entry["values"]) if kind in BATCH else 0
        full = kind in BATCH and (counts[kind] + size > BATCH[kind] or sum(counts.values()) + size > BATCH_TOTAL)
        if group and (full or kind not in (*BATCH, *_FILES)):
            yield reached, group
            group, counts = [], dict.fromkeys(BATCH, 0)
        reached = end
        if kind in BATCH:
            group.append(entry)
            counts[kind] += size
        else:
            yield None if group else reached, [entry]
    if group or skipped:
        yield reached, group
