"""The denoisers: the paper's network, a small U-Net of the same pieces, and any sequence of modules.

A model is built for the size of the training crops: an image of zeros is sent through it there, module by module, and
the model refused if the output's size is not the input's. It predicts at any height and width.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from scratch_dl.nn import INITIALISERS, Conv2d, Module, ReLU, Sequential, Sigmoid, Skip, Upsampling, adapt
from scratch_dl.system.checks import Pair, boolean, choice, integer, pair

CHANNELS = 3


class Denoiser(Sequential):
    """Modules in sequence that map an image in [0, 1] to one of the same size; sizes are multiples of `multiple`.

    Args:
        modules: names and modules, or objects with a forward and a backward.
        multiple: what height and width must be divisible by; `predict` pads to it.
        size: the size (height, width) for which the geometry is traced.

    Raises:
        ValueError: if the output for `size` has another size or other than 3 channels; the message has the size after
            every module.
    """

    multiple: int

    def __init__(self, modules: Mapping[str, Any], multiple: int, size: Pair) -> None:
        super().__init__(modules)
        self.multiple = multiple
        check_size(self, size)

    def predict(self, images: Tensor) -> Tensor:
        """(n, 3, H, W) -> (n, 3, H, W) of any H, W: reflect-padded to the multiple, cropped back. Keeps no cache.

        The output is the network's, in [0, 1] where its last module is a sigmoid; batches are the caller's choice.
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
    *,
    residual: bool = False,
) -> Denoiser:
    """A U-Net of two levels (Ronneberger et al. 2015, arXiv 1505.04597) of the same pieces as the paper's network.

    Full size: `channels` wide; half: twice; quarter: twice. Each level is carried past what lies below it by a Skip.
    With `residual` the network computes what is to be added to its input (Zhang et al. 2017, arXiv 1608.03981), and has
    no sigmoid: its output may leave [0, 1] a little.

    Args:
        channels: the width at full size.
        kernel_size: of every convolution; odd, so that stride 1 keeps the size.
        upsampling: its mode, "nearest" or "transposed".
        bias: whether the layers have biases.
        init: "pytorch", "he" or "xavier".
        size: of the training crops (height, width).
        generator: draws the initial weights.
        residual: whether to predict what is to be added, as above, and not the image.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if one is out of range, or the output's size is not `size`.
    """
    c = integer("channels", channels, minimum=1)
    k = integer("kernel_size", kernel_size, minimum=1)
    if k % 2 == 0:
        raise ValueError(f"kernel_size must be odd, so that convolutions of stride 1 keep the size, but got {k}")
    boolean("bias", bias)
    boolean("residual", residual)
    choice("upsampling", upsampling, ("nearest", "transposed"))

    def conv(before: int, after: int, stride: int = 1) -> Conv2d:
        return Conv2d(before, after, k, stride=stride, padding=(k - 1) // 2, bias=bias, generator=generator)

    def up(before: int, after: int) -> Upsampling:
        return Upsampling(before, after, k, mode=upsampling, bias=bias, generator=generator)

    quarter = _level(conv(2 * c, 2 * c, stride=2), {}, conv(2 * c, 2 * c), up(2 * c, 2 * c))
    half = _level(conv(c, 2 * c, stride=2), {"quarter": Skip(quarter)}, conv(4 * c, 2 * c), up(2 * c, c))
    modules: dict[str, Module] = {"conv1": conv(CHANNELS, c), "relu1": ReLU(), "half": Skip(half)}
    modules |= {"conv2": conv(2 * c, c), "relu2": ReLU(), "conv3": conv(c, CHANNELS)}
    if residual:
        modules = {"residual": Skip(Sequential(modules), "add")}
    else:
        modules["sigmoid"] = Sigmoid()
    return _initialised(Denoiser(modules, multiple=4, size=size), init, generator)


def _level(down: Conv2d, below: Mapping[str, Module], conv: Conv2d, up: Upsampling) -> Sequential:
    """One level of the U-Net: half the size, the level below (if there is one), and back to the full size."""
    before, after, last = ReLU(), ReLU(), ReLU()
    return Sequential({"down": down, "relu1": before, **below, "conv": conv, "relu2": after, "up": up, "relu3": last})


def sequential(modules: Mapping[str, Any], multiple: int, size: Pair = (32, 32)) -> Denoiser:
    """Any modules in sequence, also those that know nothing of this package (`scratch_dl.nn.adapt`).

    Args:
        modules: names and modules, or objects with a forward and a backward.
        multiple: what height and width must be divisible by.
        size: of the training crops (height, width).

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if the output's size is not `size`, or a name or the multiple cannot be used.
    """
    if not isinstance(modules, Mapping) or not modules:
        raise TypeError(f"modules must be names and modules, but got {modules!r}")
    integer("multiple", multiple, minimum=1)
    # A network begins in float32, as its images do; whose weights are of NumPy's making may have come in float64.
    one_dtype = {name: adapt(module, f"modules[{name!r}]").to(torch.float32) for name, module in modules.items()}
    return Denoiser(one_dtype, multiple, size)


def trace(network: Module, size: Pair) -> list[tuple[str, Pair | str]]:
    """(module, size of its output) for an input of `size`, as far as it goes; at a misfit the reason is the last.

    An image of zeros goes through the modules in evaluation mode; the mode is restored, and nothing is kept.
    """
    return _traced(network, size)[0]


def check_size(network: Module, size: Pair) -> None:
    """Refuse a geometry whose output is not of the input's size, or not of 3 channels.

    Raises:
        ValueError: with the size after every module; from a module's own error if there is one.
    """
    sizes, channels, error = _traced(network, size)
    steps = ", ".join(f"{name} {s if isinstance(s, str) else f'{s[0]}x{s[1]}'}" for name, s in sizes)
    if sizes[-1][1] != size:
        raise ValueError(
            f"the output must have the input's size {size[0]}x{size[1]}, but the sizes are: {steps}"
        ) from error
    if channels != CHANNELS:
        raise ValueError(
            f"the output must have {CHANNELS} channels as the input has, but has {channels}; the sizes are: {steps}"
        )


def _traced(network: Module, size: Pair) -> tuple[list[tuple[str, Pair | str]], int, Exception | None]:
    """The trace, the last output's channels, and the error of a module that did not fit."""
    in_order = isinstance(network, Sequential) and type(network).forward is Sequential.forward
    steps = list(network.children()) if in_order else [("network", network)]
    parameters = network.parameters()
    like = parameters[0].value if parameters else torch.empty(0)
    images = like.new_zeros(1, CHANNELS, *size)
    sizes: list[tuple[str, Pair | str]] = [("input", size)]
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            for name, module in steps:
                try:
                    images = module(images)
                except Exception as error:
                    return [*sizes, (name, _reason(error))], 0, error
                if images.ndim != 4:
                    return [*sizes, (name, f"the output must be (n, c, h, w), but is {tuple(images.shape)}")], 0, None
                sizes.append((name, (images.shape[2], images.shape[3])))
    finally:
        network.train(training)
    return sizes, images.shape[1], None


def _reason(error: Exception) -> str:
    """What an error says, in one line; with its class, if that is not one by which an argument is refused."""
    words = " ".join(str(error).split())
    return words if words and isinstance(error, TypeError | ValueError) else f"{type(error).__name__}: {words}"


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
