"""A grid of runs: each point is trained in a folder of its own; then a line for each, and mean and spread of scores."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, open_dict
from rich.console import Console
from rich.table import Table
from rich.text import Text

from scratch_dl.system.errors import FAILURE, UNTRACKED, ConfigError
from scratch_dl.system.passwords import hide

COLUMNS = {"best val": "val/best_psnr_db", "val whole": "val_whole/psnr_db", "test": "test/psnr_db"}


def run(
    config: DictConfig,
    points: Sequence[list[str]],
    compose: Callable[[list[str]], DictConfig],
    launcher: Callable[[], Launcher],
    at_once: int | None = None,
) -> None:
    """Train every point and print the table of them; exits with a status of its own if not all went well.

    Args:
        config: as composed, Hydra's part included.
        points: the overrides of each.
        compose: overrides -> the configuration of a job.
        launcher: makes Hydra's launcher.
        at_once: how many are launched at once; None: all.

    Raises:
        ConfigError: if a point cannot be used; nothing has been written then.
    """
    _check_folders(points, compose)
    jobs: list[JobReturn] = []
    starter = launcher()
    for start in range(0, len(points), at_once or len(points)):
        jobs += starter.launch(points[start : start + (at_once or len(points))], initial_job_idx=start)
    outcomes = [_outcome(job) for job in jobs]
    _show(Path(config.hydra.sweep.dir), jobs, outcomes)
    for job in jobs:
        _ = job.return_value  # raises what the job has raised
    if any(outcome["status"] != "FINISHED" for outcome in outcomes):
        raise SystemExit(FAILURE)
    if not all(outcome["tracked"] for outcome in outcomes):
        raise SystemExit(UNTRACKED)


def _check_folders(points: Sequence[list[str]], compose: Callable[[list[str]], DictConfig]) -> None:
    """See that each point has a folder of its own.

    Raises:
        ConfigError: if one cannot be used.
    """
    folders: dict[str, int] = {}
    for number, point in enumerate(points):
        one = compose(point)
        with open_dict(one):
            one.hydra.job.num = one.hydra.job.id = number
        subdir = str(one.hydra.sweep.subdir)
        folder = str(Path(one.hydra.sweep.dir, subdir))
        if hide(folder) != folder:
            raise ConfigError(
                f"hydra.sweep.subdir must have no password in it, but is {subdir}; leave the key out by "
                "hydra.job.config.override_dirname.exclude_keys=[tracking.uri]"
            )
        other = folders.setdefault(folder, number)
        if other != number:
            raise ConfigError(
                f"hydra.sweep.subdir must name another folder for each run, but {subdir} is that of the runs {other} "
                f"and {number}; add '/${{hydra.job.num}}' to it"
            )


def _outcome(job: JobReturn) -> Mapping[str, Any]:
    """What a job says of itself."""
    try:
        return dict(job.return_value)
    except Exception:
        return {"status": "FAILED", "scores": {}}


def _show(folder: Path, jobs: Sequence[JobReturn], outcomes: Sequence[Mapping[str, Any]]) -> None:
    """Print a line a run, and mean and standard deviation; PSNR in dB."""
    table = Table(title=Text(f"{len(jobs)} runs in {folder}: PSNR, dB"), box=None, title_justify="left", pad_edge=False)
    for name in ("run", "overrides", "status"):
        table.add_column(name, overflow="fold")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    common = set.intersection(*(set(job.overrides or ()) for job in jobs)) if len(jobs) > 1 else set()
    for job, outcome in zip(jobs, outcomes, strict=True):
        own = " ".join(hide(override) for override in job.overrides or () if override not in common)
        cells = [f"{outcome['scores'][key]:.2f}" if key in outcome["scores"] else "" for key in COLUMNS.values()]
        table.add_row(*map(Text, (_name(folder, job), own, outcome["status"], *cells)))
    for label, measure in (("mean", statistics.mean), ("std", statistics.stdev)):
        scores = [[one["scores"][key] for one in outcomes if key in one["scores"]] for key in COLUMNS.values()]
        table.add_row(label, "", "", *(f"{measure(values):.2f}" if len(values) > 1 else "" for values in scores))
    Console(highlight=False).print(table)


def _name(folder: Path, job: JobReturn) -> str:
    """The run's folder, as seen from that of all of them."""
    assert job.hydra_cfg is not None
    own, all_of_them = Path(str(job.hydra_cfg.hydra.runtime.output_dir)), folder.absolute()
    return str(own.relative_to(all_of_them)) if own.is_relative_to(all_of_them) else str(own)
