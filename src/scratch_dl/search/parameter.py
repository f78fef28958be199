"""A setting that is searched: Hydra's grammar of sweeps read as a distribution, always or under conditions."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, QuotedString, RangeSweep
from optuna.trial import BaseTrial

from scratch_dl.config.overrides import choices_of, override_value, parse
from scratch_dl.system.errors import ConfigError

Value = bool | int | float | str | None
_INTEGER = r"[+-]?\d[\d_]*"
_INTEGER_BOUNDS = re.compile(rf"interval\(\s*(?:start\s*=\s*)?{_INTEGER}\s*,\s*(?:end\s*=\s*)?{_INTEGER}\s*\)")
_CONDITION_START = re.compile(r"\s+(?=[\w./@]+=)")
EXAMPLES = "choice(2,3,4), range(1,5), interval(0.1,2.0) or tag(log,interval(0.02,20))"
EXPECTED = f"a search draws from {EXAMPLES}"


@dataclass(frozen=True)
class Condition:
    """`key` must have one of `values`, which are written in Hydra's grammar."""

    key: str
    values: tuple[str, ...]

    def holds(self, value: Any) -> bool:
        """Whether a value of the setting, as the study or the configuration has it, is one of `values`."""
        return any(is_same(value, wanted) for wanted in self.values)

    def __str__(self) -> str:
        return f"{self.key}={','.join(self.values)}"


@dataclass(frozen=True, eq=False)
class SearchParameter:
    """A setting that is searched.

    Attributes:
        key: in the configuration, or a group.
        choices: each value in the study -> how it is written for Hydra; None for numbers.
        low, high: the smallest and the largest number.
        step: between numbers; None for every number.
        log: whether numbers are drawn evenly on a logarithmic scale.
        conditions: without which the setting is not drawn; all of them must hold.
        prefix: Hydra's "+" or "++" before the key, for a key that the configuration may lack.
        is_cast: whether the distribution itself says that its numbers are integers: int(interval(1,5)).
    """

    key: str
    choices: Mapping[Value, str] | None = None
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    conditions: tuple[Condition, ...] = ()
    prefix: str = ""
    is_cast: bool = False

    @property
    def name(self) -> str:
        """The name in the study, which tells distributions under several conditions apart."""
        return f"{self.key}[{self.when}]" if self.conditions else self.key

    @property
    def when(self) -> str:
        """The conditions in one text; "" without any."""
        return " ".join(map(str, self.conditions))

    def excludes(self, other: "SearchParameter") -> bool:
        """Whether the conditions of both cannot hold at once."""
        pairs = ((mine, theirs) for mine in self.conditions for theirs in other.conditions if mine.key == theirs.key)
        return any(not any(map(theirs.holds, mine.values)) for mine, theirs in pairs)

    @property
    def is_integer(self) -> bool:
        """Whether it is an integer."""
        return self.choices is None and isinstance(self.low, int) and isinstance(self.high, int)

    def __str__(self) -> str:
        if self.choices is not None:
            return f"choice({','.join(self.choices.values())})"
        if self.step is not None:
            return f"range({self.low!r},{self.high!r},{self.step!r}, both ends)"
        interval = f"interval({self.low!r},{self.high!r})"
        return f"tag(log,{interval})" if self.log else interval

    @property
    def first(self) -> Value:
        """The first choice, or the smallest number."""
        return self.low if self.choices is None else next(iter(self.choices))

    def suggest(self, trial: BaseTrial) -> Value:
        """Draw a value."""
        if self.choices is not None:
            return trial.suggest_categorical(self.name, list(self.choices))
        if self.is_integer:
            return trial.suggest_int(self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def override(self, value: Value) -> str:
        """Return Hydra's override for a value."""
        return f"{self.prefix}{self.key}={override_value(value) if self.choices is None else self.choices[value]}"

    @property
    def count(self) -> int | None:
        """How many values it has; None if there are infinitely many."""
        if self.choices is not None:
            return len(self.choices)
        step = self.step or (1 if self.is_integer else None)
        return None if step is None else round((self.high - self.low) / step) + 1

    def values(self) -> list[Value]:
        """Return every value.

        Raises:
            ConfigError: if there are infinitely many.
        """
        if self.choices is not None:
            return list(self.choices)
        if self.is_integer:
            return list(range(int(self.low), int(self.high) + 1, int(self.step or 1)))
        if self.step is None:
            raise ConfigError(f"hydra.sweeper.sampler=grid takes choices and ranges, but {self.key} is {self}")
        return [round(self.low + n * self.step, 12) for n in range(round((self.high - self.low) / self.step) + 1)]

    def nearest(self, value: Any) -> Value:
        """Return the value of the distribution that is nearest to a setting's value."""
        if self.choices is not None:
            same = [choice for choice, text in self.choices.items() if is_same(choice, value) or is_same(text, value)]
            return same[0] if same else self.first
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else self.low
        number = min(max(number, self.low), self.high)
        if self.step is not None:
            number = round(self.low + round((number - self.low) / self.step) * self.step, 12)
        return round(number) if self.is_integer else float(number)

    def allows(self, value: Any) -> bool:
        """Return whether a value, as the study stores it, can be drawn."""
        if self.choices is not None:
            return any(type(value) is type(choice) and value == choice for choice in self.choices)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high and self.nearest(value) == value

    def contains(self, value: Any) -> bool:
        """Return whether a setting's value is one that can be drawn."""
        return is_same(self.nearest(value), value) or (self.choices is not None and value in self.choices.values())


def key_of(override: Override) -> str:
    """Return the setting's or the group's name, without Hydra's + and ~."""
    return override.get_key_element().lstrip("+~")


def read_parameter(override: Override, conditions: tuple[Condition, ...] = ()) -> SearchParameter:
    """Read an override whose value is a distribution.

    Raises:
        ConfigError: if values cannot be drawn from it.
    """
    key, line = key_of(override), str(override.input_line)
    value: Any = override.value()
    text = line.removeprefix(f"{override.get_key_element()}=")
    if order := re.match(r"(?:tag\(.*)?\b(shuffle|sort)\(", text):
        raise ConfigError(f"{key}: a search draws in its own order, so leave {order[1]} out, but got {text}")
    known: dict[str, Any] = {"conditions": conditions, "prefix": override.get_key_element().removesuffix(key)}
    if isinstance(value, Glob):
        names = choices_of(override)
        if not names:
            raise ConfigError(f"{key} must be a group with choices like {text}, but there are none")
        return SearchParameter(key, choices={name: override_value(name) for name in names}, **known)
    tags = set(getattr(value, "tags", ()))
    if odd := sorted(tags - {"log"}):
        raise ConfigError(f"{key} may have the tag log, but got {odd[0]}")
    log = "log" in tags
    if isinstance(value, ChoiceSweep):
        if log:
            raise ConfigError(f"{key}: choices have no logarithm; tag(log,...) is for intervals")
        return SearchParameter(key, choices=_choices(key, value.list), **known)
    if isinstance(value, RangeSweep):
        if log:
            raise ConfigError(f"{key}: tag(log,...) is for intervals; a range has steps")
        return SearchParameter(key, None, *_range(key, value, text), **known)
    if isinstance(value, IntervalSweep):
        is_integer = bool(_INTEGER_BOUNDS.search(line)) and "float(" not in line
        is_cast = bool(re.search(r"\bint\(", text))
        return SearchParameter(
            key, None, *_interval(key, value, text, log, is_integer), None, log, **known, is_cast=is_cast
        )
    raise ConfigError(f"{key} must be one of {EXAMPLES}, but got {text}")


def _range(key: str, value: RangeSweep, text: str) -> tuple[float, float, float]:
    """Return the smallest and the largest value of a range, and the step between them."""
    start, stop, step = value.start or 0, value.stop or 0, value.step
    count = math.ceil((stop - start) / step - 1e-9) if step else 0  # like Hydra's range, `stop` is excluded
    if count < 1:
        raise ConfigError(f"{key} must have a range with something in it, but got {text}")
    last = start + (count - 1) * step
    if not all(isinstance(bound, int) for bound in (start, stop, step)):
        start, last, step = float(start), round(last, 12), float(step)
    return min(start, last), max(start, last), abs(step)


def _interval(key: str, value: IntervalSweep, text: str, log: bool, is_integer: bool) -> tuple[float, float]:
    """Return the ends of an interval."""
    start, end = (math.nan if bound is None else bound for bound in (value.start, value.end))
    if not math.isfinite(end - start) or start > end or (log and start <= 0):
        rule = "0 < low <= high, both finite" if log else "low <= high, both finite"
        raise ConfigError(f"{key} must have an interval with {rule}, but got {text}")
    return (int(start), int(end)) if is_integer else (start, end)


def read_conditional(key: str, when: str, text: Any) -> SearchParameter:
    """Read a parameter under conditions such as `optimizer=sgd` or `model.kernel_size=3,5 model.upsampling=nearest`.

    Raises:
        ConfigError: if a condition or the distribution cannot be read.
    """
    conditions = tuple(_condition(key, word) for word in _CONDITION_START.split(when.strip()))
    override = parse(f"{key}={text}", EXPECTED)
    if not override.is_sweep_override():
        raise ConfigError(f"hydra.sweeper.conditions.{key}: {when} must have {EXAMPLES}, but got {text!r}")
    return read_parameter(override, conditions)


def _condition(key: str, text: str) -> Condition:
    if "=" not in text:
        raise ConfigError(f"hydra.sweeper.conditions.{key} must have conditions like optimizer=sgd, but got {text}")
    override = parse(text)
    value = override.value()
    values = [override_value(each) for each in (value.list if isinstance(value, ChoiceSweep) else [value])]
    return Condition(key_of(override), tuple(values))


def _choices(key: str, elements: Sequence[Any]) -> dict[Value, str]:
    choices: dict[Value, str] = {}
    for element in elements:
        value = _study_value(element)
        if value in choices:
            raise ConfigError(f"{key} must have choices that differ, but got {value!r} twice")
        choices[value] = override_value(element)
    return choices


def _study_value(element: Any) -> Value:
    """Return what Optuna stores for an element: the element, or a text for a list or a mapping."""
    if isinstance(element, QuotedString):
        return element.text
    if element is None or isinstance(element, bool | int | float | str):
        return element
    return override_value(element)


def is_same(value: Any, other: Any) -> bool:
    """Return whether two values mean the same, even if one is a text from the command line."""
    return _normalized(value) == _normalized(other)


def _normalized(value: Any) -> str:
    text = re.sub(r"[\s'\"]", "", value if isinstance(value, str) else override_value(value))
    try:
        return repr(float(text))
    except ValueError:
        return text
