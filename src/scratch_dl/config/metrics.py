"""Makes the metrics of the group `metrics`; a user's own are tried on a few pixels before anything is written."""

import inspect
import math
import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from scratch_dl.config.protocols import example_of
from scratch_dl.config.targets import check_keys, check_targets, find_target, make_object
from scratch_dl.system.errors import ConfigError

if TYPE_CHECKING:
    from scratch_dl.evaluation.scoring import Metric

PSNR = "psnr_db"
OURS = {PSNR: "scratch_dl.data.metrics.psnr_db", "ssim": "scratch_dl.data.metrics.ssim"}
"""The metrics whose names mean the same in every run."""
_TAKEN = re.compile(r"loss|gain_db|best_step|psnr_pooled_db|\w*psnr_db")
"""Other numbers that every run logs as val/<name> or test/<name>."""
_CALLED = (
    "a metric is a function (output, clean) -> float of two (n, 3, h, w) tensors, or a class of such objects; "
    f"{example_of('metric')}"
)
_EXAMPLE = "+metrics.mae._target_=my_metrics.mae"
_MOST = 100  # characters of a name


def is_of_every_run(name: str) -> bool:
    """Return whether a name, as in val/<name> and test/<name>, is not that of a metric of the user's own."""
    return name in OURS or _TAKEN.fullmatch(name) is not None


def metric_names(group: Mapping[str, Any] | None) -> list[str]:
    """Return the names in the settings of the group `metrics`, without those that are left out."""
    return [str(name) for name, settings in (group or {}).items() if settings is not None]


def own_names(group: Mapping[str, Any] | None) -> list[str]:
    """Return the names in the settings of the group `metrics` that are not ours."""
    return [name for name in metric_names(group) if name not in OURS]


def make_metrics(config: Mapping[str, Any], size: tuple[int, int]) -> "dict[str, Metric]":
    """Return the metrics of the group `metrics` by name, except PSNR, which every run has.

    Args:
        config: with the group, and `allowed_targets`.
        size: (height, width) of the smallest pictures that are scored.

    Raises:
        ConfigError: if one cannot be used; the message names its key.
    """
    group = config.get("metrics")
    if not isinstance(group, Mapping):
        raise ConfigError(f"metrics must be one of the group's choices, but got {group!r}")
    check_targets({"metrics": group, "allowed_targets": config.get("allowed_targets", [])})
    made = {}
    for name, settings in group.items():
        key = f"metrics.{name}"
        _check_entry(key, str(name), settings)
        if settings is not None and name != PSNR:
            made[str(name)] = _made(key, settings, config.get("seed"))
            if name not in OURS:
                _try(key, str(name), made[str(name)], size)
    return made


def _check_entry(key: str, name: str, settings: Any) -> None:
    """Refuse a name that cannot be logged or means something else, and settings that make no metric."""
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or len(name) > _MOST:
        raise ConfigError(
            f"{key} must have a name of letters, digits and '_' that begins with a letter, at most {_MOST} of them, "
            f"but got {name!r}"
        )
    if settings is None:
        if name == PSNR:
            raise ConfigError(f"{key} must not be null, as PSNR decides which checkpoint is the best; leave it out")
        return
    if not isinstance(settings, Mapping) or not isinstance(settings.get("_target_"), str):
        raise ConfigError(f"{key} must have a _target_, for example {_EXAMPLE}, but got {settings!r}")
    if name in OURS:
        if dict(settings) != {"_target_": OURS[name]}:
            raise ConfigError(
                f"{key} must be {OURS[name]}, which the name means in every run, but got {_shown(settings)}; give the "
                f"other metric a name of its own: +metrics.{name}_own._target_={settings['_target_']}"
            )
    elif _TAKEN.fullmatch(name):
        raise ConfigError(
            f"{key} must have another name, as every run logs a {name} of its own: "
            f"+metrics.{name}_own._target_={settings['_target_']}"
        )


def _made(key: str, settings: Mapping[str, Any], seed: Any) -> "Metric":
    """Return an object of a class, or a function with its settings bound."""
    target = find_target(f"{key}._target_", settings["_target_"])
    if inspect.isclass(target):
        made = make_object(key, settings, seed)
        if not callable(made):
            name = settings["_target_"]
            raise ConfigError(f"{key}._target_ must make a metric, but {name!r} has no __call__; {_CALLED}")
        return made  # type: ignore[no-any-return]
    arguments = {name: value for name, value in settings.items() if name != "_target_"}
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except ValueError:  # a function written in C may have no signature
        parameters = []
    if parameters and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        check_keys(key, arguments, [parameter.name for parameter in parameters[2:]])
    return partial(target, **arguments) if arguments else target


def _try(key: str, name: str, metric: "Metric", size: tuple[int, int]) -> None:
    """Score a pair of crops and a picture of another size, both of random pixels.

    Raises:
        ConfigError: if that raises, gives no finite number, or changes the pictures.
    """
    import torch

    from scratch_dl.evaluation.scoring import measure

    generator = torch.Generator().manual_seed(0)
    for shape in ((2, 3, *size), (1, 3, size[0] + 1, size[1] + 3)):
        output, clean = torch.rand((2, *shape), generator=generator)
        before = output.clone(), clean.clone()
        try:
            value = measure(name, metric, output, clean)
        except Exception as error:
            words = " ".join(str(error).split()) or type(error).__name__
            raise ConfigError(
                f"{key} cannot score pictures of the shape {shape}: {type(error).__name__}: {words}; {_CALLED}"
            ) from error
        if not math.isfinite(value):
            raise ConfigError(f"{key} must be a finite number, but is {value} for random pixels of the shape {shape}")
        if not (torch.equal(output, before[0]) and torch.equal(clean, before[1])):
            raise ConfigError(f"{key} must leave the pictures as they are, but it changes them in place; clone them")


def _shown(settings: Mapping[str, Any]) -> str:
    arguments = "".join(f", {name}={value!r}" for name, value in settings.items() if name != "_target_")
    return f"{settings['_target_']}{arguments}"
