"""What is searched: the parameters that a configuration and a command line ask for, and what is fixed."""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import BaseTrial

from scratch_dl.config.overrides import override_value, parse
from scratch_dl.search.parameter import (
    EXAMPLES,
    EXPECTED,
    Condition,
    SearchParameter,
    Value,
    key_of,
    read_conditional,
    read_parameter,
)
from scratch_dl.system.errors import ConfigError

MOST_POINTS = 50_000
"""Spaces up to this size are enumerated, to find the points that have not been tried."""


@dataclass(frozen=True)
class Space:
    """All parameters, in the order in which they are drawn, and the overrides that every trial has.

    Attributes:
        parameters: those with a condition after those without.
        fixed: overrides that are the same in every trial.
    """

    parameters: tuple[SearchParameter, ...]
    fixed: tuple[str, ...]

    def draw(self, trial: BaseTrial, setting: Callable[[str], Any]) -> dict[SearchParameter, Value]:
        """Draw a point; `setting` returns a key's value in the configuration, for conditions on fixed settings."""
        return self.point(lambda parameter: parameter.suggest(trial), setting)

    def point(
        self, choose: Callable[[SearchParameter], Value], setting: Callable[[str], Any]
    ) -> dict[SearchParameter, Value]:
        """Return the point with the values that `choose` returns; it is called for parameters whose condition holds."""
        point: dict[SearchParameter, Value] = {}
        for parameter in self.parameters:
            if self._holds(parameter, point, setting):
                point[parameter] = choose(parameter)
        return point

    def misfit(self, point: Mapping[str, Any]) -> str | None:
        """Return why a point, by names in the study, cannot be drawn here; None if it can."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name, value in point.items():
            if name not in known:
                return f"{name} is not searched; it must be one of {', '.join(known)}"
            if not known[name].allows(value):
                return f"{name} must be in {known[name]}, but got {value!r}"
            for condition in known[name].conditions:
                others = [point[other] for other in point if other in known and known[other].key == condition.key]
                if others and not any(map(condition.holds, others)):
                    return f"{name} is not drawn where {condition.key}={others[0]}"
        return None

    def baseline(self, setting: Callable[[str], Any]) -> tuple[dict[str, Value], list[str]]:
        """Return the configuration's own point, by names in the study, and in words what lies outside the space."""
        point = self.point(lambda parameter: parameter.nearest(setting(parameter.key)), setting)
        outside = [
            f"{parameter.key}={value}, as {setting(parameter.key)} is not in {parameter}"
            for parameter, value in point.items()
            if not parameter.contains(setting(parameter.key))
        ]
        return {parameter.name: value for parameter, value in point.items()}, outside

    def grid(self, setting: Callable[[str], Any]) -> Iterator[dict[str, Value]]:
        """Yield every point, by names in the study.

        Raises:
            ConfigError: if a parameter has infinitely many values.
        """

        def extend(
            point: dict[SearchParameter, Value], left: list[SearchParameter]
        ) -> Iterator[dict[SearchParameter, Value]]:
            if not left:
                yield point
                return
            parameter, *others = left
            if not self._holds(parameter, point, setting):
                yield from extend(point, others)
                return
            for value in parameter.values():
                yield from extend({**point, parameter: value}, others)

        for point in extend({}, list(self.parameters)):
            yield {parameter.name: value for parameter, value in point.items()}

    def check_finite(self) -> None:
        """Refuse a space that is not a grid.

        Raises:
            ConfigError: naming a parameter that has infinitely many values.
        """
        for parameter in self.parameters:
            parameter.values()

    @property
    def is_enumerable(self) -> bool:
        """Whether it has at most MOST_POINTS points; whether a setting is drawn at all is not looked at."""
        counts = dict.fromkeys((parameter.key for parameter in self.parameters), 0)
        for parameter in self.parameters:  # those of one key exclude each other
            if parameter.count is None:
                return False
            counts[parameter.key] = max(counts[parameter.key], parameter.count)
        return math.prod(counts.values()) <= MOST_POINTS

    def describe(self) -> dict[str, str]:
        """Return name in the study -> distribution."""
        return {parameter.name: str(parameter) for parameter in self.parameters}

    def by_key(self) -> dict[str, str]:
        """Return key in the configuration -> its distribution, or each condition with its distribution."""
        texts: dict[str, list[str]] = {}
        for parameter in self.parameters:
            when = f"{parameter.when}: " if parameter.conditions else ""
            texts.setdefault(parameter.key, []).append(f"{when}{parameter}")
        return {key: "; ".join(parts) for key, parts in texts.items()}

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that are equal for equal distributions."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()[:12]

    def _holds(
        self, parameter: SearchParameter, point: Mapping[SearchParameter, Value], setting: Callable[[str], Any]
    ) -> bool:
        def holds(condition: Condition) -> bool:
            if all(other.key != condition.key for other in self.parameters):
                values = [setting(condition.key)]
            else:  # a searched setting that was not drawn has no value that another could depend on
                values = [value for other, value in point.items() if other.key == condition.key]
            return any(map(condition.holds, values))

        return all(map(holds, parameter.conditions))


def read_space(params: Mapping[str, Any], conditions: Mapping[str, Any], arguments: Sequence[str]) -> Space:
    """Read the space of a configuration and a command line, which wins.

    Args:
        params: `hydra.sweeper.params`: key -> a distribution in Hydra's grammar, or a fixed value.
        conditions: `hydra.sweeper.conditions`: key -> {`other=value`: distribution}, or several
            `other=value` in one text.
        arguments: the command line's overrides. `key=choice(...)` and the like are searched, others are fixed. What the
            configuration says about the same key, or about its items, is ignored.

    Raises:
        ConfigError: if a distribution cannot be read, a key has two of them, or nothing is left to search.
    """
    overrides = [parse(argument, EXPECTED) for argument in arguments]
    keys = [key_of(override) for override in overrides]
    if double := _duplicate(keys):
        raise ConfigError(f"{double} must be given once, but stands in the command line {keys.count(double)} times")
    given = {key for key in keys if key != "search"}

    def is_given(key: str) -> bool:
        """Whether the command line has the key, or a key that contains it; a group's choice leaves its settings."""
        key = key.lstrip("+~")
        return any(key == other or ("." in other and key.startswith(f"{other}.")) for other in given)

    configured = [
        parse(f"{key}={value if isinstance(value, str) else override_value(value)}", EXPECTED)
        for key, value in params.items()
        if not is_given(key)
    ]
    searched = [read_parameter(override) for override in (*configured, *overrides) if override.is_sweep_override()]
    conditional: list[SearchParameter] = []
    for key, branches in conditions.items():
        if not isinstance(branches, Mapping):
            raise ConfigError(
                f"hydra.sweeper.conditions.{key} must be like {{optimizer=sgd: interval(0.0,0.99)}}, "
                f"but got {branches!r}"
            )
        if not is_given(key) and not _given_item(key, given):
            conditional += [read_conditional(key, str(condition), text) for condition, text in branches.items()]
    _check_once(searched, conditional, given)
    # Hydra lets the last override of a key win: the command line's.
    fixed = [str(override.input_line) for override in configured if not override.is_sweep_override()]
    fixed += [text for text, override in zip(arguments, overrides, strict=True) if not override.is_sweep_override()]
    return Space((*searched, *_in_order(conditional)), tuple(fixed))


def _check_once(
    searched: Sequence[SearchParameter], conditional: Sequence[SearchParameter], given: Iterable[str]
) -> None:
    """Refuse a space without a parameter, and a setting that has two distributions or is also given a value.

    Raises:
        ConfigError: naming the setting.
    """
    parameters = [*searched, *conditional]
    if not parameters:
        raise ConfigError(f"a search needs something to search: give a key {EXAMPLES}")
    if double := _duplicate([parameter.name for parameter in parameters]):
        raise ConfigError(f"{double} must be given one distribution, but got two")
    unconditional = {parameter.key for parameter in searched}
    if both := next((parameter.key for parameter in conditional if parameter.key in unconditional), None):
        raise ConfigError(f"{both} must be drawn always or on conditions, but stands in params and in conditions")
    for key in (parameter.key for parameter in parameters):
        if item := _given_item(key, given):
            raise ConfigError(f"{item} cannot stay while {key} is searched: give one of them")
    for one, other in itertools.combinations(conditional, 2):
        if one.key == other.key and not one.excludes(other):
            raise ConfigError(
                f"{one.key} must be given one distribution, but got two where {one.when} and {other.when}"
            )


def _given_item(key: str, given: Iterable[str]) -> str | None:
    """Return the first given key that is an item of the list `key`, or None; the settings of a group are no items."""
    key = key.lstrip("+~")
    return next((other for other in given if other.startswith(f"{key}.")), None) if "." in key else None


def _duplicate(items: Sequence[Any]) -> Any:
    """Return the first item that occurs more than once; None if each occurs once."""
    return next((item for item in items if items.count(item) > 1), None)


def _in_order(conditional: Sequence[SearchParameter]) -> Iterator[SearchParameter]:
    """Yield each parameter after those that its condition depends on.

    Raises:
        ConfigError: if conditions depend on one another.
    """
    left = list(conditional)
    while left:
        blocked = {parameter.key for parameter in left}
        ready = [each for each in left if blocked.isdisjoint(condition.key for condition in each.conditions)]
        if not ready:
            names = ", ".join(parameter.name for parameter in left)
            raise ConfigError(f"hydra.sweeper.conditions look at one another: {names}")
        yield from ready
        left = [parameter for parameter in left if parameter not in ready]
