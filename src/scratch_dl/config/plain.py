"""A configuration as plain dictionaries, nested or flat."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from scratch_dl.system.errors import ConfigError


def plain(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration as dictionaries and lists, with interpolations resolved and without Hydra's part.

    Raises:
        ConfigError: if a value is missing.
    """
    if isinstance(config, DictConfig):
        config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        missing = sorted(map(str, OmegaConf.missing_keys(config)))
        if missing:
            raise ConfigError(f"{missing[0]} must be given, for example {missing[0]}=..., but it is missing")
        try:
            config = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
        except RecursionError:
            raise ConfigError("a ${...} refers to itself, perhaps through others") from None
    return {str(key): value for key, value in config.items()}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings by dotted key, for MLflow's parameters; without `resume.run`."""
    settings: dict[str, Any] = {}
    for key, value in plain(config).items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            settings |= flat(value, f"{name}.")
        elif name != "resume.run":
            settings[name] = value
    return settings


def brief(group: Mapping[str, Any]) -> str:
    """Return a group's `_target_` and arguments as a call, for people to read: "Gaussian(std=0.098)"."""
    arguments = ", ".join(f"{key}={brief_value(value)}" for key, value in group.items() if key != "_target_")
    name = str(group["_target_"]).rpartition(".")[2]
    return f"{name}({arguments})" if arguments else name


def brief_value(value: Any) -> str:
    """Return a setting's value in few characters: three digits of a number, the last part of a path."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(brief_value, value))}]"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value).rstrip("/").rpartition("/")[2]
