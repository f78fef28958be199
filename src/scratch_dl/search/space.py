"""What is searched: all the parameters of a configuration and a command line, and what stays as it is."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from scratch_dl.config.overrides import in_grammar, parse
from scratch_dl.config.plain import flat, plain
from scratch_dl.search.parameter import (
    EXAMPLES,
    EXPECTED,
    Drawing,
    Parameter,
    Value,
    is_same,
    key_of,
    read_conditional,
    read_parameter,
)
from scratch_dl.system.checks import nearest
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import hide

_ABSENT = object()
_NOT_SEARCHED = ("resume", "tracking", "hydra", "threads", "allowed_targets", "search", "experiment", "debug")


@dataclass(frozen=True)
class Space:
    """All that is drawn, in this order, and what stays as it is.

    Attributes:
        parameters: the drawn settings; those with a condition after those without.
        fixed: overrides of every trial.
    """

    parameters: tuple[Parameter, ...]
    fixed: tuple[str, ...]

    def draw(self, trial: Drawing, setting: Callable[[str], Any]) -> dict[Parameter, Value]:
        """Draw a point; `setting` tells a key's value in the configuration, for conditions on what is not drawn."""
        drawn: dict[Parameter, Value] = {}
        for parameter in self._drawn(drawn, setting):
            drawn[parameter] = parameter.suggest(trial)
        return drawn

    def baseline(self, setting: Callable[[str], Any]) -> tuple[dict[str, Value], list[str]]:
        """The configuration's own point, by names in the study; and in words, what of it lies outside of the space."""
        point: dict[Parameter, Value] = {}
        outside: list[str] = []
        for parameter in self._drawn(point, setting):
            own = setting(parameter.key)
            point[parameter] = parameter.nearest(own)
            if not parameter.contains(own):
                outside.append(f"{parameter.key}={point[parameter]}, as {own} is not in {parameter}")
        return {parameter.name: value for parameter, value in point.items()}, outside

    def grid(self, setting: Callable[[str], Any]) -> Iterator[dict[str, Value]]:
        """Every point, by names in the study.

        Raises:
            ConfigError: if a parameter has no end of values.
        """

        def below(point: dict[Parameter, Value], left: list[Parameter]) -> Iterator[dict[Parameter, Value]]:
            if not left:
                yield point
                return
            parameter, *others = left
            if not self._holds(parameter, point, setting):
                yield from below(point, others)
                return
            for value in parameter.values():
                yield from below({**point, parameter: value}, others)

        for point in below({}, list(self.parameters)):
            yield {parameter.name: value for parameter, value in point.items()}

    def check_finite(self) -> None:
        """Refuse a space that is no grid.

        Raises:
            ConfigError: naming a parameter that has no end of values.
        """
        for parameter in self.parameters:
            parameter.values()

    def describe(self) -> dict[str, str]:
        """Name in the study -> distribution."""
        return {parameter.name: str(parameter) for parameter in self.parameters}

    def by_key(self) -> dict[str, str]:
        """Key in the configuration -> its distribution, or its conditions with theirs."""
        found: dict[str, list[str]] = {}
        for one in self.parameters:
            found.setdefault(one.key, []).append(f"{one.condition}: {one}" if one.condition else str(one))
        return {key: "; ".join(texts) for key, texts in found.items()}

    @property
    def digest(self) -> str:
        """Twelve letters of the hash of what is drawn."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()[:12]

    def _drawn(self, drawn: Mapping[Parameter, Value], setting: Callable[[str], Any]) -> Iterator[Parameter]:
        """The parameters whose conditions hold, with what is in `drawn` when each one's turn comes."""
        return (parameter for parameter in self.parameters if self._holds(parameter, drawn, setting))

    def _holds(self, parameter: Parameter, drawn: Mapping[Parameter, Value], setting: Callable[[str], Any]) -> bool:
        if (condition := parameter.condition) is None:
            return True
        if all(other.key != condition.key for other in self.parameters):
            return any(is_same(setting(condition.key), one) for one in condition.values)
        # What is searched, and not drawn, has no value that another one could depend on.
        return any(
            is_same(value, one) for other, value in drawn.items() for one in condition.values
            if other.key == condition.key
        )  # fmt: skip


def read_space(params: Mapping[str, Any], conditions: Mapping[str, Any], arguments: Sequence[str]) -> Space:
    """The space of a configuration and a command line, which wins.

    Args:
        params: `hydra.sweeper.params`: key -> a distribution in Hydra's grammar, or a value that stays.
        conditions: `hydra.sweeper.conditions`: key -> {`other=value`: distribution}.
        arguments: the command line's overrides: `key=choice(...)` and the like are drawn, others stay. A key that
            stands here is drawn as here, or stays, whatever the configuration says of it or of its items.

    Raises:
        ConfigError: if a distribution cannot be read, or nothing is left to draw.
    """
    given = [parse(argument, EXPECTED) for argument in arguments]
    keys = [key_of(one) for one in given]
    if double := next((key for key in keys if keys.count(key) > 1), None):
        raise ConfigError(f"{double} must be given once, but stands in the command line {keys.count(double)} times")
    fixed = [argument for argument, one in zip(arguments, given, strict=True) if not one.is_sweep_override()]
    drawn = [read_parameter(one) for one in given if one.is_sweep_override()]
    said = {key for key in keys if key != "search"}
    kept: list[str] = []

    def is_said(key: str) -> bool:
        # A group's choice leaves its settings in the search.
        return any(key == one or ("." in one and key.startswith(f"{one}.")) for one in said)

    configured: list[Parameter] = []
    for key, text in params.items():
        if not is_said(key.lstrip("+~")):
            one = parse(f"{key}={text if isinstance(text, str) else in_grammar(text)}", EXPECTED)
            if one.is_sweep_override():
                configured.append(read_parameter(one))
            else:
                kept.append(str(one.input_line))
    conditional: list[Parameter] = []
    for key, branches in conditions.items():
        if not isinstance(branches, Mapping):
            raise ConfigError(
                f"hydra.sweeper.conditions.{key} must be like {{optimizer=sgd: interval(0.0,0.99)}}, "
                f"but got {branches!r}"
            )
        if not is_said(key.lstrip("+~")):
            conditional += [read_conditional(key, str(condition), text) for condition, text in branches.items()]
    parameters = [*configured, *drawn, *_in_order(conditional)]
    if not parameters:
        raise ConfigError(f"a search needs something to search: give a key {EXAMPLES}")
    names = [parameter.name for parameter in parameters]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{double} must be given one distribution, but got two")
    unconditional = {parameter.key for parameter in (*configured, *drawn)}
    if both := next((one.key for one in conditional if one.key in unconditional), None):
        raise ConfigError(f"{both} must be drawn always or on conditions, but stands in params and in conditions")
    for parameter in parameters:
        own = parameter.key
        if item := next((key for key in said if "." in own and key.startswith(f"{own}.")), None):
            raise ConfigError(f"{item} cannot stay while {own} is searched: give one of them")
    # What the command line says comes last, and wins.
    return Space(tuple(parameters), (*kept, *fixed))


def check_keys(space: Space, base: DictConfig) -> None:
    """Refuse a search of a key, or a condition on one, that the configuration has not.

    Raises:
        ConfigError: naming the nearest one.
    """
    groups = base.hydra.runtime.choices
    asked = [one.key for one in space.parameters if not one.condition and not one.adding]
    asked += [one.condition.key for one in space.parameters if one.condition]
    for parameter in space.parameters:
        if parameter.key == "trainer.test":
            raise ConfigError("trainer.test must be false in a search: its trials may not see the test photographs")
        if parameter.choices and any(hide(text) != text for text in parameter.choices.values()):
            raise ConfigError(f"{parameter.key} cannot be searched, as a study keeps its choices, passwords included")
        if parameter.key.partition(".")[0] in _NOT_SEARCHED:
            raise ConfigError(f"{parameter.key} cannot be searched, as it is not of the training itself")
    for key in asked:
        if key not in groups and OmegaConf.select(base, key, default=_ABSENT) is _ABSENT:
            names = [*flat(plain(base)), *groups]
            raise ConfigError(f"{key} is not a setting here{nearest(key, names) or ', so it cannot be searched'}")
    for parameter in space.parameters:
        _check_choices(parameter.key, list((parameter.choices or {}).values()))
        if parameter.condition:
            _check_choices(parameter.condition.key, parameter.condition.values)


def _check_choices(key: str, values: Sequence[str]) -> None:
    """Refuse what is not one of a group's choices, for which every trial would be refused."""
    hydra = GlobalHydra.instance()
    options = hydra.config_loader().get_group_options(key) if hydra.is_initialized() else []
    if options and (odd := next((value for value in values if value not in (*options, "null")), None)):
        raise ConfigError(f"{key} must be one of {', '.join(options)}, but got {odd!r}{nearest(odd, options)}")


def _in_order(conditional: list[Parameter]) -> Iterator[Parameter]:
    """Each after those that its condition looks at.

    Raises:
        ConfigError: if two conditions of a key hold at once, or conditions look at one another.
    """
    branches = [
        (one.key, one.condition.key, value) for one in conditional if one.condition for value in one.condition.values
    ]
    if double := next((one for one in branches if branches.count(one) > 1), None):
        raise ConfigError(f"{double[0]} must be given one distribution, but got two for {double[1]}={double[2]}")
    left = list(conditional)
    while left:
        ready = [one for one in left if one.condition and all(other.key != one.condition.key for other in left)]
        if not ready:
            raise ConfigError(f"hydra.sweeper.conditions look at one another: {', '.join(one.name for one in left)}")
        yield from ready
        left = [one for one in left if one not in ready]
