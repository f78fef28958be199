"""The end panel of a run: its scores beside the baselines, where things are, and what to type next."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from scratch_dl.config.environment import is_of_environment
from scratch_dl.config.overrides import in_grammar
from scratch_dl.evaluation.baselines import BASELINES
from scratch_dl.evaluation.scoring import PREFIXES
from scratch_dl.system.passwords import hide, without_password
from scratch_dl.terminal import console
from scratch_dl.training.result import RunResult

LINES = 15


def print_summary(result: RunResult, config: DictConfig) -> None:
    """Print the panel: at most 15 lines of 80 columns, for which the last commands give way to very long paths."""
    folder = _short(result.folder)
    progress = result.progress
    where = where_flags(config)
    permit = "".join(f" {shlex.quote(word)}" for word in permit_of(config))
    lines = [f"verified  {result.verification}"]
    if result.diagnosis is not None:
        lines.append(f"diagnosis {result.diagnosis.line}; output {result.diagnosis.output_class}")
    lines += [f"run       {result.run_id}", f"folder    {folder}"]
    lines.append(f"look      python -m scratch_dl.ui{where}")
    lines.append(f"resume    python -m scratch_dl.train resume={result.run_id}{where}{permit}")
    if result.status == "FINISHED":
        own = [word for word in result.overrides if not is_of_environment(word)]
        again = " ".join(shlex.quote(hide(word)) for word in [*config_dir(), *own])
        lines.append(f"evaluate  python -m scratch_dl.evaluate run={result.run_id}{where}{permit}")
        lines.append(f"again     python -m scratch_dl.train {again}".rstrip())
    rows = _rows(result)
    free = LINES - len(rows) - 3  # the table's head and the border
    screen = Console(highlight=False)
    while sum(len(Text(line, overflow="fold").wrap(screen, console.WIDTH - 4)) for line in lines) > free:
        lines.pop()
    title = f"{result.status}: best at step {progress.best_step} of {progress.step}"
    screen.print(console.panel(title, console.score_table(rows, (*BASELINES, "first", "best", "last")), lines))


def where_flags(config: DictConfig) -> str:
    """What a command needs to find the runs of a configuration, a space before it; nothing if they are in mlruns."""
    directory, uri = str(config.tracking.dir), config.tracking.uri
    words = [] if directory == "mlruns" else [f"tracking.dir={in_grammar(directory)}"]
    words += [f"tracking.uri={in_grammar(without_password(str(uri)))}"] if uri else []
    return "".join(f" {shlex.quote(word)}" for word in words)


def permit_of(config: DictConfig) -> list[str]:
    """The override by which a command permits what a configuration names; none if it needs no permission."""
    allowed = list(config.allowed_targets)
    return [f"allowed_targets={in_grammar(allowed)}"] if allowed else []


def config_dir() -> list[str]:
    """Hydra's flag for a folder of configurations, if this process was given it."""
    words = sys.argv[1:]
    flags = [number for number, word in enumerate(words) if word in ("--config-dir", "-cd")]
    return words[flags[-1] : flags[-1] + 2] if flags else [word for word in words if word.startswith("--config-dir=")]


def _rows(result: RunResult) -> dict[str, dict[str, float]]:
    scores, progress = result.scores, result.progress
    crops = _baselines(scores, "baseline/")
    crops |= {"first": progress.first_psnr_db, "best": progress.best_psnr_db, "last": progress.last_psnr_db}
    rows = {"validation crops": crops}
    for split, prefix in PREFIXES.items():
        if f"{prefix}/psnr_db" in scores:
            rows[f"{split} photographs"] = {**_baselines(scores, f"{prefix}/"), "best": scores[f"{prefix}/psnr_db"]}
    return rows


def _baselines(scores: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name: scores[f"{prefix}{name}_psnr_db"] for name in BASELINES if f"{prefix}{name}_psnr_db" in scores}


def _short(folder: Path) -> str:
    """The folder from here, if it lies below."""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)
