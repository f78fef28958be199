"""Initial weights, each with its source. All draws come from the generator given, or else from torch's own.

`fan_in` and `fan_out` count the products that meet in one output and the outputs that one input reaches.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from scratch_dl.nn.module import Parameter
from scratch_dl.system.checks import choice

Initialiser = Callable[[tuple[int, ...], tuple[int, int], Generator | None], tuple[Tensor, float]]
"""(shape, (fan_in, fan_out), generator) -> the weight, and the bound of the uniform bias (0: a bias of zeros)."""


def pytorch_default(
    shape: tuple[int, ...], fans: tuple[int, int], generator: Generator | None = None
) -> tuple[Tensor, float]:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weight and bias: what torch.nn's convolutions do.

    Kaiming uniform (He et al. 2015, arXiv 1502.01852) with a leaky slope of sqrt(5); seeded alike it draws
    PyTorch's numbers.
    """
    bound = 1 / math.sqrt(fans[0])
    return _uniform(shape, bound, generator), bound


def he(shape: tuple[int, ...], fans: tuple[int, int], generator: Generator | None = None) -> tuple[Tensor, float]:
    """N(0, 2 / fan_in), bias 0: keeps the variance through ReLUs (He et al. 2015, arXiv 1502.01852, eq. 10)."""
    return torch.empty(shape).normal_(0.0, math.sqrt(2 / fans[0]), generator=generator), 0.0


def xavier(shape: tuple[int, ...], fans: tuple[int, int], generator: Generator | None = None) -> tuple[Tensor, float]:
    """U(-a, a) with a = sqrt(6 / (fan_in + fan_out)), bias 0 (Glorot and Bengio 2010, AISTATS, eq. 16)."""
    return _uniform(shape, math.sqrt(6 / sum(fans)), generator), 0.0


INITIALISERS: dict[str, Initialiser] = {"pytorch": pytorch_default, "he": he, "xavier": xavier}


def initialise(
    weight: Parameter, bias: Parameter | None, scheme: str, fans: tuple[int, int], generator: Generator | None
) -> None:
    """Draw a weight and its bias anew by one of the INITIALISERS; dtype and device stay."""
    value, bound = INITIALISERS[choice("scheme", scheme, INITIALISERS)](tuple(weight.shape), fans, generator)
    weight.value = value.to(weight.value)
    if bias is not None:
        value = _uniform(tuple(bias.shape), bound, generator) if bound else torch.zeros(bias.shape)
        bias.value = value.to(bias.value)


def _uniform(shape: tuple[int, ...], bound: float, generator: Generator | None) -> Tensor:
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
