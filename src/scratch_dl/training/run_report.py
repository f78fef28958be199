"""A run's own report: one HTML file with its result, curves, pictures, verdicts, and the commands to type next."""

import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from scratch_dl import tracking
from scratch_dl.config.plain import brief
from scratch_dl.evaluation.scoring import PREFIXES
from scratch_dl.system.passwords import hide
from scratch_dl.terminal.html_page import html_page, plain_text
from scratch_dl.training import checkpoint
from scratch_dl.training.note import REPORT, again
from scratch_dl.training.summary import permission_overrides, where_flags

FIGURES = {
    "figures/psnr.png": "PSNR on the validation crops",
    "figures/loss.png": "loss",
    "figures/diagnosis.png": "what the diagnosis saw",
}
VERDICTS = "verification/report.md"
SAMPLES = "samples"
log = logging.getLogger(__name__)


def log_report(run: tracking.Run, config: Mapping[str, Any], overrides: Sequence[str], result: str) -> None:
    """Log `run_report` as the artifact REPORT; an error only becomes a warning, as the run has more to record."""
    try:
        run.text(run_report(run, config, overrides, result), REPORT)
    except Exception as error:
        log.warning("no %s: %s: %s", REPORT, type(error).__name__, error)


def run_report(run: tracking.Run, config: Mapping[str, Any], overrides: Sequence[str], result: str) -> str:
    """Return the report as HTML; what the run has not recorded is left out.

    Args:
        run: that has ended.
        config: as recorded.
        overrides: of the training.
        result: of the run, as Markdown.

    Raises:
        OSError: if something that it recorded cannot be read.
    """
    artifacts = run.folder / tracking.ARTIFACTS
    files: dict[str, Path] = {}

    def shown(pictures: Mapping[str, Path]) -> Iterator[str]:
        for caption, path in pictures.items():
            name = f"picture-{len(files)}.png"
            files[name] = path
            yield f"{plain_text(caption)}\n\n![{plain_text(caption)}]({name})"

    title = f"{str(config['model']['_target_']).rpartition('.')[2]}, {brief(config['noise'])}; run {run.run_id[:8]}"
    curves = {name: artifacts / path for path, name in FIGURES.items() if (artifacts / path).is_file()}
    sections = {
        "Curves": list(shown(curves)),
        "Pictures": list(shown(last_pictures(artifacts / "images"))),
        "Verification": _verdicts(artifacts / VERDICTS),
        "Commands": [f"```\n{_commands(run, config, overrides)}\n```"],
    }
    parts = [f"# {plain_text(title)}", result]
    for name, content in sections.items():
        parts += [f"## {name}", *content] if content else []
    return html_page(title, "\n\n".join(parts) + "\n", files)


def last_pictures(folder: Path) -> dict[str, Path]:
    """Return what is shown of a run's pictures, by key: the last samples, then the whole photographs of each split."""
    last: dict[str, tuple[int, int, Path]] = {}
    for path in folder.glob("*.png"):
        key, _, step, _, time, *_ = path.stem.split("+")
        last[key] = max(last.get(key, (-1, 0, path)), (int(step), int(time), path))
    whole = [key for prefix in PREFIXES.values() for key in sorted(last) if key.startswith(f"{prefix}_")]
    return {key: last[key][2] for key in (SAMPLES, *whole) if key in last}


def _verdicts(file: Path) -> list[str]:
    """Return the report of the verification without its title's mark."""
    return [file.read_text(encoding="utf-8").removeprefix("# ")] if file.is_file() else []


def _commands(run: tracking.Run, config: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """Return the commands that repeat, continue, score and use the network, as far as there is one."""
    settings = OmegaConf.create(dict(config))
    if Path("mlruns").absolute() == Path(settings.tracking.dir):
        settings.tracking.dir = "mlruns"
    words = (
        f"{run.run_id}{where_flags(settings)}{''.join(f' {shlex.quote(w)}' for w in permission_overrides(settings))}"
    )
    commands = {"train the same again": again(overrides)}
    checkpoints = run.folder / "checkpoints"
    if (checkpoints / checkpoint.LAST).is_file():
        commands["continue from the last checkpoint"] = f"python -m scratch_dl.train resume={words}"
    if (checkpoints / checkpoint.BEST).is_file():
        commands["score on whole photographs"] = f"python -m scratch_dl.evaluate run={words}"
        commands["denoise a picture of your own"] = f"scratch-dl denoise photo.png run={words}"
    return "\n".join(f"# {purpose}\n{hide(command)}" for purpose, command in commands.items())
