"""The modules of the paper's tables, each with its twin of torch.nn."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator

from scratch_dl import nn
from scratch_dl.verification.counterparts import pytorch_twin

SHAPE = (100, 3, 10, 10)

Figure = tuple[float, float]
"""Mean and standard deviation, as the paper prints them."""


@dataclass(frozen=True)
class TableModule:
    """A module under test.

    Attributes:
        name: in the names of metrics.
        label: in tables.
        own: draws a hand-written module.
        paper_us: the paper's microseconds per forward, own and PyTorch's; None for what it left out.
        low: inputs are drawn from U(low, low + 1).
    """

    name: str
    label: str
    own: Callable[[Generator], nn.Module]
    paper_us: tuple[Figure, Figure] | None
    low: float = 0.0

    def pair(self, generator: Generator) -> tuple[nn.Module, torch.nn.Module]:
        """A hand-written module and its twin with the same weights."""
        own = self.own(generator)
        return own, pytorch_twin(own)

    def input(self, generator: Generator) -> torch.Tensor:
        """(100, 3, 10, 10), float32, from U(low, low + 1)."""
        return torch.rand(SHAPE, generator=generator) + self.low


_UPSAMPLING_US = (353.9, 49.0), (73.3, 5.3)
# Each `own` looks its class up when it is called, so that a test can put a broken one there. The paper prints neither
# channels nor kernels, nor which of the two its Upsampling is.
TABLE_MODULES = (
    TableModule("relu", "ReLU", lambda _: nn.ReLU(), ((17.8, 3.8), (4.5, 0.7)), low=-0.5),
    TableModule("sigmoid", "Sigmoid", lambda _: nn.Sigmoid(), ((35.8, 4.8), (3.2, 0.2))),
    TableModule("mse", "MSE", lambda _: nn.MSELoss(), ((25.8, 2.24), (44.2, 4.6))),
    TableModule("conv2d", "Conv2d", lambda g: nn.Conv2d(3, 8, 3, generator=g), ((121.8, 13.9), (48.4, 5.2))),
    TableModule(
        "upsampling_nearest", "Upsampling nearest", lambda g: nn.Upsampling(3, 8, 3, generator=g), _UPSAMPLING_US
    ),
    TableModule(
        "upsampling_transposed",
        "Upsampling transp.",
        lambda g: nn.Upsampling(3, 8, 4, mode="transposed", generator=g),
        _UPSAMPLING_US,
    ),
    TableModule(
        "conv_transpose2d", "ConvTranspose2d", lambda g: nn.ConvTranspose2d(3, 8, 3, stride=2, generator=g), None
    ),
)
