"""The trials of a study grouped by why they ended as they did, and what the settings of a group have in common."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import Any

from scratch_dl.search.trial_result import COUNTED, State, StudySummary, TrialResult, TrialRow

MIN_SUPPORT = 0.9
"""A condition is reported if at least this share of the group satisfies it. For a threshold, the same share of the
other trials must violate it."""
MAX_OUTSIDE = 0.5
"""A choice is reported only if at most this share of the other trials made it too."""
P_VALUE = 0.05
"""The largest probability that any of the settings separates a randomly drawn group as well."""
MAX_SHOWN = 3
"""How many conditions are reported per group."""
MAX_CHOICES = 6
"""A setting with more distinct values does not count as a choice: any two numbers would be "this or that" number."""

# As in scratch_dl.diagnosis.causes, which imports torch.
_HEALTHY, _NOT_DIAGNOSED = ("healthy", "too_short"), ("", "unknown")
_OUTPUTS = {
    "not_finite": "output not finite",
    "zeros": "collapsed to zero",
    "ones": "collapsed to one",
    "half": "collapsed to one half",
    "mean": "collapsed to a flat image",
    "input": "gives its input back",
    "worse_than_blur": "worse than blur",
    "better_than_blur": "better than blur",
}
_GEOMETRY = re.compile(r"model[.:]|.*\b(output|input)\b.*\bsizes? ", re.DOTALL)
_FAILURES = (  # by how the reason begins, with or without the class of the error
    (re.compile(r"(Diverged: )?\S+ became (nan|-?inf)"), "diverged"),
    (re.compile(r"(VerificationError: )?verification failed"), "verification failed"),
    (re.compile(r".*\bobjective\b.*\b(no finite|not finite|nan|inf)\b"), "objective not finite"),
    (re.compile(r"its process died"), "its process died"),
    (re.compile(r"MemoryError\b|.*can't allocate memory"), "out of memory"),
)
_ERROR_CLASS = re.compile(r"\A(?:\w+\.)*([A-Z]\w*):\s*")


@dataclass(frozen=True)
class CauseGroup:
    """Trials that ended for the same cause.

    Attributes:
        label: the cause, in words.
        rows: the trials, by number.
        share: of all trials that ended, refused ones included; in [0, 1].
        best: the best value of the first objective; None without any.
        example: the reason, verdict and cure of one of the trials; "" if there is nothing to say.
        common: what these trials' settings have in common and those of the others do not, one sentence each.
    """

    label: str
    rows: tuple[TrialRow, ...]
    share: float
    best: float | None
    example: str
    common: tuple[str, ...]


def group_by_cause(summary: StudySummary) -> list[CauseGroup]:
    """Group the trials by cause, the largest group first; trials that run, wait or repeat others are in no group.

    Trained trials are compared with trained trials, refused ones with those that were not refused: a trial refused for
    its padding says nothing about learning rates.
    """
    by_label: dict[str, list[TrialRow]] = defaultdict(list)
    ended = [row for row in summary.rows if row.result is not None and row.result.state != State.REPEATED]
    for row in ended:
        by_label[cause_label(row)].append(row)
    groups = []
    for label, rows in by_label.items():
        numbers = {row.number for row in rows}
        others = [row for row in ended if row.number not in numbers and _are_comparable(rows[0], row)]
        common = common_settings(*([row.params for row in some] for some in (rows, others)))
        best = _best_row(summary, rows)
        value = best.values[0] if best else None
        example = _example(best or rows[0])
        groups.append(CauseGroup(label, tuple(rows), len(rows) / len(ended), value, example, common))
    return sorted(groups, key=lambda group: (-len(group.rows), group.label))


def cause_label(row: TrialRow) -> str:
    """Return why a trial ended as it did, in words; for one that runs or waits, its state."""
    result = row.result
    if result is None or result.state == State.KILLED:
        return row.state
    if result.state == State.REFUSED:
        return "geometry refused" if _GEOMETRY.match(_ERROR_CLASS.sub("", result.reason, 1)) else "setting refused"
    cause = "" if result.cause in _NOT_DIAGNOSED else result.cause
    if result.state in (State.FAILED, State.PRUNED):
        label = _failure(result.reason) if result.state == State.FAILED else State.PRUNED
        return f"{label} ({cause})" if cause not in ("", *_HEALTHY) else label
    output = _OUTPUTS.get(result.output_class, result.output_class)
    if cause in ("", *_HEALTHY):
        label = cause or "not diagnosed"
        return f"{label}, {output}" if output else label
    return f"{output} ({cause})" if output else cause


def reason_text(result: TrialResult) -> str:
    """Return the reason and the verdict in one line; "" if there is nothing to say."""
    verdict = "" if result.verdict in (*_HEALTHY, *_NOT_DIAGNOSED) else result.verdict
    return "; ".join(text for text in (result.reason, "" if verdict in result.reason else verdict) if text)


def _failure(reason: str) -> str:
    """Return the kind of a failure; for an unknown one, the class of its error."""
    known = next((kind for pattern, kind in _FAILURES if pattern.match(reason)), None)
    error = _ERROR_CLASS.match(reason)
    return known or (f"error of class {error[1]}" if error else "failed")


def _best_row(summary: StudySummary, rows: Sequence[TrialRow]) -> TrialRow | None:
    finite = [row for row in rows if row.values and math.isfinite(row.values[0])]
    sign = 1 if summary.objectives[0].direction == "maximize" else -1
    return max(finite, key=lambda row: sign * row.values[0], default=None)


def _example(row: TrialRow) -> str:
    assert row.result is not None
    cure = f"cure: {row.result.cure}" if row.result.cure else ""
    text = "; ".join(part for part in (reason_text(row.result), cure) if part)
    return f"trial {row.number}: {text}" if text else ""


def _are_comparable(row: TrialRow, other: TrialRow) -> bool:
    """Return whether the two trials got equally far, so that their settings can be compared."""
    assert row.result is not None
    assert other.result is not None
    return other.result.state != State.REFUSED if row.result.state == State.REFUSED else other.result.state in COUNTED


@dataclass(frozen=True)
class _Condition:
    """A condition on one setting, with how many trials of the group and of the others satisfy it.

    `tries` is the number of similar conditions of which this one fits best.
    """

    text: str
    inside: int
    group: int
    outside: int
    others: int
    tries: int
    beyond: str = ""
    is_conditional: bool = False

    @property
    def p_value(self) -> float:
        """The chance that a random group satisfies one of the tries as often (Fisher's exact test, 1922)."""
        satisfying, total = self.inside + self.outside, self.group + self.others
        ways = (
            math.comb(satisfying, n) * math.comb(total - satisfying, self.group - n)
            for n in range(self.inside, min(satisfying, self.group) + 1)
        )
        return self.tries * sum(ways) / math.comb(total, self.group)

    def separates(self, max_outside: float) -> bool:
        """Return whether nearly all of the group satisfy it, and at most this share of the others."""
        return self.inside >= MIN_SUPPORT * self.group and self.outside <= max_outside * self.others

    def __str__(self) -> str:
        inside = f"in all {self.group}" if self.inside == self.group else f"in {self.inside} of {self.group}"
        outside = f"in {self.outside or 'none'} of {self.others} others"
        return f"{self.text} {inside}, and {outside}{self.beyond}{' (of those that have it)' * self.is_conditional}"


def common_settings(group: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Say what separates the group's settings from the others', at most MAX_SHOWN sentences, the clearest first.

    For a number this is a threshold beyond which nearly all of the group lie and nearly none of the others; for a
    choice, the values that nearly all of the group have and few of the others, or that occur in the group alone. A
    setting that only some trials have is compared among those. The result is empty if either side has fewer than two
    trials, or if chance alone would separate them as well.
    """
    conditions: list[_Condition] = []
    keys = list(dict.fromkeys(key for settings in (*group, *others) for key in settings))
    for key in keys:
        mine, theirs = ([settings[key] for settings in some if key in settings] for some in (group, others))
        if len(mine) < 2 or len(theirs) < 2:
            continue
        thresholds = _thresholds(key, mine, theirs) if _are_numbers([*mine, *theirs]) else []
        candidates = (
            [condition for condition in thresholds if condition.separates(1 - MIN_SUPPORT)]
            or [condition for condition in _frequent_choices(key, mine, theirs) if condition.separates(MAX_OUTSIDE)]
            or _exclusive_choices(key, mine, theirs)
        )
        candidates = [condition for condition in candidates if condition.p_value * len(keys) < P_VALUE]
        if candidates:
            best = min(candidates, key=lambda condition: condition.p_value)
            is_conditional = len(mine) < len(group) or len(theirs) < len(others)
            conditions.append(replace(best, is_conditional=is_conditional))
    conditions.sort(key=lambda condition: condition.p_value)
    return tuple(str(condition) for condition in conditions[:MAX_SHOWN])


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _thresholds(key: str, mine: Sequence[float], theirs: Sequence[float]) -> list[_Condition]:
    """For every value of the group: at least, or at most, this value."""
    conditions = []
    for value in sorted(set(mine)):
        for sign, comparison in ((1, ">="), (-1, "<=")):
            rest = [other for other in (*mine, *theirs) if sign * other < sign * value]
            if not rest:
                continue
            nearest = max(rest, key=lambda other: sign * other)
            inside, outside = (sum(sign * other >= sign * value for other in some) for some in (mine, theirs))
            beyond = ""
            if not outside:
                reached = max(theirs, key=lambda other: sign * other)
                beyond = f", which are at {'most' if sign > 0 else 'least'} {_shortest(reached, value)}"
            text = f"{key} {comparison} {_shortest(value, nearest)}"
            conditions.append(_Condition(text, inside, len(mine), outside, len(theirs), 2, beyond))
    return conditions


def _shortest(value: float, next_value: float) -> str:
    """Write a threshold with the fewest digits that still separate `value` from `next_value`."""
    rounding = ROUND_FLOOR if next_value < value else ROUND_CEILING
    for digits in range(2, 17):
        rounded = float(Context(prec=digits, rounding=rounding).create_decimal(repr(value)))
        if next_value < rounded <= value or value <= rounded < next_value:
            return f"{rounded:g}" if digits <= 6 else repr(rounded)
    return repr(value)


def _frequent_choices(key: str, mine: Sequence[Any], theirs: Sequence[Any]) -> list[_Condition]:
    """The values, taken together, that are more frequent in the group than among the others."""
    n_choices = len(_distinct([*mine, *theirs]))
    frequent = [v for v in _distinct(mine) if mine.count(v) * len(theirs) > theirs.count(v) * len(mine)]
    if not frequent or n_choices > MAX_CHOICES:
        return []
    inside, outside = (sum(value in frequent for value in some) for some in (mine, theirs))
    text = f"{key}={' or '.join(map(str, frequent))}"
    return [_Condition(text, inside, len(mine), outside, len(theirs), math.comb(n_choices, len(frequent)))]


def _exclusive_choices(key: str, mine: Sequence[Any], theirs: Sequence[Any]) -> list[_Condition]:
    """Each value that occurs at least twice in the group and never among the others."""
    n_choices = len(_distinct([*mine, *theirs]))
    values = [value for value in _distinct(mine) if mine.count(value) >= 2 and value not in theirs]
    return [
        _Condition(f"{key}={value}", mine.count(value), len(mine), 0, len(theirs), n_choices)
        for value in values
        if n_choices <= MAX_CHOICES
    ]


def _distinct(values: Sequence[Any]) -> list[Any]:
    """The distinct values in a fixed order. They may be lists, such as paddings, which a set does not take."""
    return sorted((value for place, value in enumerate(values) if value not in values[:place]), key=str)
