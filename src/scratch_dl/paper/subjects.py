"""The modules of the paper's tables, each with its twin of torch.nn."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator

from scratch_dl import nn

SHAPE = (100, 3, 10, 10)

Figure = tuple[float, float]
"""Mean and standard deviation, as the paper prints them."""


@dataclass(frozen=True)
class Subject:
    """A module under test.

    Attributes:
        name: in the names of metrics.
        label: in tables.
        own: draws a hand-written module.
        twin: makes the same module of torch.nn, its parameters in the same order.
        paper_us: the paper's microseconds per forward, own and PyTorch's; None for what it left out.
        low: inputs are drawn from U(low, low + 1).
    """

    name: str
    label: str
    own: Callable[[Generator], nn.Module]
    twin: Callable[[], torch.nn.Module]
    paper_us: tuple[Figure, Figure] | None
    low: float = 0.0

    def pair(self, generator: Generator) -> tuple[nn.Module, torch.nn.Module]:
        """A hand-written module and its twin with the same weights."""
        own = self.own(generator)
        # On the device "meta" nothing is drawn, so that torch's global generator stays as it is.
        with torch.device("meta"):
            twin = self.twin()
        twin.to_empty(device="cpu")
        with torch.no_grad():
            for parameter, like in zip(twin.parameters(), own.parameters(), strict=True):
                parameter.copy_(like.value)
        return own, twin

    def input(self, generator: Generator) -> torch.Tensor:
        """(100, 3, 10, 10), float32, from U(low, low + 1)."""
        return torch.rand(SHAPE, generator=generator) + self.low


# Each `own` looks its class up when it is called, so that a test can put a broken one there. The paper prints neither
# channels nor kernels, nor which of the two its Upsampling is.
SUBJECTS = (
    Subject("relu", "ReLU", lambda _: nn.ReLU(), torch.nn.ReLU, ((17.8, 3.8), (4.5, 0.7)), low=-0.5),
    Subject("sigmoid", "Sigmoid", lambda _: nn.Sigmoid(), torch.nn.Sigmoid, ((35.8, 4.8), (3.2, 0.2))),
    Subject("mse", "MSE", lambda _: nn.MSELoss(), torch.nn.MSELoss, ((25.8, 2.24), (44.2, 4.6))),
    Subject("conv2d", "Conv2d", lambda g: nn.Conv2d(3, 8, 3, generator=g), lambda: torch.nn.Conv2d(3, 8, 3),
            ((121.8, 13.9), (48.4, 5.2))),
    Subject("upsampling_nearest", "Upsampling nearest", lambda g: nn.Upsampling(3, 8, 3, generator=g),
            lambda: torch.nn.Sequential(torch.nn.Upsample(scale_factor=2), torch.nn.Conv2d(3, 8, 3, padding=1)),
            ((353.9, 49.0), (73.3, 5.3))),
    Subject("upsampling_transposed", "Upsampling transp.",
            lambda g: nn.Upsampling(3, 8, 4, mode="transposed", generator=g),
            lambda: torch.nn.ConvTranspose2d(3, 8, 4, stride=2, padding=1), ((353.9, 49.0), (73.3, 5.3))),
    Subject("conv_transpose2d", "ConvTranspose2d", lambda g: nn.ConvTranspose2d(3, 8, 3, stride=2, generator=g),
            lambda: torch.nn.ConvTranspose2d(3, 8, 3, stride=2), None),
)  # fmt: skip
