"""`python -m scratch_dl.diagnose run=<id or folder>`: why does a training not converge?

Explains a run that has finished, failed, was killed or is still running from what it has logged; nothing is trained.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from scratch_dl.cli.command import Command
from scratch_dl.config.build import tracking_settings
from scratch_dl.config.plain import plain
from scratch_dl.config.targets import check_keys
from scratch_dl.system.errors import FAILURE, ConfigError

if TYPE_CHECKING:
    from scratch_dl.diagnosis import Verdict
    from scratch_dl.diagnosis.signs import History

SHOWN = 5  # number of further signs that are printed
SCORES = {"noisy": "baseline/noisy_psnr_db", "blur": "baseline/blur_psnr_db", "network": "val/psnr_db"}


def _run(_config: DictConfig, _folder: Path, settings: dict[str, Any]) -> int:
    """Print the verdict on a run; exit status 1 if something is wrong with it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from scratch_dl import tracking
    from scratch_dl.diagnosis import explain, figure, own_signals
    from scratch_dl.terminal import console
    from scratch_dl.training.result import read_summary
    from scratch_dl.training.resume import find_folder, recorded_config

    folder = find_folder(str(settings["run"]), settings["tracking"], "run")
    journal = tracking.Journal(folder, repair=False)
    status, reason = journal.ending()
    history = journal.history()
    loss = recorded_config(folder)["loss"]
    verdict = explain(folder, history, reason, read_summary(folder).get("overrides", []), loss)
    table = Table.grid(padding=(0, 1))
    for row in _rows(f"{folder.name}: {status or 'has not ended, or was killed'}", reason, history, verdict):
        table.add_row(*map(Text, row))
    Console(highlight=False).print(console.panel("diagnosis", table, []))
    if settings["output"] is not None:
        into = Path(settings["output"])
        into.mkdir(parents=True, exist_ok=True)
        (into / "verdict.json").write_text(json.dumps(verdict.to_json(), indent=1))
        if (drawn := figure.draw(own_signals(history), verdict)) is not None:
            drawn.savefig(into / "diagnosis.png")
    return FAILURE if verdict.finds_fault else 0


def _rows(run: str, reason: str | None, history: "History", verdict: "Verdict") -> Iterator[tuple[str, str]]:
    """Yield the rows of the panel: (name, text)."""
    steps = max((step for step, _ in history.get("train/loss", ())), default=0)
    yield "run", f"{run}, step {steps}"
    if reason:
        yield "reason", reason
    if scores := [f"{name} {points[-1][1]:.2f}" for name, key in SCORES.items() if (points := history.get(key))]:
        yield "PSNR, dB", ", ".join(scores)
    yield "output", verdict.output_class or "not seen"
    yield "diagnosis", verdict.line
    yield "what", verdict.what
    for name in ("evidence", "rule", "cure", "left_out"):
        if text := getattr(verdict, name):
            yield name.replace("_", " "), text
    for sign in verdict.also[:SHOWN]:
        yield "also", f"{sign.cause}: {sign.module} {sign.direction}, {sign.when}"
    if (more := len(verdict.also) - SHOWN) > 0:
        yield "", f"and {more} more"


def _check(config: DictConfig) -> dict[str, Any]:
    """Return the settings, checked."""
    settings = plain(config)
    check_keys("", settings, ["run", "output", "tracking"])
    tracking_settings(settings)
    if settings["output"] is not None and not (isinstance(settings["output"], str) and settings["output"]):
        raise ConfigError(f"output must be a folder or null, but got {settings['output']!r}")
    return settings


def main() -> None:
    """Entry point of the command."""
    Command("diagnose", _check, _run).main()


if __name__ == "__main__":
    main()
