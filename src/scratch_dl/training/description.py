"""The start of a run: its MLflow run, and everything that is known before the first step."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from omegaconf import OmegaConf

from scratch_dl import kernels, tracking
from scratch_dl.config.environment import RUN_ID
from scratch_dl.config.plain import flat
from scratch_dl.config.schema import Setup
from scratch_dl.models import count_parameters
from scratch_dl.system import provenance
from scratch_dl.system.files import write_atomically
from scratch_dl.training.result import CONFIG


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


def create_run(setup: Setup, store: tracking.Store, folder: Path, part: Part | None) -> tracking.Run:
    """Create the MLflow run of a training, or take the one that `tracking.run_id` names."""
    settings, run_id = setup.tracking, setup.tracking.run_id
    if run_id is not None and run_id == os.environ.get(RUN_ID) and (taken := tracking.trained_folder(store, run_id)):
        print(f"{RUN_ID}={run_id} is ignored, as it is the run of {taken} already: this training gets a new one")
        run_id = None
    usual = part.name if part else f"{target_name(setup, 'model')}-{setup.data.name}-seed{setup.seed}"
    name = settings.run_name or (None if run_id else usual)
    tags = {**settings.tags, **(part.tags if part else {})}
    return tracking.Run.create(store, folder, settings.experiment, name, tags, run_id)


def describe(run: tracking.Run, setup: Setup, folder: Path, overrides: Sequence[str], resumed: bool) -> None:
    """Record everything that is known before the first step, and print what is special about this training."""
    config = OmegaConf.to_yaml(OmegaConf.create(setup.config))
    write_atomically(folder / CONFIG, config.encode())
    run.params(flat(setup.config))  # when resumed, a permitted change becomes a tag changed/<key>
    if resumed:
        run.tags({"resumed_with": " ".join(overrides)})
    else:
        run.text(config, CONFIG)
        run.params({"parameters": count_parameters(setup.network)})
        run.text(repr(setup.network) + "\n", "network.txt")
        run.dataset(setup.data.describe(), "training, validation" + (", test" if setup.trainer.test else ""))
        tags, diff = provenance.source_tags()
        run.tags({**tags, "overrides": " ".join(overrides)})
        if diff:
            run.text(diff, "git.diff")
        if setup.tracking.detail == "full":
            run.text(json.dumps(provenance.environment(), indent=2), "environment.json")
    used, reason = kernels.used(setup.device), kernels.why_not_native()
    run.tags({"kernels": used})
    print(f"kernels: {used}{f'; native: {reason}' if reason and setup.backend == 'auto' else ''}", flush=True)
    if setup.fault:
        run.tags({"fault": setup.fault.name})
        print(setup.fault, flush=True)


def headline(setup: Setup, start: int, steps: int) -> str:
    """Return what is trained, on what, and from which step, in one line."""
    where = f"continuing from epoch {start * setup.trainer.epochs // steps}, step {start}" if start else "from step 0"
    return (
        f"{target_name(setup, 'model')} ({count_parameters(setup.network):,} parameters) on {setup.data.name}, "
        f"{steps:,} steps of {setup.trainer.batch_size} crops, {where}"
    )
