"""The course's denoiser: noisy pictures in, denoised pictures out, values from 0 to 255 on both sides."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scratch_dl.course.modules import MSE, SGD, Conv2d, ReLU, Sequential, Sigmoid, TransposeConv2d
from scratch_dl.models import CHANNELS, reflect_to_multiple
from scratch_dl.schedule import Cosine
from scratch_dl.system import unpickling
from scratch_dl.system.checks import integer
from scratch_dl.terminal.console import progress

PRETRAINED = Path(__file__).with_name("bestmodel.pth")
"""The parameters, in the order of `param()`; docs/pretrained.py writes it, conf/experiment/course.yaml trains them."""
_MULTIPLE = 4  # of height and width: two convolutions of stride 2
_AT_ONCE = 100  # images in memory at a time


class Model:
    """The paper's network, trained on pairs of noisy pictures of the same scene (Noise2Noise).

    Args:
        lr: learning rate of SGD at the start of each `train`; it falls to zero along half a cosine wave.
        momentum: of SGD.
        batch_size: pairs in a step.
        seed: draws the initial weights and the order of the pairs.

    Attributes:
        network: the modules; its input and output are in [0, 1].
    """

    def __init__(self, lr: float = 0.2, momentum: float = 0.9, batch_size: int = 16, seed: int = 0) -> None:
        self.lr, self.momentum = lr, momentum
        self.batch_size = integer("batch_size", batch_size, minimum=1)
        self._generator = torch.Generator().manual_seed(integer("seed", seed, minimum=0))
        drawn: dict[str, Any] = {"stride": 2, "generator": self._generator}
        self.network = Sequential(
            Conv2d(CHANNELS, 48, 6, padding=2, **drawn),
            ReLU(),
            Conv2d(48, 96, 4, padding=1, **drawn),
            ReLU(),
            TransposeConv2d(96, 48, 4, padding=1, **drawn),
            ReLU(),
            TransposeConv2d(48, CHANNELS, 6, padding=2, **drawn),
            Sigmoid(),
        )

    def load_pretrained_model(self) -> None:
        """Load the weights that the package brings."""
        for (value, _), stored in zip(self.network.param(), unpickling.load(PRETRAINED), strict=True):
            value.copy_(stored)

    def train(self, train_input: Tensor, train_target: Tensor, num_epochs: int) -> None:
        """Train on, from the weights as they are.

        Args:
            train_input: (n, 3, h, w) noisy pictures, values from 0 to 255, of any integer or floating-point dtype.
            train_target: the same scenes with other noise (or clean), in the same shape.
            num_epochs: how often each pair is used.

        Raises:
            TypeError: if one of the two is not a tensor of real numbers, or num_epochs not an integer.
            ValueError: if a shape does not fit, or num_epochs is below 1.
        """
        _check("train_input", train_input)
        if _check("train_target", train_target).shape != train_input.shape:
            raise ValueError(
                f"train_target must have train_input's shape {tuple(train_input.shape)}, "
                f"but got {tuple(train_target.shape)}"
            )
        count = len(train_input)
        steps = integer("num_epochs", num_epochs, minimum=1) * -(-count // self.batch_size)
        loss, schedule = MSE(), Cosine()
        optimizer = SGD(self.network.param(), self.lr, self.momentum)
        with progress("training", steps) as advance:
            for _ in range(num_epochs):
                for rows in torch.split(torch.randperm(count, generator=self._generator), self.batch_size):
                    optimizer.lr = self.lr * schedule.factor(optimizer.steps / steps)
                    optimizer.zero_grad()
                    loss.forward(self.network.forward(_unit(train_input[rows])), _unit(train_target[rows]))
                    self.network.backward(loss.backward())
                    optimizer.step()
                    advance()

    def predict(self, test_input: Tensor) -> Tensor:
        """Denoise pictures.

        Args:
            test_input: (n, 3, h, w) of any h and w, values from 0 to 255, of any integer or floating-point dtype.

        Returns:
            float32 in [0, 255], in the input's shape.

        Raises:
            TypeError: if it is not a tensor of real numbers.
            ValueError: if its shape is another one.
        """
        height, width = _check("test_input", test_input).shape[2:]
        self.network.module.eval()
        try:
            output = torch.cat([self.network.forward(_unit(images)) for images in torch.split(test_input, _AT_ONCE)])
        finally:
            self.network.module.train()
        return output[:, :, :height, :width].mul(255).to(test_input.device)


def _unit(images: Tensor) -> Tensor:
    """Values from 0 to 255 -> float32 from 0 to 1 on the CPU, extended by reflection to sides the network can take."""
    return reflect_to_multiple(images.detach().to("cpu", torch.float32) / 255, _MULTIPLE)


def _check(name: str, images: Tensor) -> Tensor:
    if not isinstance(images, Tensor) or images.is_complex() or images.dtype == torch.bool:
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"{name} must be a tensor of numbers from 0 to 255, but got {got}")
    if images.ndim != 4 or images.shape[1] != CHANNELS or not images.numel():
        raise ValueError(f"{name} must have shape (n, 3, h, w), at least one picture, but got {tuple(images.shape)}")
    return images
