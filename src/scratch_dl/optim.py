"""Optimizers with PyTorch's semantics, and clipping by the global norm.

w parameter, g gradient, lr learning rate, t the step's number from 1.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from scratch_dl import kernels
from scratch_dl.nn.module import Parameter
from scratch_dl.system.checks import boolean, real


class Optimizer(ABC):
    """Steps down the gradient of `parameters`; `lr` may be set between steps.

    A subclass keeps tensors in the shape of each parameter, by name (`_slots`), and says what one step does.
    """

    parameters: list[Parameter]
    _slots: tuple[str, ...] = ()
    _always_kept = True

    def __init__(self, parameters: Iterable[Parameter], lr: float, weight_decay: float) -> None:
        if not isinstance(parameters, Iterable):
            raise TypeError(f"parameters must be Parameters, but got {type(parameters).__name__}")
        self.parameters = list(parameters)
        if not all(isinstance(parameter, Parameter) for parameter in self.parameters):
            raise TypeError(f"parameters must be Parameters, but got {[type(p).__name__ for p in self.parameters]}")
        if len({id(parameter) for parameter in self.parameters}) != len(self.parameters):
            raise ValueError("parameters must be distinct, but one of them is given twice")
        self.lr = lr
        self.weight_decay = real("weight_decay", weight_decay, minimum=0)
        self.steps = 0
        self._state: list[dict[str, Tensor]] = [{} for _ in self.parameters]

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self._lr = real("lr", lr, minimum=0)

    def zero_grad(self) -> None:
        """Set every parameter's gradient to zero."""
        for parameter in self.parameters:
            parameter.zero_grad()

    def step(self) -> None:
        """Update every parameter in place from its gradient."""
        self.steps += 1
        if not self.parameters:
            return
        with torch.no_grad():
            values = [parameter.value for parameter in self.parameters]
            grads = [p.grad.to(value.dtype) for p, value in zip(self.parameters, values, strict=True)]
            if self.weight_decay:
                grads = [grad + self.weight_decay * value for grad, value in zip(grads, values, strict=True)]
            self._update(values, grads, self._state)

    @abstractmethod
    def _update(self, values: list[Tensor], grads: list[Tensor], states: list[dict[str, Tensor]]) -> None:
        """Change the values in place, given their gradients and the tensors kept for each."""

    def _kept(self, name: str, values: list[Tensor], states: list[dict[str, Tensor]]) -> list[Tensor]:
        """The tensor of that name kept for each value; zeros at first."""
        for value, state in zip(values, states, strict=True):
            if name not in state:
                state[name] = torch.zeros_like(value)
        return [state[name] for state in states]

    def state_dict(self) -> dict[str, Any]:
        """Copies of what the next step depends on, besides the parameters."""
        state = [{name: tensor.clone() for name, tensor in slots.items()} for slots in self._state]
        return {"lr": self.lr, "steps": self.steps, "state": state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on as the optimizer did that `state` was taken from.

        Raises:
            ValueError: if it was another kind of optimizer, or of other parameters.
        """
        if set(state) != {"lr", "steps", "state"} or len(state["state"]) != len(self.parameters):
            raise ValueError(f"state must be that of a {type(self).__name__} of {len(self.parameters)} parameters")
        for parameter, slots in zip(self.parameters, state["state"], strict=True):
            for name, tensor in slots.items():
                if name not in self._slots or tensor.shape != parameter.shape:
                    raise ValueError(f"state has {name!r} of shape {tuple(tensor.shape)}, which does not belong here")
            if set(slots) != set(self._slots) and (slots or (state["steps"] and self._always_kept)):
                raise ValueError(f"state must have {self._slots} of every parameter, but has {sorted(slots)} of one")
        self.lr, self.steps = state["lr"], int(state["steps"])
        self._state = [
            {name: tensor.to(parameter.value, copy=True) for name, tensor in slots.items()}
            for parameter, slots in zip(self.parameters, state["state"], strict=True)
        ]


class SGD(Optimizer):
    """Stochastic gradient descent, v <- momentum v + g (v = g at first), w <- w - lr v.

    Nesterov: w <- w - lr (g + momentum v) (Sutskever et al. 2013, in PyTorch's form). weight_decay adds its
    product with w to g.

    Args:
        parameters: what to update.
        lr: >= 0.
        momentum: in [0, 1).
        weight_decay: >= 0.
        nesterov: needs a momentum.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if one is out of its range.
    """

    _slots = ("velocity",)
    _always_kept = False  # without a momentum there is none

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        self.momentum = real("momentum", momentum, minimum=0, below=1)
        self.nesterov = boolean("nesterov", nesterov)
        if nesterov and not momentum:
            raise ValueError("nesterov=True needs a momentum > 0, but got momentum=0")

    def _update(self, values: list[Tensor], grads: list[Tensor], states: list[dict[str, Tensor]]) -> None:
        velocities = self._kept("velocity", values, states) if self.momentum else None
        kernels.sgd(values, grads, velocities, self.lr, self.momentum, self.nesterov)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1), weight decay added to g as in PyTorch's Adam.

        m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2,  w <- w - lr m' / (sqrt(v') + eps)

    with m' = m / (1 - b1^t) and v' = v / (1 - b2^t).

    Args:
        parameters: what to update.
        lr: >= 0.
        betas: (b1, b2), each in [0, 1).
        eps: >= 0.
        weight_decay: >= 0.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if one is out of its range.
    """

    _slots = ("mean", "square")

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        if not isinstance(betas, Sequence) or isinstance(betas, str) or len(betas) != 2:
            raise ValueError(f"betas must be two numbers, but got {betas!r}")
        b1, b2 = (real(f"betas[{i}]", beta, minimum=0, below=1) for i, beta in enumerate(betas))
        self.betas = b1, b2
        self.eps = real("eps", eps, minimum=0)

    def _update(self, values: list[Tensor], grads: list[Tensor], states: list[dict[str, Tensor]]) -> None:
        means, squares = (self._kept(name, values, states) for name in self._slots)
        kernels.adam(values, grads, means, squares, self.lr, self.betas, self.eps, self.steps)


def clip_grad_norm(parameters: Iterable[Parameter], max_norm: float) -> float:
    """Scale all gradients by one factor, so that their global L2 norm is at most `max_norm` (Pascanu et al. 2013).

    Returns:
        The norm before.
    """
    max_norm = real("max_norm", max_norm, minimum=0)
    parameters = list(parameters)
    norm = math.sqrt(sum(float(parameter.grad.square().sum()) for parameter in parameters))
    if norm > max_norm:
        for parameter in parameters:
            parameter.grad.mul_(max_norm / norm)
    return norm
