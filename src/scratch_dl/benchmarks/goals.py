"""The goals of the benchmark, all of them."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Goal:
    """A bound on every figure whose name fits the pattern.

    Attributes:
        pattern: of names, as "modules/*_ratio"; a * stands for any characters.
        sign: "<", "<=", ">" or ">=".
        bound: what the figure is compared with.
    """

    pattern: str
    sign: str
    bound: float

    def reached(self, value: float) -> bool:
        """Whether a figure is on the right side of the bound; NaN is not."""
        return _SIGNS[self.sign](value, self.bound)

    def goal_text(self, value: float) -> str:
        """The bound, and whether it is reached."""
        return f"{self.sign}{self.bound:.2f} {'reached' if self.reached(value) else 'not reached'}"


GOALS = (
    Goal("modules/*_ratio", "<=", 1.00),
    Goal("steps/nearest_100/better_ratio", "<=", 0.40),
    Goal("steps/transposed_100/better_ratio", "<", 0.80),
    Goal("steps/nearest_100/compiled_ratio", "<", 1.00),
    Goal("steps/transposed_100/compiled_ratio", "<", 1.00),
    Goal("steps/default/better_ratio", "<=", 0.50),
    Goal("flops/large_*_peak_share", ">=", 0.80),
    Goal("memory/*_ratio", "<=", 0.70),
    Goal("loop/arithmetic_share", ">", 0.85),
    Goal("loop/diagnosis_share", "<", 0.03),
    Goal("loop/help_s", "<", 1.50),
)


def goal_of(name: str) -> Goal | None:
    """The goal of the figure `name`, or None if it has none."""
    return next((goal for goal in GOALS if fnmatchcase(name, goal.pattern)), None)
