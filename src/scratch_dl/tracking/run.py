"""The MLflow run of a training: everything is written to the run's journal first, and sent to MLflow after `sync`."""

import json
import logging
import math
import operator
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratch_dl.system import checks
from scratch_dl.system.files import file_errors
from scratch_dl.system.passwords import hide
from scratch_dl.tracking.artifacts import artifact_file, check_image, save_image
from scratch_dl.tracking.background import BackgroundSender
from scratch_dl.tracking.errors import TrackingError
from scratch_dl.tracking.journal import Entry, Journal
from scratch_dl.tracking.names import check_name
from scratch_dl.tracking.sender import Sender
from scratch_dl.tracking.start import continue_run, start_run
from scratch_dl.tracking.store import Store, unavailable_reason
from scratch_dl.tracking.values import chunks, is_sent, nonfinite_tags, now_ms, texts

LOG = logging.getLogger("scratch_dl.tracking")
STATUSES = ("FINISHED", "FAILED", "KILLED")
PATIENCE_S = 60.0
HURRY_S = 10.0
_PROBE_TIMEOUT_S = 2.0


class Run:
    """One MLflow run and its folder.

    Each (metric, step), and each (key, step) of a picture, is stored once: the first value counts and later ones are
    ignored, so that a training resumed from an earlier step may log them again.

    Attributes:
        folder: the run's folder, absolute.
        run_id: MLflow's id of the run.
        experiment_id: MLflow's id of its experiment.
        every: how many steps lie between the values of every step that MLflow gets; None for the rule of `is_sent`.
    """

    every: int | None = None

    def __init__(self, store: Store, journal: Journal, *, sole_sender: bool) -> None:
        self.folder = journal.folder
        self.run_id = str(journal.header["run_id"])
        self.experiment_id = str(journal.header["experiment_id"])
        self._store = store
        self._journal = journal
        self._sender = Sender(store, journal, sole_sender=sole_sender)
        self._background = BackgroundSender(store, journal, self._sender)
        self._steps: dict[str, set[int]] = {}
        self._pictures: set[tuple[str, int]] = set()
        self._params: dict[str, str] = {}
        self._nonfinite: set[str] = set()
        for entry in journal.entries():
            self._remember(entry)

    @classmethod
    def create(
        cls,
        store: Store,
        folder: Path,
        experiment: str,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        run_id: str | None = None,
    ) -> "Run":
        """Create a run in MLflow and its journal in `folder`.

        Args:
            store: of the run.
            folder: of the run; created if it is missing.
            experiment: name of the experiment; created if it is missing.
            name: of the run; None lets MLflow choose one.
            tags: of the run.
            run_id: of a run that another program created, to be used instead of a new one.

        Raises:
            TrackingError: if the experiment is deleted or has no name, the folder contains a run, or the store fails.
        """
        journal = start_run(store, Path(folder).absolute(), experiment, name, tags or {}, run_id)
        return cls(store, journal, sole_sender=True)

    @classmethod
    def reopen(cls, store: Store, folder: Path, step: int) -> "Run":
        """Continue the run of `folder` from `step`; unsent entries of later steps are dropped.

        Raises:
            TrackingError: if the folder contains no run, or the store does not have it.
        """
        journal = continue_run(store, Path(folder).absolute(), step)
        return cls(store, journal, sole_sender=False)

    def metric(self, key: str, value: float, step: int, *, every_step: bool = False) -> None:
        """Log one value of a metric at a step of the optimizer; see `metrics`."""
        self.metrics({key: value}, step, every_step=every_step)

    def metrics(self, values: Mapping[str, float], step: int, *, every_step: bool = False) -> None:
        """Log values at a step of the optimizer; for NaN or infinity, MLflow gets a tag with the first such step.

        If every step has such values (`every_step`), MLflow gets some of them; see `every`.

        Raises:
            ValueError: if MLflow would refuse a name, or `step` is negative.
        """
        step = checks.integer("step", operator.index(step), minimum=0)
        for key in values:
            check_name("metric", key)
        fresh = {key: float(value) for key, value in values.items() if step not in self._steps.get(key, ())}
        if fresh:
            # JSON has neither NaN nor infinity, so the journal contains them as texts.
            written = {key: value if math.isfinite(value) else str(value) for key, value in fresh.items()}
            local = {"local": True} if every_step and not is_sent(step, self.every) else {}
            self._append({"kind": "metrics", "step": step, "values": written, "time": now_ms(), **local})
        for tag, text in nonfinite_tags(fresh, step).items():
            if tag.removeprefix("nonfinite/") not in self._nonfinite:
                self._append({"kind": "tags", "step": step, "values": {tag: text}})

    def params(self, values: Mapping[str, object]) -> None:
        """Log parameters, with passwords in addresses hidden; MLflow gets the first 6000 characters of each.

        MLflow lets no parameter change. A parameter logged before keeps its value, and a tag `changed/<name>` has the
        new one.

        Raises:
            ValueError: if MLflow would refuse a name.
        """
        params = texts("parameter", values)
        changed = {key: text for key, text in params.items() if self._params.get(key, text) != text}
        for chunk in chunks({key: text for key, text in params.items() if key not in self._params}):
            self._append({"kind": "params", "values": chunk})
        self.tags({f"changed/{key}": text for key, text in changed.items()})

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags, with passwords in addresses hidden; MLflow gets the first 8000 characters of each.

        Raises:
            ValueError: if MLflow would refuse a name.
        """
        for chunk in chunks(texts("tag", values)):
            self._append({"kind": "tags", "values": chunk})

    def text(self, text: str, path: str) -> None:
        """Log a text as the artifact `path`, with passwords in addresses hidden."""
        file = artifact_file(self.folder, path)
        with file_errors(file):
            file.write_text(hide(text), encoding="utf-8")
        self._append_artifact(file, str(PurePosixPath(path).parent))

    def table(self, content: Mapping[str, Any], path: str) -> None:
        """Log a table as the artifact `path`; MLflow shows JSON with `columns` and `data` as one."""
        self.text(json.dumps(content), path)
        self.tags({"mlflow.loggedArtifacts": json.dumps([{"path": path, "type": "table"}])})

    def figure(self, figure: Any, path: str) -> None:
        """Log a matplotlib figure as the artifact `path`, whose suffix determines the format."""
        file = artifact_file(self.folder, path)
        with file_errors(file):
            figure.savefig(file)
        self._append_artifact(file, str(PurePosixPath(path).parent))

    def file(self, local_path: Path | str, artifact_dir: str = "") -> None:
        """Log a file as an artifact; a file outside the run's folder is copied into it.

        Raises:
            FileNotFoundError: if there is no such file.
        """
        source = Path(local_path).absolute()
        if not source.is_file():
            raise FileNotFoundError(f"{source} is not a file, so it cannot be an artifact")
        if not source.is_relative_to(self.folder):
            copy = artifact_file(self.folder, f"{artifact_dir}/{source.name}".lstrip("/"))
            with file_errors(copy):
                shutil.copyfile(source, copy)
            source = copy
        self._append_artifact(source, artifact_dir)

    def image(self, array: NDArray[np.uint8], key: str, step: int) -> None:
        """Log a uint8 picture of shape (height, width, 3) in the grid `key` at a step of the optimizer.

        Raises:
            ValueError: if dtype or shape differs, or the key contains a slash (MLflow's grid cannot show it).
        """
        step = checks.integer("step", operator.index(step), minimum=0)
        check_image(array, key)
        if (key, step) in self._pictures:
            return
        files = [self._relative(file) for file in save_image(self.folder, array, key, step)]
        self._append({"kind": "image", "key": key, "step": step, "files": files})

    def dataset(self, description: Mapping[str, Any], context: str) -> None:
        """Log a data set as the run's input.

        Args:
            description: `name`, `digest` (MLflow gets its first 36 characters), and further values to be shown.
            context: what it is used for, such as "train".
        """
        for key in ("name", "digest"):
            checks.text(f"description[{key!r}]", description.get(key))
        self._append({"kind": "dataset", "description": dict(description), "context": context})

    def model(self, weights_path: Path | str, step: int = 0, shape: tuple[int, ...] = (-1, 3, -1, -1)) -> None:
        """Log the trained network as the pyfunc model `runs:/<run_id>/model`.

        Args:
            weights_path: a checkpoint in the run's folder.
            step: the optimizer's step of the weights.
            shape: of the float32 array that the model takes and returns; -1 means any size.
        """
        weights = Path(weights_path).absolute()
        if not weights.exists():
            raise FileNotFoundError(f"{weights} does not exist, so the model cannot be logged")
        self._append({"kind": "model", "weights": self._relative(weights), "shape": list(shape), "step": step})

    def history(self, keys: Iterable[str]) -> dict[str, list[tuple[int, float]]]:
        """Return (step, value) of each metric, ordered by step; NaN and infinite values are omitted."""
        history = self._journal.history()
        return {key: history.get(key, []) for key in keys}

    def sync(self) -> None:
        """Send everything logged so far, in the background; call it once a checkpoint that covers it is on the disk.

        If the store does not answer, a warning is logged once, and a later call tries again.

        Raises:
            OSError: with the path, if the journal cannot be read.
        """
        self._journal.flush()
        self._background.request()

    def flush(self, patience_s: float = PATIENCE_S) -> bool:
        """Send everything logged so far, and wait for it as long as the store accepts something every `patience_s`.

        Returns:
            Whether everything was sent.
        """
        self.sync()
        return self._background.wait(patience_s)

    def hurry(self) -> None:
        """Let a waiting `flush` or `finish` give up soon, because a signal asked the process to end."""
        self._background.limit_s = HURRY_S

    def finish(self, status: str, reason: str | None = None) -> bool:
        """End the run and send the rest.

        Args:
            status: FINISHED, FAILED or KILLED; the wait for a KILLED run is shorter.
            reason: becomes the tag `reason`.

        Returns:
            Whether everything was sent; if not, `replay` can do so later.
        """
        checks.choice("status", status, STATUSES)
        end_ms = now_ms()
        sent = False
        try:
            if reason is not None:
                self.tags({"reason": reason})
            self._journal.append({"kind": "finish", "status": status, "time": end_ms})
            sent = self.flush(HURRY_S if status == "KILLED" else PATIENCE_S)
        except OSError as error:
            # A full disk is often the reason for the end of a run; its status must reach the store nevertheless.
            LOG.warning("the end of the run could not be written: %s", error)
        if self._background.close() and not sent and unavailable_reason(self._store, _PROBE_TIMEOUT_S) is None:
            try:
                self._sender.terminate(status, end_ms)
            except TrackingError as error:
                LOG.warning("the run's status %s did not reach tracking.uri=%s: %s", status, self._store.shown, error)
        return sent

    def _append(self, entry: Entry) -> None:
        self._journal.append(entry)
        self._remember(entry)

    def _remember(self, entry: Entry) -> None:
        kind = entry["kind"]
        if kind == "metrics":
            for key in entry["values"]:
                self._steps.setdefault(key, set()).add(entry["step"])
        elif kind == "params":
            self._params.update(entry["values"])
        elif kind == "image":
            self._pictures.add((entry["key"], entry["step"]))
        elif kind == "tags":
            self._nonfinite.update(key.removeprefix("nonfinite/") for key in entry["values"] if "nonfinite/" in key)

    def _append_artifact(self, file: Path, into: str) -> None:
        self._append({"kind": "artifact", "file": self._relative(file), "into": "" if into == "." else into})

    def _relative(self, file: Path) -> str:
        return str(file.relative_to(self.folder)) if file.is_relative_to(self.folder) else str(file)
