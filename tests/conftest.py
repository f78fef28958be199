"""What tests all over the tree share: one thread, and a seeded generator of their own."""

import sys

import pytest
import torch


def pytest_configure():
    """One thread: on tensors of this size more of them wait for one another, eight times as long on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def users_modules_are_forgotten():
    """Tests write a `my_layers.py` each into a folder of their own: none finds another one's."""
    yield
    sys.modules.pop("my_layers", None)


@pytest.fixture
def generator():
    """A generator of the test's own, so that no test depends on what ran before it."""
    return torch.Generator().manual_seed(20240607)
