"""What a training step looks like from inside: a step of copies of network and optimizer, watched at every module.

Neither the training nor any random state is touched, so watching changes no bit of the result. Signals that are 0 in a
healthy network (`left_over`, `leaks`, ...) are left out as long as they are 0.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from scratch_dl import kernels
from scratch_dl.nn import Module
from scratch_dl.optim import Optimizer, clip_grad_norm
from scratch_dl.verification.passes import copied
from scratch_dl.verification.references import leaves
from scratch_dl.verification.trace import Batch, Trace, own_step

PREFIX = "watch"
SAMPLES = 4
EARLY = (1, 2, 5, 10, 20, 50, 100, 200)
SATURATED = (-23.0, 17.0)  # SageMaker Debugger's bounds of a sigmoid's input

Signals = dict[str, float]
"""`<module>/<signal>` or `<signal>` -> value; names are those of MLflow's metrics without the prefix."""


def is_due(step: int, every: int) -> bool:
    """Return whether the step after `step` others is watched: some of the first 200, then every `every`-th.

    The very first step is watched before the training, together with everything that is inspected then.
    """
    return step in EARLY or (step > EARLY[-1] and step % every == 0)


def watch(network: Module, optimizer: Optimizer, loss: Module, batch: Batch, clip_norm: float | None = None) -> Signals:
    """Take the step on copies, with a few samples of the batch; gradients are clipped as in the training.

    Raises:
        BrokenPassError: if a module raises.
    """
    network, optimizer, loss = copied((network, optimizer, loss))
    batch = Batch(batch.input[:SAMPLES], batch.target[:SAMPLES])
    with torch.no_grad():
        optimizer.zero_grad()
        left = {name: float(parameter.grad.norm()) for name, parameter in network.named_parameters()}
        before = {name: parameter.value.clone() for name, parameter in network.named_parameters()}
        trace = own_step(network, loss, batch, clear=False)
        held = {id(parameter) for parameter in optimizer.parameters}
        lost = [name for name, parameter in network.named_parameters() if id(parameter) not in held]
        if clip_norm is not None:
            clip_grad_norm(optimizer.parameters, clip_norm)
        optimizer.step()
        after = {name: parameter.value for name, parameter in network.named_parameters()}
    signals = _of_network(trace) | _of_last_module(trace, batch)
    for name in lost:
        signals[f"{name.rpartition('.')[0]}/lost"] = len(lost) / len(after)
    for name, module in leaves(network).items():
        if name in trace.grad_inputs:
            signals |= {f"{name}/{key}": value for key, value in _of_module(trace, name).items()}
            signals |= {
                f"{name}/{key}": value
                for key, value in _of_parameters(module, name, trace, before, after, left).items()
            }
    return {key: value for key, value in signals.items() if math.isfinite(value)}


def _of_network(trace: Trace) -> Signals:
    output = trace.outputs[""]
    signals = {"output_mean": float(output.mean()), "output_std": float(output.std())}
    norms = [float(grad.norm()) for name, grad in trace.grad_outputs.items() if name]
    if norms and norms[0]:
        signals["grad_ratio"] = norms[-1] / norms[0]  # backwards come last module first
    return signals


def _of_last_module(trace: Trace, batch: Batch) -> Signals:
    """Return how the gradient that leaves the last module follows the error, if that module made the output."""
    name = next((name for name in trace.grad_inputs if name), "")
    grad, error = trace.grad_inputs[name], trace.outputs[""] - batch.target
    own = torch.equal(trace.outputs[name], trace.outputs[""])  # it is not where the network's input is added, say
    if not (own and trace.inputs[name].shape == grad.shape == error.shape):
        return {}
    signals = {"error_correlation": _correlation(grad, error)}
    if _is(kernels.sigmoid, trace, name):  # of another module the signs may differ
        told = (grad != 0) & (error != 0)
        if bool(told.any()):
            signals["error_sign"] = float((grad.sign() == error.sign())[told].float().mean())
        s = kernels.sigmoid(trace.grad_outputs[name])
        signals["at_upstream"] = float((grad - s * (1 - s)).abs().max()) / 0.25
    return {f"{name}/{key}": value for key, value in signals.items()}


def _of_module(trace: Trace, name: str) -> Signals:
    input, output = trace.inputs[name], trace.outputs[name]
    grad, grad_input = trace.grad_outputs[name], trace.grad_inputs[name]
    signals = {
        "activation_mean": float(output.mean()),
        "activation_std": float(output.std()) if output.numel() > 1 else 0.0,
        "grad_norm": float(grad.norm()),
    }
    if input.shape == output.shape and _is_relu(input, output):
        on, off = output > 0, input < 0
        signals["zero_share"] = 1 - float(on.float().mean())
        if output.ndim > 2:
            signals["dead"] = 1 - float(on.any(dim=0).flatten(1).any(dim=1).float().mean())
        least = torch.finfo(grad.dtype).tiny  # below it a gradient may be rounded to 0
        asked = on & (grad.abs() >= least)
        leaks = float((off & (grad_input != 0)).float().mean())
        blocked = float((grad_input == 0)[asked].float().mean()) if bool(asked.any()) else 0.0
        signals |= {key: value for key, value in (("leaks", leaks), ("blocked", blocked)) if value}
    elif input.shape == output.shape and _is(kernels.sigmoid, trace, name):
        low, high = SATURATED
        signals["saturated"] = float(((input < low) | (input > high)).float().mean())
    return signals


def _of_parameters(
    module: Module,
    name: str,
    trace: Trace,
    before: dict[str, Tensor],
    after: dict[str, Tensor],
    left: dict[str, float],
) -> Signals:
    keys = [f"{name}.{key}" if name else key for key, _ in module.named_parameters()]
    if not keys:
        return {}
    size = math.hypot(*(float(before[key].norm()) for key in keys))
    moved = math.hypot(*(float((after[key] - before[key]).norm()) for key in keys))
    signals = {"update_ratio": moved / size if size else math.nan}
    weights, biases = [key for key in keys if trace.grads[key].ndim > 1], [k for k in keys if trace.grads[k].ndim == 1]
    for what, some in (("weight", weights), ("bias", biases)):
        if kept := math.hypot(*(left[key] for key in some)) if some else 0.0:
            signals[f"{what}_left_over"] = kept
    return signals


def _is(function: Callable[[Tensor], Tensor], trace: Trace, name: str) -> bool:
    """Return whether the module computed this function, whatever its class."""
    return torch.allclose(trace.outputs[name], function(trace.inputs[name]), rtol=1e-4, atol=1e-6)


def _is_relu(input: Tensor, output: Tensor) -> bool:
    """Return whether all negative numbers (at least one) became 0, and all others stayed as they were."""
    return bool((input < 0).any()) and torch.equal(output, input.clamp(min=0))


def _correlation(a: Tensor, b: Tensor) -> float:
    a, b = (some.double().flatten() - some.double().mean() for some in (a, b))
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size else math.nan
