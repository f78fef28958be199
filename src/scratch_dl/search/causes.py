"""The trials of a study by why they ended as they did, and what those of one cause have in common."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from scratch_dl.search.common import in_common
from scratch_dl.search.outcomes import COUNTED, DISCARDED, FAILED, KILLED, PRUNED, REFUSED, Outcome, Results, Row

_HEALTHY, _NOT_DIAGNOSED = "healthy", ("", "unknown")  # as scratch_dl.diagnosis.causes has them, which imports torch
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
_KINDS = (  # of a failure, by how its reason begins, the class of the error before it or not
    (re.compile(r"(Diverged: )?\S+ became (nan|-?inf)"), "diverged"),
    (re.compile(r"(VerificationError: )?verification failed"), "verification failed"),
    (re.compile(r".*\bobjective\b.*\b(no finite|not finite|nan|inf)\b"), "objective not finite"),
    (re.compile(r"its process died"), "its process died"),
    (re.compile(r"MemoryError\b|.*can't allocate memory"), "out of memory"),
)
_CLASS = re.compile(r"(?:\w+\.)*([A-Z]\w*):")


@dataclass(frozen=True)
class Group:
    """Trials of one cause.

    Attributes:
        label: the cause, in words.
        rows: the trials, by number.
        share: of all trials of which something came, refused ones among them; in [0, 1].
        best: the best value of the first objective; None without any.
        example: what was said of one of them, and its cure.
        common: what the drawn settings of its trials have in common and those of others do not, a sentence each.
    """

    label: str
    rows: tuple[Row, ...]
    share: float
    best: float | None
    example: str
    common: tuple[str, ...]

    @property
    def size(self) -> str:
        """How many trials, and how many of them are copies, if any are."""
        return with_copies(len(self.rows), sum(row.is_copy for row in self.rows))


def with_copies(trials: int, copies: int) -> str:
    """A number of trials, in words, and how many of them are copies, if any are."""
    return f"{trials} ({copies} copied)" if copies else f"{trials}"


def groups(results: Results) -> list[Group]:
    """The trials by cause, the largest group first; trials that run, wait or were discarded are in none.

    Trained ones are compared with trained ones, refused ones with those that were not refused: a trial refused for its
    padding says nothing on learning rates. A copied trial counts as the trial it is, but is no further witness of what
    a group has in common.
    """
    by_label: dict[str, list[Row]] = defaultdict(list)
    ended = [row for row in results.rows if row.outcome is not None and row.outcome.state != DISCARDED]
    for row in ended:
        by_label[label(row)].append(row)
    found = []
    for name, rows in by_label.items():
        numbers = {row.number for row in rows}
        rivals = [row for row in ended if row.number not in numbers and _comparable(rows[0], row)]
        shown = _example(results, rows)
        common = in_common(*([row.params for row in some if not row.is_copy] for some in (rows, rivals)))
        found.append(Group(name, tuple(rows), len(rows) / len(ended), best_value(results, rows), shown, common))
    return sorted(found, key=lambda group: (-len(group.rows), group.label))


def label(row: Row) -> str:
    """Why a trial ended as it did, in words; the state of one that runs or waits."""
    outcome = row.outcome
    if outcome is None or outcome.state == KILLED:
        return row.state
    if outcome.state == REFUSED:
        return "geometry refused" if _GEOMETRY.match(_said(outcome.reason)) else "setting refused"
    cause = "" if outcome.cause in _NOT_DIAGNOSED else outcome.cause
    if outcome.state == FAILED:
        kind = _kind(outcome.reason)
        return f"{kind} ({cause})" if cause and cause != _HEALTHY else kind
    if outcome.state == PRUNED:
        return f"pruned ({cause})" if cause and cause != _HEALTHY else "pruned"
    came = _OUTPUTS.get(outcome.output_class, outcome.output_class)
    if cause == _HEALTHY:
        return f"healthy, {came}" if came else "healthy"
    if not cause:
        return f"not diagnosed, {came}" if came else "not diagnosed"
    return f"{came} ({cause})" if came else cause


def best_value(results: Results, rows: Sequence[Row]) -> float | None:
    """The best value of the first objective among the trials; None without a finite one."""
    best = _best_row(results, rows)
    return None if best is None or best.outcome is None or best.outcome.values is None else best.outcome.values[0]


def _best_row(results: Results, rows: Sequence[Row]) -> Row | None:
    best: tuple[float, Row] | None = None
    for row in rows:
        if row.outcome is None or not row.outcome.values or not math.isfinite(row.outcome.values[0]):
            continue
        if best is None or results.objectives[0].better(row.outcome.values[0], best[0]):
            best = row.outcome.values[0], row
    return None if best is None else best[1]


def _example(results: Results, rows: Sequence[Row]) -> str:
    """What was said of the best one, or of the first one without values."""
    row = _best_row(results, rows) or rows[0]
    outcome = row.outcome
    assert outcome is not None
    said = explained(outcome)
    if outcome.cure:
        said = f"{said}; cure: {outcome.cure}" if said else f"cure: {outcome.cure}"
    return f"trial {row.number}: {said}" if said else ""


def explained(outcome: Outcome) -> str:
    """The reason and the verdict in one line; nothing of a trial of which there is nothing to say."""
    verdict = "" if outcome.verdict in (_HEALTHY, *_NOT_DIAGNOSED) else outcome.verdict
    return "; ".join(text for text in (outcome.reason, "" if verdict in outcome.reason else verdict) if text)


def _comparable(row: Row, rival: Row) -> bool:
    """Whether the group's trials and the rival have come as far as each other."""
    assert row.outcome is not None
    assert rival.outcome is not None
    if row.outcome.state == REFUSED:
        return rival.outcome.state != REFUSED
    return rival.outcome.state in COUNTED


def _kind(reason: str) -> str:
    """The kind of a failure; of an unknown one the class of its error."""
    known = next((kind for pattern, kind in _KINDS if pattern.match(reason)), None)
    found = _CLASS.match(reason)
    return known or (f"error of class {found[1]}" if found else "failed")


def _said(reason: str) -> str:
    """The message without the class of its error."""
    found = _CLASS.match(reason)
    return reason[found.end() :].lstrip() if found else reason
