"""The denoisers: the paper's network, and a small U-Net of the same pieces.

A model is built for the size of the training crops: its geometry is traced there, layer by layer, and refused if the
output's size is not the input's. It predicts at any height and width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from scratch_dl.checks import Pair, boolean, choice, integer, pair
from scratch_dl.nn import INITIALISERS, Conv2d, Module, ReLU, Sequential, Sigmoid, Skip, Upsampling

CHANNELS = 3


class Denoiser(Sequential):
    """Modules in sequence that map an image in [0, 1] to one of the same size; sizes are multiples of `multiple`.

    Args:
        modules: names and modules.
        multiple: what height and width must be divisible by; `predict` pads to it.
        size: the size (height, width) for which the geometry is traced.

    Raises:
        ValueError: if the output for `size` has another size; the message has the size after every module.
    """

    def __init__(self, modules: dict[str, Module], multiple: int, size: Pair) -> None:
        super().__init__(modules)
        self.multiple = multiple
        check_size(self, size)

    def predict(self, images: Tensor) -> Tensor:
        """(n, 3, H, W) -> (n, 3, H, W) of any H, W: reflect-padded to the multiple, cropped back. Keeps no cache.

        The output is the network's, in [0, 1] by its sigmoid; batches are the caller's choice.
        """
        height, width = images.shape[2:]
        training = self.training
        self.eval()
        try:
            output = self(reflect_to_multiple(images, self.multiple))
        finally:
            self.train(training)
        return output[:, :, :height, :width].contiguous()


def paper(
    channels: Any,
    kernel_size: Any,
    padding: Any,
    upsampling: str,
    bias: bool,
    init: str,
    size: Pair = (32, 32),
    generator: Generator | None = None,
) -> Denoiser:
    """The paper's network: conv1 relu1 conv2 relu2 up1 relu3 up2 sigmoid; the convolutions have stride 2.

    Args:
        channels: those of conv1, conv2 and up1.
        kernel_size: an int, or one for each of conv1, conv2, up1 and up2.
        padding: "same" or an int, or one for each of the four; "same" is (k - 1) // 2 in a convolution, and in an
            upsampling what doubles the size exactly.
        upsampling: its mode, "nearest" or "transposed".
        bias: whether the four have biases.
        init: "pytorch", "he" or "xavier".
        size: of the training crops (height, width).
        generator: draws the initial weights.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if one is out of range, or the output's size is not `size`.
    """
    if not isinstance(channels, list | tuple) or len(channels) != 3:
        raise ValueError(f"channels must be three integers (conv1, conv2, up1), but got {channels!r}")
    c1, c2, c3 = (integer(f"channels[{i}]", number, minimum=1) for i, number in enumerate(channels))
    k = [integer("kernel_size", number, minimum=1) for number in _each_layer("kernel_size", kernel_size)]
    p = [_padding(value) for value in _each_layer("padding", padding)]
    p_conv = [(k[i] - 1) // 2 if p[i] == "same" else p[i] for i in (0, 1)]
    choice("upsampling", upsampling, ("nearest", "transposed"))
    up: dict[str, Any] = {"mode": upsampling, "bias": boolean("bias", bias), "generator": generator}
    modules: dict[str, Module] = {
        "conv1": Conv2d(CHANNELS, c1, k[0], stride=2, padding=p_conv[0], bias=bias, generator=generator),
        "relu1": ReLU(),
        "conv2": Conv2d(c1, c2, k[1], stride=2, padding=p_conv[1], bias=bias, generator=generator),
        "relu2": ReLU(),
        "up1": Upsampling(c2, c3, k[2], padding=p[2], **up),
        "relu3": ReLU(),
        "up2": Upsampling(c3, CHANNELS, k[3], padding=p[3], **up),
        "sigmoid": Sigmoid(),
    }
    return _initialised(Denoiser(modules, multiple=4, size=size), init, generator)


def unet(
    channels: int,
    kernel_size: int,
    upsampling: str,
    bias: bool,
    init: str,
    size: Pair = (32, 32),
    generator: Generator | None = None,
) -> Denoiser:
    """A U-Net of two levels (Ronneberger et al. 2015, arXiv 1505.04597) of the same pieces as the paper's network.

    Full size: `channels` wide; half: twice; quarter: twice. Each level is carried past what lies below it by a Skip.

    Args:
        channels: the width at full size.
        kernel_size: of every convolution; odd, so that stride 1 keeps the size.
        upsampling: its mode, "nearest" or "transposed".
        bias: whether the layers have biases.
        init: "pytorch", "he" or "xavier".
        size: of the training crops (height, width).
        generator: draws the initial weights.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if one is out of range, or the output's size is not `size`.
    """
    c = integer("channels", channels, minimum=1)
    k = integer("kernel_size", kernel_size, minimum=1)
    if k % 2 == 0:
        raise ValueError(f"kernel_size must be odd, so that convolutions of stride 1 keep the size, but got {k}")
    boolean("bias", bias)
    choice("upsampling", upsampling, ("nearest", "transposed"))

    def conv(before: int, after: int, stride: int = 1) -> Conv2d:
        return Conv2d(before, after, k, stride=stride, padding=(k - 1) // 2, bias=bias, generator=generator)

    def up(before: int, after: int) -> Upsampling:
        return Upsampling(before, after, k, mode=upsampling, bias=bias, generator=generator)

    quarter = Sequential(
        {
            "down": conv(2 * c, 2 * c, stride=2),
            "relu1": ReLU(),
            "conv": conv(2 * c, 2 * c),
            "relu2": ReLU(),
            "up": up(2 * c, 2 * c),
            "relu3": ReLU(),
        }
    )
    half = Sequential(
        {
            "down": conv(c, 2 * c, stride=2),
            "relu1": ReLU(),
            "quarter": Skip(quarter),
            "conv": conv(4 * c, 2 * c),
            "relu2": ReLU(),
            "up": up(2 * c, c),
            "relu3": ReLU(),
        }
    )
    modules: dict[str, Module] = {
        "conv1": conv(CHANNELS, c),
        "relu1": ReLU(),
        "half": Skip(half),
        "conv2": conv(2 * c, c),
        "relu2": ReLU(),
        "conv3": conv(c, CHANNELS),
        "sigmoid": Sigmoid(),
    }
    return _initialised(Denoiser(modules, multiple=4, size=size), init, generator)


def trace(network: Sequential, size: Pair) -> list[tuple[str, Pair | str]]:
    """(module, size of its output) for an input of `size`, as far as it goes; at a misfit the reason is the last."""
    sizes: list[tuple[str, Pair | str]] = [("input", size)]
    for name, module in network.children():
        try:
            size = module.output_size(size)
        except ValueError as error:
            return [*sizes, (name, str(error))]
        sizes.append((name, size))
    return sizes


def check_size(network: Sequential, size: Pair) -> None:
    """Refuse a geometry whose output is not of the input's size.

    Raises:
        ValueError: with the size after every module.
    """
    sizes = trace(network, size)
    if sizes[-1][1] != size:
        steps = ", ".join(f"{name} {s if isinstance(s, str) else f'{s[0]}x{s[1]}'}" for name, s in sizes)
        raise ValueError(f"the output must have the input's size {size[0]}x{size[1]}, but the sizes are: {steps}")


def reflect_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Extend (n, c, H, W) below and to the right by reflection, the border not repeated, to multiples of `multiple`."""
    height, width = images.shape[2:]
    rows, columns = (_reflected(side, side + -side % multiple, images.device) for side in (height, width))
    return images[:, :, rows][:, :, :, columns] if len(rows) > height or len(columns) > width else images


def count_parameters(network: Module) -> int:
    """How many numbers the network learns."""
    return sum(parameter.value.numel() for parameter in network.parameters())


def _reflected(side: int, length: int, device: torch.device) -> Tensor:
    """Indices 0, 1, ..., side - 1, side - 2, ...: back and forth until there are `length`."""
    period = max(1, 2 * (side - 1))
    index = torch.arange(length, device=device) % period
    return torch.minimum(index, period - index) if side > 1 else torch.zeros_like(index)


def _each_layer(name: str, value: Any) -> list[Any]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 4:
            raise ValueError(
                f"{name} must be one value, or one for each of conv1, conv2, up1 and up2, but got {value!r}"
            )
        return list(value)
    return [value] * 4


def _padding(value: Any) -> Any:
    if isinstance(value, str):
        return choice("padding", value, ("same",))
    return pair("padding", value, minimum=0)[0]


def _initialised(network: Denoiser, init: str, generator: Generator | None) -> Denoiser:
    choice("init", init, INITIALISERS)
    if init != "pytorch":  # which every module has drawn already
        for _, module in network.named_modules():
            if isinstance(module, Conv2d | Upsampling):
                module.reset_parameters(init, generator)
    return network
