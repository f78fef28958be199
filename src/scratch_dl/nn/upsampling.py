"""Enlarging by a whole factor: by repetition, and the paper's block with a kernel that learns.

Axis letters: n sample, c input channel, o output channel, H W input pixel, s0 s1 the factors.
"""

from functools import lru_cache

import torch
from torch import Generator, Tensor

from scratch_dl import kernels
from scratch_dl.kernels import Geometry
from scratch_dl.nn.conv import Spatial, fitting
from scratch_dl.nn.init import initialise
from scratch_dl.nn.module import Module, Parameter, check_floats, check_grad_output, check_input
from scratch_dl.system.checks import Pair, boolean, choice, integer, pair


class UpsamplingNearest2d(Module):
    """Repeat each pixel: Z[n,c,p,q] = X[n, c, p // s0, q // s1]; dL/dX sums the gradients of the copies.

    Args:
        scale_factor: an int or an (h, w) pair.

    Raises:
        TypeError: if it is neither.
        ValueError: if it is below 1.
    """

    def __init__(self, scale_factor: Spatial) -> None:
        self.scale_factor = pair("scale_factor", scale_factor, minimum=1)

    def output_size(self, size: Pair) -> Pair:
        """(H, W) -> (s0 H, s1 W)."""
        return size[0] * self.scale_factor[0], size[1] * self.scale_factor[1]

    def forward(self, input: Tensor) -> Tensor:
        """(n, c, H, W) -> (n, c, s0 H, s1 W)."""
        input = check_floats("input", input)
        if input.ndim != 4:
            raise ValueError(f"input must have shape (n, c, h, w), but got {tuple(input.shape)}")
        output = kernels.upsample_nearest(input, self.scale_factor)
        self._keep(tuple(output.shape), input.new_empty(0))
        return output

    def backward(self, grad_output: Tensor) -> Tensor:
        """(n, c, s0 H, s1 W) -> (n, c, H, W)."""
        shape, like = self._take()
        grad_output = check_grad_output(grad_output, shape, like)
        return kernels.upsample_nearest_grad_input(grad_output, self.scale_factor)

    def _describe(self) -> str:
        return f"scale_factor={self.scale_factor}"


class Upsampling(Module):
    """The paper's learnable block: enlarge by a factor s and filter with k x k kernels.

    mode "nearest" repeats each pixel s times and convolves with stride 1; weight (o, c, i, j).
    mode "transposed" is a transposed convolution of stride s; weight (c, o, i, j).
    padding "same" multiplies the size by s exactly for every k:
        nearest: padded by k - 1 in all, floor((k - 1) / 2) before and the rest after;
        transposed: padding max(0, ceil((k - s) / 2)), output padding 2 padding - (k - s).
    An int or (h, w) pair is handed to the convolution as it is (output padding 0).

    Args:
        in_channels: c.
        out_channels: o.
        kernel_size: k, an int or an (h, w) pair.
        scale_factor: s, an int or an (h, w) pair.
        padding: "same", an int or an (h, w) pair.
        mode: "nearest" or "transposed".
        bias: whether a bias is added (`bias` is None otherwise).
        generator: draws the initial weights, PyTorch's default; torch's global one if None.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if a size is below 1, a padding below 0, or the mode unknown.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Spatial,
        scale_factor: Spatial = 2,
        padding: Spatial | str = "same",
        mode: str = "nearest",
        bias: bool = True,
        generator: Generator | None = None,
    ) -> None:
        self.in_channels = integer("in_channels", in_channels, minimum=1)
        self.out_channels = integer("out_channels", out_channels, minimum=1)
        self.kernel_size = pair("kernel_size", kernel_size, minimum=1)
        self.scale_factor = pair("scale_factor", scale_factor, minimum=1)
        self.mode = choice("mode", mode, ("nearest", "transposed"))
        if isinstance(padding, str):
            choice("padding", padding, ("same",))
        self.padding = padding if isinstance(padding, str) else pair("padding", padding, minimum=0)
        channels = (out_channels, in_channels) if mode == "nearest" else (in_channels, out_channels)
        self.weight = Parameter(torch.zeros(*channels, *self.kernel_size))
        self.bias = Parameter(torch.zeros(self.out_channels)) if boolean("bias", bias) else None
        self.reset_parameters("pytorch", generator)

    def reset_parameters(self, scheme: str, generator: Generator | None = None) -> None:
        """Draw weight and bias anew by a scheme of `scratch_dl.nn.init`; fans as in PyTorch's two convolutions."""
        area = self.kernel_size[0] * self.kernel_size[1]
        fans = (self.weight.shape[1] * area, self.weight.shape[0] * area)
        initialise(self.weight, self.bias, scheme, fans, generator)

    @property
    def geometry(self) -> Geometry:
        """How the kernel lies: over the enlarged input (nearest), or over the output (transposed)."""
        return _geometry(self.mode, self.kernel_size, self.scale_factor, self.padding)

    def output_size(self, size: Pair) -> Pair:
        """(H, W) -> (s0 H, s1 W) under "same"; else what the convolution makes of it.

        Raises:
            ValueError: if nothing is left of it.
        """
        geometry = self.geometry
        enlarged = size[0] * self.scale_factor[0], size[1] * self.scale_factor[1]
        if self.mode == "nearest":
            return fitting(geometry, enlarged)
        height, width = (
            enlarged[axis] - self.scale_factor[axis] + self.kernel_size[axis] - sum(geometry.padding[axis])
            for axis in (0, 1)
        )
        if min(height, width, *size) < 1:
            raise ValueError(f"padding={self.padding} leaves nothing of an input of {size[0]}x{size[1]} pixels")
        return height, width

    def forward(self, input: Tensor, activation: str | None = None) -> Tensor:
        """(n, c, H, W) -> (n, o, s0 H, s1 W) under "same"; `activation` as in Conv2d."""
        input = check_input(input, self.in_channels, self.weight.value)
        size = self.output_size((input.shape[2], input.shape[3]))
        self._keep(input, size)
        weight, bias = self.weight.value, None if self.bias is None else self.bias.value
        if self.mode == "nearest":
            return kernels.upsampled_convolution(input, weight, bias, self.scale_factor, self.geometry, activation)
        return kernels.convolution_transposed(input, weight, bias, size, self.geometry, activation)

    def backward(self, grad_output: Tensor, input_grad: bool = True, through_relu: bool = False) -> Tensor:
        """The output's shape -> the input's; adds to `weight.grad` and `bias.grad`. Arguments as in Conv2d."""
        input, size = self._take()
        n, _, *before = input.shape
        grad_output = check_grad_output(grad_output, (n, self.out_channels, *size), input)
        weight, scale, geometry = self.weight.value, self.scale_factor, self.geometry
        nearest = self.mode == "nearest"
        if nearest:
            self.weight.grad += kernels.upsampled_convolution_grad_weight(input, grad_output, scale, geometry)
        else:
            self.weight.grad += kernels.convolution_grad_weight(grad_output, input, geometry)
        if self.bias is not None:
            self.bias.grad += kernels.convolution_grad_bias(grad_output)
        if not input_grad:
            return torch.empty(0)
        positive = input if through_relu else None
        if nearest:
            to = before[0], before[1]
            return kernels.upsampled_convolution_grad_input(grad_output, weight, to, scale, geometry, positive)
        return kernels.convolution_transposed_grad_input(grad_output, weight, geometry, positive)

    def _describe(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"scale_factor={self.scale_factor}, padding={self.padding!r}, mode={self.mode!r}, "
            f"bias={self.bias is not None}"
        )


@lru_cache
def _geometry(mode: str, kernel_size: Pair, scale_factor: Pair, padding: Pair | str) -> Geometry:
    nearest = mode == "nearest"
    sides = []
    for axis, (k, s) in enumerate(zip(kernel_size, scale_factor, strict=True)):
        if not isinstance(padding, str):
            before = after = padding[axis]
        elif nearest:
            before, after = (k - 1) // 2, k // 2
        else:
            before = max(0, (k - s + 1) // 2)
            after = k - s - before  # `before` again, less the output padding
        sides.append((before, after))
    return Geometry(kernel_size, (1, 1) if nearest else scale_factor, (sides[0], sides[1]), (1, 1))
