"""The share of the network's arithmetic in the time of a training, and how long the command takes to start."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scratch_dl import nn
from scratch_dl.benchmarks.part_result import PartResult, goal_text
from scratch_dl.benchmarks.settings import BenchSettings
from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config
from scratch_dl.config.schema import Setup
from scratch_dl.diagnosis import signals
from scratch_dl.system.timing import Quartiles
from scratch_dl.terminal.text_table import TextTable
from scratch_dl.training import loop
from scratch_dl.training.events import Listener
from scratch_dl.verification.trace import Batch

_SMOKE = ("data.crops_per_epoch=16", "data.crop_size=8", "data.validation_crops=2", "model.channels=[2,2,2]")
_TIMEOUT_S = 120.0
_ALONE = 200  # steps
_WATCHED = 30  # steps


class Stopwatch(nn.Observer):
    """Adds up the seconds within what it times: modules that it observes, and functions; none of them inside another.

    Attributes:
        seconds: the sum.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, with its time added up."""

        def call(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - start

        return call

    def forward(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Time a module's forward."""
        output: Tensor = self.timed(function)(*inputs)
        return output

    def backward(self, function: Callable[..., Tensor], *grad_outputs: Tensor, **options: bool) -> Tensor:
        """Time a module's backward."""
        grad_input: Tensor = self.timed(function)(*grad_outputs, **options)
        return grad_input


class StepClock(Listener):
    """A metric sink and a listener of the training that keeps times only.

    Attributes:
        first: when the first step began.
        last: when the last step ended.
        arithmetic: seconds of the stopwatch between the two; the validations before and after do not count.
    """

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch
        self.first = self.last = self.arithmetic = 0.0

    def metric(self, key: str, value: float, step: int, *, every_step: bool = False) -> None:
        """Keep nothing."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Keep nothing."""

    def sync(self) -> None:
        """Send nothing."""

    def on_step_end(self, step: int, loss: float) -> None:  # noqa: ARG002 (a listener's arguments)
        """Note that a step has ended."""
        self.last, self.arithmetic = time.perf_counter(), self.watch.seconds

    def on_epoch(self, epoch: int, scores: Mapping[str, float]) -> None:  # noqa: ARG002
        """Begin after the validation that stands before the first step."""
        if not epoch:
            self.watch.seconds = 0.0
            self.first = time.perf_counter()


def measure(settings: BenchSettings) -> PartResult:
    """One epoch of the training, and `train --help` a few times."""
    shares = train(settings)
    times = [start_s() for _ in range(1 if settings.smoke else 5)]
    start = Quartiles.from_values(times)
    figures = {**{f"loop/{name}": value for name, value in shares.items()}, "loop/help_s": start.median}
    rows = [
        (
            "arithmetic, first to last step",
            f"{shares['arithmetic_share']:.1%}",
            goal_text("loop/arithmetic_share", shares["arithmetic_share"]),
        ),
        ("the same, as fast as with no drawing beside", f"{shares['undisturbed_share']:.1%}", ""),
        ("with the epoch's validation and checkpoint", f"{shares['arithmetic_share_of_epoch']:.1%}", ""),
        ("a step", f"{shares['step_ms']:.2f} ms", ""),
        ("a batch, drawn alone", f"{shares['batch_ms']:.2f} ms", ""),
        (f"a step watched by the diagnosis, {shares['watched_steps']:.0f} in all", f"{shares['watch_ms']:.2f} ms", ""),
        (
            "the diagnosis, of the whole training's loop",
            f"{shares['diagnosis_share']:.1%}",
            goal_text("loop/diagnosis_share", shares["diagnosis_share"]),
        ),
        (
            f"python -m scratch_dl.train --help, of {len(times)}",
            f"{start.median:.2f} s",
            goal_text("loop/help_s", start.median),
        ),
    ]
    legend = f"one epoch, {shares['steps']:.0f} steps; forward, loss, backward and optimizer; nothing is recorded"
    table = TextTable("Training loop of experiment=paper_sgd", legend, 1, ("", "", "goal"), rows)
    return PartResult("loop", settings.threads, figures, table, [{**shares, "help_s": times}])


def train(settings: BenchSettings) -> dict[str, float]:
    """Train one epoch; shares of the network's arithmetic in it: both passes, the loss, zero_grad and the update.

    The training does not clip gradients, so that there is nothing else to time.
    """
    preset = ["experiment=paper_sgd", f"seed={settings.seed}"]
    overrides = [*preset, "trainer.epochs=1", *(_SMOKE if settings.smoke else ())]
    setup, watch = build(compose_config("train", overrides)), Stopwatch()
    clock = StepClock(watch)
    setup.data.describe()  # reads the pictures before the first step, as a run does
    for part, methods in ((setup.optimizer, ("zero_grad", "step")), (setup.loss, ("forward", "backward"))):
        for name in methods:
            setattr(part, name, watch.timed(getattr(part, name)))
    with tempfile.TemporaryDirectory() as folder, nn.observing([(setup.network, watch)]):
        run = loop.Training(setup, Path(folder), clock, clock, 0.0)
        steps = run.fit().step
        whole, between = time.perf_counter() - clock.first, clock.last - clock.first
        # Drawing batches beside it may slow a step down, which the stopwatch alone would count as arithmetic.
        some, run.progress.step, watch.seconds = min(steps, _ALONE), 0, 0.0
        start = time.perf_counter()
        for number in range(some):
            batch = run.batch(number)
        drawn = time.perf_counter() - start
        with torch.no_grad():
            for _ in range(some):
                run.take_step(batch)
        alone = watch.seconds
    step_ms = 1e3 * between / steps
    whole_training = compose_config("train", preset)
    total = build(whole_training).trainer.epochs * steps
    watched = sum(signals.is_due(step, setup.diagnosis.every) for step in range(total))
    watch_ms = _watch_ms(build(whole_training))
    return {
        "watch_ms": watch_ms,
        "watched_steps": watched,
        "diagnosis_share": watched * watch_ms / (total * step_ms),
        "arithmetic_share": clock.arithmetic / between,
        "undisturbed_share": alone / some * steps / between,
        "arithmetic_share_of_epoch": clock.arithmetic / whole,
        "step_ms": step_ms,
        "batch_ms": 1e3 * drawn / some,
        "steps": steps,
    }


def _watch_ms(setup: Setup) -> float:
    """Median milliseconds that the diagnosis takes to watch a step."""
    batch = Batch(*setup.data.batch(0, setup.trainer.batch_size, setup.seed))
    times = []
    for _ in range(_WATCHED):
        start = time.perf_counter()
        signals.watch(setup.network, setup.optimizer, setup.loss, batch)
        times.append(1e3 * (time.perf_counter() - start))
    return Quartiles.from_values(times).median


def start_s() -> float:
    """Seconds that `python -m scratch_dl.train --help` takes in a new process.

    Raises:
        RuntimeError: if it fails.
    """
    start = time.perf_counter()
    command = [sys.executable, "-m", "scratch_dl.train", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"python -m scratch_dl.train --help failed with {done.returncode}: {done.stderr[-200:]!r}")
    return time.perf_counter() - start
