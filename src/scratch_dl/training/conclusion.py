"""The end of a training: the best checkpoint, its scores on whole photographs, and what MLflow gets of it."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from scratch_dl import tracking
from scratch_dl.config.plain import brief
from scratch_dl.config.schema import Setup
from scratch_dl.evaluation import scoring
from scratch_dl.evaluation.baselines import BASELINES
from scratch_dl.models import Denoiser
from scratch_dl.training import checkpoint, pictures
from scratch_dl.training.description import target_name
from scratch_dl.training.loop import Progress
from scratch_dl.training.losses import loss_label, loss_of

FLOOR = "noise of\nthe targets"


def best_network(setup: Setup, folder: Path) -> Denoiser:
    """Load the best weights into the network and return it; before the first checkpoint it is left as it is."""
    best = folder / "checkpoints" / checkpoint.BEST
    if best.exists():
        setup.network.load_state_dict(checkpoint.load(best)["network"])
    return setup.network


def log_samples(run: tracking.Run, setup: Setup, step: int, output: Tensor) -> None:
    """Log a picture of some validation crops, see `pictures.COLUMNS`."""
    noisy, clean = setup.data.validation
    n = setup.trainer.pictures
    simple = _simple_samples(noisy, n)
    run.image(pictures.composite(noisy[:n], output[:n], clean[:n], scale=4, simple=simple), "samples", step)


@lru_cache(maxsize=1)
def _simple_samples(noisy: Tensor, n: int) -> Tensor:
    """Return the baseline's output on the first n crops; they are the same at each validation."""
    return pictures.simple_output(noisy[:n])


def log_photographs(run: tracking.Run, setup: Setup, network: Denoiser, progress: Progress) -> dict[str, float]:
    """Score the network on whole photographs, log the scores (and pictures, unless tracking.detail=trial).

    Returns:
        PSNR (dB) and other metrics of the network, and PSNR of the baselines, by metric name.
    """
    scores: dict[str, float] = {}
    for split in ("validation", *(["test"] if setup.trainer.test else [])):
        cache = Path(setup.tracking.dir) / "cache"
        new, outputs = scoring.evaluate_photographs(setup.data, network, split, cache, setup.metrics)
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
    # Their second point: with it, a chart shows the baselines as lines beside the network's curve.
    run.metrics({key: value for key, value in scores.items() if key.startswith("baseline/")}, progress.step)
    if setup.tracking.detail != "full":
        log_samples(run, setup, progress.step, scoring.denoise(setup.network, setup.data.validation[0]))
        return
    _log_figures(run, setup, scores)
    for name in (checkpoint.BEST, checkpoint.LAST):
        run.file(folder / "checkpoints" / name, "checkpoints")
    run.model(folder / "checkpoints" / checkpoint.BEST, progress.best_step)


def _log_figures(run: tracking.Run, setup: Setup, scores: Mapping[str, float]) -> None:
    levels = {name: scores[f"baseline/{name}_psnr_db"] for name in BASELINES}
    history = run.history(["train/loss", "val/loss", "val/psnr_db"])
    title = f"{target_name(setup, 'model')}, {brief(setup.config['noise'])}; run {run.run_id[:8]}"
    loss = {"training": history["train/loss"], "validation": history["val/loss"]}
    floor = {} if (least := noise_floor(setup)) is None else {FLOOR: least}
    label = loss_label(setup.config["loss"])
    run.figure(pictures.curves(loss, label, floor, log_scale=True, title=title), "figures/loss.png")
    psnr = {"network": history["val/psnr_db"]}
    ylabel = "PSNR on the validation crops, dB"
    run.figure(pictures.curves(psnr, ylabel, levels, title=title), "figures/psnr.png")


def noise_floor(setup: Setup) -> float | None:
    """Return the loss of the clean picture beside noise2noise's targets, which a perfect output would have in training.

    It is that of the validation crops, which have the same noise; None if the targets are clean. Under the squared
    error it is the noise's variance, and in the mean no output can be below it.
    """
    if setup.config["data"].get("target") != "noise2noise":
        return None
    noisy, clean = (images.to(setup.network.parameters()[0].value) for images in setup.data.validation)
    return loss_of(setup.loss, clean, noisy, setup.trainer.batch_size)
