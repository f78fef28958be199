"""Learning-rate schedules: the factor on the optimizer's rate, from the share of the training that is behind."""

import math
from typing import Protocol

from scratch_dl.system.checks import real


class Schedule(Protocol):
    """What the trainer asks of a schedule."""

    depends_on_length: bool

    def factor(self, progress: float) -> float:
        """The factor on the optimizer's rate at `progress`, the steps done over all steps, in [0, 1)."""
        ...


class Constant:
    """The rate stays: factor 1. It alone does not depend on the training's length."""

    depends_on_length = False

    def factor(self, progress: float) -> float:  # noqa: ARG002 (the schedules share one call)
        """1 for every progress in [0, 1)."""
        return 1.0


class LinearRampDown:
    """Factor 1, then a straight line down to `end` over the last `share` of the training.

    Args:
        share: of the training, in (0, 1].
        end: the factor reached at the end, in [0, 1].

    Raises:
        ValueError: if one is out of its range.
    """

    depends_on_length = True

    def __init__(self, share: float = 0.4, end: float = 0.0) -> None:
        self.share = real("share", share, above=0, maximum=1)
        self.end = real("end", end, minimum=0, maximum=1)

    def factor(self, progress: float) -> float:
        """The factor at `progress`, the steps done over all steps, in [0, 1)."""
        return self.end + (1 - self.end) * min(1.0, (1 - progress) / self.share)


class Cosine:
    """Half a cosine wave from 1 down to `end` (Loshchilov and Hutter 2017, arXiv 1608.03983, eq. 5, one period).

    Args:
        end: the factor reached at the end, in [0, 1].

    Raises:
        ValueError: if it is out of its range.
    """

    depends_on_length = True

    def __init__(self, end: float = 0.0) -> None:
        self.end = real("end", end, minimum=0, maximum=1)

    def factor(self, progress: float) -> float:
        """The factor at `progress`, the steps done over all steps, in [0, 1)."""
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * progress)) / 2
