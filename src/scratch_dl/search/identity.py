"""When two points are the same training, and two definitions the same study, however their settings are written."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig

from scratch_dl.config.metrics import OURS, metric_names
from scratch_dl.config.overrides import parse
from scratch_dl.config.plain import flat, plain
from scratch_dl.config.schema import Setup
from scratch_dl.nn import Upsampling
from scratch_dl.search.parameter import key_of
from scratch_dl.search.settings import SearchSettings
from scratch_dl.search.space import Space
from scratch_dl.system.passwords import hidden

BESIDE = ("tracking.", "resume.", "verification.", "diagnosis.", "trainer.pictures")
"""Prefixes of the keys that change no bit of a training."""
_METRICS = "metrics."
THREADS = "threads"
"""A key that changes only the rounding. It differs between machines and numbers of workers."""


def point_identity(setup: Setup) -> str:
    """Return a hash of the modules with their geometry in numbers, the initial weights, and the other settings.

    The model's settings themselves are left out: padding=same and the numbers that it stands for are the same point.
    """
    digest = hashlib.sha256()
    for name, module in setup.network.named_modules():
        if isinstance(module, Upsampling):
            words = f"{module.mode} {module.scale_factor} {module.kernel_size} {module.geometry}"
        elif any(module.children()):  # which have entries of their own
            words = f"{type(module).__name__} {getattr(module, 'join', '')}"
        else:
            words = repr(module)
        digest.update(f"{name} {words}\n".encode())
    for name, value in setup.network.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    ignored = ("model.", _METRICS, *BESIDE, THREADS)
    settings = {key: value for key, value in flat(setup.config).items() if not key.startswith(ignored)}
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:32]


def study_definition(settings: SearchSettings, space: Space, base: DictConfig) -> dict[str, Any]:
    """Return everything about a study that must not change, because its trials are compared with one another.

    Args:
        settings: of the search.
        space: of the search.
        base: the configuration without what is drawn.
    """
    drawn = {parameter.key for parameter in space.parameters}
    groups = {key for key in drawn if key in base.hydra.runtime.choices}
    ignored = (_METRICS, *BESIDE, THREADS, "device", "backend")
    fixed = {
        key: _without_drawn(key, value, drawn)
        for key, value in flat(plain(base)).items()
        if not key.startswith(ignored) and key not in drawn and key.partition(".")[0] not in groups
    }
    aims = {objective.name.rpartition("/")[2] for objective in settings.objectives} - set(OURS)
    for name in aims & set(metric_names(base.get("metrics"))):
        fixed |= flat({f"{_METRICS}{name}": plain(base)["metrics"][name]})
    for override in map(parse, space.fixed):  # the settings of a drawn group are those of the command line
        key = key_of(override)
        if key.partition(".")[0] in groups:
            fixed[key] = override.get_value_element_as_str()
    definition = {
        "space": space.describe(),
        "objective": [str(objective) for objective in settings.objectives],
        "direction": [objective.direction for objective in settings.objectives],
        "settings": hidden(fixed),
    }
    return json.loads(json.dumps(definition))  # type: ignore[no-any-return]


def _without_drawn(key: str, value: Any, drawn: set[str]) -> Any:
    """Return a list without its items that are drawn."""
    if not isinstance(value, list):
        return value
    return [None if f"{key}.{place}" in drawn else item for place, item in enumerate(value)]


def definition_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield in words what differs between two definitions."""
    for part in ("objective", "direction"):
        if before[part] != now[part]:
            yield f"{part} was {', '.join(before[part])}, is {', '.join(now[part])}"
    for part in ("space", "settings"):
        absent = "not searched" if part == "space" else "not set"
        for key in sorted({*before[part], *now[part]}):
            old, new = (definition[part].get(key, absent) for definition in (before, now))
            if old != new:
                yield f"{key} was {old}, is {new}"
