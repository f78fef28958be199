"""A convolution's three passes, each alone: by hand, by PyTorch, and how many operations it takes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name)
from torch import Generator, Tensor

from scratch_dl import kernels
from scratch_dl.kernels import Geometry
from scratch_dl.system.checks import Pair

PASSES = ("forward", "grad_input", "grad_weight")
_ONE, _NONE = [1, 1], [0, 0]

Calls = dict[str, Callable[[], Tensor]]


@dataclass(frozen=True)
class Convolution:
    """A convolution of a batch, its input enlarged by repetition before if `scale` is above 1.

    Attributes:
        name: in the names of metrics.
        label: in tables.
        shape: of the input, (n, c, h, w).
        out_channels: o.
        kernel_size: k; padded by (k - 1) // 2.
        stride: of the convolution.
        scale: by which the input is enlarged.
    """

    name: str
    label: str
    shape: tuple[int, int, int, int]
    out_channels: int
    kernel_size: int = 3
    stride: int = 1
    scale: int = 1

    @property
    def padding(self) -> int:
        """On every side."""
        return (self.kernel_size - 1) // 2

    @property
    def geometry(self) -> Geometry:
        """How the kernel lies over the (enlarged) input."""
        k, s, p = self.kernel_size, self.stride, self.padding
        return Geometry((k, k), (s, s), ((p, p), (p, p)), (1, 1))

    @property
    def output_size(self) -> Pair:
        """(height, width)."""
        return self.geometry.output_size((self.shape[2] * self.scale, self.shape[3] * self.scale))

    @property
    def plain_flops(self) -> int:
        """2 multiply-adds by the plain definition: n o h w c k k of them, zeros of the padding included."""
        n, c, _, _ = self.shape
        h, w = self.output_size
        return 2 * n * self.out_channels * h * w * c * self.kernel_size**2

    @property
    def needed_flops(self) -> float:
        """The same, but pixels that are copies of one another count once: their weights can be added up before."""
        k, s, p = self.kernel_size, self.scale, self.padding
        taps = sum(len({(phase + i - p) // s for i in range(k)}) for phase in range(s)) / s
        return self.plain_flops * (taps / k) ** 2

    def tensors(self, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Input, weight and upstream gradient in channels_last, as both sides like them."""
        n, c, _, _ = self.shape
        shapes = self.shape, (self.out_channels, c, *[self.kernel_size] * 2), (n, self.out_channels, *self.output_size)
        input, weight, grad = (torch.randn(shape, generator=generator) for shape in shapes)
        return tuple(x.contiguous(memory_format=torch.channels_last) for x in (input, weight, grad))  # type: ignore[return-value]

    def own(self, input: Tensor, weight: Tensor, grad: Tensor) -> Calls:
        """The passes by the functions of the backend in use."""
        geometry, size = self.geometry, (self.shape[2], self.shape[3])
        if self.scale == 1:
            return {
                "forward": partial(kernels.convolution, input, weight, None, geometry),
                "grad_input": partial(kernels.convolution_grad_input, grad, weight, size, geometry),
                "grad_weight": partial(kernels.convolution_grad_weight, input, grad, geometry),
            }
        scale = self.scale, self.scale
        return {
            "forward": partial(kernels.upsampled_convolution, input, weight, None, scale, geometry),
            "grad_input": partial(kernels.upsampled_convolution_grad_input, grad, weight, size, scale, geometry),
            "grad_weight": partial(kernels.upsampled_convolution_grad_weight, input, grad, scale, geometry),
        }

    def pytorch(self, input: Tensor, weight: Tensor, grad: Tensor) -> Calls:
        """The passes by PyTorch's operators; what autograd keeps, the enlarged input, is there beforehand."""
        stride, padding = [self.stride] * 2, [self.padding] * 2

        def enlarged() -> Tensor:
            return input if self.scale == 1 else F.interpolate(input, scale_factor=self.scale, mode="nearest")

        kept = enlarged()

        def backward(*mask: bool) -> tuple[Tensor, Tensor, Tensor]:
            grads: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
                grad, kept, weight, None, stride, padding, _ONE, False, _NONE, 1, mask
            )
            return grads

        def grad_input() -> Tensor:
            found = backward(True, False, False)[0]
            if self.scale == 1:
                return found
            size, factor = list(kept.shape[2:]), float(self.scale)
            small: Tensor = torch.ops.aten.upsample_nearest2d_backward(found, size, self.shape, factor, factor)
            return small

        return {
            "forward": lambda: F.conv2d(enlarged(), weight, None, self.stride, self.padding),
            "grad_input": grad_input,
            "grad_weight": lambda: backward(False, True, False)[1],
        }


# The four of the paper's network at batch 100, 32-64-32 channels, nearest.
PAPER = (
    Convolution("conv1", "conv1 3-32 /2", (100, 3, 32, 32), 32, stride=2),
    Convolution("conv2", "conv2 32-64 /2", (100, 32, 16, 16), 64, stride=2),
    Convolution("up1", "up1 64-32 x2", (100, 64, 8, 8), 32, scale=2),
    Convolution("up2", "up2 32-3 x2", (100, 32, 16, 16), 3, scale=2),
)
LARGE = (
    Convolution("large_64", "64-64 56x56", (16, 64, 56, 56), 64),
    Convolution("large_128", "128-128 28x28", (16, 128, 28, 28), 128),
    Convolution("large_32", "32-32 64x64", (16, 32, 64, 64), 32),
)
SMALL = (
    Convolution("up1", "up1 tiny", (2, 4, 4, 4), 3, scale=2),
    Convolution("large_8", "8-8 8x8", (2, 8, 8, 8), 8),
)
