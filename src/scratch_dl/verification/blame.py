"""Which module is to blame: one step of a network taken apart, each piece beside PyTorch at that step's own numbers.

Two trainings part sooner or later by rounding alone, for a ReLU at its kink or an Adam near zero makes much of little;
the pieces of one step do not.
"""

from collections import Counter
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from scratch_dl.nn import Module, Sequential, Skip
from scratch_dl.verification.bands import limit_of
from scratch_dl.verification.counterparts import is_container
from scratch_dl.verification.passes import INPUT, Function, Pass, nothing_beside, reference_pass, relative_error
from scratch_dl.verification.references import leaves, reference_for
from scratch_dl.verification.report import NETWORK
from scratch_dl.verification.trace import Batch, Trace

LOSS = "loss"


def blame(network: Module, loss: Module, batch: Batch, step: Trace) -> str:
    """The first piece that is wrong, in the order of the passes, as "sigmoid grad_input"; empty if there is none.

    Args:
        network: with the values that it had in the step.
        loss: under which the step was made.
        batch: of the step.
        step: what passed through the network.
    """
    inside = leaves(network)
    passes = {
        name: _reference_passes(inside[name], [step.inputs[name]], step.grad_outputs[name])
        for name in step.outputs
        if name in inside and reference_for(inside[name]) is not None
    }
    places = Counter(id(parameter) for name in passes for parameter in inside[name].parameters())
    shared = {name: [key for key, p in inside[name].named_parameters() if places[id(p)] > 1] for name in passes}
    for name, (truth, rounded) in passes.items():
        if not _agree(step.outputs[name], truth.output, rounded.output):
            return f"{name} forward"
    if place := next(_torn(network, step, forward=True), ""):
        return place
    if reference_for(loss) is not None:
        truth, rounded = _reference_passes(loss, [step.outputs[""], batch.target.to(step.outputs[""])], None)
        if not _agree(step.grad_outputs[""], truth.gradients[INPUT], rounded.gradients[INPUT]):
            return f"{LOSS} grad_input"
    for name, (truth, rounded) in reversed(passes.items()):
        for key, expected in truth.gradients.items():
            got = step.grad_inputs[name] if key == INPUT else step.grads.get(f"{name}.{key}" if name else key)
            if got is None or key in shared[name]:
                continue  # of a parameter at two places the gradient is the sum
            nothing = nothing_beside(truth.gradients.values(), got.dtype)
            if not _agree(got, expected, rounded.gradients[key], nothing):
                return f"{name} {'grad_input' if key == INPUT else f'gradient of {key}'}"
    return next(_torn(network, step, forward=False), "")


def _reference_passes(module: Module, inputs: list[Tensor], grad_output: Tensor | None) -> tuple[Pass, Pass]:
    """PyTorch's pass in float64, and in float32."""
    function = cast(Function, reference_for(module))
    dtypes = (torch.float64, torch.float32)
    first, second = (reference_pass(function, module, inputs, grad_output, dtype) for dtype in dtypes)
    return first, second


def _torn(network: Module, step: Trace, *, forward: bool) -> Iterator[str]:
    """The containers in which something gets lost between the modules."""
    direction = "forward" if forward else "grad_input"
    for name, module in network.named_modules():
        if not is_container(module) or name not in step.outputs:
            continue
        for got, expected in _joints(name, module, step, forward):
            if not _agree(got, expected, expected):
                yield f"{name or NETWORK} {direction}, between its modules"


def _joints(name: str, module: Module, step: Trace, forward: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """What a container hands on, and what it should."""
    prefix = f"{name}." if name else ""
    if isinstance(module, Skip):
        inner, x, g = f"{prefix}inner", step.inputs[name], step.grad_outputs[name]
        add, channels = module.join == "add", step.inputs[name].shape[1]
        if forward:
            yield step.inputs[inner], x
            yield step.outputs[name], x + step.outputs[inner] if add else torch.cat([x, step.outputs[inner]], 1)
        else:
            yield step.grad_outputs[inner], g if add else g[:, channels:]
            yield step.grad_inputs[name], (g if add else g[:, :channels]) + step.grad_inputs[inner]
    elif isinstance(module, Sequential):
        names = [f"{prefix}{child}" for child, _ in module.children()]
        begin, end = (step.inputs, step.outputs) if forward else (step.grad_outputs, step.grad_inputs)
        now = begin[name]
        for child in names if forward else reversed(names):
            yield begin[child], now
            now = end[child]
        yield end[name], now


def _agree(got: Tensor, expected: Tensor, rounded: Tensor, nothing: float = 0.0) -> bool:
    return relative_error(got, expected, nothing) <= limit_of(got.dtype, relative_error(rounded, expected))
