"""The networks that are measured, each with its batch, and their training step by hand and by PyTorch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from scratch_dl import nn, optim
from scratch_dl.config.build import build_network
from scratch_dl.config.composing import compose_config
from scratch_dl.config.plain import plain
from scratch_dl.models import Denoiser, paper
from scratch_dl.verification.counterparts import in_channels_last, pytorch_twin

LR, MOMENTUM = 0.1, 0.9


@dataclass(frozen=True)
class BenchCase:
    """A network and its batch.

    Attributes:
        name: in the names of metrics.
        label: in tables.
        batch: images at a time.
        size: their height and width.
        network: the channels of the paper's network, or overrides of train that name a network.
        kernel_size: of the paper's network.
        upsampling: of the paper's network.
        calls: how many are timed together, for a step that takes little time.
    """

    name: str
    label: str
    batch: int
    size: tuple[int, int]
    network: tuple[int, int, int] | str = (32, 64, 32)
    kernel_size: int = 3
    upsampling: str = "nearest"
    calls: int = 1

    def build(self, generator: Generator) -> Denoiser:
        """Build the network; one named in conf/ draws its weights from the generator's seed."""
        if isinstance(self.network, str):
            overrides = [*self.network.split(), f"seed={generator.initial_seed()}"]
            return build_network(plain(compose_config("train", overrides)), self.size)
        channels, k = self.network, self.kernel_size
        return paper(channels, k, "same", self.upsampling, True, "pytorch", self.size, generator)

    def images(self, generator: Generator) -> Tensor:
        """(n, 3, h, w) from U(0, 1)."""
        return torch.rand(self.batch, 3, *self.size, generator=generator)


NEAREST = BenchCase("nearest_100", "nearest, batch 100", 100, (32, 32))
TRANSPOSED = BenchCase("transposed_100", "transposed, batch 100", 100, (32, 32), kernel_size=4, upsampling="transposed")
DEFAULT = BenchCase("default", "24-32-24, batch 8", 8, (32, 32), "experiment=paper_sgd", calls=5)
LARGE = BenchCase("image_128", "128x128, batch 8", 8, (128, 128))
UNET = BenchCase("unet", "unet, batch 8", 8, (32, 32), "model=unet")
SMALL = (
    BenchCase("nearest_100", "nearest, tiny", 2, (8, 8), (2, 4, 2)),
    BenchCase("transposed_100", "transposed, tiny", 2, (8, 8), (2, 4, 2), 4, "transposed"),
    BenchCase("unet", "unet, tiny", 2, (8, 8), "model=unet model.channels=2"),
)


@dataclass(frozen=True)
class Contender:
    """The functions of one side of a comparison, which trains a network on one batch.

    Attributes:
        step: one whole training step.
        output: the network's output, without a step.
        grads: the parameters' gradients, without a step, in the order of the network's parameters.
    """

    step: Callable[[], object]
    output: Callable[[], Tensor]
    grads: Callable[[], list[Tensor]]


def own(network: Denoiser, images: Tensor, target: Tensor) -> Contender:
    """The hand-written step, as `scratch_dl.training.loop` does it."""
    parameters = network.parameters()
    optimizer, loss = optim.SGD(parameters, LR, momentum=MOMENTUM), nn.MSELoss()

    def passes() -> None:
        optimizer.zero_grad()
        loss(network(images), target)
        nn.parameter_gradients(network, loss.backward())

    def step() -> None:
        passes()
        optimizer.step()

    def grads() -> list[Tensor]:
        passes()
        return [parameter.grad.clone() for parameter in parameters]

    return Contender(step, lambda: network.predict(images), grads)


def pytorch(
    network: Denoiser, images: Tensor, target: Tensor, *, channels_last: bool = False, compiled: bool = False
) -> Contender:
    """The step of a copy in `torch.nn` with autograd; compiled: forward and loss in one graph, and its backward."""
    model = pytorch_twin(network)
    if channels_last:
        model = in_channels_last(model)
        images, target = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (images, target))
    parameters = list(model.parameters())
    optimizer, criterion = torch.optim.SGD(parameters, LR, momentum=MOMENTUM), torch.nn.MSELoss()

    def objective(images: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = criterion(model(images), target)
        return loss

    if compiled:
        # The number of threads is compiled in, so it must be part of what the compiler's cache goes by; and sizes are
        # constants, whatever was compiled before.
        objective = torch.compile(
            objective, fullgraph=True, dynamic=False, options={"cpp.threads": torch.get_num_threads()}
        )

    def passes() -> None:
        optimizer.zero_grad()
        loss = objective(images, target)
        loss.backward()  # type: ignore[no-untyped-call]

    def step() -> None:
        passes()
        optimizer.step()

    def output() -> Tensor:
        with torch.inference_mode():
            found: Tensor = model(images)
            return found

    def grads() -> list[Tensor]:
        passes()
        return [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]

    return Contender(step, output, grads)
