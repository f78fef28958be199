"""What was seen, and what it comes to."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from scratch_dl.diagnosis.causes import CAUSES, HEALTHY

CERTAIN, DOUBTFUL = 0, 1
"""A mistake, whatever comes of it; and what is one only in a network that makes no progress."""


@dataclass(frozen=True)
class Sign:
    """One thing that was seen.

    Attributes:
        rule: by which it was seen.
        cause: one of CAUSES.
        module: dotted name in the network, or loss, optimizer, data, network.
        direction: forward, grad_input, grad_weight, grad_bias, contract, init or settings.
        step: of the optimizer, at which it was first seen; 0 is before the first one.
        evidence: the numbers, in a sentence.
        rank: CERTAIN or DOUBTFUL.
        order: among signs of one rank; the lower one explains the higher one.
    """

    rule: str
    cause: str
    module: str
    direction: str
    step: int
    evidence: str
    rank: int = CERTAIN
    order: int = 0

    @property
    def when(self) -> str:
        """The step in words."""
        return _when(self.step)


@dataclass(frozen=True)
class Verdict:
    """The conclusion: `healthy`, or one cause with its place, and what else was seen.

    `overruled` are the doubts that the network's progress has cleared.
    """

    cause: str
    module: str = ""
    direction: str = ""
    step: int = 0
    rule: str = ""
    evidence: str = ""
    what: str = ""
    cure: str = ""
    output_class: str = ""
    also: list[Sign] = field(default_factory=list)
    overruled: list[Sign] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether no cause was found."""
        return self.cause == HEALTHY

    @property
    def line(self) -> str:
        """The verdict in one line."""
        return f"{self.cause}: {self.module} {self.direction}, {_when(self.step)}" if self.module else self.cause

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Verdict":
        """What `to_json` was made of."""
        signs = {name: [Sign(**each) for each in content.get(name, ())] for name in ("also", "overruled")}
        return cls(**{**content, **signs})


def conclude(signs: Iterable[Sign], progress: bool, output_class: str = "") -> Verdict:
    """The sign that explains the others: a certain one, of those the first in time, then in order.

    Args:
        signs: all that was seen.
        progress: whether the network is better than its noisy input in the end, which clears all doubt.
        output_class: of the last validation, as `classify` has it.
    """
    counted: list[Sign] = []
    overruled: list[Sign] = []
    for sign in signs:
        (counted if sign.rank == CERTAIN or not progress else overruled).append(sign)
    if not counted:
        return Verdict(HEALTHY, what=CAUSES[HEALTHY].what, output_class=output_class, overruled=overruled)
    first, *others = sorted(counted, key=lambda sign: (sign.rank, sign.step, sign.order))
    cause = CAUSES[first.cause]
    return Verdict(first.cause, first.module, first.direction, first.step, first.rule, first.evidence, cause.what,
                   cause.cure, output_class, others, overruled)  # fmt: skip


def _when(step: int) -> str:
    return "before the first step" if step == 0 else f"from step {step}"
