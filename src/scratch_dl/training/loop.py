"""The loop: steps, a validation and a checkpoint an epoch, and an orderly stop at any batch.

Every batch is a function of the seed and the step alone, and so is the learning rate; a checkpoint therefore needs
the network, the optimizer and the step, and a run that goes on from it repeats the undisturbed one bit for bit.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from scratch_dl import kernels
from scratch_dl.config.schema import Setup
from scratch_dl.evaluation import scoring
from scratch_dl.nn import parameter_gradients
from scratch_dl.optim import clip_grad_norm
from scratch_dl.system.provenance import usable_cores
from scratch_dl.training import checkpoint

_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none


class Diverged(RuntimeError):
    """The loss, a score or a weight became NaN or infinite."""


class Interrupted(BaseException):
    """A signal asked for a stop. As KeyboardInterrupt, it is no Exception, so that no library's handler swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_status = 128 + number


class Observer(Protocol):
    """Who is told what happens: the terminal."""

    def step(self, step: int, loss: float) -> None:
        """A step is done."""

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """A validation is done."""


class Record(Protocol):
    """Where metrics go: see `scratch_dl.tracking.Run`."""

    def metric(self, key: str, value: float, step: int) -> None:
        """One number at a step of the optimizer."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Several of them."""

    def sync(self) -> None:
        """Everything up to here is safe in a checkpoint."""


@dataclass
class Progress:
    """How far a run is; all of it is in the checkpoint.

    `training_s` is the time spent on steps, `elapsed_s` that of the loop with its validations and checkpoints.
    """

    step: int = 0
    first_psnr_db: float = -math.inf
    last_psnr_db: float = -math.inf
    best_psnr_db: float = -math.inf
    best_step: int = 0
    epochs_since_best: int = 0
    training_s: float = 0.0
    elapsed_s: float = 0.0
    stopped: str = ""


class Training:
    """A training of `setup` in `folder`.

    Args:
        setup: network, data and settings.
        folder: gets `checkpoints/`.
        record: gets the metrics.
        observer: is told of steps and epochs.
        noisy_psnr_db: the validation crops' own, from which the gain counts.
        on_validation: is given the step and the outputs.
        on_step: is given the number of steps done and the batch of the next one, before that is made.
        judge: is given the epochs done and their last scores, and says why to stop, or None.
    """

    def __init__(
        self,
        setup: Setup,
        folder: Path,
        record: Record,
        observer: Observer,
        noisy_psnr_db: float,
        on_validation: Callable[[int, Tensor], None],
        on_step: Callable[[int, tuple[Tensor, Tensor]], None] = lambda _step, _batch: None,
        judge: Callable[[int, Mapping[str, float]], str | None] = lambda _epoch, _values: None,
    ) -> None:
        self.setup = setup
        self.checkpoints = folder / "checkpoints"
        self.record = record
        self.observer = observer
        self.noisy_psnr_db = noisy_psnr_db
        self.on_validation = on_validation
        self.on_step = on_step
        self.judge = judge
        self.progress = Progress()
        self.loss = setup.loss
        self.base_lr = setup.optimizer.lr
        self.like = setup.network.parameters()[0].value
        self.steps_per_epoch = setup.data.steps_per_epoch(setup.trainer.batch_size)
        self.total_steps = self.steps_per_epoch * setup.trainer.epochs

    def restore(self, content: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint of this run holds."""
        self.setup.network.load_state_dict(content["network"])
        self.setup.optimizer.load_state_dict(content["optimizer"])
        self.progress = Progress(**content["progress"])

    def fit(self) -> Progress:
        """Train to the end, or to a reason to stop early.

        Raises:
            Diverged: if the loss, a score or a weight is not finite; every checkpoint is from before.
            Interrupted: at SIGINT, SIGTERM or SIGHUP, after the step in hand and a checkpoint.
        """
        progress = self.progress
        caught: list[int] = []
        before: dict[int, Any] = {}
        self._clock = time.monotonic()

        def catch(number: int, _: Any) -> None:
            # A second one of a kind does not wait for the batch.
            caught.append(number)
            if number in before:
                signal.signal(number, before[number])

        with torch.no_grad(), handling(catch) as handlers, ThreadPoolExecutor(max_workers=1) as drawing:
            before.update(handlers)
            if progress.step == 0 and progress.first_psnr_db == -math.inf:
                self._validate()
            while progress.step < self.total_steps and not progress.stopped and not caught:
                first = progress.step
                self._epoch(caught, drawing)
                # An epoch in which no step was done was validated before.
                if progress.step > first and (progress.step % self.steps_per_epoch == 0 or progress.stopped):
                    self._validate()
                elif caught:
                    self._save_between()
            if caught:
                raise Interrupted(caught[0])
        return progress

    def _epoch(self, caught: list[int], drawing: Executor) -> None:
        """Steps up to the next multiple of the epoch's length, or to a signal."""
        progress, start, first = self.progress, time.perf_counter(), self.progress.step
        end = min((first // self.steps_per_epoch + 1) * self.steps_per_epoch, self.total_steps)
        trainer = self.setup.trainer
        for batch in self._batches(first, end, drawing):
            if caught:
                break
            self._step(batch)
            if reason := self._time_is_up():
                progress.stopped = reason
                break
            every = trainer.checkpoint_every_steps
            if every and progress.step % every == 0 and progress.step < end:
                self._save_between()
        seconds = time.perf_counter() - start
        progress.training_s += seconds
        if progress.step == end or progress.stopped:
            images = (progress.step - first) * trainer.batch_size
            self.record.metric("images_per_s", images / seconds, progress.step)

    def _time_is_up(self) -> str:
        """Why to stop, if `trainer.max_minutes` are over; else ""."""
        limit = self.setup.trainer.max_minutes
        return f"trainer.max_minutes={limit:g} reached" if limit and self._elapsed() >= limit * 60 else ""

    def _elapsed(self) -> float:
        """Seconds of this loop and of those before it, in `progress` as well."""
        now = time.monotonic()
        self.progress.elapsed_s += now - self._clock
        self._clock = now
        return self.progress.elapsed_s

    def _batches(self, first: int, end: int, drawing: Executor) -> Iterator[tuple[Tensor, Tensor]]:
        """Those of the steps [first, end).

        Where there is a core for it, the next one is drawn while the network computes. Without one, a thread of the
        network's would share its core with the drawing, and all others would wait for it.
        """
        if torch.get_num_threads() >= usable_cores():
            yield from map(self._batch, range(first, end))
            return
        coming = drawing.submit(self._batch, first)
        for step in range(first, end):
            batch = coming.result()
            if step + 1 < end:
                coming = drawing.submit(self._batch, step + 1)
            yield batch

    @torch.no_grad()
    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Input and target of a step, as the network takes them."""
        setup = self.setup
        number = 0 if setup.trainer.repeat_first_batch else step
        input, target = setup.data.batch(number, setup.trainer.batch_size, setup.seed)
        return input.to(self.like), target.to(self.like)

    def _step(self, batch: tuple[Tensor, Tensor]) -> None:
        setup, step = self.setup, self.progress.step
        network, optimizer, trainer = setup.network, setup.optimizer, setup.trainer
        input, target = batch
        optimizer.lr = self.base_lr * setup.schedule.factor(step / self.total_steps)
        self.on_step(step, batch)
        optimizer.zero_grad()
        loss = float(self.loss(network(input), target))
        self.progress.step += 1
        self.record.metric("train/loss", loss, self.progress.step)
        if not math.isfinite(loss):
            raise self._diverged(f"train/loss became {loss}")
        parameter_gradients(network, self.loss.backward())
        if trainer.clip_norm is not None:
            self.record.metric(
                "train/grad_norm", clip_grad_norm(optimizer.parameters, trainer.clip_norm), self.progress.step
            )
        optimizer.step()
        self.observer.step(self.progress.step, loss)

    def _validate(self) -> None:
        """Score the fixed crops, keep the best, write the checkpoint, and only then let the record go out."""
        progress, setup = self.progress, self.setup
        noisy, clean = setup.data.validation
        output = scoring.denoise(setup.network, noisy)
        scores = scoring.score(output, clean)
        if progress.first_psnr_db == -math.inf:
            progress.first_psnr_db = scores.psnr_db
        progress.last_psnr_db = scores.psnr_db
        better = scores.psnr_db > progress.best_psnr_db
        if better:
            progress.best_psnr_db, progress.best_step, progress.epochs_since_best = scores.psnr_db, progress.step, 0
        elif progress.step:
            progress.epochs_since_best += 1
        patience = setup.trainer.patience
        if patience and progress.epochs_since_best >= patience and not progress.stopped:
            progress.stopped = f"no better val/psnr_db for trainer.patience={patience} epochs"
        if progress.step and not progress.stopped:
            progress.stopped = self._time_is_up()
        values = {
            "val/loss": scores.mse,
            "val/psnr_db": scores.psnr_db,
            "val/psnr_pooled_db": scores.psnr_pooled_db,
            "val/ssim": scores.ssim,
            "val/gain_db": scores.psnr_db - self.noisy_psnr_db,
        }
        self.record.metrics({**values, "train/lr": setup.optimizer.lr}, progress.step)
        epoch = -(-progress.step // self.steps_per_epoch)
        if progress.step and not progress.stopped:
            progress.stopped = self.judge(epoch, values) or ""
        self.on_validation(progress.step, output)
        if not math.isfinite(scores.mse):
            raise self._diverged(f"val/loss became {scores.mse}")
        self._save(best=better)
        self.observer.epoch(epoch, values)
        self.record.sync()

    def _diverged(self, what: str) -> Diverged:
        return Diverged(
            f"{what} at step {self.progress.step}; a smaller optimizer.lr (it is {self.base_lr:g}) or "
            f"trainer.clip_norm (it is {self.setup.trainer.clip_norm}) may cure it"
        )

    def _save_between(self) -> None:
        """Write a checkpoint that no validation has come before.

        Raises:
            Diverged: if the network's output is not finite.
        """
        noisy, _ = self.setup.data.validation
        if not bool(scoring.denoise(self.setup.network, noisy[:1]).isfinite().all()):
            raise self._diverged("the output became NaN or infinite")
        self._save()

    def _save(self, best: bool = False) -> None:
        """Write the checkpoint.

        Raises:
            Diverged: if a weight is not finite: no run could go on from there.
        """
        self._elapsed()
        if not all(bool(parameter.value.isfinite().all()) for parameter in self.setup.network.parameters()):
            raise self._diverged("a weight became NaN or infinite")
        content = {
            "network": self.setup.network.state_dict(),
            "optimizer": self.setup.optimizer.state_dict(),
            "progress": asdict(self.progress),
            "config": self.setup.config,
            "crop_size": list(self.setup.data.crop_size),
            "threads": torch.get_num_threads(),
            "kernels": kernels.used(self.setup.device),
        }
        if best:
            checkpoint.save(self.checkpoints / checkpoint.BEST, content)
        checkpoint.save_last(self.checkpoints, content)


@contextmanager
def handling(handler: Callable[[int, Any], None]) -> Iterator[dict[int, Any]]:
    """Give SIGINT, SIGTERM and SIGHUP to `handler` meanwhile, and yield the handlers from before.

    A SIGHUP that is ignored, as under nohup, stays so. Python lets only the main thread set handlers; in another one
    nothing changes.
    """
    before: dict[int, Any] = {}

    try:
        if threading.current_thread() is threading.main_thread():
            for stop in _stopping_signals():
                before[int(stop)] = signal.getsignal(stop)
                signal.signal(stop, handler)
        yield before
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _stopping_signals() -> tuple[signal.Signals, ...]:
    closed = () if _HANGUP is None or signal.getsignal(_HANGUP) == signal.SIG_IGN else (_HANGUP,)
    return (signal.SIGINT, signal.SIGTERM, *closed)


def interrupt(number: int, _: Any) -> None:
    """The handler for the time outside the loop, when there is no batch to wait for.

    Raises:
        Interrupted: always.
    """
    raise Interrupted(number)
