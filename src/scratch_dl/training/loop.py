"""The training loop: steps, one validation and one checkpoint per epoch, and an orderly stop after any step.

Every batch is a function of the seed and the step alone, and so is the learning rate. A checkpoint therefore needs only
the network, the optimizer and the step, and a run resumed from it repeats the undisturbed one bit for bit.
"""

import math
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scratch_dl import kernels
from scratch_dl.config.schema import Setup
from scratch_dl.evaluation import scoring
from scratch_dl.nn import parameter_gradients
from scratch_dl.optim import clip_grad_norm
from scratch_dl.system.provenance import usable_cores
from scratch_dl.training import checkpoint
from scratch_dl.training.events import Listener, MetricSink
from scratch_dl.training.losses import loss_of
from scratch_dl.training.signals import Interrupted, handling


class Diverged(RuntimeError):
    """The loss, a score or a weight became NaN or infinite."""


@dataclass
class Progress:
    """How far a run has come; the checkpoint contains all of it.

    `training_s` is the time spent on steps, `elapsed_s` the time of the loop, validations and checkpoints included.
    `stopped` is why the training ended early; empty if it did not.
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
        sink: takes the metrics.
        listener: is told of the events.
        noisy_psnr_db: PSNR of the noisy validation crops, from which the gain counts.
    """

    def __init__(self, setup: Setup, folder: Path, sink: MetricSink, listener: Listener, noisy_psnr_db: float) -> None:
        self.setup = setup
        self.checkpoints = folder / "checkpoints"
        self.sink = sink
        self.listener = listener
        self.noisy_psnr_db = noisy_psnr_db
        self.progress = Progress()
        self.loss = setup.loss
        self.base_lr = setup.optimizer.lr
        self.first_parameter = setup.network.parameters()[0].value
        self.steps_per_epoch = setup.data.steps_per_epoch(setup.trainer.batch_size)
        self.total_steps = self.steps_per_epoch * setup.trainer.epochs

    def restore(self, content: Mapping[str, Any]) -> None:
        """Continue from the content of a checkpoint of this run."""
        self.setup.network.load_state_dict(content["network"])
        self.setup.optimizer.load_state_dict(content["optimizer"])
        self.progress = Progress(**content["progress"])

    def fit(self) -> Progress:
        """Train to the end, or until there is a reason to stop early.

        Raises:
            Diverged: if the loss, a score or a weight is not finite; every checkpoint was written before that.
            Interrupted: after SIGINT, SIGTERM or SIGHUP, once the current step and a checkpoint are done.
        """
        progress = self.progress
        caught: list[int] = []
        previous: dict[int, Any] = {}
        self._clock = time.monotonic()

        def catch(number: int, _: Any) -> None:
            # A second signal of the same kind does not wait for the step.
            caught.append(number)
            if number in previous:
                signal.signal(number, previous[number])

        with torch.no_grad(), handling(catch) as handlers, ThreadPoolExecutor(max_workers=1) as drawing:
            previous.update(handlers)
            if progress.step == 0 and progress.first_psnr_db == -math.inf:
                self._validate()
            while progress.step < self.total_steps and not progress.stopped and not caught:
                first = progress.step
                self._epoch(caught, drawing)
                # An epoch in which no step was taken has been validated already.
                if progress.step > first and (progress.step % self.steps_per_epoch == 0 or progress.stopped):
                    self._validate()
                elif caught:
                    self._save_between()
            if caught:
                raise Interrupted(caught[0])
        return progress

    def _epoch(self, caught: list[int], drawing: Executor) -> None:
        """Take steps until the epoch ends, or until a signal arrives."""
        progress, start, first = self.progress, time.perf_counter(), self.progress.step
        end = min((first // self.steps_per_epoch + 1) * self.steps_per_epoch, self.total_steps)
        trainer = self.setup.trainer
        for batch in self._batches(first, end, drawing):
            if caught:
                break
            self.take_step(batch)
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
            self.sink.metric("images_per_s", images / seconds, progress.step)

    def _time_is_up(self) -> str:
        """Return why to stop, if `trainer.max_minutes` have passed; otherwise ""."""
        limit = self.setup.trainer.max_minutes
        return f"trainer.max_minutes={limit:g} reached" if limit and self._elapsed() >= limit * 60 else ""

    def _elapsed(self) -> float:
        """Return the seconds that this loop and those before it took; also kept in `progress`."""
        now = time.monotonic()
        self.progress.elapsed_s += now - self._clock
        self._clock = now
        return self.progress.elapsed_s

    def _batches(self, first: int, end: int, drawing: Executor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of the steps [first, end).

        If a core is free, the next batch is drawn while the network computes. Otherwise drawing would share a core with
        one of the network's threads, and all other threads would wait for that one.
        """
        if torch.get_num_threads() >= usable_cores():
            yield from map(self.batch, range(first, end))
            return
        pending = drawing.submit(self.batch, first)
        for step in range(first, end):
            batch = pending.result()
            if step + 1 < end:
                pending = drawing.submit(self.batch, step + 1)
            yield batch

    @torch.no_grad()
    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return input and target of a step, on the network's device and of its dtype."""
        setup = self.setup
        number = 0 if setup.trainer.repeat_first_batch else step
        input, target = setup.data.batch(number, setup.trainer.batch_size, setup.seed)
        return input.to(self.first_parameter), target.to(self.first_parameter)

    def take_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Take the next step of the optimizer on `batch` (input, target).

        Raises:
            Diverged: if the loss is not finite; the weights have not been changed then.
        """
        setup, step = self.setup, self.progress.step
        network, optimizer, trainer = setup.network, setup.optimizer, setup.trainer
        input, target = batch
        optimizer.lr = self.base_lr * setup.schedule.factor(step / self.total_steps)
        self.listener.on_step_begin(step, batch)
        optimizer.zero_grad()
        loss = float(self.loss(network(input), target))
        self.progress.step += 1
        self.sink.metric("train/loss", loss, self.progress.step, every_step=True)
        if not math.isfinite(loss):
            raise self._diverged(f"train/loss became {loss}")
        parameter_gradients(network, self.loss.backward())
        if trainer.clip_norm is not None:
            norm = clip_grad_norm(optimizer.parameters, trainer.clip_norm)
            self.sink.metric("train/grad_norm", norm, self.progress.step, every_step=True)
        optimizer.step()
        self.listener.on_step_end(self.progress.step, loss)

    def _validate(self) -> None:
        """Score the validation crops, keep the best, write the checkpoint, and only then let the sink send."""
        progress, setup = self.progress, self.setup
        noisy, clean = setup.data.validation
        output = scoring.denoise(setup.network, noisy)
        scores = scoring.score(output, clean, setup.metrics)
        loss = loss_of(self.loss, output.to(like := self.first_parameter), clean.to(like), setup.trainer.batch_size)
        better = self._update(scores.psnr_db)
        values = {
            "val/loss": loss,
            **{f"val/{name}": value for name, value in scores.named.items()},
            "val/gain_db": scores.psnr_db - self.noisy_psnr_db,
        }
        self.sink.metrics({**values, "train/lr": setup.optimizer.lr}, progress.step)
        self.listener.on_validation(progress.step, output)
        if not math.isfinite(loss):
            raise self._diverged(f"val/loss became {loss}")
        reason = self.listener.on_epoch(-(-progress.step // self.steps_per_epoch), values)
        if progress.step and not progress.stopped:
            progress.stopped = reason or ""
        self._save(best=better)
        self.sink.sync()

    def _update(self, psnr_db: float) -> bool:
        """Note a validation's PSNR, and any reason to stop, in `progress`; return whether it is the best so far."""
        progress, patience = self.progress, self.setup.trainer.patience
        if progress.first_psnr_db == -math.inf:
            progress.first_psnr_db = psnr_db
        progress.last_psnr_db = psnr_db
        better = psnr_db > progress.best_psnr_db
        if better:
            progress.best_psnr_db, progress.best_step, progress.epochs_since_best = psnr_db, progress.step, 0
        elif progress.step:
            progress.epochs_since_best += 1
        if patience and progress.epochs_since_best >= patience and not progress.stopped:
            progress.stopped = f"no better val/psnr_db for trainer.patience={patience} epochs"
        if progress.step and not progress.stopped:
            progress.stopped = self._time_is_up()
        return better

    def _diverged(self, what: str) -> Diverged:
        return Diverged(
            f"{what} at step {self.progress.step}; a smaller optimizer.lr (it is {self.base_lr:g}) or "
            f"trainer.clip_norm (it is {self.setup.trainer.clip_norm}) may cure it"
        )

    def _save_between(self) -> None:
        """Write a checkpoint between two validations.

        Raises:
            Diverged: if the network's output on a validation crop is not finite.
        """
        noisy, _ = self.setup.data.validation
        if not bool(scoring.denoise(self.setup.network, noisy[:1]).isfinite().all()):
            raise self._diverged("the output became NaN or infinite")
        self._save()

    def _save(self, best: bool = False) -> None:
        """Write the checkpoint.

        Raises:
            Diverged: if a weight is not finite, because no run could be resumed from there.
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
            "data": self.setup.data.digest,
            "threads": torch.get_num_threads(),
            "kernels": kernels.used(self.setup.device),
        }
        if best:
            checkpoint.save(self.checkpoints / checkpoint.BEST, content)
        checkpoint.save_last(self.checkpoints, content)
