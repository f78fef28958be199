"""`python -m scratch_dl.evaluate run=<id or folder> [noise=...] [data=...]`: score a network on whole photographs.

The scores stand beside the baselines on the same pixels, and become an MLflow run tagged with the run they evaluate.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig

from scratch_dl.cli.command import Command
from scratch_dl.config.build import tracking_settings
from scratch_dl.config.inference import check_inference, use_inference
from scratch_dl.config.metrics import make_metrics
from scratch_dl.config.plain import brief, plain
from scratch_dl.config.targets import check_keys, config_errors, make
from scratch_dl.kernels.restoring import restored
from scratch_dl.system.errors import ConfigError
from scratch_dl.tracking import tracked_run

if TYPE_CHECKING:
    from scratch_dl import tracking
    from scratch_dl.data import DataSet
    from scratch_dl.evaluation.scoring import Metric
    from scratch_dl.models import Denoiser

KEYS = ("run", "checkpoint", "splits", "data", "noise", "metrics", "tracking", "backend", "threads", "allowed_targets")


_WHOLE = "scratch_dl.data.WholeFolder"
_OF_FOLDER = ("path", "downsample", "seed", "max_pixels")


class _Prepared(NamedTuple):
    """The settings, the folder of the trained run, and what is built from both.

    Attributes:
        settings: of the command; data, noise and metrics are the run's where the command line names none.
        trained: folder of the run.
        data: whose photographs are scored.
        network: with the run's weights.
        step: of the weights.
        is_own_data: whether the command line names the data.
        metrics: beside PSNR, by name.
    """

    settings: dict[str, Any]
    trained: Path
    data: "DataSet"
    network: "Denoiser"
    step: int
    is_own_data: bool
    metrics: "dict[str, Metric]"


@restored()
def _run(_config: DictConfig, folder: Path, prepared: _Prepared) -> None:
    """Evaluate one run, print a table, and record it."""
    from rich.console import Console

    from scratch_dl import kernels
    from scratch_dl.data import WholeFolder
    from scratch_dl.evaluation.baselines import BASELINES
    from scratch_dl.terminal import console
    from scratch_dl.training.description import record_skipped
    from scratch_dl.training.result import own_metrics, read_summary

    settings, trained = prepared.settings, prepared.trained
    use_inference(settings)
    noise = brief(settings["noise"])
    of = read_summary(trained).get("run_id", trained.name)
    name = f"evaluation of {of[:8]} on {prepared.data.name}, {noise}"
    with tracked_run(settings, folder, name, {"evaluates": of}) as run:
        run.tags({"kernels": kernels.used()})
        record_skipped(run, prepared.data)
        whole = isinstance(prepared.data, WholeFolder)
        names = {split: "all pictures" if whole else f"{split} photographs" for split in settings["splits"]}
        scored = {split: _scores(prepared, split, run) for split in settings["splits"]}
        rows = {names[split]: _psnr(scores, split) for split, scores in scored.items()}
        data = brief(settings["data"]) if prepared.is_own_data else prepared.data.name
        lines = [f"of        {trained}", f"data      {data}", f"noise     {noise}"]
        own = own_metrics({key: value for scores in scored.values() for key, value in scores.items()})
        lines += [f"metrics   {words} ({photographs})" for photographs, words in own.items()]
        table = console.score_table(rows, (*BASELINES, "network"))
        Console(highlight=False).print(console.panel("evaluation", table, lines))


def _scores(prepared: _Prepared, split: str, run: "tracking.Run") -> dict[str, float]:
    """Score and record the photographs of a split; return the scores by metric name."""
    from scratch_dl import tracking
    from scratch_dl.evaluation import scoring
    from scratch_dl.training import pictures

    cache = Path(prepared.settings["tracking"]["dir"]).expanduser().absolute() / "cache"
    scores, shown = scoring.evaluate_photographs(prepared.data, prepared.network, split, cache, prepared.metrics)
    prefix = scoring.PREFIXES[split]
    run.metrics(scores, prepared.step)
    for photograph, output in shown:
        picture = pictures.composite(photograph.noisy[None], output[None], photograph.clean[None], scale=1)
        run.image(picture, tracking.image_key(f"{prefix}_{photograph.name}"), prepared.step)
    return scores


def _psnr(scores: Mapping[str, float], split: str) -> dict[str, float]:
    """Return the PSNR (dB) of the network and the baselines on a split."""
    from scratch_dl.evaluation.baselines import BASELINES
    from scratch_dl.evaluation.scoring import PREFIXES

    prefix = PREFIXES[split]
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
    from scratch_dl.evaluation import scoring
    from scratch_dl.training import checkpoint
    from scratch_dl.training.resume import find_folder, recorded_config

    settings = plain(config)
    check_keys("", settings, list(KEYS))
    check_inference(settings)
    splits = settings["splits"]
    if not isinstance(splits, list) or not splits or not set(map(str, splits)) <= set(scoring.PREFIXES):
        raise ConfigError(f"splits must be some of {', '.join(scoring.PREFIXES)}, but got {splits!r}")
    trained = find_folder(str(settings["run"]), settings["tracking"], "run")
    recorded = recorded_config(trained)
    settings["noise"] = settings.get("noise") or recorded["noise"]
    settings["metrics"] = {**recorded["metrics"], **(settings.get("metrics") or {})}
    own = _own_data(settings.get("data"))
    settings["data"] = own or recorded["data"]
    if settings["data"]["_target_"] == _WHOLE:
        settings["splits"] = splits = ["test"]
    settings["tracking"]["experiment"] = settings["tracking"]["experiment"] or recorded["tracking"]["experiment"]
    tracking_settings(settings)
    allowed = settings["allowed_targets"]
    sources = {"data": settings["data"], "noise": settings["noise"], "allowed_targets": allowed}
    data = make("data", sources, noise=make("noise", sources))
    weights = trained / "checkpoints" / f"{settings['checkpoint']}.pt"
    network = checkpoint.load_network(weights, allowed)
    with config_errors("", settings):
        scoring.check_photographs(network, data, splits)
    sizes = [size for split in splits for size in data.photograph_sizes(split).values()]
    metrics = make_metrics(settings, (min(h for h, _ in sizes), min(w for _, w in sizes)))
    step = checkpoint.load(weights)["progress"]["step"]
    return _Prepared(settings, trained, data, network, step, own is not None, metrics)


def _own_data(given: Any) -> dict[str, Any] | None:
    """Return the data that the command line names, if any; a folder's pictures are all evaluated, as one set."""
    if given is None:
        return None
    if given["_target_"] != "scratch_dl.data.Folder":
        return dict(given)
    skipping = {} if given["skip_broken"] is False else {"skip_broken": given["skip_broken"]}
    return {"_target_": _WHOLE, **{key: given[key] for key in _OF_FOLDER}, **skipping}


def main() -> None:
    """Entry point of the command."""
    Command("evaluate", _prepare, _run).main()


if __name__ == "__main__":
    main()
