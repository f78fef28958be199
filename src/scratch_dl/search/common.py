"""What the settings of some trials have in common and those of others do not."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import Any

_NEARLY = 0.9
"""The share of the trials that has to have it, and for a threshold, of the others that has to have it not."""
_SELDOM = 0.5
"""The largest share of the others that may have a choice which the group's trials have."""
_CHANCE = 0.05
"""That any of the settings divides trials as well by pure luck; two trials at one end of a range are no finding."""
_SAID = 3
_FEW = 6
"""Values of a setting, all in all, so that they are choices: any two numbers are 'this or that' number."""

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class _Condition:
    """A condition on one setting, and how many of how many keep it, in the group and among the others.

    `tries` is the number of conditions like it, of which it is the one that fits best.
    """

    text: str
    inside: int
    group: int
    outside: int
    others: int
    tries: int
    beyond: str = ""
    some_have_it: bool = False

    @property
    def luck(self) -> float:
        """The chance that as many keepers or more are in a group drawn by lot (Fisher 1922), at any of the tries."""
        keepers, total = self.inside + self.outside, self.group + self.others
        ways = (
            math.comb(keepers, n) * math.comb(total - keepers, self.group - n)
            for n in range(self.inside, min(keepers, self.group) + 1)
        )
        return self.tries * sum(ways) / math.comb(total, self.group)

    def divides(self, outside: float) -> bool:
        """Whether nearly all of the group keep it, and at most this share of the others."""
        return self.inside >= _NEARLY * self.group and self.outside <= outside * self.others

    def __str__(self) -> str:
        inside = f"in all {self.group}" if self.inside == self.group else f"in {self.inside} of {self.group}"
        outside = f"in {self.outside or 'none'} of {self.others} others"
        return f"{self.text} {inside}, and {outside}{self.beyond}{' (of those that have it)' * self.some_have_it}"


def in_common(group: Sequence[Settings], others: Sequence[Settings]) -> tuple[str, ...]:
    """What separates the group's settings from the others', a sentence each, the clearest first; at most three.

    Of a number, a threshold beyond which nearly all of the group lie and nearly none of the others; of a choice, the
    values that nearly all of the group have and nearly none of the others, or that occur in the group alone. A setting
    that only some trials have is compared among those. Nothing is said of fewer than two trials or two others, or of
    what luck would do as well.
    """
    found: list[tuple[_Condition, int]] = []
    keys = list(dict.fromkeys(key for settings in (*group, *others) for key in settings))
    for place, key in enumerate(keys):
        mine = [settings[key] for settings in group if key in settings]
        theirs = [settings[key] for settings in others if key in settings]
        if len(mine) < 2 or len(theirs) < 2:
            continue
        thresholds = _thresholds(key, mine, theirs) if _numbers([*mine, *theirs]) else []
        candidates = (
            [each for each in thresholds if each.divides(1 - _NEARLY)]
            or [each for each in _choices(key, mine, theirs) if each.divides(_SELDOM)]
            or _only_here(key, mine, theirs)
        )
        candidates = [each for each in candidates if each.luck * len(keys) < _CHANCE]
        if candidates:
            best = min(candidates, key=lambda each: each.luck)
            some = len(mine) < len(group) or len(theirs) < len(others)
            found.append((replace(best, some_have_it=some), place))
    found.sort(key=lambda pair: (pair[0].luck, pair[1]))
    return tuple(str(condition) for condition, _ in found[:_SAID])


def _numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _thresholds(key: str, mine: Sequence[float], theirs: Sequence[float]) -> list[_Condition]:
    """For every value of the group: at least, or at most, this one."""
    found = []
    for value in sorted(set(mine)):
        for sign, name in ((1, ">="), (-1, "<=")):
            rest = [other for other in (*mine, *theirs) if sign * other < sign * value]
            if not rest:
                continue
            nearest = max(rest, key=lambda other: sign * other)
            inside, outside = (sum(sign * other >= sign * value for other in some) for some in (mine, theirs))
            beyond = ""
            if not outside:
                reached = max(theirs, key=lambda other: sign * other)
                beyond = f", which are at {'most' if sign > 0 else 'least'} {_shortest(reached, value)}"
            text = f"{key} {name} {_shortest(value, nearest)}"
            found.append(_Condition(text, inside, len(mine), outside, len(theirs), 2, beyond))
    return found


def _shortest(value: float, beyond: float) -> str:
    """The fewest digits of a threshold that divides as `value` does, the next value being `beyond`."""
    rounding = ROUND_FLOOR if beyond < value else ROUND_CEILING
    for digits in range(2, 17):
        near = float(Context(prec=digits, rounding=rounding).create_decimal(repr(value)))
        if beyond < near <= value or value <= near < beyond:
            return f"{near:g}" if digits <= 6 else repr(near)
    return repr(value)


def _choices(key: str, mine: Sequence[Any], theirs: Sequence[Any]) -> list[_Condition]:
    """The values that are more frequent in the group than among the others, together."""
    distinct = len(_distinct([*mine, *theirs]))
    liked = [
        value for value in _distinct(mine) if mine.count(value) * len(theirs) > theirs.count(value) * len(mine)
    ]  # fmt: skip
    if not liked or distinct > _FEW:
        return []
    inside, outside = sum(value in liked for value in mine), sum(value in liked for value in theirs)
    text = f"{key}={' or '.join(map(str, liked))}"
    return [_Condition(text, inside, len(mine), outside, len(theirs), math.comb(distinct, len(liked)))]


def _only_here(key: str, mine: Sequence[Any], theirs: Sequence[Any]) -> list[_Condition]:
    """Each value that occurs in the group alone, at least twice, if the value is one of few."""
    distinct = len(_distinct([*mine, *theirs]))
    if distinct > _FEW:
        return []
    return [
        _Condition(f"{key}={value}", mine.count(value), len(mine), 0, len(theirs), distinct)
        for value in _distinct(mine)
        if mine.count(value) >= 2 and value not in theirs
    ]


def _distinct(values: Sequence[Any]) -> list[Any]:
    """In a fixed order; lists, as of paddings, among them, which no set takes."""
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return sorted(found, key=str)
