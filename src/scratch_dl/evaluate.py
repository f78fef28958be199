"""`python -m scratch_dl.evaluate run=<id or folder> [noise=...]`: score a trained network on whole photographs.

The scores stand beside the baselines on the same pixels, and become an MLflow run tagged with the run they evaluate.
"""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from scratch_dl import frontdoor
from scratch_dl.targets import ConfigError
from scratch_dl.yaml_files import CONF


@hydra.main(version_base="1.3", config_path=CONF, config_name="evaluate")
def command(config: DictConfig) -> None:
    """Evaluate one run, print a table, and record it."""
    try:
        _evaluate(config, Path(HydraConfig.get().runtime.output_dir))
    except Exception as error:
        frontdoor.exit_with(error)


def _evaluate(config: DictConfig, folder: Path) -> None:
    from rich.console import Console

    from scratch_dl import checkpoint, console, evaluation, kernels, pictures, tracking
    from scratch_dl.config import plain
    from scratch_dl.resume import find_folder, recorded_config
    from scratch_dl.summary import METHODS
    from scratch_dl.targets import check_keys, make, naming

    settings = plain(config)
    check_keys("", settings, ["run", "checkpoint", "splits", "noise", "tracking", "backend", "allowed_targets"])
    with naming("", settings):
        kernels.use(settings["backend"])
    if settings["checkpoint"] not in ("best", "last"):
        raise ConfigError(f"checkpoint must be best or last, but got {settings['checkpoint']!r}")
    splits = settings["splits"]
    if not isinstance(splits, list) or not splits or not set(splits) <= set(evaluation.PREFIXES):
        raise ConfigError(f"splits must be some of {', '.join(evaluation.PREFIXES)}, but got {splits!r}")
    trained = find_folder(str(settings["run"]), settings["tracking"], "run")
    recorded = recorded_config(trained)
    noise = settings.get("noise") or recorded["noise"]
    allowed = settings["allowed_targets"]
    sources = {"data": recorded["data"], "noise": noise, "allowed_targets": allowed}
    data = make("data", sources, noise=make("noise", sources))
    weights = trained / "checkpoints" / f"{settings['checkpoint']}.pt"
    network = checkpoint.load_network(weights, allowed)
    step = checkpoint.load(weights)["progress"]["step"]
    store = tracking.open_store(settings["tracking"]["dir"], settings["tracking"]["uri"])
    experiment = recorded["tracking"]["experiment"]
    name = settings["tracking"]["run_name"] or f"evaluation-{trained.name}-{noise['_target_'].rpartition('.')[2]}"
    run = tracking.Run.create(store, folder, experiment, name, {"evaluates": str(settings["run"])})
    status = "FAILED"
    try:
        run.params({f"noise.{key}": value for key, value in noise.items()} | {"checkpoint": settings["checkpoint"]})
        run.tags({"kernels": kernels.used()})
        rows: dict[str, dict[str, float]] = {}
        for split in splits:
            scores, shown = evaluation.evaluate_photographs(data, network, split, Path(store.directory) / "cache")
            prefix = evaluation.PREFIXES[split]
            run.metrics(scores, step)
            for photograph, output in shown:
                picture = pictures.composite(photograph.noisy[None], output[None], photograph.clean[None], scale=1)
                run.image(picture, f"{prefix}_{photograph.name}", step)
            rows[f"{split} photographs"] = {
                **{method: scores[f"{prefix}/{method}_psnr_db"] for method in METHODS},
                "network": scores[f"{prefix}/psnr_db"],
            }
        status = "FINISHED"
    finally:
        run.finish(status)
    table = console.score_table(rows, (*METHODS, "network"))
    lines = [f"of        {trained}", f"noise     {noise}", f"recorded  {run.run_id}"]
    Console(highlight=False).print(console.panel("evaluation", table, lines))


def _check(config: DictConfig) -> None:
    """Find the run, before a folder is made for what comes of it."""
    from scratch_dl.config import Tracking, plain
    from scratch_dl.resume import find_folder
    from scratch_dl.targets import naming

    settings = plain(config)
    with naming("tracking", settings["tracking"]):
        Tracking(**settings["tracking"])
    find_folder(str(settings["run"]), settings["tracking"], "run")


def main() -> None:
    """Entry point of the command."""
    frontdoor.run_command(command, "evaluate", _check)


if __name__ == "__main__":
    main()
