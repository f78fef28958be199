"""The commands that train a trial's point again."""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from scratch_dl.config import flat, plain

FULL, SAME = "at full length", "at the trial's length, which gives its value bit for bit"
_LENGTH = ("trainer.epochs", "trainer.max_minutes", "trainer.patience", "data.crops_per_epoch")
_OF_NO_WEIGHT = ("tracking.", "resume.", "verification.", "diagnosis.", "trainer.test", "trainer.pictures")
_GROUPS = ("model", "optimizer", "schedule", "data", "noise", "trainer")


def commands(
    trial: DictConfig, compose: Callable[[Sequence[str]], DictConfig], prefix: Sequence[str] = ()
) -> dict[str, str]:
    """What it does -> the command.

    Args:
        trial: the configuration of the trial, its groups' choices included.
        compose: overrides -> the configuration of a training, without any search.
        prefix: Hydra's own flags for every command.

    Returns:
        One command that leaves the training's length to the configuration, and one that keeps the trial's; both spell
        out whatever else differs from the configuration as it stands.
    """
    groups = _chosen(trial, compose([]))
    length = _settings(compose(groups))
    wanted = _settings(trial)
    full = {**wanted, **{key: length[key] for key in _LENGTH if key in length}}
    return {
        what: shlex.join(["python", "-m", "scratch_dl.train", *prefix, *groups, *_differing(config, length)])
        for what, config in ((FULL, full), (SAME, wanted))
    }


def _chosen(trial: DictConfig, default: DictConfig) -> list[str]:
    """The choices of groups that are not the default ones."""
    before, now = default.hydra.runtime.choices, trial.hydra.runtime.choices
    return [f"{group}={now[group]}" for group in _GROUPS if now.get(group) != before.get(group)]


def _settings(config: DictConfig) -> dict[str, Any]:
    return {key: value for key, value in flat(plain(config)).items() if not key.startswith(_OF_NO_WEIGHT)}


def _differing(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Overrides that make of `there` what is wanted."""
    removed = [f"~{key}" for key in there if key not in wanted]
    changed = [
        f"{'' if key in there else '+'}{key}={in_grammar(value)}" for key, value in wanted.items()
        if key not in there or there[key] != value or type(there[key]) is not type(value)
    ]  # fmt: skip
    return [*removed, *changed]


def in_grammar(value: Any) -> str:
    """A value as Hydra reads it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(in_grammar, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}: {in_grammar(one)}" for key, one in value.items()) + "}"
    if isinstance(value, str):
        plain_word = re.fullmatch(r"[A-Za-z_][\w\-./:]*", value) and value.lower() not in _WORDS
        return value if plain_word else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return repr(value)


_WORDS = ("null", "true", "false", "nan", "inf")


def composed_without_search(compose: Callable[[Sequence[str]], DictConfig]) -> Callable[[Sequence[str]], DictConfig]:
    """`compose`, with no search chosen."""
    return lambda overrides: compose([*overrides, "search=null"])


def same_training(one: DictConfig, other: DictConfig) -> bool:
    """Whether two configurations are the same training, whatever is recorded and verified of it."""
    return bool(OmegaConf.create(_settings(one)) == OmegaConf.create(_settings(other)))
