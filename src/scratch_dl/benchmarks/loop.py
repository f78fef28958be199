"""The default training: how much of its time is the network's arithmetic, and how long its command takes to start."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch
from torch import Tensor

from scratch_dl import nn
from scratch_dl.benchmarks.outcome import Outcome, told
from scratch_dl.benchmarks.settings import Settings
from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config
from scratch_dl.config.schema import Setup
from scratch_dl.diagnosis import signals
from scratch_dl.models import Denoiser
from scratch_dl.optim import clip_grad_norm
from scratch_dl.system.timing import Quartiles
from scratch_dl.terminal.text_table import TextTable
from scratch_dl.training import loop
from scratch_dl.training.events import Listener
from scratch_dl.verification.trace import Batch

_SMOKE = ("data.crops_per_epoch=16", "data.crop_size=8", "data.validation_crops=2", "model.channels=[2,2,2]")
_TIMEOUT_S = 120.0
_ALONE = 200  # steps
_WATCHED = 30  # steps


class Stopwatch:
    """Seconds within the functions it watches, which do not call one another."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time added up."""

        def watched(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - start

        return watched


class Watched:
    """Stands in a module's place; its call is watched, and its backward, from outside, so that it runs as ever."""

    def __init__(self, module: nn.Module, watch: Stopwatch) -> None:
        self.module = module
        self._call, self.backward = watch.watch(module), watch.watch(module.backward)

    def __call__(self, *inputs: Tensor) -> Any:
        """The module's output."""
        return self._call(*inputs)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the module's."""
        return getattr(self.module, name)


def gradients(network: Watched, grad_output: Tensor) -> Tensor:
    """What a training calls for its backward, of the module itself: it leaves out what no training needs."""
    return nn.parameter_gradients(network.module, grad_output)


class Silent(Listener):
    """A metric sink and a listener that keep nothing but when the first step began and the last one ended."""

    def __init__(self) -> None:
        self.first = self.last = 0.0

    def metric(self, key: str, value: float, step: int) -> None:
        """Nothing is kept."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Nothing is kept."""

    def sync(self) -> None:
        """Nothing is sent."""

    def on_step_end(self, step: int, loss: float) -> None:  # noqa: ARG002 (a listener's arguments)
        """A step has been taken."""
        self.last = time.perf_counter()

    def on_epoch(self, epoch: int, scores: Mapping[str, float]) -> None:  # noqa: ARG002
        """A validation is over; the first one comes before the first step."""
        if not epoch:
            self.first = time.perf_counter()


def measure(settings: Settings) -> Outcome:
    """One epoch of the default training, and `train --help` a few times."""
    shares = train(settings)
    times = [start_s() for _ in range(1 if settings.smoke else 5)]
    start = Quartiles.of(times)
    figures = {**{f"loop/{name}": value for name, value in shares.items()}, "loop/help_s": start.median}
    rows = [
        ("arithmetic, first to last step", f"{shares['arithmetic_share']:.1%}",
         told("loop/arithmetic_share", shares["arithmetic_share"])),
        ("the same, as fast as with no drawing beside", f"{shares['undisturbed_share']:.1%}", ""),
        ("with the epoch's validation and checkpoint", f"{shares['arithmetic_share_of_epoch']:.1%}", ""),
        ("a step", f"{shares['step_ms']:.2f} ms", ""),
        ("a batch, drawn alone", f"{shares['batch_ms']:.2f} ms", ""),
        (f"a step watched by the diagnosis, {shares['watched_steps']:.0f} in all", f"{shares['watch_ms']:.2f} ms", ""),
        ("the diagnosis, of the whole training's loop", f"{shares['diagnosis_share']:.1%}",
         told("loop/diagnosis_share", shares["diagnosis_share"])),
        (f"python -m scratch_dl.train --help, of {len(times)}", f"{start.median:.2f} s",
         told("loop/help_s", start.median)),
    ]  # fmt: skip
    legend = f"one epoch, {shares['steps']:.0f} steps; forward, loss, backward and optimizer; nothing is recorded"
    table = TextTable("Default training", legend, 1, ("", "", "goal"), rows)
    return Outcome("loop", settings.threads, figures, table, [{**shares, "help_s": times}])


def train(settings: Settings) -> dict[str, float]:
    """Train one epoch; shares of the network's arithmetic (zero_grad and update included) in it.

    All is called as ever, but through a stopwatch.
    """
    overrides = [f"seed={settings.seed}", "trainer.epochs=1", *(_SMOKE if settings.smoke else ())]
    setup, watch, silent = build(compose_config("train", overrides)), Stopwatch(), Silent()
    setup.data.describe()  # as a session does: the pictures are read before the first step
    setup.network = cast(Denoiser, Watched(setup.network, watch))
    for name in ("zero_grad", "step"):
        setattr(setup.optimizer, name, watch.watch(getattr(setup.optimizer, name)))
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(loop, "parameter_gradients", watch.watch(gradients)),
        mock.patch.object(loop, "clip_grad_norm", watch.watch(clip_grad_norm)),
    ):
        run = loop.Training(setup, Path(folder), silent, silent, 0.0)
        run.loss = cast(nn.MSELoss, Watched(run.loss, watch))
        steps = run.fit().step
        whole, arithmetic = time.perf_counter() - silent.first, watch.seconds
        between = silent.last - silent.first
        # Drawing beside it may slow it down, which the stopwatch alone would count as arithmetic.
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
    whole_training = compose_config("train", overrides[:1])
    total = build(whole_training).trainer.epochs * steps
    watched = sum(signals.is_due(step, setup.diagnosis.every) for step in range(total))
    watch_ms = _watch_ms(build(whole_training))
    return {
        "watch_ms": watch_ms,
        "watched_steps": watched,
        "diagnosis_share": watched * watch_ms / (total * step_ms),
        "arithmetic_share": arithmetic / between,
        "undisturbed_share": alone / some * steps / between,
        "arithmetic_share_of_epoch": arithmetic / whole,
        "step_ms": step_ms,
        "batch_ms": 1e3 * drawn / some,
        "steps": steps,
    }


def _watch_ms(setup: Setup) -> float:
    """Milliseconds in which the diagnosis watches a step; the median of some."""
    batch = Batch(*setup.data.batch(0, setup.trainer.batch_size, setup.seed))
    times = []
    for _ in range(_WATCHED):
        start = time.perf_counter()
        signals.watch(setup.network, setup.optimizer, setup.loss, batch)
        times.append(1e3 * (time.perf_counter() - start))
    return Quartiles.of(times).median


def start_s() -> float:
    """Seconds that `python -m scratch_dl.train --help` takes in a process of its own.

    Raises:
        RuntimeError: if it fails.
    """
    start = time.perf_counter()
    command = [sys.executable, "-m", "scratch_dl.train", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"python -m scratch_dl.train --help failed with {done.returncode}: {done.stderr[-200:]!r}")
    return time.perf_counter() - start
