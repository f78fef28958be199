"""Mistakes outside of a backward pass: clearing of gradients, initial weights, geometry, optimizer, data."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scratch_dl import nn, optim
from scratch_dl.nn import Module, Parameter
from scratch_dl.system.seeding import seeded

if TYPE_CHECKING:
    from scratch_dl.data import DataSet, Photograph

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, nn.Upsampling)
TINY, UNIT = 1e-6, 1.0
TOO_SMALL = 1000
WHITE = 255


class NeverCleared(Parameter):
    """Its zero_grad clears a copy, so that the gradients of all steps add up."""

    def zero_grad(self) -> None:
        """Leave the gradient as it is."""
        self.grad.clone().zero_()


class MomentumShared(optim.SGD):
    """Parameters of one shape share one velocity."""

    def _update(self, values: list[Tensor], grads: list[Tensor], states: list[dict[str, Tensor]]) -> None:
        shared: dict[torch.Size, dict[str, Tensor]] = {}
        for value, grad, state in zip(values, grads, states, strict=True):
            super()._update([value], [grad], [shared.setdefault(value.shape, state)])


class Scaled:
    """A data set whose images are 0 to 255, while the network and the scores take them for 0 to 1."""

    def __init__(self, data: "DataSet") -> None:
        self._data = data

    def __getattr__(self, name: str) -> Any:
        if name == "_data":  # asked for while it is being copied
            raise AttributeError(name)
        return getattr(self._data, name)

    @property
    def validation(self) -> tuple[Tensor, Tensor]:
        """(noisy, clean), each (n, 3, h, w), 0 to 255."""
        noisy, clean = self._data.validation
        return noisy * WHITE, clean * WHITE

    def batch(self, step: int, batch_size: int, seed: int) -> tuple[Tensor, Tensor]:
        """(input, target) of a training step, 0 to 255."""
        input, target = self._data.batch(step, batch_size, seed)
        return input * WHITE, target * WHITE

    def photographs(self, split: str) -> "list[Photograph]":
        """Whole pictures, 0 to 255."""
        return [p._replace(noisy=p.noisy * WHITE, clean=p.clean * WHITE) for p in self._data.photographs(split)]


def keep_bias_gradients(network: Module) -> list[str]:
    """No bias of a Conv2d is cleared any more; the names of these modules."""
    names = []
    for name, module in network.named_modules():
        if type(module) is nn.Conv2d and module.bias is not None:
            module.bias.__class__ = NeverCleared
            names.append(name)
    return names


def keep_upsampling_gradients(network: Module) -> list[str]:
    """No gradient of a learnable upsampling is cleared any more; the names of these modules."""
    names = []
    for name, module in network.named_modules():
        if type(module) is nn.Upsampling:
            for parameter in module.parameters():
                parameter.__class__ = NeverCleared
            names.append(name)
    return names


def draw_tiny(network: Module) -> list[str]:
    """N(0, 1e-6^2) for every weight and bias of a convolution."""
    return _draw(network, TINY)


def draw_unit(network: Module) -> list[str]:
    """N(0, 1) for every weight and bias of a convolution, whatever its fan-in."""
    return _draw(network, UNIT)


def _draw(network: Module, std: float) -> list[str]:
    names = []
    for name, module in network.named_modules():
        if isinstance(module, CONVOLUTIONS):
            # By the weights that are there, so that another seed of the run gives other ones.
            before = float(module.weight.value.double().sum())
            for key, parameter in module.named_parameters():
                with seeded(name, key, before):
                    parameter.value = torch.randn(parameter.shape).to(parameter.value) * std
            names.append(name)
    return names


def shrink_kernels(network: Module) -> list[str]:
    """Kernels of 1x1 in every convolution of a stride above 1, which then reads one pixel of many."""
    names = []
    for name, module in network.named_modules():
        if type(module) is nn.Conv2d and min(module.stride) > 1:
            module.kernel_size, module.padding, module.dilation = (1, 1), (0, 0), (1, 1)
            like = module.weight.value
            module.weight = Parameter(like.new_zeros(module.out_channels, module.in_channels, 1, 1))
            generator = torch.Generator()
            with seeded(name, float(like.double().sum())):
                generator.manual_seed(int(torch.randint(2**31, ())))
            module.reset_parameters("pytorch", generator)
            names.append(name)
    return names


def shrink_learning_rate(optimizer: optim.Optimizer) -> bool:
    """A thousandth of the learning rate."""
    optimizer.lr = optimizer.lr / TOO_SMALL
    return True


def share_momentum(optimizer: optim.Optimizer) -> bool:
    """One velocity for all parameters of a shape; whether the optimizer has velocities."""
    if type(optimizer) is not optim.SGD or not optimizer.momentum:
        return False
    optimizer.__class__ = MomentumShared
    return True
