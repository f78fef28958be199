"""What a training tells others: numbers go to a `MetricSink`, events to a `Listener`."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class MetricSink(Protocol):
    """Takes the metrics of a training; `scratch_dl.tracking.Run` is one."""

    def metric(self, key: str, value: float, step: int, *, every_step: bool = False) -> None:
        """Take one number at a step of the optimizer; `every_step` if there is one of every step."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Take several numbers at a step of the optimizer."""

    def sync(self) -> None:
        """Send everything taken so far: a checkpoint now covers it."""


class Listener:
    """The events of a training. Every method does nothing; a subclass overrides those that it needs."""

    def on_step_begin(self, step: int, batch: tuple[Tensor, Tensor]) -> None:
        """The step after `step` others is about to be taken on `batch` (input, target)."""

    def on_step_end(self, step: int, loss: float) -> None:
        """`step` steps have been taken; `loss` is the last one's."""

    def on_validation(self, step: int, output: Tensor) -> None:
        """The network has denoised the validation crops: (n, 3, height, width), not clamped."""

    def on_epoch(self, epoch: int, scores: Mapping[str, float]) -> str | None:  # noqa: ARG002 (for subclasses)
        """`epoch` epochs are over, 0 before the first step; comes after `on_validation`, and before the checkpoint.

        Returns:
            Why the training is to stop, or None. Before the first step the answer is ignored.
        """
        return None
