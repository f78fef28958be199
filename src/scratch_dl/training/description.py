"""The start of a run: its MLflow run, and everything that is known before the first step."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from omegaconf import OmegaConf

from scratch_dl import kernels, tracking
from scratch_dl.config.environment import RUN_ID
from scratch_dl.config.plain import brief, flat
from scratch_dl.config.schema import Setup
from scratch_dl.data.dataset import DataSet
from scratch_dl.data.files import shown
from scratch_dl.models import count_parameters
from scratch_dl.system import provenance
from scratch_dl.system.files import write_atomically
from scratch_dl.training.losses import is_squared_error
from scratch_dl.training.result import CONFIG
from scratch_dl.training.run_name import run_name

SKIPPED = "skipped.txt"


class Part(Protocol):
    """What a run may be a part of, such as a trial of a study.

    Attributes:
        name: of the run, unless `tracking.run_name` gives one.
        tags: of the run.
    """

    name: str
    tags: Mapping[str, str]

    def on_epoch(self, epoch: int, scores: Mapping[str, float]) -> str | None:
        """Given the scores of an epoch, return why the training is to stop, or None."""


def target_name(setup: Setup, group: str) -> str:
    """Return the last part of a group's `_target_`."""
    return str(setup.config[group]["_target_"]).rpartition(".")[2]


def close_orphans(store: tracking.Store) -> None:
    """End the MLflow runs of processes that no longer live, and print which runs cannot be judged from here."""
    _, unknown = tracking.close_orphans(store)
    if unknown:
        print(
            f"{len(unknown)} runs stay RUNNING, because it cannot be told from here whether their processes live: "
            f"{', '.join(unknown[:2])}{', ...' if len(unknown) > 2 else ''}",
            flush=True,
        )


def create_run(
    setup: Setup, store: tracking.Store, folder: Path, overrides: Sequence[str], part: Part | None
) -> tracking.Run:
    """Create the MLflow run of a training, or take the one that `tracking.run_id` names."""
    settings, run_id = setup.tracking, setup.tracking.run_id
    if run_id is not None and run_id == os.environ.get(RUN_ID) and (taken := tracking.trained_folder(store, run_id)):
        print(f"{RUN_ID}={run_id} is ignored, as it is the run of {taken} already: this training gets a new one")
        run_id = None
    name = settings.run_name or (None if run_id else part.name if part else run_name(setup, overrides))
    source, _ = provenance.source_tags()
    tags = {**_first_tags(setup), **settings.tags, "overrides": " ".join(overrides), **source}
    return tracking.Run.create(
        store, folder, settings.experiment, name, {**tags, **(part.tags if part else {})}, run_id
    )


def _first_tags(setup: Setup) -> dict[str, str]:
    """Return the tags that tell runs apart, in the order in which a run's page shows them; verdicts follow later."""
    return {
        tracking.DESCRIPTION: "No result yet: this run is in training, or its process was killed.",
        "model": target_name(setup, "model"),
        "noise": brief(setup.config["noise"]),
        **({"fault": setup.fault.name} if setup.fault else {}),
        "verification": "pending" if setup.verification.enabled else "off",
        "diagnosis": "pending" if setup.diagnosis.enabled else "off",
        "kernels": kernels.used(setup.device),
    }


def describe(run: tracking.Run, setup: Setup, folder: Path, overrides: Sequence[str], resumed: bool) -> None:
    """Record everything that is known before the first step, and print what is special about this training."""
    config = OmegaConf.to_yaml(OmegaConf.create(setup.config))
    write_atomically(folder / CONFIG, config.encode())
    run.params(flat(setup.config))  # when resumed, a permitted change becomes a tag changed/<key>
    used, reason = kernels.used(setup.device), kernels.why_not_native()
    if resumed:
        run.tags({"resumed_with": " ".join(overrides), "kernels": used})
    else:
        run.text(config, CONFIG)
        run.params({"parameters": count_parameters(setup.network)})
        run.text(repr(setup.network) + "\n", "network.txt")
        if diff := provenance.source_tags()[1]:
            run.text(diff, "git.diff")
        run.dataset(setup.data.describe(), "training, validation" + (", test" if setup.trainer.test else ""))
        if setup.tracking.detail == "full":
            run.text(json.dumps(provenance.environment(), indent=2), "environment.json")
    record_skipped(run, setup.data)
    print(f"kernels: {used}{f'; native: {reason}' if reason and setup.backend == 'auto' else ''}", flush=True)
    if setup.fault:
        print(setup.fault, flush=True)


def record_skipped(run: tracking.Run, data: DataSet) -> None:
    """Record and print which pictures the data set has left out, if it has left out any."""
    if skipped := getattr(data, "skipped", {}):
        run.text("".join(f"{shown(name)}: {reason}\n" for name, reason in skipped.items()), SKIPPED)
        print(f"data.skip_broken=true: {data.skipped_line}; all in {SKIPPED} of the run", flush=True)  # type: ignore[attr-defined]


def headline(setup: Setup, start: int, steps: int) -> str:
    """Return what is trained, on what, and from which step, in one line."""
    where = f"continuing from epoch {start * setup.trainer.epochs // steps}, step {start}" if start else "from step 0"
    loss = setup.config["loss"]
    under = "" if is_squared_error(loss) else f" under {brief(loss)}"
    return (
        f"{target_name(setup, 'model')} ({count_parameters(setup.network):,} parameters) on {setup.data.name}{under}, "
        f"{steps:,} steps of {setup.trainer.batch_size} crops, {where}"
    )
