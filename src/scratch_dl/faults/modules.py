"""Wrong backward passes: one mistake a class, everything else as in the right module.

A module of the network becomes one of these by its class alone, so that its weights, settings and name stay.
"""

import torch
from torch import Tensor

from scratch_dl import kernels, nn
from scratch_dl.nn import Parameter
from scratch_dl.nn.module import check_grad_output
from scratch_dl.system.checks import Pair


def sigmoid_gradient_at_upstream(grad_output: Tensor) -> Tensor:
    """What the paper's Sigmoid returns for dL/dX: sigma' at the incoming gradient, not multiplied by it."""
    s = kernels.sigmoid(grad_output)
    return s * (1 - s)


class SigmoidAtUpstream(nn.Sigmoid):
    """dL/dX = s (1 - s) at s = sigmoid(G): the derivative at the incoming gradient, and not times it."""

    def backward(self, grad_output: Tensor) -> Tensor:
        """The output's shape -> the same."""
        (output,) = self._take()
        return sigmoid_gradient_at_upstream(check_grad_output(grad_output, output.shape, output))


class SigmoidWrongForm(nn.Sigmoid):
    """dL/dX = G e^X / (1 + e^X): the derivative's denominator lacks its square."""

    def backward(self, grad_output: Tensor) -> Tensor:
        """The output's shape -> the same."""
        (output,) = self._take()
        grad_output = check_grad_output(grad_output, output.shape, output)
        grad_input: Tensor = grad_output * output
        return grad_input


class ReLUForgetsInput(nn.ReLU):
    """dL/dX = 0: the mask is that of an input that was never kept."""

    def backward(self, grad_output: Tensor) -> Tensor:
        """The output's shape -> the same."""
        self._take()
        return torch.zeros_like(grad_output)


class ReLUMaskFromGradient(nn.ReLU):
    """dL/dX = max(G, 0): the mask is that of the gradient's sign."""

    def backward(self, grad_output: Tensor) -> Tensor:
        """The output's shape -> the same."""
        self._take()
        return kernels.relu(grad_output)


class UpsamplingNearestAveraged(nn.UpsamplingNearest2d):
    """The gradients of a pixel's copies are averaged, not summed."""

    def backward(self, grad_output: Tensor) -> Tensor:
        """(n, c, s0 H, s1 W) -> (n, c, H, W)."""
        return super().backward(grad_output) / (self.scale_factor[0] * self.scale_factor[1])


class UpsamplingAveraged(nn.Upsampling):
    """The same within the learnable block: the gradient that leaves it is too small by the number of copies."""

    def backward(self, grad_output: Tensor, input_grad: bool = True, through_relu: bool = False) -> Tensor:
        """The output's shape -> the input's."""
        grad = super().backward(grad_output, input_grad, through_relu)
        return grad / (self.scale_factor[0] * self.scale_factor[1])


class WrittenOutConv2d(nn.Conv2d):
    """A right Conv2d whose backward is in parts, so that a subclass can make a mistake in one of them."""

    def backward(self, grad_output: Tensor, input_grad: bool = True, through_relu: bool = False) -> Tensor:  # noqa: ARG002
        """(n, o, h, w) -> (n, c, H, W)."""
        (input,) = self._take()
        grad_output = check_grad_output(
            grad_output,
            (len(input), self.out_channels, *self.output_size((input.shape[2], input.shape[3]))),
            input,
        )
        self._add_weight_gradient(input, grad_output)
        if self.bias is not None:
            self._add_bias_gradient(self.bias, grad_output)
        return self._input_gradient(grad_output, (input.shape[2], input.shape[3]))

    def _add_weight_gradient(self, input: Tensor, grad_output: Tensor) -> None:
        self.weight.grad += kernels.convolution_grad_weight(input, grad_output, self.geometry)

    def _add_bias_gradient(self, bias: Parameter, grad_output: Tensor) -> None:
        bias.grad += kernels.convolution_grad_bias(grad_output)

    def _input_gradient(self, grad_output: Tensor, size: Pair) -> Tensor:
        return kernels.convolution_grad_input(grad_output, self.weight.value, size, self.geometry)


class ConvBiasOnClass(WrittenOutConv2d):
    """dL/db is written to the class, where no optimizer looks."""

    bias_grad: Tensor

    def _add_bias_gradient(self, bias: Parameter, grad_output: Tensor) -> None:  # noqa: ARG002
        type(self).bias_grad = kernels.convolution_grad_bias(grad_output)


class ConvBiasMean(WrittenOutConv2d):
    """dL/db[o] is the mean of G over samples and pixels, not the sum."""

    def _add_bias_gradient(self, bias: Parameter, grad_output: Tensor) -> None:
        bias.grad += grad_output.mean(dim=(0, 2, 3))


class ConvNotFlipped(WrittenOutConv2d):
    """dL/dX with the kernel not flipped."""

    def _input_gradient(self, grad_output: Tensor, size: Pair) -> Tensor:
        return kernels.convolution_grad_input(grad_output, self.weight.value.flip(2, 3), size, self.geometry)


class ConvIgnoresStride(WrittenOutConv2d):
    """dL/dX as if the stride were 1: everything is moved to one corner."""

    def _input_gradient(self, grad_output: Tensor, size: Pair) -> Tensor:
        dense = self.geometry._replace(stride=(1, 1))
        n, o, h, w = grad_output.shape
        whole = grad_output.new_zeros(n, o, *dense.output_size(size))
        whole[:, :, :h, :w] = grad_output
        return kernels.convolution_grad_input(whole, self.weight.value, size, dense)


class ConvAssigned(WrittenOutConv2d):
    """dL/dX where windows that overlap overwrite one another instead of adding up."""

    def _input_gradient(self, grad_output: Tensor, size: Pair) -> Tensor:
        (s0, s1), (p0, p1), (d0, d1) = self.stride, self.padding, self.dilation
        n, _, h, w = grad_output.shape
        grad = grad_output.new_zeros(n, self.in_channels, size[0] + 2 * p0, size[1] + 2 * p1)
        for i in range(self.kernel_size[0]):
            for j in range(self.kernel_size[1]):
                patch = torch.einsum("nohw,oc->nchw", grad_output, self.weight.value[:, :, i, j])
                rows = slice(i * d0, i * d0 + (h - 1) * s0 + 1, s0)
                grad[:, :, rows, j * d1 : j * d1 + (w - 1) * s1 + 1 : s1] = patch
        return grad[:, :, p0 : p0 + size[0], p1 : p1 + size[1]]


class ConvNewParameters(nn.Conv2d):
    """Each backward puts new Parameters in the place of those that the optimizer holds."""

    def backward(self, grad_output: Tensor, input_grad: bool = True, through_relu: bool = False) -> Tensor:
        """(n, o, h, w) -> (n, c, H, W)."""
        grad = super().backward(grad_output, input_grad, through_relu)
        for name in ("weight", "bias"):
            old = getattr(self, name)
            if old is not None:
                fresh = Parameter(old.value)
                fresh.grad = old.grad
                setattr(self, name, fresh)
        return grad


class MSENotDivided(nn.MSELoss):
    """The loss is a mean, but its gradient is not divided by the number of samples."""

    def backward(self) -> Tensor:
        """The gradient of the loss, in the input's shape."""
        grad = super().backward()
        return grad * len(grad)
