"""Activations: element by element, any shape. G = dL/dZ."""

from torch import Tensor

from scratch_dl import kernels
from scratch_dl.nn.module import Module, check_floats, check_grad_output


class ReLU(Module):
    """Z = max(X, 0); dL/dX = G where X > 0, else 0. The derivative at 0 is 0, as in PyTorch."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape -> the same."""
        output = kernels.relu(check_floats("input", input))
        self._keep(output)  # positive exactly where the input is
        return output

    def backward(self, grad_output: Tensor) -> Tensor:
        """The output's shape -> the same."""
        (output,) = self._take()
        grad_output = check_grad_output(grad_output, output.shape, output)
        return kernels.relu_grad(output, grad_output)


class Sigmoid(Module):
    """Z = 1 / (1 + exp(-X)); dL/dX = G Z (1 - Z)."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape -> the same."""
        output = kernels.sigmoid(check_floats("input", input))
        self._keep(output)
        return output

    def backward(self, grad_output: Tensor) -> Tensor:
        """The output's shape -> the same."""
        (output,) = self._take()
        grad_output = check_grad_output(grad_output, output.shape, output)
        return kernels.sigmoid_grad(output, grad_output)
