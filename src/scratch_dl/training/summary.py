"""The panel at the end of a run: its scores beside the baselines, its folder, and the commands to type next."""

import shlex
import sys
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from scratch_dl.config.overrides import override_value
from scratch_dl.system.passwords import without_password
from scratch_dl.terminal import console
from scratch_dl.training.note import again
from scratch_dl.training.result import COLUMNS, RunResult, score_rows

LINES = 15


def print_summary(result: RunResult, config: DictConfig) -> None:
    """Print the panel: at most LINES lines of 80 columns; if paths are very long, the last commands are omitted."""
    folder = _short(result.folder)
    progress = result.progress
    where = where_flags(config)
    permit = "".join(f" {shlex.quote(word)}" for word in permission_overrides(config))
    lines = [f"verified  {result.verification}"]
    if result.diagnosis is not None:
        lines.append(f"diagnosis {result.diagnosis.line}; output {result.diagnosis.output_class}")
    lines += [f"run       {result.run_id}", f"folder    {folder}"]
    lines.append(f"look      python -m scratch_dl.ui{where}")
    lines.append(f"resume    python -m scratch_dl.train resume={result.run_id}{where}{permit}")
    if result.status == "FINISHED":
        lines.append(f"evaluate  python -m scratch_dl.evaluate run={result.run_id}{where}{permit}")
        lines.append(f"again     {again(result.overrides, config_dir())}")
    rows = score_rows(result.scores, progress)
    free = LINES - len(rows) - 3  # the table's head and the border
    screen = Console(highlight=False)
    while sum(len(Text(line, overflow="fold").wrap(screen, console.WIDTH - 4)) for line in lines) > free:
        lines.pop()
    title = f"{result.status}: best at step {progress.best_step} of {progress.step}"
    screen.print(console.panel(title, console.score_table(rows, COLUMNS), lines))


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


def config_dir() -> list[str]:
    """Return Hydra's flag for a folder of configurations, if this process was started with it; otherwise []."""
    words = sys.argv[1:]
    flags = [number for number, word in enumerate(words) if word in ("--config-dir", "-cd")]
    return words[flags[-1] : flags[-1] + 2] if flags else [word for word in words if word.startswith("--config-dir=")]


def _short(folder: Path) -> str:
    """Return the folder relative to the current one, if it lies below it."""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)
