"""The description with which a run's page in MLflow begins: its result in Markdown."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from scratch_dl import tracking
from scratch_dl.config.environment import is_from_environment
from scratch_dl.evaluation.baselines import BASELINES
from scratch_dl.system.passwords import hide
from scratch_dl.terminal.html_page import plain_text
from scratch_dl.terminal.text_table import TextTable
from scratch_dl.tracking.views import run_page
from scratch_dl.training.loop import Progress
from scratch_dl.training.result import COLUMNS, own_metrics, score_rows

if TYPE_CHECKING:
    from scratch_dl.diagnosis import Verdict

REPORT = "report.html"
_PICTURES = {
    REPORT: "report",
    "figures/psnr.png": "PSNR",
    "figures/loss.png": "loss",
    "figures/diagnosis.png": "diagnosis",
    "verification/report.md": "verification",
}


def run_note(run: tracking.Run, result: str) -> str:
    """Return the description of a run that has ended: its result, and links to what it has recorded."""
    links = [
        f"[{name}]({run_page('', run.experiment_id, run.run_id, path)})"
        for path, name in _PICTURES.items()
        if _exists(run, path)
    ]
    if not links:
        return result
    return f"{result}\nLook at: {', '.join(links)}; pictures of the validation and test sets are under Artifacts.\n"


def result_text(
    status: str,
    reason: str | None,
    progress: Progress,
    scores: Mapping[str, float],
    verdicts: Mapping[str, str],
) -> str:
    """Return the result of a run that has ended, as Markdown.

    Args:
        status: FINISHED, FAILED or KILLED.
        reason: why it ended early; None if it did not.
        progress: how far it came.
        scores: PSNR (dB) and SSIM by metric name.
        verdicts: what verification, diagnosis and so on concluded.
    """
    parts = [_headline(status, progress, scores)]
    parts += [f"Ended early: {plain_text(reason)}"] if reason else []
    said = {**{f"metrics of the {name}": words for name, words in own_metrics(scores).items()}, **verdicts}
    parts.append("\n".join(f"- {name}: {plain_text(text)}" for name, text in said.items()))
    if rows := score_rows(scores, progress):
        cells = [
            (name, *(f"{row[column]:.2f}" if column in row else "" for column in COLUMNS)) for name, row in rows.items()
        ]
        parts.append(
            TextTable("PSNR", "dB; first, best and last are the network's", 1, ("", *COLUMNS), cells).markdown()
        )
    return "\n\n".join(parts) + "\n"


def _headline(status: str, progress: Progress, scores: Mapping[str, float]) -> str:
    at = f"best at step {progress.best_step} of {progress.step}" if progress.step else "no step was taken"
    if "test/psnr_db" in scores:
        better = [name for name in BASELINES if scores["test/psnr_db"] > scores[f"test/{name}_psnr_db"]]
        beaten = f"above {', '.join(better)}" if better else "below every baseline"
        return f"**{status}: {scores['test/psnr_db']:.2f} dB on the test photographs**, {beaten}; {at}"
    if progress.best_step or progress.step:
        return f"**{status}: {progress.best_psnr_db:.2f} dB on the validation crops**; {at}"
    return f"**{status}**; {at}"


def again(overrides: Sequence[str]) -> str:
    """Return the command that repeats a training with these overrides, started in the same way as this process."""
    own = [word for word in overrides if not is_from_environment(word)]
    return f"python -m scratch_dl.train {shlex.join([*config_dir(), *map(hide, own)])}".rstrip()


def config_dir() -> list[str]:
    """Return Hydra's flag for a folder of configurations, if this process was started with it; otherwise []."""
    words = sys.argv[1:]
    flags = [number for number, word in enumerate(words) if word in ("--config-dir", "-cd")]
    return words[flags[-1] : flags[-1] + 2] if flags else [word for word in words if word.startswith("--config-dir=")]


def verdict_lines(verification: str, diagnosis: "Verdict | None") -> dict[str, str]:
    """Return what the verification and the diagnosis concluded, in words."""
    lines = {"verification": verification}
    if diagnosis is not None:
        lines["diagnosis"] = f"{diagnosis.line}; output {diagnosis.output_class or 'not seen'}"
        if diagnosis.cure:
            lines["cure"] = diagnosis.cure
        if diagnosis.left_out:
            lines["left out of the diagnosis"] = diagnosis.left_out
    return lines


def _exists(run: tracking.Run, path: str) -> bool:
    return (run.folder / tracking.ARTIFACTS / path).is_file()
