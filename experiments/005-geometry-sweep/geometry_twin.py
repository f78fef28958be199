"""PyTorch twins: the same trainings by torch.nn, autograd and torch.optim."""

import math
import time
from functools import partial

import torch
from geometry_plan import SPLITS, STUDY, build_setup

from _jobs import run_jobs
from scratch_dl import kernels
from scratch_dl.evaluation import scoring
from scratch_dl.training import checkpoint
from scratch_dl.verification.counterparts import check_equal, in_channels_last, pytorch_optimizer, pytorch_twin

PROGRESS_INTERVAL_S = 60.0
_COUNTERS = ("step", "seconds", "best", "best_step", "best_psnr_db")


class Twin:
    """A training with the weights, batches, learning rates and choice of the best epoch of the own network's.

    After every epoch everything is written to a file, from which an interrupted training continues.

    Args:
        name: of the training.
        overrides: those of the own network's training.
        directory: tracking.dir.

    Attributes:
        model: torch.nn's network.
        network: an own network of the same shape, in which the model is scored.
        step: the number of updates so far.
        seconds: that the updates took.
        best: the model's state with the highest PSNR on the validation crops.
        best_step, best_psnr_db: when that was, and the PSNR.
    """

    def __init__(self, name, overrides, directory):
        self.name, self.overrides, self.directory = name, list(overrides), directory
        self.setup = build_setup(overrides)
        kernels.use(self.setup.backend)
        self.network = self.setup.network
        self.model = in_channels_last(pytorch_twin(self.network))
        self.optimizer = pytorch_optimizer(self.setup.optimizer, self.model.parameters())
        self.base_lr = self.setup.optimizer.lr
        self.per_epoch = self.setup.data.steps_per_epoch(self.setup.trainer.batch_size)
        self.total = self.per_epoch * self.setup.trainer.epochs
        self.step, self.seconds, self.best_psnr_db, self.best_step, self.best = 0, 0.0, -math.inf, 0, {}
        self.file = directory / "twins" / f"{name}.pt"

    def train(self, epochs=None):
        """Train to the end, or for some epochs, from where an earlier attempt stopped; return the twin."""
        if not self._restore():
            self._check()
            self._validate()
        last = began = time.monotonic()
        end = self.total if epochs is None else min(self.total, self.step + epochs * self.per_epoch)
        while self.step < end:
            self._train_epoch()
            self._validate()
            self._save()
            if time.monotonic() - last > PROGRESS_INTERVAL_S:
                last = time.monotonic()
                print(
                    f"  twin {self.name}: step {self.step} of {self.total}, best {self.best_psnr_db:.2f} dB, "
                    f"{(last - began) / 60:.0f} minutes",
                    flush=True,
                )
        return self

    def result(self):
        """Return the line of the twins' file: the best weights' scores, computed like those of the own network."""
        self.model.load_state_dict(self.best)
        self.copy_into_network()
        scores, setup, cache = {}, self.setup, self.directory / "cache"
        for split in SPLITS:
            scores |= scoring.evaluate_photographs(setup.data, self.network, split, cache, setup.metrics)[0]
        return {
            "name": self.name,
            "overrides": self.overrides,
            "scores": scores,
            "best_psnr_db": self.best_psnr_db,
            "best_step": self.best_step,
            "training_s": round(self.seconds, 1),
        }

    @torch.no_grad()
    def copy_into_network(self):
        """Copy the model's parameters into the own network."""
        for own, theirs in zip(self.network.parameters(), self.model.parameters(), strict=True):
            own.value.copy_(theirs)

    def _train_epoch(self):
        setup, loss, began = self.setup, torch.nn.MSELoss(), time.perf_counter()
        for _ in range(self.per_epoch):
            pair = setup.data.batch(self.step, setup.trainer.batch_size, setup.seed)
            input, target = (images.contiguous(memory_format=torch.channels_last) for images in pair)
            for group in self.optimizer.param_groups:
                group["lr"] = self.base_lr * setup.schedule.factor(self.step / self.total)
            self.optimizer.zero_grad()
            with torch.enable_grad():
                error = loss(self.model(input), target)
            error.backward()
            self.optimizer.step()
            self.step += 1
        self.seconds += time.perf_counter() - began

    def _validate(self):
        noisy, clean = self.setup.data.validation
        self.copy_into_network()
        psnr = scoring.score(scoring.denoise(self.network, noisy), clean).psnr_db
        if psnr > self.best_psnr_db:
            self.best_psnr_db, self.best_step = psnr, self.step
            self.best = {key: value.clone() for key, value in self.model.state_dict().items()}

    @torch.no_grad()
    def _check(self):
        """Raise UnequalError if the twin does not begin as the own network does."""
        noisy = self.setup.data.validation[0][:4]
        check_equal(self.name, (scoring.denoise(self.network, noisy), []), (self.model(noisy), []))

    def _save(self):
        state = {"overrides": self.overrides, **{name: getattr(self, name) for name in _COUNTERS}}
        state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        checkpoint.save(self.file, state)

    def _restore(self):
        """Load the file, and return whether there was one of the same training."""
        if not self.file.is_file():
            return False
        state = checkpoint.load(self.file)
        if state["overrides"] != self.overrides:
            return False
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in _COUNTERS:
            setattr(self, name, state[name])
        return True


def train_twins(points, workers, directory):
    """Return each twin's result by its name; those that are not in the twins' file are trained."""
    file = directory / "studies" / f"{STUDY}-twins.jsonl"
    jobs = {point.name: list(point.overrides) for point in points}
    return run_jobs(file, jobs, partial(_train_twin, directory), _is_done, workers)


def _train_twin(directory, name, overrides):
    torch.set_num_threads(1)
    return Twin(name, overrides, directory).train().result()


def _is_done(entry, overrides):
    return entry["overrides"] == overrides
