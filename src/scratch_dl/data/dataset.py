"""What the training and the evaluation need from a data set."""

import hashlib
from typing import Any, NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from scratch_dl.system.checks import Pair


class DataError(ValueError):
    """Data that cannot be used; the line names the file or tensor, what it is, and what it should be."""


class Photograph(NamedTuple):
    """A whole picture, (3, H, W) float32: noisy (not clipped) and clean (in [0, 1])."""

    name: str
    noisy: Tensor
    clean: Tensor


class DataSet(Protocol):
    """Noisy and clean images. The constructor reads no pixel; every draw has its own generator.

    A training calls `batch` in a thread of its own, one call at a time.
    """

    name: str
    crop_size: tuple[int, int]

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over the pixels and every setting that changes what evaluation sees."""

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of pictures and crops, by their purpose."""

    @property
    def licence(self) -> str:
        """The licences of the pictures."""

    @property
    def validation(self) -> tuple[Tensor, Tensor]:
        """(noisy, clean), each (n, 3, h, w): fixed crops with fixed noise."""

    def describe(self) -> dict[str, Any]:
        """Return the description of the data that a run records."""

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return how many batches an epoch has."""

    def batch(self, step: int, batch_size: int, seed: int) -> tuple[Tensor, Tensor]:
        """(input, target) of a training step, each (n, 3, h, w): a function of step and seed alone."""

    def photograph_sizes(self, split: str) -> dict[str, Pair]:
        """Name -> (H, W) of what `photographs` will return, known without reading a pixel."""

    def photographs(self, split: str) -> list[Photograph]:
        """Whole pictures with fixed noise; split "validation" or "test". Nothing else reads the test pictures."""


def generator_of(*parts: object) -> Generator:
    """Return a generator whose seed is computed from the parts, the same on every machine."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=False) >> 1)
