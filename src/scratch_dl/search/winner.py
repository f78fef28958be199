"""What becomes of the best trial: commands that train its point again, and its scores on the test photographs."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from scratch_dl import tracking
from scratch_dl.config.build import build
from scratch_dl.config.metrics import metric_names
from scratch_dl.config.overrides import override_value, parse
from scratch_dl.config.plain import flat
from scratch_dl.evaluation import scoring
from scratch_dl.search.identity import BESIDE
from scratch_dl.search.parameter import key_of
from scratch_dl.search.trial_result import TrialResult
from scratch_dl.training import checkpoint

FULL, SAME = "at full length", "at the trial's length, which gives its value bit for bit"
_LENGTH = ("trainer.epochs", "trainer.max_minutes", "trainer.patience", "data.crops_per_epoch")
_PRESETS = ("experiment",)  # a debug is never the full length
_GROUPS = ("model", "loss", "optimizer", "schedule", "data", "noise", "metrics", "trainer")


def test_scores(config: Any, result: TrialResult, directory: Path) -> dict[str, float]:
    """Evaluate the winner's best weights on the test photographs.

    Args:
        config: the winner's configuration, composed.
        result: of the winner.
        directory: `tracking.dir`, absolute; the baselines' scores are cached there.

    Returns:
        PSNR (dB) and other metrics of the winner, and PSNR of the baselines, by metric name; empty if its weights are
        on another machine.
    """
    folder = tracking.locate_folder(result.run_id, Path(result.folder), directory)
    if folder is None:
        return {}
    setup = build(config)
    setup.network.load_state_dict(checkpoint.load(folder / "checkpoints" / checkpoint.BEST)["network"])
    cache = directory / "cache"
    scores, _ = scoring.evaluate_photographs(setup.data, setup.network, "test", cache, setup.metrics)
    return scores


def retrain_commands(
    trial: DictConfig,
    compose: Callable[[Sequence[str]], DictConfig],
    prefix: Sequence[str] = (),
    fixed: Sequence[str] = (),
) -> dict[str, str]:
    """Return what a command does -> the command.

    Args:
        trial: the configuration of the trial, including its groups' choices.
        compose: overrides -> the configuration of a training without a search.
        prefix: Hydra's own flags for every command.
        fixed: overrides of every trial of the search; a preset among them decides what full length is.

    Returns:
        One command that leaves the training's length to the configuration, and one that keeps the trial's; both spell
        out whatever else differs from the configuration as it stands.
    """
    before, now = compose([]).hydra.runtime.choices, trial.hydra.runtime.choices
    groups = [f"{group}={now[group]}" for group in _GROUPS if now.get(group) != before.get(group)]
    presets = [override for override in fixed if key_of(parse(override)) in _PRESETS]
    default, preset = _settings(compose(groups)), _settings(compose([*groups, *presets]))
    same = _settings(trial)
    full = {**same, **{key: preset[key] for key in _LENGTH if key in preset}}
    return {
        purpose: shlex.join(["python", "-m", "scratch_dl.train", *prefix, *groups, *_differences(settings, default)])
        for purpose, settings in ((FULL, full), (SAME, same))
    }


def _settings(config: DictConfig) -> dict[str, Any]:
    """Return dotted keys and values that matter to the weights; a value that is missing is '???'."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    values: Any = OmegaConf.to_container(own, resolve=True, throw_on_missing=False)
    values["metrics"] = {name: values["metrics"][name] for name in metric_names(values["metrics"])}
    return {key: value for key, value in flat(values).items() if not key.startswith((*BESIDE, "trainer.test"))}


def _differences(wanted: Mapping[str, Any], default: Mapping[str, Any]) -> list[str]:
    """Return the overrides that turn the settings `default` into `wanted`."""
    removed = list(dict.fromkeys(f"~{_shortest_prefix(key, wanted)}" for key in default if key not in wanted))
    changed = [
        f"{'' if key in default else '+'}{key}={override_value(value)}"
        for key, value in wanted.items()
        if key not in default or default[key] != value or type(default[key]) is not type(value)
    ]
    return [*removed, *changed]


def _shortest_prefix(key: str, wanted: Mapping[str, Any]) -> str:
    """Return the shortest prefix of a dotted key that no wanted key has."""
    parts = key.split(".")
    prefixes = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return next(prefix for prefix in prefixes if not any(f"{other}.".startswith(f"{prefix}.") for other in wanted))
