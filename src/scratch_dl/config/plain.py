"""A configuration as plain dictionaries, nested or flat."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from scratch_dl.system.errors import ConfigError


def plain(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as dictionaries and lists, interpolations resolved, Hydra's own part left out.

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
            raise ConfigError("a ${...} refers to itself, perhaps by way of others") from None
    return {str(key): value for key, value in config.items()}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and their values, for MLflow's parameters."""
    found: dict[str, Any] = {}
    for key, value in plain(config).items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{name}.")
        elif name != "resume.run":
            found[name] = value
    return found
