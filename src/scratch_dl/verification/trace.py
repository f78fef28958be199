"""One step of a network, own and twin, watched at every module; and where the two first part."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scratch_dl.nn import Module
from scratch_dl.verification.passes import naming, relative_error
from scratch_dl.verification.references import Twin, gradients, leaves, reference_for
from scratch_dl.verification.report import NETWORK

LOSS = "loss"


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
    """What passed through each module in one step of a network, by dotted name, in the order of the forward."""

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
        if clear:
            network.zero_grad()
        with naming("forward"):
            output = network.forward(batch.input.clone())
            trace.loss = float(loss.forward(output, batch.target.clone()))
        with naming("grad_input"):
            network.backward(loss.backward())
        trace.grads = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    return trace


def twin_step(twin: Twin, loss: Module, batch: Batch) -> Trace:
    """The same by autograd; the gradients stay in the twin's values too, for an optimizer."""
    trace = Trace()
    dtype = next(iter(twin.values.values())).dtype
    watched: list[tuple[str, Tensor, Tensor]] = []

    def watch(name: str, input: Tensor, output: Tensor) -> None:
        input.retain_grad()
        output.retain_grad()
        watched.append((name, input, output))

    for value in twin.values.values():
        value.grad = None
    with torch.enable_grad():
        input = batch.input.detach().to(dtype).clone().requires_grad_()
        criterion = reference_for(loss)
        output = twin.forward(input, watch)
        target = batch.target.to(dtype)
        if criterion is None:  # a loss of a user's own is taken at its word
            trace.loss = float(loss.forward(output.detach(), target))
            output.backward(loss.backward())  # type: ignore[no-untyped-call]
        else:
            value = criterion(output, target)
            trace.loss = float(value.detach())
            value.backward()  # type: ignore[no-untyped-call]
    for name, before, after in watched:
        trace.outputs[name] = after.detach()
        trace.grad_outputs[name] = torch.zeros_like(after) if after.grad is None else after.grad
        trace.grad_inputs[name] = torch.zeros_like(before) if before.grad is None else before.grad
    trace.grads = {name: grad.detach().clone() for name, grad in gradients(twin).items()}
    return trace


def locate(own: Trace, truth: Trace, limit: float = 1e-4) -> str:
    """The first module, in the order of the passes, whose result differs though all that it was given agrees.

    `limit` is coarse enough for rounding in float32 and fine enough for a mistake.
    """

    def differs(got: dict[str, Tensor], expected: dict[str, Tensor], name: str) -> bool:
        return name in got and not relative_error(got[name], expected[name]) <= limit

    def said(name: str, direction: str) -> str:
        return f"first wrong in {name or NETWORK} {direction}"

    for name in truth.outputs:
        if name and differs(own.outputs, truth.outputs, name):
            return said(name, "forward")
    if differs(own.outputs, truth.outputs, ""):
        return said("", "forward")
    if differs(own.grad_outputs, truth.grad_outputs, ""):
        return said(LOSS, "grad_input")
    # Containers are passed over: what goes wrong in one shows at the modules inside and around.
    for name in reversed(truth.outputs):
        inner = [other for other in truth.outputs if other.startswith(f"{name}.") or not name]
        if inner:
            continue
        if differs(own.grad_outputs, truth.grad_outputs, name):
            above = name.rpartition(".")[0]
            return (
                f"what reaches {name} in the backward is wrong though the module after it is right ({above or NETWORK})"
            )
        for parameter in own.grads:
            if parameter.rpartition(".")[0] == name and differs(own.grads, truth.grads, parameter):
                return said(name, f"gradient of {parameter.rpartition('.')[2]}")
        if differs(own.grad_inputs, truth.grad_inputs, name):
            return said(name, "grad_input")
    if differs(own.grad_inputs, truth.grad_inputs, ""):
        return said("", "grad_input")
    for parameter in own.grads:
        if differs(own.grads, truth.grads, parameter):
            return said(parameter.rpartition(".")[0], f"gradient of {parameter.rpartition('.')[2]}")
    return "no single module differs by itself"


@contextmanager
def _watched(network: Module, trace: Trace) -> Iterator[None]:
    """Note in `trace` what passes through every module; the modules are as before afterwards."""
    composites = {name for name in leaves(network) if name}

    def note_forward(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*inputs: Tensor) -> Tensor:
            output = function(*inputs)
            trace.outputs[name] = output.detach().clone()
            return output

        return call

    def note_backward(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(grad_output: Tensor) -> Tensor:
            trace.grad_outputs[name] = grad_output.detach().clone()
            grad = function(grad_output)
            trace.grad_inputs[name] = grad.detach().clone()
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
