"""Mistakes of modules and optimizers that the bank of faults (scratch_dl.faults) lacks, one a class."""

from scratch_dl import kernels, nn, optim
from scratch_dl.faults.modules import WrittenOutConv2d
from scratch_dl.nn import Parameter
from scratch_dl.nn.module import check_grad_output


def spoil(module, mistake):
    """The module with the mistake: a class put in its class's place, or a function of `faults.outside_modules`."""
    if isinstance(mistake, type):
        module.__class__ = mistake
    else:
        assert mistake(module)
    return module


class KernelAxesSwapped(WrittenOutConv2d):
    def _input_gradient(self, grad_output, size):
        return kernels.convolution_grad_input(grad_output, self.weight.value.transpose(2, 3), size, self.geometry)


class ForwardStridesSwapped(nn.Conv2d):
    """In every pass: consistent, so that only the oracle can see it, and only where the strides differ."""

    @property
    def geometry(self):
        right = super().geometry
        return right._replace(stride=right.stride[::-1])


class StridesSwapped(WrittenOutConv2d):
    """In the input's gradient, which is cut to the input's size."""

    def _input_gradient(self, grad_output, size):
        swapped = self.geometry._replace(stride=self.stride[::-1])
        room = tuple(max(self.stride) * n + 9 for n in size)
        whole = kernels.convolution_grad_input(grad_output, self.weight.value, room, swapped)
        return whole[:, :, : size[0], : size[1]]


class PaddingCroppedOnOneSide(WrittenOutConv2d):
    """Crops both paddings behind the image, so that the gradient is shifted."""

    def _input_gradient(self, grad_output, size):
        grad = super()._input_gradient(grad_output, size)
        return grad.roll(-self.padding[0], 2).roll(-self.padding[1], 3)


class DilationIgnored(WrittenOutConv2d):
    """In the weight's gradient: the taps are taken side by side."""

    def _add_weight_gradient(self, input, grad_output):
        dense = self.geometry._replace(dilation=(1, 1))
        n, o, h, w = grad_output.shape
        whole = grad_output.new_zeros(n, o, *dense.output_size((input.shape[2], input.shape[3])))
        whole[:, :, :h, :w] = grad_output
        self.weight.grad += kernels.convolution_grad_weight(input, whole, dense)


class GradientsReplaced(nn.Conv2d):
    """A second backward forgets the first."""

    def backward(self, grad_output):
        self.zero_grad()
        return super().backward(grad_output)


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


class SigmoidForgetsUpstream(nn.Sigmoid):
    def backward(self, grad_output):
        (output,) = self._take()
        return output * (1 - output) + 0 * grad_output


class ReLUInPlace(nn.ReLU):
    """Overwrites the input, which the module before may have kept."""

    def forward(self, input):
        output = super().forward(input)
        input.clamp_(min=0)
        return output


class TransposedForgetsOverlap(nn.ConvTranspose2d):
    """The weight's gradient of the last sample only."""

    def backward(self, grad_output):
        (input,) = self._take()
        self.weight.grad += kernels.convolution_grad_weight(grad_output[-1:], input[-1:], self.geometry)
        if self.bias is not None:
            self.bias.grad += kernels.convolution_grad_bias(grad_output)
        return kernels.convolution(grad_output, self.weight.value, None, self.geometry)


class MSEWithoutFactor(nn.MSELoss):
    """The gradient lacks 2 / N; that of F12 lacks the number of samples alone."""

    def backward(self):
        grad = super().backward()
        return grad * grad.numel() / 2 if self.reduction == "mean" else grad


class L1SignForgotten(nn.L1Loss):
    """The gradient pushes every number up, whatever its error."""

    def backward(self):
        return super().backward().abs()


class CharbonnierForgetsRoot(nn.CharbonnierLoss):
    """The gradient is that of the squared error, without the division by the root."""

    def backward(self):
        difference, _ = self._take()
        return difference * self._share(difference)


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
