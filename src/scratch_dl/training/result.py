"""What a run leaves in its folder beside its checkpoints, and what `train` returns."""

import html
import json
import math
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scratch_dl.config.metrics import is_of_every_run
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


@dataclass(repr=False)
class RunResult:
    """The result of a training.

    Attributes:
        run_id: in MLflow.
        folder: of the run's local files.
        status: FINISHED, KILLED after a signal, or FAILED after an error (see `attached_result`).
        scores: PSNR (dB) and SSIM by metric name, those of the baselines included.
        progress: how far the training came, and its first, best and last validation PSNR.
        network: with the best weights.
        tracked: whether MLflow has everything; if not, `resume=<folder>` sends the rest.
        exit_status: of a command that ends with this result.
        overrides: of the command line.
        verification: "passed", "off", "not reached", or "FAILED" with the first module.
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

    def __repr__(self) -> str:
        rows = score_rows(self.scores, self.progress)
        scores = [f"{values['best']:.2f} dB on the {name}" for name, values in rows.items() if "best" in values]
        diagnosis = [] if self.diagnosis is None else [f"diagnosis {self.diagnosis.line}"]
        words = ", ".join([self.status, f"run {self.run_id}", *scores, f"verification {self.verification}", *diagnosis])
        return f"<RunResult: {words}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the scores as a table, and the curve of PSNR if it was drawn."""
        head = "".join(f"<th>{name}</th>" for name in ("PSNR, dB", *COLUMNS))
        body = ""
        for name, values in score_rows(self.scores, self.progress).items():
            cells = "".join(f"<td>{values[column]:.2f}</td>" if column in values else "<td></td>" for column in COLUMNS)
            body += f"<tr><th>{name}</th>{cells}</tr>"
        picture = self.folder / "artifacts" / "figures" / "psnr.png"
        data = b64encode(picture.read_bytes()).decode() if picture.is_file() else ""
        image = f'<img src="data:image/png;base64,{data}" width="600">' if data else ""
        return f"<p>{html.escape(repr(self))}</p><table><tr>{head}</tr>{body}</table>{image}"


def attach_result(error: BaseException, result: RunResult) -> None:
    """Let whoever handles the error of a training also have the run's result."""
    error.__dict__["run_result"] = result


def attached_result(error: BaseException) -> RunResult | None:
    """Return the result of the run that ended by an error, if it had begun."""
    return getattr(error, "run_result", None)


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


def own_metrics(scores: Mapping[str, float]) -> dict[str, str]:
    """Return the user's own metrics of whole photographs, as "mae 0.0312, lpips 0.21", by set of photographs."""
    words: dict[str, str] = {}
    for split, prefix in PREFIXES.items():
        named = {key.removeprefix(f"{prefix}/"): v for key, v in scores.items() if key.startswith(f"{prefix}/")}
        own = [f"{name} {v:.4g}" for name, v in named.items() if not is_of_every_run(name)]
        words |= {f"{split} photographs": ", ".join(own)} if own else {}
    return words


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
