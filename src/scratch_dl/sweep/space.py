"""What is searched: Hydra's grammar of sweeps, read as distributions to draw from, some of them on a condition."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, QuotedString, RangeSweep
from omegaconf import DictConfig, OmegaConf

from scratch_dl.checks import nearest
from scratch_dl.config import flat, plain
from scratch_dl.sweep.grammar import in_grammar, parse
from scratch_dl.targets import ConfigError

Value = bool | int | float | str | None
_WHOLE = r"[+-]?\d+"
_WHOLE_BOUNDS = re.compile(rf"interval\(\s*(?:start\s*=\s*)?{_WHOLE}\s*,\s*(?:end\s*=\s*)?{_WHOLE}\s*\)")
_ABSENT = object()
_NOT_SEARCHED = ("resume", "tracking", "hydra", "threads", "allowed_targets", "search", "experiment", "debug")
_EXAMPLES = "choice(2,3,4), range(1,5), interval(0.1,2.0) or tag(log,interval(0.02,20))"
_EXPECTED = f"a search draws from {_EXAMPLES}"


class Drawing(Protocol):
    """Who draws: an `optuna.Trial`."""

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        """One of the choices."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """A whole number, both ends included."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        """A number."""


@dataclass(frozen=True)
class Condition:
    """`key` has one of `values`, each as Hydra would be given it."""

    key: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.key}={','.join(self.values)}"


@dataclass(frozen=True, eq=False)
class Parameter:
    """A setting that is drawn.

    Attributes:
        key: in the configuration, or a group.
        choices: what each value is called, and how Hydra is given it; None for numbers.
        low, high: of numbers, both included.
        step: of numbers, or None.
        log: whether numbers are drawn evenly by their logarithms.
        condition: under which it is drawn at all.
    """

    key: str
    choices: Mapping[Value, str] | None = None
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    condition: Condition | None = None

    @property
    def name(self) -> str:
        """In the study, where the distributions of several conditions are apart."""
        return f"{self.key}[{self.condition}]" if self.condition else self.key

    @property
    def whole(self) -> bool:
        """Whether it is a whole number."""
        return self.choices is None and isinstance(self.low, int) and isinstance(self.high, int)

    def __str__(self) -> str:
        if self.choices is not None:
            return f"choice({','.join(self.choices.values())})"
        if self.step is not None:
            return f"range({self.low!r},{self.high!r},{self.step!r}, both ends)"
        interval = f"interval({self.low!r},{self.high!r})"
        return f"tag(log,{interval})" if self.log else interval

    def suggest(self, trial: Drawing) -> Value:
        """Draw a value."""
        if self.choices is not None:
            return trial.suggest_categorical(self.name, list(self.choices))
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def override(self, value: Value) -> str:
        """What Hydra is given for a value."""
        return f"{self.key}={in_grammar(value) if self.choices is None else self.choices[value]}"

    def values(self) -> list[Value]:
        """All of them.

        Raises:
            ConfigError: if there is no end of them.
        """
        if self.choices is not None:
            return list(self.choices)
        if self.whole:
            return list(range(int(self.low), int(self.high) + 1, int(self.step or 1)))
        if self.step is None:
            raise ConfigError(f"hydra.sweeper.sampler=grid takes choices and ranges, but {self.key} is {self}")
        return [round(self.low + n * self.step, 12) for n in range(round((self.high - self.low) / self.step) + 1)]

    def nearest(self, value: Any) -> Value:
        """What of the distribution is nearest to a setting's value: itself, if it is inside."""
        if self.choices is not None:
            called = next((one for one in self.choices if _same(one, value) or _same(self.choices[one], value)), None)
            return next(iter(self.choices)) if called is None and None not in self.choices else called
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else self.low
        number = min(max(number, self.low), self.high)
        if self.step is not None:
            number = round(self.low + round((number - self.low) / self.step) * self.step, 12)
        return round(number) if self.whole else float(number)

    def contains(self, value: Any) -> bool:
        """Whether a setting's value is one that can be drawn."""
        return _same(self.nearest(value), value) or (self.choices is not None and value in self.choices.values())


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
            return any(_same(setting(condition.key), one) for one in condition.values)
        # What is searched, and not drawn, has no value that another one could depend on.
        return any(
            _same(value, one) for other, value in drawn.items() for one in condition.values
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
    given = [parse(argument, _EXPECTED) for argument in arguments]
    keys = [_key(one) for one in given]
    if double := next((key for key in keys if keys.count(key) > 1), None):
        raise ConfigError(f"{double} must be given once, but stands in the command line {keys.count(double)} times")
    fixed = [argument for argument, one in zip(arguments, given, strict=True) if not one.is_sweep_override()]
    drawn = [_parameter(one) for one in given if one.is_sweep_override()]
    said = {key for key in keys if key != "search"}
    kept: list[str] = []

    def is_said(key: str) -> bool:
        # A group's choice leaves its settings in the search.
        return any(key == one or ("." in one and key.startswith(f"{one}.")) for one in said)

    configured: list[Parameter] = []
    for key, text in params.items():
        if not is_said(key.lstrip("+~")):
            one = parse(f"{key}={text if isinstance(text, str) else in_grammar(text)}", _EXPECTED)
            if one.is_sweep_override():
                configured.append(_parameter(one))
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
            conditional += [_conditional(key, str(condition), text) for condition, text in branches.items()]
    parameters = [*configured, *drawn, *_in_order(conditional)]
    if not parameters:
        raise ConfigError(f"a search needs something to search: give a key {_EXAMPLES}")
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
    asked = [one.key for one in space.parameters if not one.condition and not one.key.startswith("+")]
    asked += [one.condition.key for one in space.parameters if one.condition]
    for parameter in space.parameters:
        if parameter.key == "trainer.test":
            raise ConfigError("trainer.test must be false in a search: its trials may not see the test photographs")
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


def _key(override: Override) -> str:
    return override.get_key_element().lstrip("+~")


def _parameter(override: Override, condition: Condition | None = None) -> Parameter:
    """What an override's value describes."""
    value, key, line = override.value(), override.get_key_element(), str(override.input_line)
    if isinstance(value, Glob):
        raise ConfigError(f"{key} must be one of {_EXAMPLES}, but got {line.partition('=')[2]}")
    tags = set(getattr(value, "tags", ()))
    if odd := sorted(tags - {"log"}):
        raise ConfigError(f"{key} may have the tag log, but got {odd[0]}")
    log = "log" in tags
    if isinstance(value, ChoiceSweep):
        if log:
            raise ConfigError(f"{key}: choices have no logarithm; tag(log,...) is for intervals")
        return Parameter(key, choices=_choices(key, value.list), condition=condition)
    if isinstance(value, RangeSweep):
        if log:
            raise ConfigError(f"{key}: tag(log,...) is for intervals; a range has steps")
        start, stop, step = value.start or 0, value.stop or 0, value.step
        count = math.ceil((stop - start) / step - 1e-9) if step else 0  # as Hydra's own, a range ends before its stop
        if count < 1:
            raise ConfigError(f"{key} must have a range with something in it, but got {line.partition('=')[2]}")
        last = start + (count - 1) * step
        if not all(isinstance(bound, int) for bound in (start, stop, step)):
            start, last, step = float(start), round(last, 12), float(step)
        return Parameter(key, None, min(start, last), max(start, last), abs(step), condition=condition)
    if isinstance(value, IntervalSweep):
        start, end = (math.nan if bound is None else bound for bound in (value.start, value.end))
        if not math.isfinite(end - start) or start > end or (log and start <= 0):
            rule = "0 < low <= high, both finite" if log else "low <= high, both finite"
            raise ConfigError(f"{key} must have an interval with {rule}, but got {line.partition('=')[2]}")
        if _WHOLE_BOUNDS.search(line) and "float(" not in line:
            start, end = int(start), int(end)
        return Parameter(key, None, start, end, None, log, condition)
    raise ConfigError(f"{key} must be one of {_EXAMPLES}, but got {line.partition('=')[2]}")


def _conditional(key: str, condition: str, text: Any) -> Parameter:
    """A parameter under a condition such as `optimizer=sgd` or `model.upsampling=nearest,transposed`."""
    if "=" not in condition:
        raise ConfigError(
            f"hydra.sweeper.conditions.{key} must have conditions like optimizer=sgd, but got {condition}"
        )
    when = parse(condition)
    value = when.value()
    values = [in_grammar(one) for one in (value.list if isinstance(value, ChoiceSweep) else [value])]
    override = parse(f"{key}={text}", _EXPECTED)
    if not override.is_sweep_override():
        raise ConfigError(f"hydra.sweeper.conditions.{key}: {condition} must have {_EXAMPLES}, but got {text!r}")
    return _parameter(override, Condition(_key(when), tuple(values)))


def _choices(key: str, elements: Sequence[Any]) -> dict[Value, str]:
    choices: dict[Value, str] = {}
    for element in elements:
        called = _called(element)
        if called in choices:
            raise ConfigError(f"{key} must have choices that differ, but got {called!r} twice")
        choices[called] = in_grammar(element)
    return choices


def _called(element: Any) -> Value:
    """What Optuna keeps of an element: itself, or a text for a list or a mapping."""
    if isinstance(element, QuotedString):
        return element.text
    if element is None or isinstance(element, bool | int | float | str):
        return element
    return in_grammar(element)


def _same(one: Any, other: Any) -> bool:
    """Whether two values mean the same setting, one perhaps as a text of the command line."""
    return _plain(one) == _plain(other)


def _plain(value: Any) -> str:
    text = re.sub(r"[\s'\"]", "", value if isinstance(value, str) else in_grammar(value))
    try:
        return repr(float(text))
    except ValueError:
        return text
