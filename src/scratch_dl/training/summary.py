"""The panel at the end of a run: its scores beside the baselines, its folder, and the commands to type next."""

import shlex
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from scratch_dl.config.overrides import override_value
from scratch_dl.system.passwords import without_password
from scratch_dl.terminal import console
from scratch_dl.training import checkpoint
from scratch_dl.training.note import again
from scratch_dl.training.result import COLUMNS, RunResult, own_metrics, score_rows


def print_summary(result: RunResult, config: DictConfig) -> None:
    """Print the panel of a run that has ended in whatever way, and the commands below it, where they can be copied."""
    screen, progress = Console(highlight=False), result.progress
    lines = [f"verified  {result.verification}"]
    if result.diagnosis is not None:
        lines.append(f"diagnosis {result.diagnosis.line}; output {result.diagnosis.output_class or 'not seen'}")
        lines += [f"left out  {result.diagnosis.left_out}"] if result.diagnosis.left_out else []
    lines += [f"metrics   {words} ({photographs})" for photographs, words in own_metrics(result.scores).items()]
    lines += [f"run       {result.run_id}", f"folder    {_short(result.folder)}"]
    title, table = f"{result.status} before the first validation", None
    width = min(console.WIDTH, screen.width)
    if result.scores:
        title = f"{result.status}: best at step {progress.best_step} of {progress.step}"
        table = console.score_table(score_rows(result.scores, progress), COLUMNS, width)
    if screen.is_terminal and result.status == "KILLED":
        screen.print()  # the terminal has written ^C at the start of the line
    screen.print(console.panel(title, table, lines, width))
    for name, command in _commands(result, config).items():
        screen.print(f"{name:<9} {command}", markup=False, soft_wrap=True)


def _commands(result: RunResult, config: DictConfig) -> dict[str, str]:
    """Return what to type next, by purpose."""
    where = where_flags(config)
    permit = "".join(f" {shlex.quote(word)}" for word in permission_overrides(config))
    commands = {"look": f"python -m scratch_dl.ui{where}"}
    if result.status == "FAILED" or (result.diagnosis is not None and result.diagnosis.finds_fault):
        commands["diagnose"] = f"python -m scratch_dl.diagnose run={result.run_id}{where}"
    if (result.folder / "checkpoints" / checkpoint.LAST).exists():
        commands["resume"] = f"python -m scratch_dl.train resume={result.run_id}{where}{permit}"
    if result.status == "FINISHED":
        commands["evaluate"] = f"python -m scratch_dl.evaluate run={result.run_id}{where}{permit}"
        commands["denoise"] = f"scratch-dl denoise photo.png run={result.run_id}{where}{permit}"
    commands["again"] = again(result.overrides)
    return commands


def where_flags(config: DictConfig) -> str:
    """Return the overrides with which a command finds the runs, with a leading space; "" if they are in mlruns."""
    directory, uri = str(config.tracking.dir), config.tracking.uri
    words = [] if directory == "mlruns" else [f"tracking.dir={override_value(directory)}"]
    words += [f"tracking.uri={override_value(without_password(str(uri)))}"] if uri else []
    return "".join(f" {shlex.quote(word)}" for word in words)


def permission_overrides(config: DictConfig) -> list[str]:
    """Return the override with which a command permits what a configuration names; [] if no permission is needed."""
    allowed = list(config.allowed_targets)
    return [f"allowed_targets={override_value(allowed)}"] if allowed else []


def _short(folder: Path) -> str:
    """Return the folder relative to the current one, if it lies below it."""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)
