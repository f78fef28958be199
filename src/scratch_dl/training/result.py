"""What a run leaves in its folder beside its checkpoints, and what `train` returns."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scratch_dl.evaluation.baselines import BASELINES
from scratch_dl.evaluation.scoring import PREFIXES
from scratch_dl.models import Denoiser
from scratch_dl.system.files import as_json, write_atomically
from scratch_dl.system.passwords import hidden
from scratch_dl.training.loop import Progress

if TYPE_CHECKING:
    from scratch_dl.diagnosis import Verdict

CONFIG, SUMMARY = "config.yaml", "summary.json"
COLUMNS = (*BASELINES, "first", "best", "last")


@dataclass
class RunResult:
    """The result of a training.

    Attributes:
        run_id: in MLflow.
        folder: of the run's local files.
        status: FINISHED, or KILLED after a signal.
        scores: PSNR (dB) and SSIM by metric name, those of the baselines included.
        progress: how far the training came, and its first, best and last validation PSNR.
        network: with the best weights.
        tracked: whether MLflow has everything; if not, `resume=<folder>` sends the rest.
        exit_status: of a command that ends with this result.
        overrides: of the command line.
        verification: "passed", "off", or "FAILED" with the first module.
        diagnosis: the verdict on the training; None if it was not watched.
    """

    run_id: str
    folder: Path
    status: str
    scores: dict[str, float]
    progress: Progress
    network: Denoiser
    tracked: bool = True
    exit_status: int = 0
    overrides: list[str] = field(default_factory=list)
    verification: str = "off"
    diagnosis: "Verdict | None" = None


def score_rows(scores: Mapping[str, float], progress: Progress) -> dict[str, dict[str, float]]:
    """Return the PSNR (dB) by set of pictures, then by one of COLUMNS; what is not known is left out."""
    rows = {}
    crops = {"first": progress.first_psnr_db, "best": progress.best_psnr_db, "last": progress.last_psnr_db}
    if known := _baselines(scores, "baseline/") | {name: value for name, value in crops.items() if value > -math.inf}:
        rows["validation crops"] = known
    for split, prefix in PREFIXES.items():
        if f"{prefix}/psnr_db" in scores:
            rows[f"{split} photographs"] = {**_baselines(scores, f"{prefix}/"), "best": scores[f"{prefix}/psnr_db"]}
    return rows


def _baselines(scores: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name: scores[f"{prefix}{name}_psnr_db"] for name in BASELINES if f"{prefix}{name}_psnr_db" in scores}


def write_summary(folder: Path, summary: dict[str, Any], progress: Progress, verdict: "Verdict | None") -> None:
    """Write summary.json: `summary`, the progress and the verdict of the diagnosis, without any password.

    Raises:
        OSError: if it cannot be written; the previous one is still there.
    """
    content = {
        **summary,
        "progress": asdict(progress),
        "diagnosis": None if verdict is None else verdict.to_json(),
        "output_class": None if verdict is None else verdict.output_class,
    }
    write_atomically(folder / SUMMARY, as_json(hidden(content)))


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the content of summary.json; empty if the file is missing or damaged, for the checkpoint has it all."""
    try:
        return dict(json.loads((folder / SUMMARY).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
