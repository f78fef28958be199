"""What tests all over the tree share: one thread, and a seeded generator of their own."""

import pytest
import torch


def pytest_configure():
    """One thread: on tensors of this size more of them wait for one another, eight times as long on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def generator():
    """A generator of the test's own, so that no test depends on what ran before it."""
    return torch.Generator().manual_seed(20240607)
