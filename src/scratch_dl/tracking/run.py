"""What a training calls: everything is written to the run's record first, and sent to MLflow after `sync`."""

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
from scratch_dl.tracking.background import Background
from scratch_dl.tracking.begin import new_record, resumed_record
from scratch_dl.tracking.errors import TrackingError
from scratch_dl.tracking.journal import Entry, Journal
from scratch_dl.tracking.names import check_name
from scratch_dl.tracking.sender import Sender
from scratch_dl.tracking.store import Store, unavailable_reason
from scratch_dl.tracking.values import chunks, nonfinite_tags, now_ms, texts

LOG = logging.getLogger("scratch_dl.tracking")
STATUSES = ("FINISHED", "FAILED", "KILLED")
PATIENCE_S = 60.0
HURRY_S = 10.0
_PROBE_TIMEOUT_S = 2.0


class Run:
    """One MLflow run and its folder.

    Each (metric, step), and each picture's (key, step), stands once: the first value said stands, later ones are
    ignored, so that a training resumed from an earlier step may say them again.

    Attributes:
        folder: the run's folder, absolute.
        run_id: MLflow's name of the run.
        experiment_id: MLflow's name of its experiment.
    """

    def __init__(self, store: Store, record: Journal, *, certain: bool) -> None:
        self.folder = record.folder
        self.run_id = str(record.header["run_id"])
        self.experiment_id = str(record.header["experiment_id"])
        self._store = store
        self._record = record
        self._sender = Sender(store, record, certain=certain)
        self._background = Background(store, record, self._sender)
        self._steps: dict[str, set[int]] = {}
        self._pictures: set[tuple[str, int]] = set()
        self._params: dict[str, str] = {}
        self._nonfinite: set[str] = set()
        for entry in record.entries():
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
        """Begin a run, and its record in `folder`.

        Args:
            store: where to.
            folder: of the run; made if missing.
            experiment: its name; made if missing.
            name: of the run; None leaves it to MLflow.
            tags: of the run.
            run_id: of a run that another program has made, which is used instead of a new one.

        Raises:
            TrackingError: if the experiment is deleted or has no name, the folder holds a run, or the store fails.
        """
        record = new_record(store, Path(folder).absolute(), experiment, name, tags or {}, run_id)
        return cls(store, record, certain=True)

    @classmethod
    def reopen(cls, store: Store, folder: Path, step: int) -> "Run":
        """Continue the run of `folder` from `step`; entries of later steps that were not sent are dropped.

        Raises:
            TrackingError: if the folder holds no run, or the store does not know it.
        """
        record = resumed_record(store, Path(folder).absolute(), step)
        return cls(store, record, certain=False)

    def metric(self, key: str, value: float, step: int) -> None:
        """Note one value of a metric at the optimizer's step."""
        self.metrics({key: value}, step)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Note values at the optimizer's step; of a metric that is not finite MLflow gets a tag with its first step.

        Raises:
            ValueError: if MLflow would refuse a name, or `step` is negative.
        """
        step = checks.integer("step", operator.index(step), minimum=0)
        for key in values:
            check_name("metric", key)
        fresh = {key: float(value) for key, value in values.items() if step not in self._steps.get(key, ())}
        if fresh:
            # JSON has no NaN and no infinity, so the record has their names.
            written = {key: value if math.isfinite(value) else str(value) for key, value in fresh.items()}
            self._say({"kind": "metrics", "step": step, "values": written, "time": now_ms()})
        for tag, text in nonfinite_tags(fresh, step).items():
            if tag.removeprefix("nonfinite/") not in self._nonfinite:
                self._say({"kind": "tags", "step": step, "values": {tag: text}})

    def params(self, values: Mapping[str, object]) -> None:
        """Note parameters, an address in them without its password; MLflow gets 6000 characters of each.

        A parameter said before keeps its value, as MLflow lets none change; a tag `changed/<name>` holds the new one.

        Raises:
            ValueError: if MLflow would refuse a name.
        """
        given = texts("parameter", values)
        changed = {key: text for key, text in given.items() if self._params.get(key, text) != text}
        for some in chunks({key: text for key, text in given.items() if key not in self._params}):
            self._say({"kind": "params", "values": some})
        self.tags({f"changed/{key}": text for key, text in changed.items()})

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags, an address in them without its password; MLflow gets 8000 characters of each.

        Raises:
            ValueError: if MLflow would refuse a name.
        """
        for some in chunks(texts("tag", values)):
            self._say({"kind": "tags", "values": some})

    def text(self, text: str, path: str) -> None:
        """Keep a text as the artifact `path`, the addresses in it without a password."""
        file = artifact_file(self.folder, path)
        with file_errors(file):
            file.write_text(hide(text), encoding="utf-8")
        self._say_artifact(file, str(PurePosixPath(path).parent))

    def figure(self, figure: Any, path: str) -> None:
        """Keep a matplotlib figure as the artifact `path`, whose suffix says the format."""
        file = artifact_file(self.folder, path)
        with file_errors(file):
            figure.savefig(file)
        self._say_artifact(file, str(PurePosixPath(path).parent))

    def file(self, local_path: Path | str, artifact_dir: str = "") -> None:
        """Keep a file as an artifact; one outside the run's folder is copied into it.

        Raises:
            FileNotFoundError: if there is no such file.
        """
        source = Path(local_path).absolute()
        if not source.is_file():
            raise FileNotFoundError(f"{source} is no file, so it cannot be kept as an artifact")
        if not source.is_relative_to(self.folder):
            copy = artifact_file(self.folder, f"{artifact_dir}/{source.name}".lstrip("/"))
            with file_errors(copy):
                shutil.copyfile(source, copy)
            source = copy
        self._say_artifact(source, artifact_dir)

    def image(self, array: NDArray[np.uint8], key: str, step: int) -> None:
        """Keep a picture of shape (height, width, 3), 0 to 255, in the grid `key` at the optimizer's step.

        Raises:
            ValueError: if it is no such picture, or the key has a slash (MLflow's grid cannot show it).
        """
        step = checks.integer("step", operator.index(step), minimum=0)
        check_image(array, key)
        if (key, step) in self._pictures:
            return
        files = [self._relative(file) for file in save_image(self.folder, array, key, step)]
        self._say({"kind": "image", "key": key, "step": step, "files": files})

    def dataset(self, description: Mapping[str, Any], context: str) -> None:
        """Note a data set as the run's input.

        Args:
            description: `name`, `digest` (36 characters of it go to MLflow), and what else is to be shown.
            context: what it is used for, as "train".
        """
        for key in ("name", "digest"):
            checks.text(f"description[{key!r}]", description.get(key))
        self._say({"kind": "dataset", "description": dict(description), "context": context})

    def model(self, weights_path: Path | str, step: int = 0, shape: tuple[int, ...] = (-1, 3, -1, -1)) -> None:
        """Keep the trained network as the pyfunc model `runs:/<run_id>/model`.

        Args:
            weights_path: a checkpoint in the run's folder.
            step: the optimizer's step of the weights.
            shape: of the float32 array that it takes and returns; -1 is any size.
        """
        weights = Path(weights_path).absolute()
        if not weights.exists():
            raise FileNotFoundError(f"{weights} does not exist, so the model cannot be kept")
        self._say({"kind": "model", "weights": self._relative(weights), "shape": list(shape), "step": step})

    def history(self, keys: Iterable[str]) -> dict[str, list[tuple[int, float]]]:
        """Return (step, value) of each metric, in the order of their steps; values that are not finite are left out."""
        found = self._record.history()
        return {key: found.get(key, []) for key in keys}

    def sync(self) -> None:
        """Let what was said so far be sent; call it when the checkpoint up to here is safe on the disk.

        It is sent in the background. If the store does not answer, a line says so once, and a later call tries again.

        Raises:
            OSError: with the path, if the record cannot be read.
        """
        self._record.flush()
        self._background.request()

    def flush(self, patience_s: float = PATIENCE_S) -> bool:
        """Let what was said so far be sent, and wait for it as long as something arrives every `patience_s`.

        Returns:
            Whether all of it was sent.
        """
        self.sync()
        return self._background.wait(patience_s)

    def hurry(self) -> None:
        """Let a `flush` or `finish` that is waiting give up soon: somebody wants the process to end."""
        self._background.limit_s = HURRY_S

    def finish(self, status: str, reason: str | None = None) -> bool:
        """End the run, send the rest, and say whether all of it was sent (if not, `replay` does it later).

        Args:
            status: FINISHED, FAILED or KILLED; the end of a run that was KILLED is waited for less long.
            reason: becomes the tag `reason`.
        """
        checks.choice("status", status, STATUSES)
        end_ms = now_ms()
        sent = False
        try:
            if reason is not None:
                self.tags({"reason": reason})
            self._record.append({"kind": "finish", "status": status, "time": end_ms})
            sent = self.flush(HURRY_S if status == "KILLED" else PATIENCE_S)
        except OSError as error:
            # A full disk is often why the run ends: its status must get out all the same.
            LOG.warning("not all of the run could be kept: %s", error)
        if self._background.close() and not sent and unavailable_reason(self._store, _PROBE_TIMEOUT_S) is None:
            try:
                self._sender.terminate(status, end_ms)
            except TrackingError as error:
                LOG.warning("the run's status %s did not reach tracking.uri=%s: %s", status, self._store.shown, error)
        return sent

    def _say(self, entry: Entry) -> None:
        self._record.append(entry)
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

    def _say_artifact(self, file: Path, into: str) -> None:
        self._say({"kind": "artifact", "file": self._relative(file), "into": "" if into == "." else into})

    def _relative(self, file: Path) -> str:
        return str(file.relative_to(self.folder)) if file.is_relative_to(self.folder) else str(file)
