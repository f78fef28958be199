"""Seeds the global random states for a block of code, and restores them afterwards."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(*words: object) -> Iterator[None]:
    """Inside the block, the random states of torch (on the CPU), NumPy and Python depend only on `words`."""
    digest = hashlib.sha256(" ".join(map(str, words)).encode()).digest()
    before = torch.default_generator.get_state(), np.random.get_state(), random.getstate()  # noqa: NPY002 (the global one)
    try:
        torch.default_generator.manual_seed(int.from_bytes(digest[:7]))
        np.random.seed(int.from_bytes(digest[7:11]))  # noqa: NPY002
        random.seed(digest)
        yield
    finally:
        torch.default_generator.set_state(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        random.setstate(before[2])
