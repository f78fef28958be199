"""Deliberately broken copies of every module and optimizer: real mistakes, one a class."""

import torch

from scratch_dl import kernels, nn, optim
from scratch_dl.nn import Parameter
from scratch_dl.nn.module import check_grad_output


class _Conv2d(nn.Conv2d):
    """A Conv2d whose backward is written out, so that each part of it can be broken."""

    def backward(self, grad_output):
        (input,) = self._take()
        self.add_gradients(input, grad_output)
        return self.grad_input(grad_output, (input.shape[2], input.shape[3]))

    def add_gradients(self, input, grad_output):
        self.weight.grad += kernels.convolution_grad_weight(input, grad_output, self.geometry)
        if self.bias is not None:
            self.bias.grad += kernels.convolution_grad_bias(grad_output)

    def grad_input(self, grad_output, size):
        return kernels.convolution_grad_input(grad_output, self.weight.value, size, self.geometry)


class KernelNotFlipped(_Conv2d):
    def grad_input(self, grad_output, size):
        return kernels.convolution_grad_input(grad_output, self.weight.value.flip(2, 3), size, self.geometry)


class KernelAxesSwapped(_Conv2d):
    def grad_input(self, grad_output, size):
        return kernels.convolution_grad_input(grad_output, self.weight.value.transpose(2, 3), size, self.geometry)


class ForwardStridesSwapped(nn.Conv2d):
    """In every pass: consistent, so that only the oracle can see it, and only where the strides differ."""

    @property
    def geometry(self):
        right = super().geometry
        return right._replace(stride=right.stride[::-1])


class StridesSwapped(_Conv2d):
    """In the input's gradient, which is cut to the input's size."""

    def grad_input(self, grad_output, size):
        swapped = self.geometry._replace(stride=self.stride[::-1])
        room = tuple(max(self.stride) * n + 9 for n in size)
        whole = kernels.convolution_grad_input(grad_output, self.weight.value, room, swapped)
        return whole[:, :, : size[0], : size[1]]


class PaddingCroppedOnOneSide(_Conv2d):
    """Crops both paddings behind the image, so that the gradient is shifted."""

    def grad_input(self, grad_output, size):
        grad = super().grad_input(grad_output, size)
        return grad.roll(-self.padding[0], 2).roll(-self.padding[1], 3)


class DilationIgnored(_Conv2d):
    """In the weight's gradient: the taps are taken side by side."""

    def add_gradients(self, input, grad_output):
        dense = self.geometry._replace(dilation=(1, 1))
        n, o, h, w = grad_output.shape
        whole = grad_output.new_zeros(n, o, *dense.output_size((input.shape[2], input.shape[3])))
        whole[:, :, :h, :w] = grad_output
        self.weight.grad += kernels.convolution_grad_weight(input, whole, dense)
        if self.bias is not None:
            self.bias.grad += kernels.convolution_grad_bias(grad_output)


class StrideIgnored(_Conv2d):
    """In the input's gradient (F18)."""

    def grad_input(self, grad_output, size):
        dense = self.geometry._replace(stride=(1, 1))
        n, o, h, w = grad_output.shape
        whole = grad_output.new_zeros(n, o, *dense.output_size(size))
        whole[:, :, :h, :w] = grad_output
        return kernels.convolution_grad_input(whole, self.weight.value, size, dense)


class OverlapsAssigned(_Conv2d):
    """Where windows overlap the last one wins (F19)."""

    def grad_input(self, grad_output, size):
        (s0, s1), (p0, p1), (d0, d1) = self.stride, self.padding, self.dilation
        n, _, h, w = grad_output.shape
        grad = grad_output.new_zeros(n, self.in_channels, size[0] + 2 * p0, size[1] + 2 * p1)
        for i in range(self.kernel_size[0]):
            for j in range(self.kernel_size[1]):
                patch = torch.einsum("nohw,oc->nchw", grad_output, self.weight.value[:, :, i, j])
                rows = slice(i * d0, i * d0 + (h - 1) * s0 + 1, s0)
                grad[:, :, rows, j * d1 : j * d1 + (w - 1) * s1 + 1 : s1] = patch
        return grad[:, :, p0 : p0 + size[0], p1 : p1 + size[1]]


class BiasGradientMean(_Conv2d):
    """F11."""

    def add_gradients(self, input, grad_output):
        super().add_gradients(input, grad_output)
        if self.bias is not None:
            self.bias.grad -= kernels.convolution_grad_bias(grad_output) - grad_output.mean(dim=(0, 2, 3))


class BiasGradientOnClass(_Conv2d):
    """Written where no optimizer looks (F3)."""

    def add_gradients(self, input, grad_output):
        self.weight.grad += kernels.convolution_grad_weight(input, grad_output, self.geometry)
        type(self).bias_grad = kernels.convolution_grad_bias(grad_output)


class BiasNeverCleared(nn.Conv2d):
    """zero_grad forgets the bias (F10), the network's too."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        if self.bias is not None:
            self.bias.zero_grad = lambda: None


class GradientsReplaced(nn.Conv2d):
    """A second backward forgets the first."""

    def backward(self, grad_output):
        self.zero_grad()
        return super().backward(grad_output)


class StaleGradients(nn.Conv2d):
    """Each backward makes new Parameters, which the optimizer does not hold (F6)."""

    def backward(self, grad_output):
        grad = super().backward(grad_output)
        for name in ("weight", "bias"):
            old = getattr(self, name)
            if old is not None:
                fresh = Parameter(old.value)
                fresh.grad = old.grad
                setattr(self, name, fresh)
        return grad


class ForwardKernelFlipped(nn.Conv2d):
    """A true convolution in every pass: consistent, so that only the oracle can see it."""

    def forward(self, input):
        self._kernel = self.weight.value
        self.weight.value = self._kernel.flip(2, 3)
        output = super().forward(input)
        self.weight.value = self._kernel
        return output

    def backward(self, grad_output):
        before = self.weight.grad.clone()
        self.weight.zero_grad()
        self.weight.value = self._kernel.flip(2, 3)
        grad = super().backward(grad_output)
        self.weight.value = self._kernel
        self.weight.grad = before + self.weight.grad.flip(2, 3)
        return grad


class SigmoidGradientAtUpstream(nn.Sigmoid):
    """sigma' at the incoming gradient, and not multiplied by it: the paper's failure (F1)."""

    def backward(self, grad_output):
        self._take()
        s = 1 / (1 + (-grad_output).exp())
        return s * (1 - s)


class SigmoidGradientWrongForm(nn.Sigmoid):
    """e^x / (1 + e^x), without the square (F9)."""

    def backward(self, grad_output):
        (output,) = self._take()
        return grad_output * output


class SigmoidForgetsUpstream(nn.Sigmoid):
    def backward(self, grad_output):
        (output,) = self._take()
        return output * (1 - output) + 0 * grad_output


class ReLUMaskFromGradient(nn.ReLU):
    """F8."""

    def backward(self, grad_output):
        self._take()
        return grad_output.clamp(min=0)


class ReLUForgetsInput(nn.ReLU):
    """A mask of zeros (F7)."""

    def backward(self, grad_output):
        self._take()
        return 0 * grad_output


class ReLUInPlace(nn.ReLU):
    """Overwrites the input, which the module before may have kept."""

    def forward(self, input):
        output = super().forward(input)
        input.clamp_(min=0)
        return output


class UpsamplingGradientAveraged(nn.UpsamplingNearest2d):
    """Divides by the number of copies instead of summing (F4)."""

    def backward(self, grad_output):
        return super().backward(grad_output) / (self.scale_factor[0] * self.scale_factor[1])


class BlockGradientAveraged(nn.Upsampling):
    """The same in the learnable block."""

    def backward(self, grad_output):
        return super().backward(grad_output) / (self.scale_factor[0] * self.scale_factor[1])


class BlockNeverCleared(nn.Upsampling):
    """zero_grad clears a copy, and the gradients of all past steps add up (F5)."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.weight.zero_grad = lambda: self.weight.grad.clone().zero_()


class TransposedForgetsOverlap(nn.ConvTranspose2d):
    """The weight's gradient of the last sample only."""

    def backward(self, grad_output):
        (input,) = self._take()
        self.weight.grad += kernels.convolution_grad_weight(grad_output[-1:], input[-1:], self.geometry)
        if self.bias is not None:
            self.bias.grad += kernels.convolution_grad_bias(grad_output)
        return kernels.convolution(grad_output, self.weight.value, None, self.geometry)


class MSENotDivided(nn.MSELoss):
    """The gradient lacks 2 / N (F12 with the 2)."""

    def backward(self):
        grad = super().backward()
        return grad * grad.numel() / 2 if self.reduction == "mean" else grad


class MSENotDividedByBatch(nn.MSELoss):
    """F12: the forward is a mean, the gradient is not divided by the batch."""

    def backward(self):
        grad = super().backward()
        return grad * len(grad)


class SkipForgetsItself(nn.Skip):
    """The gradient of the carried input is lost."""

    def backward(self, grad_output):
        channels, shape, like = self._take()
        grad_output = check_grad_output(grad_output, shape, like)
        return self.inner.backward(grad_output if self.join == "add" else grad_output[:, channels:])


class MomentumIgnored(optim.SGD):
    def _update(self, values, grads, _):
        for value, grad in zip(values, grads, strict=True):
            value.sub_(grad, alpha=self.lr)


class MomentumShared(optim.SGD):
    """One buffer for all parameters of a shape (F20)."""

    def step(self):
        by_shape = {}
        for position, parameter in enumerate(self.parameters):
            self._state[position] = by_shape.setdefault(tuple(parameter.shape), self._state[position])
        super().step()


class HoldsCopies(optim.SGD):
    """Updates what is no part of the network."""

    def __init__(self, parameters, *arguments, **settings):
        super().__init__([Parameter(parameter.value) for parameter in parameters], *arguments, **settings)


class AdamWithoutCorrection(optim.Adam):
    """The moments' start at zero is not made up for; only the oracle knows the right step."""

    def step(self):
        steps, self.steps = self.steps, 10**6
        super().step()
        self.steps = steps + 1
