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


@pytest.fixture
def generator():
    """A generator of the test's own, so that no test depends on what ran before it."""
    return torch.Generator().manual_seed(20240607)
