"""Convolution and transposed convolution: the same three sums, with forward and input gradient exchanged.

Axis letters, in shapes and equations alike: n sample, c input channel, o output channel, H W input pixel,
h w output pixel, i j kernel offset. The sums (1) to (4) stand in `scratch_dl.kernels.reference`.
"""

import torch
from torch import Generator, Tensor

from scratch_dl import kernels
from scratch_dl.kernels import Geometry
from scratch_dl.nn.init import initialise
from scratch_dl.nn.module import Module, Parameter, check_grad_output, check_input
from scratch_dl.system.checks import Pair, boolean, integer, pair

Spatial = int | tuple[int, int]


class Conv2d(Module):
    """Cross-correlate zero-padded images with a bank of kernels (paper, equations 6 and 10).

        Z[n,o,h,w]     = b[o] + sum_cij W[o,c,i,j] X[n, c, hs+id, ws+jd]        (1)
        dL/db[o]       = sum_nhw G[n,o,h,w]                                     (2)
        dL/dW[o,c,i,j] = sum_nhw G[n,o,h,w] X[n, c, hs+id, ws+jd]               (3)
        dL/dX[n,c,p,q] = sum G[n,o,h,w] W[o,c,i,j] over hs+id = p, ws+jd = q    (4)

    with X the padded input, s the stride, d the dilation and G = dL/dZ.

    Args:
        in_channels: c.
        out_channels: o.
        kernel_size: an int or an (h, w) pair, as all that follow.
        stride: s.
        padding: zeros on both sides of an axis.
        dilation: d.
        bias: whether b is there (`bias` is None otherwise). By name from here on: PyTorch has `groups` before it.
        generator: draws the initial weights, PyTorch's default; torch's global one if None.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if a size is below 1 or a padding below 0.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Spatial,
        stride: Spatial = 1,
        padding: Spatial = 0,
        dilation: Spatial = 1,
        *,
        bias: bool = True,
        generator: Generator | None = None,
    ) -> None:
        self.in_channels = integer("in_channels", in_channels, minimum=1)
        self.out_channels = integer("out_channels", out_channels, minimum=1)
        self.kernel_size = pair("kernel_size", kernel_size, minimum=1)
        self.stride = pair("stride", stride, minimum=1)
        self.padding = pair("padding", padding, minimum=0)
        self.dilation = pair("dilation", dilation, minimum=1)
        self.weight = Parameter(torch.zeros(self.out_channels, self.in_channels, *self.kernel_size))
        self.bias = Parameter(torch.zeros(self.out_channels)) if boolean("bias", bias) else None
        self.reset_parameters("pytorch", generator)

    def reset_parameters(self, scheme: str, generator: Generator | None = None) -> None:
        """Draw weight and bias anew by a scheme of `scratch_dl.nn.init`."""
        area = self.kernel_size[0] * self.kernel_size[1]
        initialise(self.weight, self.bias, scheme, (self.in_channels * area, self.out_channels * area), generator)

    @property
    def geometry(self) -> Geometry:
        """How the kernel lies over the input."""
        (p0, p1) = self.padding
        return Geometry(self.kernel_size, self.stride, ((p0, p0), (p1, p1)), self.dilation)

    def output_size(self, size: Pair) -> Pair:
        """(H, W) -> (h, w).

        Raises:
            ValueError: if the padded input is smaller than the kernel.
        """
        return fitting(self.geometry, size)

    def forward(self, input: Tensor, activation: str | None = None) -> Tensor:
        """(n, c, H, W) -> (n, o, h, w), by (1); then "relu" or "sigmoid" where an `activation` is computed along."""
        input = check_input(input, self.in_channels, self.weight.value)
        self.output_size((input.shape[2], input.shape[3]))
        self._keep(input)
        bias = None if self.bias is None else self.bias.value
        return kernels.convolution(input, self.weight.value, bias, self.geometry, activation)

    def backward(self, grad_output: Tensor, input_grad: bool = True, through_relu: bool = False) -> Tensor:
        """(n, o, h, w) -> (n, c, H, W), by (4); adds (3) to `weight.grad` and (2) to `bias.grad`.

        Args:
            grad_output: that of the output.
            input_grad: whether (4) is asked for; an empty tensor is returned if not.
            through_relu: return the gradient of the input of a ReLU, whose output was the input here.
        """
        (input,) = self._take()
        n, _, *size = input.shape
        grad_output = check_grad_output(
            grad_output, (n, self.out_channels, *self.output_size((size[0], size[1]))), input
        )
        self.weight.grad += kernels.convolution_grad_weight(input, grad_output, self.geometry)
        if self.bias is not None:
            self.bias.grad += kernels.convolution_grad_bias(grad_output)
        if not input_grad:
            return torch.empty(0)
        positive = input if through_relu else None
        weight = self.weight.value
        return kernels.convolution_grad_input(grad_output, weight, (size[0], size[1]), self.geometry, positive)

    def _describe(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, bias={self.bias is not None}"
        )


class ConvTranspose2d(Module):
    """The adjoint of Conv2d in its input: forward is (4) plus the bias, backward is (1).

    With W of shape (c, o, i, j), X the input and Z cropped by the padding on every side:

        Z[n,o,p,q]     = b[o] + sum X[n,c,h,w] W[c,o,i,j] over hs+id = p, ws+jd = q     (5)
        dL/dW[c,o,i,j] = sum_nhw X[n,c,h,w] G[n, o, hs+id, ws+jd]                       (6)
        dL/dX[n,c,h,w] = sum_oij W[c,o,i,j] G[n, o, hs+id, ws+jd]                       (7)

    Args:
        in_channels: c.
        out_channels: o.
        kernel_size: an int or an (h, w) pair, as all that follow.
        stride: s, the factor of enlargement.
        padding: rows and columns cropped from both sides of an axis.
        output_padding: rows and columns added after an axis; below max(stride, dilation).
        dilation: d. By name from here on: PyTorch has `groups` before it.
        bias: whether b is there (`bias` is None otherwise).
        generator: draws the initial weights, PyTorch's default; torch's global one if None.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if a size is below 1, a padding below 0, or the output padding too large.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Spatial,
        stride: Spatial = 1,
        padding: Spatial = 0,
        output_padding: Spatial = 0,
        *,
        dilation: Spatial = 1,
        bias: bool = True,
        generator: Generator | None = None,
    ) -> None:
        self.in_channels = integer("in_channels", in_channels, minimum=1)
        self.out_channels = integer("out_channels", out_channels, minimum=1)
        self.kernel_size = pair("kernel_size", kernel_size, minimum=1)
        self.stride = pair("stride", stride, minimum=1)
        self.padding = pair("padding", padding, minimum=0)
        self.output_padding = pair("output_padding", output_padding, minimum=0)
        self.dilation = pair("dilation", dilation, minimum=1)
        for extra, step, spread in zip(self.output_padding, self.stride, self.dilation, strict=True):
            if extra >= max(step, spread):
                raise ValueError(
                    f"output_padding must be below max(stride, dilation) = {max(step, spread)}, "
                    f"but got {self.output_padding}"
                )
        self.weight = Parameter(torch.zeros(self.in_channels, self.out_channels, *self.kernel_size))
        self.bias = Parameter(torch.zeros(self.out_channels)) if boolean("bias", bias) else None
        self.reset_parameters("pytorch", generator)

    def reset_parameters(self, scheme: str, generator: Generator | None = None) -> None:
        """Draw weight and bias anew by a scheme of `scratch_dl.nn.init`; as in PyTorch, fan_in counts o."""
        area = self.kernel_size[0] * self.kernel_size[1]
        initialise(self.weight, self.bias, scheme, (self.out_channels * area, self.in_channels * area), generator)

    @property
    def geometry(self) -> Geometry:
        """How the kernel lies over the *output*, whose last `output_padding` pixels no window needs to reach."""
        (p0, p1), (e0, e1) = self.padding, self.output_padding
        return Geometry(self.kernel_size, self.stride, ((p0, p0 - e0), (p1, p1 - e1)), self.dilation)

    def output_size(self, size: Pair) -> Pair:
        """(H - 1) s - 2 padding + d (k - 1) + output_padding + 1 on each axis.

        Raises:
            ValueError: if nothing is left after the cropping.
        """
        height, width = (
            (size[axis] - 1) * self.stride[axis]
            - 2 * self.padding[axis]
            + self.dilation[axis] * (self.kernel_size[axis] - 1)
            + self.output_padding[axis]
            + 1
            for axis in (0, 1)
        )
        if min(height, width, *size) < 1:
            raise ValueError(f"padding={self.padding} leaves nothing of an input of {size[0]}x{size[1]} pixels")
        return height, width

    def forward(self, input: Tensor, activation: str | None = None) -> Tensor:
        """(n, c, H, W) -> (n, o, h, w), by (5); `activation` as in Conv2d."""
        input = check_input(input, self.in_channels, self.weight.value)
        size = self.output_size((input.shape[2], input.shape[3]))
        self._keep(input)
        bias = None if self.bias is None else self.bias.value
        return kernels.convolution_transposed(input, self.weight.value, bias, size, self.geometry, activation)

    def backward(self, grad_output: Tensor, input_grad: bool = True, through_relu: bool = False) -> Tensor:
        """(n, o, h, w) -> (n, c, H, W), by (7); adds (6) to `weight.grad` and the sum of G to `bias.grad`.

        `input_grad` and `through_relu` as in Conv2d.
        """
        (input,) = self._take()
        n, _, *size = input.shape
        grad_output = check_grad_output(
            grad_output, (n, self.out_channels, *self.output_size((size[0], size[1]))), input
        )
        self.weight.grad += kernels.convolution_grad_weight(grad_output, input, self.geometry)
        if self.bias is not None:
            self.bias.grad += kernels.convolution_grad_bias(grad_output)
        if not input_grad:
            return torch.empty(0)
        positive = input if through_relu else None
        return kernels.convolution_transposed_grad_input(grad_output, self.weight.value, self.geometry, positive)

    def _describe(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, output_padding={self.output_padding}, dilation={self.dilation}, "
            f"bias={self.bias is not None}"
        )


def fitting(geometry: Geometry, size: Pair) -> Pair:
    """The output size, refused if it is empty.

    Raises:
        ValueError: if the padded input is smaller than the kernel.
    """
    output = geometry.output_size(size)
    if min(output) < 1:
        raise ValueError(
            f"the kernel ({geometry.kernel_size[0]}x{geometry.kernel_size[1]}, dilation {geometry.dilation}) "
            f"must fit into the padded input, but got {size[0]}x{size[1]} pixels with padding {geometry.padding}"
        )
    return output
