"""What a training came to: a row for the tables and figures."""

import torch
from collapse_plan import BATCH, F1, healthy_point

from _trainings import TrainingRow
from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config
from scratch_dl.data import metrics

# An output is black if its loss is within this share of a black output's: its mean is then below about 0.0003.
BLACK_TOLERANCE = 1e-3


class RowReader:
    """Makes a row of a training.

    It knows the loss of a black output at every step, because the batches are a function of the seed and the step.
    """

    def __init__(self):
        self.data = build(compose_config("train", list(healthy_point("own", "n3", 1.0).overrides))).data
        self._black_losses = {}
        clean = self.data.validation[1]
        self.black_psnr_db = metrics.psnr_db(torch.zeros_like(clean), clean)

    def black_loss(self, step, seed):
        """Return the loss of a black output on the batch of a step."""
        if (step, seed) not in self._black_losses:
            self._black_losses[step, seed] = float(self.data.batch(step, BATCH, seed)[1].square().mean())
        return self._black_losses[step, seed]

    def row(self, training: TrainingRow):
        """Return everything that the tables and figures need; steps count updates, of which an output is the result."""
        settings = dict(override.split("=", 1) for override in training.overrides)
        history, summary, progress = training.history, training.summary, training.progress
        psnr, scores, diagnosis = dict(history.get("val/psnr_db", [])), training.scores, training.diagnosis
        overflowed = training.status == "FAILED" and "train/loss became" in str(training.reason)
        seed = int(settings["seed"])
        return {
            "name": training.name,
            "run_id": training.run_id,
            "status": training.status,
            "reason": training.reason.partition(";")[0] if training.reason else None,
            "verification": summary.get("verification"),
            "fault": settings.get("fault"),
            "optimizer": settings.get("optimizer", "sgd"),
            "momentum": float(settings.get("optimizer.momentum", 0)),
            "lr": float(settings["optimizer.lr"]),
            "seed": seed,
            "updates": progress.get("step", 0) - overflowed,
            "black_after": self._black_after(history.get("train/loss", []), seed),
            "nan_after": progress["step"] - 1 if overflowed else None,
            "best_psnr_db": progress.get("best_psnr_db"),
            "last_psnr_db": psnr[max(psnr)] if psnr else None,
            "noisy_psnr_db": scores.get("baseline/noisy_psnr_db"),
            "blur_psnr_db": scores.get("baseline/blur_psnr_db"),
            "output_class": summary.get("output_class"),
            "finite_classes": sorted({int(value) for _, value in history.get("watch/output_class", [])}),
            "cause": diagnosis.get("cause"),
            "module": diagnosis.get("module"),
            "cause_step": diagnosis.get("step"),
            "output_mean": history.get("watch/output_mean", []),
            "seconds": training.seconds,
        }

    def _black_after(self, losses, seed):
        """Return after how many updates the loss is a black output's and remains so while it is finite, or None."""
        first = None
        for step, loss in reversed(losses):
            black = self.black_loss(step - 1, seed)
            if abs(loss - black) > BLACK_TOLERANCE * black:
                break
            first = step - 1
        return first


def count_runs(rows):
    """Return sentences that count what the runs of the two grids came to."""
    faulty = [row for name, row in rows.items() if name.startswith("faulty")]
    healthy = [row for name, row in rows.items() if name.startswith("healthy")]
    black = [row for row in faulty if row["black_after"] is not None]
    overflowing = [row for row in black if row["nan_after"] is not None]
    at_once = [row for row in faulty if row["black_after"] is None and row["nan_after"] is not None]
    named = [row for row in faulty if row["cause"] == F1 and row["module"] == "sigmoid"]
    verified = [row for row in healthy if row["verification"] == "passed"]
    over_noisy, over_blur = (
        [row for row in healthy if row["best_psnr_db"] > row[key]] for key in ("noisy_psnr_db", "blur_psnr_db")
    )
    ended = len(faulty) - len(black) - len(at_once)
    with_fault = (
        f"With F1 the output is black in {len(black)} of {len(faulty)} runs, of which {len(overflowing)} overflow "
        f"afterwards; {len(at_once)} overflow before it is seen black; {ended} end otherwise."
    )
    diagnosis = (
        f"The diagnosis, without verification, names the cause and the module in {len(named)} of the {len(faulty)}."
    )
    without = (
        f"Without F1 the output is black in {sum(row['black_after'] is not None for row in healthy)} of "
        f"{len(healthy)} runs, {sum(row['nan_after'] is not None for row in healthy)} overflow, {len(over_noisy)} get "
        f"better than the noisy input and {len(over_blur)} better than its blur; verification passed in "
        f"{len(verified)} of the {sum(row['verification'] != 'off' for row in healthy)} runs that have it."
    )
    return [with_fault, diagnosis, without]
