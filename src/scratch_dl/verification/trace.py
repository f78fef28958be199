"""One step of a network, watched at every module, and the same step by autograd."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from scratch_dl.nn import Module, parameter_gradients
from scratch_dl.system.seeding import seeded
from scratch_dl.verification.passes import naming
from scratch_dl.verification.references import Twin, gradients, leaves, reference_for


@dataclass
class Batch:
    """A batch of images and what the network is to make of them, each (n, c, H, W)."""

    input: Tensor
    target: Tensor

    def to(self, dtype: torch.dtype) -> "Batch":
        """The same in another dtype."""
        return Batch(self.input.to(dtype), self.target.to(dtype))


@dataclass
class Trace:
    """What passed through each module in one step of a network, by dotted name; "" is the network.

    `grads` are the parameters' gradients, by the parameters' names. Of a twin, and of a step that was not watched,
    there are the network's own entries only.
    """

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    grad_outputs: dict[str, Tensor] = field(default_factory=dict)
    grad_inputs: dict[str, Tensor] = field(default_factory=dict)
    grads: dict[str, Tensor] = field(default_factory=dict)
    loss: float = math.nan


def own_step(network: Module, loss: Module, batch: Batch, clear: bool = True) -> Trace:
    """One forward and backward of the network under its loss, watched at every module.

    Raises:
        BrokenPassError: if a module raises.
    """
    trace = Trace()
    with torch.no_grad(), _watched(network, trace):
        _step(network, loss, batch, trace, network.backward, clear)
    return trace


def training_step(network: Module, loss: Module, batch: Batch, clear: bool = True) -> Trace:
    """The same as a training does it: modules may be computed in one, and there is no gradient of the input.

    Raises:
        BrokenPassError: if a module raises.
    """
    trace = Trace()
    with torch.no_grad():
        _step(network, loss, batch, trace, partial(parameter_gradients, network), clear)
    return trace


def _step(
    network: Module, loss: Module, batch: Batch, trace: Trace, backward: Callable[[Tensor], Tensor], clear: bool
) -> None:
    if clear:
        with naming("contract"):
            network.zero_grad()
    with naming("forward"):
        output = network.forward(batch.input.clone())
        trace.outputs[""] = output.detach()
        trace.loss = float(loss.forward(output, batch.target.clone()))
    with naming("grad_input"):
        backward(loss.backward())
    trace.grads = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


def twin_step(twin: Twin, loss: Module, batch: Batch) -> Trace:
    """The same by autograd; the gradients stay in the twin's values too, for an optimizer."""
    dtype = twin.dtype
    for value in twin.values.values():
        value.grad = None
    with torch.enable_grad():
        input = batch.input.detach().to(dtype).clone().requires_grad_()
        output = twin.forward(input)
        target = batch.target.to(dtype)
        criterion = reference_for(loss)
        if criterion is None:  # a loss of a user's own is taken at its word
            loss.forward(output.detach(), target)
            output.backward(loss.backward())  # type: ignore[no-untyped-call]
        else:
            criterion(output, target).backward()  # type: ignore[no-untyped-call]
    grad = torch.zeros_like(input) if input.grad is None else input.grad
    grads = {name: grad.detach().clone() for name, grad in gradients(twin).items()}
    return Trace(outputs={"": output.detach()}, grad_inputs={"": grad}, grads=grads)


@contextmanager
def _watched(network: Module, trace: Trace) -> Iterator[None]:
    """Note in `trace` what passes through every module; the modules are as before afterwards."""
    composites = {name for name in leaves(network) if name}

    def note_forward(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*inputs: Tensor) -> Tensor:
            trace.inputs[name] = inputs[0].detach()
            with seeded(name):  # as the twin's, so that what draws, as dropout does, draws the same
                output = function(*inputs)
            trace.outputs[name] = output.detach()
            return output

        return call

    def note_backward(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(grad_output: Tensor) -> Tensor:
            trace.grad_outputs[name] = grad_output.detach()
            grad = function(grad_output)
            trace.grad_inputs[name] = grad.detach()
            return grad

        return call

    watched: list[Module] = []
    for name, module in network.named_modules():
        if any(name.startswith(f"{outer}.") for outer in composites):
            continue  # inside of a user's composite, which is one module here
        vars(module)["forward"] = note_forward(name, module.forward)
        vars(module)["backward"] = note_backward(name, module.backward)
        watched.append(module)
    try:
        yield
    finally:
        for module in watched:
            vars(module).pop("forward", None)
            vars(module).pop("backward", None)
