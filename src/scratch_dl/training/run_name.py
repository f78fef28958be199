"""The name of a run: in what it differs from a training with the default settings."""

from collections.abc import Iterator, Sequence
from typing import Any

from hydra import compose as hydra_compose
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scratch_dl.config.composing import compose_config
from scratch_dl.config.environment import is_from_environment
from scratch_dl.config.overrides import key_of, value_of
from scratch_dl.config.plain import brief_value, flat
from scratch_dl.config.schema import Setup
from scratch_dl.system.errors import ConfigError

LENGTH = 80
_MISSING = object()
# The most telling first. An experiment or a debug stands for all that it sets.
_PRESETS = ("experiment", "debug")
_GROUPS = ("model", "noise", *_PRESETS, "loss", "optimizer", "schedule", "data", "trainer")
_OTHERS = ("seed", "dtype")


def run_name(setup: Setup, overrides: Sequence[str]) -> str:
    """Return a name of at most LENGTH characters, such as "unet pixelation adam lr=0.01 epochs=5 seed=1".

    The model comes first, behind only a fault. Settings that do not fit are counted at the end: "+2".

    Args:
        setup: of the training.
        overrides: that it was composed with.
    """
    words = [f"fault={setup.fault.name}"] if setup.fault else []
    try:
        words += _differences(setup.config, [word for word in overrides if not is_from_environment(word)])
    except (ConfigError, HydraException, OmegaConfBaseException):  # a preset that cannot be composed without the rest
        words.append(str(setup.config["model"]["_target_"]).rpartition(".")[2])
    for kept in range(len(words), 0, -1):
        name = " ".join([*words[:kept], *([f"+{len(words) - kept}"] if kept < len(words) else [])])
        if len(name) <= LENGTH:
            return name
    return words[0][:LENGTH]


def _differences(config: dict[str, Any], overrides: Sequence[str]) -> Iterator[str]:
    """Yield the model, then each choice and each setting that differs from the default."""
    choices = {key: value_of(key, overrides) for key in map(key_of, overrides) if key in _GROUPS}
    base = _settings([word for word in overrides if key_of(word) in choices])
    preset = _settings([word for word in overrides if key_of(word) in _PRESETS])
    own = flat(config)
    for group in _GROUPS:
        target, choice = f"{group}._target_", choices.get(group)
        chosen = choice is not None and any(
            base.get(key) != preset.get(key) for key in base.keys() | preset.keys() if key.startswith(f"{group}.")
        )
        if group == "model" or own.get(target) != preset.get(target) or (chosen and group not in _PRESETS):
            yield str(choice or own[target].rpartition(".")[2])
        elif group in _PRESETS and choice:
            yield str(choice)
        for key, value in own.items():
            if key.startswith(f"{group}.") and key != target and base.get(key, _MISSING) != value:
                yield f"{key.rpartition('.')[2]}={brief_value(value)}"
    yield from (f"{key}={own[key]}" for key in _OTHERS if own[key] != base[key])


def _settings(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a training with these overrides, by dotted key."""
    if GlobalHydra.instance().is_initialized():  # it also knows the folder of --config-dir
        config = hydra_compose("train", overrides=list(overrides))
    else:
        config = compose_config("train", overrides)
    config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    content: Any = OmegaConf.to_container(config, resolve=True)  # a value that must be given is "???"
    return flat(content)
