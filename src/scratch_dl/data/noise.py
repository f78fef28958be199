"""Noise: from clean images to noisy ones, never clipped, drawn from the generator given.

`clean` is (n, 3, h, w) in [0, 1]; `subpixels` is (n, k, 3, h, w), the k original pixels whose mean a clean pixel is,
where the picture was shrunk, else None.
"""

from typing import Protocol

import torch
from torch import Generator, Tensor

from scratch_dl.system.checks import real


class Noise(Protocol):
    """What a data set asks of a noise."""

    name: str
    needs_subpixels: bool

    def __call__(self, clean: Tensor, subpixels: Tensor | None, generator: Generator) -> Tensor:
        """(n, 3, h, w) -> the same."""


class Gaussian:
    """Adds N(0, std^2) to every number.

    Args:
        std: in pixel units, where white is 1; > 0.
    """

    name, needs_subpixels = "gaussian", False

    def __init__(self, std: float) -> None:
        self.std = real("std", std, above=0)

    def __call__(self, clean: Tensor, subpixels: Tensor | None, generator: Generator) -> Tensor:  # noqa: ARG002
        """(n, 3, h, w) -> the same."""
        return torch.randn(clean.shape, generator=generator).mul_(self.std).add_(clean)

    def __repr__(self) -> str:
        return f"Gaussian(std={self.std:g})"


class Pixelation:
    """Takes one of the original pixels at random instead of their mean, as the course's data do.

    The noise has mean zero and heavy tails, and is strongest at edges.
    """

    name, needs_subpixels = "pixelation", True

    def __call__(self, clean: Tensor, subpixels: Tensor | None, generator: Generator) -> Tensor:
        """(n, 3, h, w) -> the same."""
        if subpixels is None:
            raise ValueError("pixelation needs the original pixels, so data.downsample must be >= 2")
        n, k, _, h, w = subpixels.shape
        chosen = torch.randint(k, (n, 1, 1, h, w), generator=generator)
        return subpixels.gather(1, chosen.expand(n, 1, clean.shape[1], h, w))[:, 0]

    def __repr__(self) -> str:
        return "Pixelation()"


class Poisson:
    """Counts photons: each number becomes a Poisson draw of mean number x peak, divided by the peak.

    Args:
        peak: photons at white; > 0.
    """

    name, needs_subpixels = "poisson", False

    def __init__(self, peak: float) -> None:
        self.peak = real("peak", peak, above=0)

    def __call__(self, clean: Tensor, subpixels: Tensor | None, generator: Generator) -> Tensor:  # noqa: ARG002
        """(n, 3, h, w) -> the same."""
        return torch.poisson(clean * self.peak, generator=generator).div_(self.peak)

    def __repr__(self) -> str:
        return f"Poisson(peak={self.peak:g})"


class SaltPepper:
    """Turns a share of the numbers into 0 or 1, each as often.

    Args:
        probability: of a number to be replaced; in (0, 1].
    """

    name, needs_subpixels = "salt_pepper", False

    def __init__(self, probability: float) -> None:
        self.probability = real("probability", probability, above=0, maximum=1)

    def __call__(self, clean: Tensor, subpixels: Tensor | None, generator: Generator) -> Tensor:  # noqa: ARG002
        """(n, 3, h, w) -> the same."""
        draw = torch.rand(clean.shape, generator=generator)
        low, high = self.probability / 2, 1 - self.probability / 2
        return torch.where(draw < low, 0.0, torch.where(draw >= high, 1.0, clean))

    def __repr__(self) -> str:
        return f"SaltPepper(probability={self.probability:g})"


class Recorded:
    """No noise is added: the data bring their own. Only for data=course."""

    name, needs_subpixels = "recorded", False

    def __call__(self, clean: Tensor, subpixels: Tensor | None, generator: Generator) -> Tensor:
        """Refuses: there is nothing to add.

        Raises:
            ValueError: always.
        """
        del clean, subpixels, generator
        raise ValueError("noise=recorded adds no noise; choose another one for data that are clean")

    def __repr__(self) -> str:
        return "Recorded()"
