"""The end of a training: the best checkpoint, its scores on whole photographs, and what MLflow gets of it."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from scratch_dl import tracking
from scratch_dl.config.schema import Setup
from scratch_dl.evaluation import scoring
from scratch_dl.evaluation.baselines import BASELINES
from scratch_dl.models import Denoiser
from scratch_dl.training import checkpoint, pictures
from scratch_dl.training.loop import Progress


def best_network(setup: Setup, folder: Path) -> Denoiser:
    """Load the best weights into the network and return it; before the first checkpoint it is left as it is."""
    best = folder / "checkpoints" / checkpoint.BEST
    if best.exists():
        setup.network.load_state_dict(checkpoint.load(best)["network"])
    return setup.network


def log_samples(run: tracking.Run, setup: Setup, step: int, output: Tensor) -> None:
    """Log a picture of some validation crops: noisy, output, clean and error."""
    noisy, clean = setup.data.validation
    shown = slice(setup.trainer.pictures)
    run.image(pictures.composite(noisy[shown], output[shown], clean[shown], scale=4), "samples", step)


def log_photographs(run: tracking.Run, setup: Setup, network: Denoiser, progress: Progress) -> dict[str, float]:
    """Score the network on whole photographs, log the scores (and pictures, unless tracking.detail=trial).

    Returns:
        PSNR (dB) and SSIM of the network and the baselines, by metric name.
    """
    scores: dict[str, float] = {}
    for split in ("validation", *(["test"] if setup.trainer.test else [])):
        new, outputs = scoring.evaluate_photographs(setup.data, network, split, Path(setup.tracking.dir) / "cache")
        scores |= new
        for photograph, output in outputs[: setup.trainer.pictures] if setup.tracking.detail == "full" else []:
            picture = pictures.composite(photograph.noisy[None], output[None], photograph.clean[None], scale=1)
            key = tracking.image_key(f"{scoring.PREFIXES[split]}_{photograph.name}")
            run.image(picture, key, progress.step)
    run.metrics(scores, progress.step)
    return scores


def log_end(run: tracking.Run, setup: Setup, folder: Path, progress: Progress, scores: Mapping[str, float]) -> None:
    """Log how the training went, with curves, checkpoints and the model unless tracking.detail=trial.

    Args:
        run: takes it all.
        setup: of the training; its network has the best weights.
        folder: of the run.
        progress: at the end of the training.
        scores: by metric name; those of the baselines on the validation crops become lines in the curves.
    """
    run.metrics({"val/best_psnr_db": progress.best_psnr_db, "val/best_step": progress.best_step}, progress.step)
    run.metric("training_s", progress.training_s, progress.step)
    if setup.tracking.detail != "full":
        log_samples(run, setup, progress.step, scoring.denoise(setup.network, setup.data.validation[0]))
        return
    _log_figures(run, scores)
    for name in (checkpoint.BEST, checkpoint.LAST):
        run.file(folder / "checkpoints" / name, "checkpoints")
    run.model(folder / "checkpoints" / checkpoint.BEST, progress.best_step)


def _log_figures(run: tracking.Run, scores: Mapping[str, float]) -> None:
    levels = {name: scores[f"baseline/{name}_psnr_db"] for name in BASELINES}
    history = run.history(["train/loss", "val/loss", "val/psnr_db"])
    loss = {"training": history["train/loss"], "validation": history["val/loss"]}
    run.figure(pictures.curves(loss, "mean squared error", log_scale=True), "figures/loss.png")
    psnr = {"network": history["val/psnr_db"]}
    run.figure(pictures.curves(psnr, "PSNR on the validation crops, dB", levels), "figures/psnr.png")
