"""Signs of mistakes, and the verdict that they lead to."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from scratch_dl.diagnosis.causes import CAUSES, HEALTHY, TOO_SHORT

CERTAIN, DOUBTFUL = 0, 1
"""Ranks of signs: CERTAIN is a mistake in any case, DOUBTFUL only if the network makes no progress."""


@dataclass(frozen=True)
class Sign:
    """An observation that points to a cause.

    Attributes:
        rule: that fired.
        cause: one of CAUSES.
        module: dotted name in the network, or loss, optimizer, data, network.
        direction: forward, grad_input, grad_weight, grad_bias, contract, init or settings.
        step: of the optimizer at which it was first seen; 0 is before the first step.
        evidence: a sentence with the numbers.
        rank: CERTAIN or DOUBTFUL.
        order: among signs of the same rank and step, the one with the lowest order explains the others.
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
        """The step as a phrase, such as "from step 3"."""
        return _when(self.step)


@dataclass(frozen=True)
class Verdict:
    """The conclusion: `healthy`, or one cause and where it lies, and the other signs.

    `overruled` are the doubtful signs that do not count, because the network made progress; `left_out` says which rules
    were not asked, because they do not hold under the training's loss.
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
    left_out: str = ""

    @property
    def healthy(self) -> bool:
        """Whether no cause was found: no certain sign, and no doubtful one in a network without progress."""
        return self.cause == HEALTHY

    @property
    def finds_fault(self) -> bool:
        """Whether something is wrong: not if no cause was found, in a training that is long enough or too short."""
        return self.cause not in (HEALTHY, TOO_SHORT)

    @property
    def line(self) -> str:
        """The verdict in one line."""
        return f"{self.cause}: {self.module} {self.direction}, {_when(self.step)}" if self.module else self.cause

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Verdict":
        """Return the verdict that `to_json` was called on."""
        signs = {name: [Sign(**each) for each in content.get(name, ())] for name in ("also", "overruled")}
        return cls(**{**content, **signs})


def conclude(signs: Iterable[Sign], progress: bool, output_class: str = "") -> Verdict:
    """Return the verdict by the sign that explains the others: certain before doubtful, then by step, then by order.

    Args:
        signs: all of them.
        progress: whether the network ends better than its noisy input, which overrules doubtful signs.
        output_class: of the last validation, from `classify`.
    """
    counted: list[Sign] = []
    overruled: list[Sign] = []
    for sign in signs:
        (counted if sign.rank == CERTAIN or not progress else overruled).append(sign)
    if not counted:
        return Verdict(HEALTHY, what=CAUSES[HEALTHY].what, output_class=output_class, overruled=overruled)
    first, *others = sorted(counted, key=lambda sign: (sign.rank, sign.step, sign.order))
    cause = CAUSES[first.cause]
    return Verdict(
        first.cause,
        first.module,
        first.direction,
        first.step,
        first.rule,
        first.evidence,
        cause.what,
        cause.cure,
        output_class,
        others,
        overruled,
    )


def _when(step: int) -> str:
    return "before the first step" if step == 0 else f"from step {step}"
