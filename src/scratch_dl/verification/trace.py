"""One step of a network, observed at every module, and the same step by autograd."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from scratch_dl.nn import Module, Observer, observing, parameter_gradients
from scratch_dl.system.seeding import seeded
from scratch_dl.verification.passes import pass_errors
from scratch_dl.verification.references import Twin, gradients, leaves, reference_for


@dataclass
class Batch:
    """A batch of images and the targets of the network's outputs, each (n, c, H, W)."""

    input: Tensor
    target: Tensor

    def to(self, dtype: torch.dtype) -> "Batch":
        """The same in another dtype."""
        return Batch(self.input.to(dtype), self.target.to(dtype))


@dataclass
class Trace:
    """The tensors that passed through each module in one step of a network, by dotted name; "" is the network.

    `grads` are the parameters' gradients, by the parameters' names. A twin's step, and one that was not observed, have
    the network's own entries only.
    """

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    grad_outputs: dict[str, Tensor] = field(default_factory=dict)
    grad_inputs: dict[str, Tensor] = field(default_factory=dict)
    grads: dict[str, Tensor] = field(default_factory=dict)
    loss: float = math.nan


def own_step(network: Module, loss: Module, batch: Batch, clear: bool = True) -> Trace:
    """Make one forward and backward of the network under its loss, observed at every module.

    Raises:
        BrokenPassError: if a module raises.
    """
    trace = Trace()
    with torch.no_grad(), observing(_recorders(network, trace)):
        _step(network, loss, batch, trace, network.call_backward, clear)
    return trace


def training_step(network: Module, loss: Module, batch: Batch, clear: bool = True) -> Trace:
    """Make the step as a training does it: modules may be computed in one, and there is no gradient of the input.

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
        with pass_errors("contract"):
            network.zero_grad()
    loss.to(dtype=batch.input.dtype)  # a user's own may contain tensors
    with pass_errors("forward"):
        output = network(batch.input.clone())
        trace.outputs[""] = output.detach()
        trace.loss = float(loss.forward(output, batch.target.clone()))
    with pass_errors("grad_input"):
        backward(loss.backward())
    trace.grads = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


def twin_step(twin: Twin, loss: Module, batch: Batch) -> Trace:
    """Make the step by autograd; the gradients stay in the twin's values too, for an optimizer."""
    dtype = twin.dtype
    for value in twin.values.values():
        value.grad = None
    with torch.enable_grad():
        input = batch.input.detach().to(dtype).clone().requires_grad_()
        output = twin.forward(input)
        target = batch.target.to(dtype)
        criterion = reference_for(loss)
        if criterion is None:  # a user's own loss is trusted
            loss.to(dtype=dtype).forward(output.detach(), target)
            output.backward(loss.backward())  # type: ignore[no-untyped-call]
        else:
            criterion(output, target).backward()  # type: ignore[no-untyped-call]
    grad = torch.zeros_like(input) if input.grad is None else input.grad
    grads = {name: grad.detach().clone() for name, grad in gradients(twin).items()}
    return Trace(outputs={"": output.detach()}, grad_inputs={"": grad}, grads=grads)


class _Recorder(Observer):
    """Notes in a trace what passes through the module `name`."""

    def __init__(self, trace: Trace, name: str) -> None:
        self.trace, self.name = trace, name

    def forward(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Note the first input and the output."""
        self.trace.inputs[self.name] = inputs[0].detach()
        with seeded(self.name):  # as in the twin, so that what draws random numbers, as dropout does, draws the same
            output = function(*inputs)
        self.trace.outputs[self.name] = output.detach()
        return output

    def backward(self, function: Callable[..., Tensor], *grad_outputs: Tensor, **options: bool) -> Tensor:
        """Note the gradients of the output and of the input."""
        self.trace.grad_outputs[self.name] = grad_outputs[0].detach()
        grad_input = function(*grad_outputs, **options)
        self.trace.grad_inputs[self.name] = grad_input.detach()
        return grad_input


def _recorders(network: Module, trace: Trace) -> Iterator[tuple[Module, Observer]]:
    """Each module with its recorder; a user's composite is one module, those inside it are left out."""
    composites = {name for name in leaves(network) if name}
    for name, module in network.named_modules():
        if not any(name.startswith(f"{outer}.") for outer in composites):
            yield module, _Recorder(trace, name)
