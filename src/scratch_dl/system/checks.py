"""Checks of arguments, whose errors state the argument's name, the rule and the actual value."""

import difflib
import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

Pair = tuple[int, int]


def integer(name: str, value: Any, *, minimum: int, maximum: int | None = None) -> int:
    """Return `value` if it is an integer of at least `minimum` and at most `maximum`.

    Raises:
        TypeError: if it is not an integer (or is a bool).
        ValueError: if it is too small or too large.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer >= {minimum}, but got {value!r}")
    number = int(value)
    if number < minimum:
        raise ValueError(f"{name} must be >= {minimum}, but got {number}")
    if maximum is not None and number > maximum:
        raise ValueError(f"{name} must be <= {maximum}, but got {number}")
    return number


def real(
    name: str,
    value: Any,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
) -> float:
    """Return `value` as a float if it is a finite number within the bounds (`above` and `below` are exclusive).

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is not finite or out of bounds.
    """
    bounds = [
        f"{sign} {bound:g}"
        for sign, bound in ((">=", minimum), (">", above), ("<=", maximum), ("<", below))
        if bound is not None
    ]
    rule = " ".join(["a finite number", " and ".join(bounds)]).strip()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be {rule}, but got {value!r}")
    number = float(value)
    if (
        not math.isfinite(number)
        or (minimum is not None and number < minimum)
        or (above is not None and number <= above)
        or (maximum is not None and number > maximum)
        or (below is not None and number >= below)
    ):
        raise ValueError(f"{name} must be {rule}, but got {value!r}")
    return number


def boolean(name: str, value: Any) -> bool:
    """Return `value` if it is True or False.

    Raises:
        TypeError: if it is anything else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be true or false, but got {value!r}")
    return value


def text(name: str, value: Any) -> str:
    """Return `value` if it is a string with a character other than white space.

    Raises:
        TypeError: if it is not.
    """
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"{name} must be a non-empty string, but got {value!r}")
    return value


def choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`.

    Raises:
        ValueError: if it is not; the message names the most similar choice.
    """
    known = list(choices)
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, but got {value!r}{nearest(str(value), known)}")
    return str(value)


def pair(name: str, value: Any, *, minimum: int) -> Pair:
    """Return an int or an (h, w) pair of ints as a pair.

    Raises:
        TypeError: if it is neither.
        ValueError: if an entry is below `minimum`, or there are not two.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 2:
            raise ValueError(f"{name} must be an int or an (h, w) pair, but got {tuple(value)!r}")
        return integer(name, value[0], minimum=minimum), integer(name, value[1], minimum=minimum)
    number = integer(name, value, minimum=minimum)
    return number, number


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the most similar of the `known` words, or "" if none is similar."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
