"""What the 0.249991 of the paper's Table II may be: ways to read its Sigmoid, and the figure that each one gives."""

import math
import statistics
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name)
from collapse_plan import BATCH, healthy_point

from scratch_dl import nn
from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config
from scratch_dl.faults.modules import SigmoidAtUpstream, SigmoidWrongForm

PRINTED, PRINTED_STD = 0.249991, 0.000001
SHAPE = (100, 3, 10, 10)
PIXELS = 300  # in one sample of SHAPE
DRAWS = {"U(0, 1)": torch.rand, "N(0, 1)": torch.randn, "zeros": lambda shape, generator: torch.zeros(shape)}  # noqa: ARG005


class GradientForgotten(nn.Sigmoid):
    """dL/dX = s (1 - s) at s = sigmoid(X): the incoming gradient is forgotten."""

    def backward(self, grad_output):  # noqa: ARG002
        (output,) = self._take()
        return output * (1 - output)


class SigmoidTwice(nn.Sigmoid):
    """dL/dX = sigma'(sigmoid(X)): sigma' of what is a sigmoid already, the incoming gradient forgotten."""

    def backward(self, grad_output):  # noqa: ARG002
        (output,) = self._take()
        s = torch.sigmoid(output)
        return s * (1 - s)


class SigmoidTwiceTimesGradient(nn.Sigmoid):
    """dL/dX = G sigma'(sigmoid(X)): SigmoidTwice, multiplied by the incoming gradient."""

    def backward(self, grad_output):
        (output,) = self._take()
        s = torch.sigmoid(output)
        return grad_output * s * (1 - s)


class OtherFormula(nn.Sigmoid):
    """The right gradient, with the sigmoid as e^X / (1 + e^X) for every X: what the paper suspects."""

    def forward(self, input):
        super().forward(input)
        self._output = input.exp() / (1 + input.exp())
        return self._output

    def backward(self, grad_output):
        self._take()
        return grad_output * self._output * (1 - self._output)


# name -> the module, by how much the loss's gradient is larger than that of a mean over all elements, the formula
READINGS = {
    "right": (nn.Sigmoid, 1, "G sigma'(X)"),
    "F1": (SigmoidAtUpstream, 1, "sigma'(G)"),
    "F1, pixels summed": (SigmoidAtUpstream, PIXELS, "sigma'(300 G)"),
    "upstream forgotten": (GradientForgotten, 1, "sigma'(X)"),
    "sigma' twice": (SigmoidTwice, 1, "sigma'(sigma(X))"),
    "sigma' twice, times G": (SigmoidTwiceTimesGradient, 1, "G sigma'(sigma(X))"),
    "wrong form": (SigmoidWrongForm, 1, "G sigma(X)"),
    "the other formula": (OtherFormula, 1, "right, e^X / (1 + e^X)"),
}
NOT_IN_CATALOGUE = ("upstream forgotten", "sigma' twice", "sigma' twice, times G")


@dataclass(frozen=True)
class Difference:
    """Mean and standard deviation over draws of the mean |dL/dX ours - PyTorch's|, both float32.

    Attributes:
        reading: a key of READINGS.
        inputs, targets: keys of DRAWS.
        mean, std: over the draws.
    """

    reading: str
    inputs: str
    targets: str
    mean: float
    std: float

    @property
    def fits(self):
        """Whether the printed figure lies within its own deviation and this one's."""
        return abs(self.mean - PRINTED) <= PRINTED_STD + self.std


def measure_difference(reading, inputs, targets, draws):
    """Return the figure that Table II would have under this reading."""
    kind, factor, _ = READINGS[reading]
    generator, values = torch.Generator().manual_seed(0), []
    for _ in range(draws):
        input = DRAWS[inputs](SHAPE, generator=generator)
        target = DRAWS[targets](SHAPE, generator=generator)
        with torch.enable_grad():
            leaf = input.clone().requires_grad_()
            output = torch.sigmoid(leaf)
            output.retain_grad()
            (F.mse_loss(output, target) * factor).backward()
        module = kind()
        with torch.no_grad():
            module(input)
            ours = module.backward(output.grad)
        values.append(float((ours.double() - leaf.grad.double()).abs().mean()))
    return Difference(reading, inputs, targets, statistics.mean(values), statistics.pstdev(values))


def train_with_reading(reading, geometry, rate, steps):
    """Train with a Sigmoid that is no fault of the catalogue, in a loop of its own and without an MLflow run.

    Returns:
        The number of updates (at most `steps`) before the last output with a finite loss, and that output's mean.
    """
    setup = build(compose_config("train", list(healthy_point("own", geometry, rate).overrides)))
    setup.network.sigmoid.__class__ = READINGS[reading][0]
    last = 0, math.nan
    with torch.no_grad():
        for step in range(steps + 1):
            input, target = setup.data.batch(step, BATCH, setup.seed)
            setup.optimizer.zero_grad()
            output = setup.network(input)
            if not math.isfinite(float(setup.loss(output, target))):
                break
            last = step, float(output.mean())
            setup.network.backward(setup.loss.backward())
            setup.optimizer.step()
    return last
