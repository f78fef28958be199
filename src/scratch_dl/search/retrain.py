"""The commands that train a trial's point again."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from scratch_dl.config.overrides import in_grammar
from scratch_dl.config.plain import flat
from scratch_dl.search.identity import BESIDE

FULL, SAME = "at full length", "at the trial's length, which gives its value bit for bit"
_LENGTH = ("trainer.epochs", "trainer.max_minutes", "trainer.patience", "data.crops_per_epoch")
_OF_NO_WEIGHT = (*BESIDE, "trainer.test")
_PRESETS = ("experiment", "debug")
_GROUPS = ("model", "optimizer", "schedule", "data", "noise", "trainer")


def commands(
    trial: DictConfig,
    compose: Callable[[Sequence[str]], DictConfig],
    prefix: Sequence[str] = (),
    given: Sequence[str] = (),
) -> dict[str, str]:
    """What it does -> the command.

    Args:
        trial: the configuration of the trial, its groups' choices included.
        compose: overrides -> the configuration of a training, without any search.
        prefix: Hydra's own flags for every command.
        given: overrides of the search; a preset among them decides what full length is.

    Returns:
        One command that leaves the training's length to the configuration, and one that keeps the trial's; both spell
        out whatever else differs from the configuration as it stands.
    """
    groups = _chosen(trial, compose([]))
    there = _settings(compose(groups))
    presets = [word for word in given if word.partition("=")[0] in _PRESETS]
    length = _settings(compose([*groups, *presets]))
    wanted = _settings(trial)
    full = {**wanted, **{key: length[key] for key in _LENGTH if key in length}}
    return {
        what: shlex.join(["python", "-m", "scratch_dl.train", *prefix, *groups, *_differing(config, there)])
        for what, config in ((FULL, full), (SAME, wanted))
    }


def _chosen(trial: DictConfig, default: DictConfig) -> list[str]:
    """The choices of groups that are not the default ones."""
    before, now = default.hydra.runtime.choices, trial.hydra.runtime.choices
    return [f"{group}={now[group]}" for group in _GROUPS if now.get(group) != before.get(group)]


def _settings(config: DictConfig) -> dict[str, Any]:
    """Dotted keys and values; one that must be given, and is not, is '???'."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    values: Any = OmegaConf.to_container(own, resolve=True, throw_on_missing=False)
    return {key: value for key, value in flat(values).items() if not key.startswith(_OF_NO_WEIGHT)}


def _differing(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Overrides that make of `there` what is wanted."""
    removed = list(dict.fromkeys(f"~{_topmost(key, wanted)}" for key in there if key not in wanted))
    changed = [
        f"{'' if key in there else '+'}{key}={in_grammar(value)}" for key, value in wanted.items()
        if key not in there or there[key] != value or type(there[key]) is not type(value)
    ]  # fmt: skip
    return [*removed, *changed]


def _topmost(key: str, wanted: Mapping[str, Any]) -> str:
    """The shortest beginning of a dotted key that nothing wanted begins with."""
    parts = key.split(".")
    beginnings = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return next(one for one in beginnings if not any(f"{other}.".startswith(f"{one}.") for other in wanted))
