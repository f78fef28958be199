"""What many tests run over: dtypes, backends, seeds; those that repeat a claim are marked as exhaustive."""

import pytest
import torch

from scratch_dl import kernels

DTYPES = [pytest.param(torch.float64, id="float64"), pytest.param(torch.float32, id="float32")]


def exhaustive(*values, **options):
    """A parameter set that only `pytest -m exhaustive` runs."""
    return pytest.param(*values, **options, marks=pytest.mark.exhaustive)


_native = [f"native {name}" for name in getattr(kernels.load(), "offered", ())]  # the one that is taken comes first
BACKENDS = ["reference", *_native[:1], *map(exhaustive, _native[1:])]

SEEDS = pytest.mark.parametrize("seeds", [pytest.param(range(3), id="few"), exhaustive(range(3, 20), id="many")])
