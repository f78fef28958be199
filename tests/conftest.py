"""What tests all over the tree share: a seeded generator of their own."""

import pytest
import torch


@pytest.fixture
def generator():
    """A generator of the test's own, so that no test depends on what ran before it."""
    return torch.Generator().manual_seed(20240607)
