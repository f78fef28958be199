"""`python -m scratch_dl.evaluate run=<id or folder> [noise=...]`: score a trained network on whole photographs.

The scores stand beside the baselines on the same pixels, and become an MLflow run tagged with the run they evaluate.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig

from scratch_dl.cli.command import Command
from scratch_dl.config.build import tracking_settings
from scratch_dl.config.plain import plain
from scratch_dl.config.targets import check_keys, config_errors, make
from scratch_dl.kernels.restoring import restored
from scratch_dl.system.checks import choice, integer
from scratch_dl.system.errors import ConfigError
from scratch_dl.tracking import tracked_run

if TYPE_CHECKING:
    from scratch_dl import tracking
    from scratch_dl.data import DataSet
    from scratch_dl.models import Denoiser

KEYS = ("run", "checkpoint", "splits", "noise", "tracking", "backend", "threads", "allowed_targets")


class _Prepared(NamedTuple):
    """The settings, the folder of the trained run, and what is built from both; `step` is that of the weights."""

    settings: dict[str, Any]
    trained: Path
    data: "DataSet"
    network: "Denoiser"
    step: int


@restored()
def _run(_config: DictConfig, folder: Path, prepared: _Prepared) -> None:
    """Evaluate one run, print a table, and record it."""
    import torch
    from rich.console import Console

    from scratch_dl import kernels
    from scratch_dl.evaluation.baselines import BASELINES
    from scratch_dl.terminal import console

    settings, trained = prepared.settings, prepared.trained
    if settings["threads"] is not None:
        torch.set_num_threads(settings["threads"])
    kernels.use(settings["backend"])
    name = f"evaluation-{trained.name}-{settings['noise']['_target_'].rpartition('.')[2]}"
    with tracked_run(settings, folder, name, {"evaluates": str(settings["run"])}) as run:
        run.tags({"kernels": kernels.used()})
        rows = {f"{split} photographs": _scores(prepared, split, run) for split in settings["splits"]}
        lines = [f"of        {trained}", f"noise     {settings['noise']}"]
        table = console.score_table(rows, (*BASELINES, "network"))
        Console(highlight=False).print(console.panel("evaluation", table, lines))


def _scores(prepared: _Prepared, split: str, run: "tracking.Run") -> dict[str, float]:
    """Score and record the photographs of a split; return the PSNR (dB) of the network and the baselines."""
    from scratch_dl import tracking
    from scratch_dl.evaluation import scoring
    from scratch_dl.evaluation.baselines import BASELINES
    from scratch_dl.training import pictures

    cache = Path(prepared.settings["tracking"]["dir"]).expanduser().absolute() / "cache"
    scores, shown = scoring.evaluate_photographs(prepared.data, prepared.network, split, cache)
    prefix = scoring.PREFIXES[split]
    run.metrics(scores, prepared.step)
    for photograph, output in shown:
        picture = pictures.composite(photograph.noisy[None], output[None], photograph.clean[None], scale=1)
        run.image(picture, tracking.image_key(f"{prefix}_{photograph.name}"), prepared.step)
    return {
        **{method: scores[f"{prefix}/{method}_psnr_db"] for method in BASELINES},
        "network": scores[f"{prefix}/psnr_db"],
    }


def _prepare(config: DictConfig) -> _Prepared:
    """Check every setting, find the run, and build its data and its network; nothing is written.

    Raises:
        ConfigError: if a setting cannot be used, or there is no such run.
        CheckpointError: if the run's checkpoint cannot be read.
    """
    from scratch_dl import kernels
    from scratch_dl.evaluation import scoring
    from scratch_dl.training import checkpoint
    from scratch_dl.training.resume import find_folder, recorded_config

    settings = plain(config)
    check_keys("", settings, list(KEYS))
    with config_errors("", settings):
        kernels.check(settings["backend"])
        choice("checkpoint", settings["checkpoint"], ("best", "last"))
        if settings["threads"] is not None:
            integer("threads", settings["threads"], minimum=1)
    splits = settings["splits"]
    if not isinstance(splits, list) or not splits or not set(map(str, splits)) <= set(scoring.PREFIXES):
        raise ConfigError(f"splits must be some of {', '.join(scoring.PREFIXES)}, but got {splits!r}")
    trained = find_folder(str(settings["run"]), settings["tracking"], "run")
    recorded = recorded_config(trained)
    settings["noise"] = settings.get("noise") or recorded["noise"]
    settings["tracking"]["experiment"] = settings["tracking"]["experiment"] or recorded["tracking"]["experiment"]
    tracking_settings(settings)
    allowed = settings["allowed_targets"]
    sources = {"data": recorded["data"], "noise": settings["noise"], "allowed_targets": allowed}
    data = make("data", sources, noise=make("noise", sources))
    weights = trained / "checkpoints" / f"{settings['checkpoint']}.pt"
    network = checkpoint.load_network(weights, allowed)
    with config_errors("", settings):
        scoring.check_photographs(network, data, splits)
    return _Prepared(settings, trained, data, network, checkpoint.load(weights)["progress"]["step"])


def main() -> None:
    """Entry point of the command."""
    Command("evaluate", _prepare, _run).main()


if __name__ == "__main__":
    main()
