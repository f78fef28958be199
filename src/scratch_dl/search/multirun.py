"""`-m` without a search: train every point of a grid in its own folder, then print a table with mean and deviation."""

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


def run_grid(
    config: DictConfig,
    points: Sequence[list[str]],
    compose: Callable[[list[str]], DictConfig],
    launcher: Callable[[], Launcher],
    at_once: int | None = None,
) -> None:
    """Train every point and print the table.

    Args:
        config: the composed configuration, including Hydra's part.
        points: the overrides of each point.
        compose: overrides -> the configuration of a job.
        launcher: makes Hydra's launcher.
        at_once: how many jobs are launched at once; None: all of them.

    Raises:
        ConfigError: if a point cannot be used. Nothing has been written by then.
        SystemExit: if a run failed, or MLflow lacks some of a run.
    """
    _check_folders(points, compose)
    jobs: list[JobReturn] = []
    starter = launcher()
    step = at_once or len(points)
    for start in range(0, len(points), step):
        jobs += starter.launch(points[start : start + step], initial_job_idx=start)
    results = [_job_result(job) for job in jobs]
    _print_table(Path(config.hydra.sweep.dir), jobs, results)
    for job in jobs:
        _ = job.return_value  # raises what the job raised
    if any(result["status"] != "FINISHED" for result in results):
        raise SystemExit(FAILURE)
    if not all(result["tracked"] for result in results):
        raise SystemExit(UNTRACKED)


def _check_folders(points: Sequence[list[str]], compose: Callable[[list[str]], DictConfig]) -> None:
    """Check that each point has a folder of its own.

    Raises:
        ConfigError: if two points share a folder, or a folder's name contains a password.
    """
    folders: dict[str, int] = {}
    for number, point in enumerate(points):
        config = compose(point)
        with open_dict(config):
            config.hydra.job.num = config.hydra.job.id = number
        subdir = str(config.hydra.sweep.subdir)
        folder = str(Path(config.hydra.sweep.dir, subdir))
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


def _job_result(job: JobReturn) -> Mapping[str, Any]:
    """Return what a job returned: `status`, `scores` and `tracked`."""
    try:
        return dict(job.return_value)
    except Exception:
        return {"status": "FAILED", "scores": {}}


def _print_table(folder: Path, jobs: Sequence[JobReturn], results: Sequence[Mapping[str, Any]]) -> None:
    """Print a line per run, then mean and standard deviation; PSNR in dB."""
    table = Table(title=Text(f"{len(jobs)} runs in {folder}: PSNR, dB"), box=None, title_justify="left", pad_edge=False)
    for name in ("run", "overrides", "status"):
        table.add_column(name, overflow="fold")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    shared = set.intersection(*(set(job.overrides or ()) for job in jobs)) if len(jobs) > 1 else set()
    for job, result in zip(jobs, results, strict=True):
        own = " ".join(hide(override) for override in job.overrides or () if override not in shared)
        cells = [f"{result['scores'][key]:.2f}" if key in result["scores"] else "" for key in COLUMNS.values()]
        table.add_row(*map(Text, (_run_name(folder, job), own, result["status"], *cells)))
    for label, statistic in (("mean", statistics.mean), ("std", statistics.stdev)):
        scores = [[result["scores"][key] for result in results if key in result["scores"]] for key in COLUMNS.values()]
        table.add_row(label, "", "", *(f"{statistic(values):.2f}" if len(values) > 1 else "" for values in scores))
    Console(highlight=False).print(table)


def _run_name(folder: Path, job: JobReturn) -> str:
    """Return the run's folder, relative to the folder of all runs if it lies there."""
    assert job.hydra_cfg is not None
    own, parent = Path(str(job.hydra_cfg.hydra.runtime.output_dir)), folder.absolute()
    return str(own.relative_to(parent)) if own.is_relative_to(parent) else str(own)
