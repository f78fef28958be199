"""Activations: element by element, any shape. G = dL/dZ."""

import torch
from torch import Tensor

from scratch_dl.nn.module import Module, check_floats, check_grad_output


class ReLU(Module):
    """Z = max(X, 0); dL/dX = G where X > 0, else 0. The derivative at 0 is 0, as in PyTorch."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape -> the same."""
        output = check_floats("input", input).clamp(min=0)
        self._keep(output)  # positive exactly where the input is
        return output

    def backward(self, grad_output: Tensor) -> Tensor:
        """The output's shape -> the same."""
        (output,) = self._take()
        grad_output = check_grad_output(grad_output, output.shape, output)
        return torch.where(output <= 0, 0.0, grad_output)


class Sigmoid(Module):
    """Z = 1 / (1 + exp(-X)); dL/dX = G Z (1 - Z).

    exp is taken of -|X| alone, which cannot overflow: Z = 1 / (1 + e) for X >= 0 and e / (1 + e) below, e = exp(-|X|).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Any shape -> the same."""
        input = check_floats("input", input)
        e = input.abs().neg_().exp_()
        output = torch.where(input >= 0, 1.0, e).div_(e.add_(1.0))
        self._keep(output)
        return output

    def backward(self, grad_output: Tensor) -> Tensor:
        """The output's shape -> the same."""
        (output,) = self._take()
        grad_output = check_grad_output(grad_output, output.shape, output)
        grad: Tensor = output * (1 - output)
        return grad.mul_(grad_output)
