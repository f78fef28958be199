"""What tests all over the tree share: one thread, and a seeded generator of their own."""

import os
import sys

import pytest
import torch


def pytest_configure():
    """One thread: on tensors of this size more of them wait for one another, eight times as long on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    """Of one test for the next: a user's `my_layers` of its own folder, and what a command run here tells Hydra."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    yield
    sys.modules.pop("my_layers", None)
    os.environ.pop("HYDRA_FULL_ERROR", None)
    if before is not None:
        os.environ["HYDRA_FULL_ERROR"] = before


@pytest.fixture(scope="session")
def killed_at():
    """A step -> a program that trains by its arguments, and is killed by SIGKILL before that step."""
    program = """
import os, signal, sys
from scratch_dl import training
step = training.Training._step
def killing(self, batch):
    if self.progress.step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, batch)
training.Training._step = killing
from scratch_dl import train
sys.argv = ["train", *sys.argv[1:]]
train.main()
"""
    return lambda step: program.format(step=step)


@pytest.fixture
def in_process(monkeypatch, capsys):
    """Runs a command's main in this process, as typed with the arguments: (exit status, stdout, stderr)."""

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
        try:
            module.main()
        except SystemExit as stop:
            status = stop.code
        else:
            status = 0
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def generator():
    """A generator of the test's own, so that no test depends on what ran before it."""
    return torch.Generator().manual_seed(20240607)
