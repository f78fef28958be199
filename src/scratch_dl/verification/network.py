"""The composed network: its gradients beside autograd's, the slope of its loss, and its contract with the optimizer."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from scratch_dl.nn import Module, Parameter
from scratch_dl.optim import SGD, Optimizer
from scratch_dl.verification.oracle import limit_of
from scratch_dl.verification.passes import BrokenPassError, compare, direction_of, relative_error
from scratch_dl.verification.references import Twin, gradients, leaves, reference_for, reference_optimizer
from scratch_dl.verification.report import NETWORK, Finding

OPTIMIZER = "optimizer"
LOSS = "loss"
EXACT = 1e-10
SLOPE_LIMIT = 1e-6
_UPDATES = 4


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


def check_composed(network: Module, loss: Module, batch: Batch) -> list[Finding]:
    """Loss, output, input gradient and every parameter's gradient of the network against autograd on its twin."""
    dtype = batch.input.dtype
    check = f"autograd {str(dtype).removeprefix('torch.')}"
    try:
        own = own_step(network, loss, batch)
    except BrokenPassError as error:
        return [Finding(NETWORK, error.direction, check, math.inf, EXACT, detail=str(error))]
    truth = twin_step(Twin(network, torch.float64), loss, batch)
    rounded = twin_step(Twin(network, dtype), loss, batch)
    place = ""

    def finding(direction: str, got: Tensor, expected: Tensor, theirs: Tensor, what: str) -> Finding:
        nonlocal place
        limit = limit_of(dtype, relative_error(theirs, expected))
        found = compare(NETWORK, direction, check, got, expected, limit, what)
        if not found.passed:
            place = place or locate(own, truth)
            found = compare(NETWORK, direction, check, got, expected, limit, f"{what}; {place}")
        return found

    findings = [finding("forward", own.outputs[""], truth.outputs[""], rounded.outputs[""], "output")]
    findings.append(
        finding("grad_input", own.grad_inputs[""], truth.grad_inputs[""], rounded.grad_inputs[""], "of the images")
    )
    for name, expected in truth.grads.items():
        direction = direction_of(name, network)
        findings.append(finding(direction, own.grads[name], expected, rounded.grads[name], f"of {name}"))
    return findings


def own_step(network: Module, loss: Module, batch: Batch, clear: bool = True) -> Trace:
    """One forward and backward of the network under its loss, watched at every module.

    Raises:
        BrokenPassError: if a module raises.
    """
    trace = Trace()
    with torch.no_grad(), _watched(network, trace):
        if clear:
            network.zero_grad()
        try:
            output = network.forward(batch.input.clone())
            trace.loss = float(loss.forward(output, batch.target.clone()))
        except Exception as error:
            raise BrokenPassError("forward", f"raised {type(error).__name__}: {error}") from error
        try:
            network.backward(loss.backward())
        except Exception as error:
            raise BrokenPassError("grad_input", f"raised {type(error).__name__}: {error}") from error
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


def check_slope(network: Module, loss: Module, batch: Batch) -> list[Finding]:
    """Along minus the gradient g the loss has the slope -||g||, by central differences; and batches may be doubled."""
    try:
        step = own_step(network, loss, batch)
        norm = math.sqrt(sum(float(grad.square().sum()) for grad in step.grads.values()))
        findings = [_slope(network, loss, batch, step, norm)] if norm > 0 and math.isfinite(norm) else []
        if not findings:
            said = f"the gradient's norm is {norm:g}"
            findings.append(Finding(NETWORK, "contract", "slope of the loss", math.inf, SLOPE_LIMIT, detail=said))
        if getattr(loss, "reduction", "mean") == "mean":
            double = Batch(torch.cat([batch.input] * 2), torch.cat([batch.target] * 2))
            twice = own_step(network, loss, double)
            a, b = (torch.cat([g.flatten() for g in some.grads.values()]) for some in (twice, step))
            check = "a batch doubled leaves a mean loss and its gradient unchanged"
            findings.append(
                compare(NETWORK, "contract", check, torch.tensor(twice.loss), torch.tensor(step.loss), EXACT)
            )
            findings.append(compare(NETWORK, "contract", check, a, b, EXACT))
    except BrokenPassError as error:
        return [Finding(NETWORK, error.direction, "slope of the loss", math.inf, SLOPE_LIMIT, detail=str(error))]
    return findings


def _slope(network: Module, loss: Module, batch: Batch, step: Trace, norm: float) -> Finding:
    start = {name: parameter.value.clone() for name, parameter in network.named_parameters()}
    best = math.inf
    slope = math.nan
    for h in (1e-5, 1e-6, 1e-4, 1e-7):  # a ReLU at its kink spoils one step size, a wrong gradient spoils all
        losses = []
        for sign in (1, -1):
            for name, parameter in network.named_parameters():
                parameter.value = start[name] - sign * h / norm * step.grads[name]
            with torch.no_grad():
                losses.append(float(loss.forward(network.forward(batch.input.clone()), batch.target)))
        measured = (losses[0] - losses[1]) / (2 * h)
        error = abs(measured + norm) / norm
        if error < best:
            best, slope = error, measured
        if best <= SLOPE_LIMIT:
            break
    for name, parameter in network.named_parameters():
        parameter.value = start[name]
    detail = f"the loss falls by {-slope:.6g} per unit along minus the gradient, whose norm is {norm:.6g}"
    return Finding(NETWORK, "contract", "slope of the loss along minus the gradient", best, SLOPE_LIMIT,
                   abs(slope + norm), detail if best > SLOPE_LIMIT else "")  # fmt: skip


def check_optimizer(network: Module, optimizer: Optimizer, loss: Module, batch: Batch) -> list[Finding]:
    """The optimizer serves the network's own parameters, with their own gradients and nothing but them."""
    findings: list[Finding] = []

    def rule(check: str, wrong: list[str], detail: str, module: str = OPTIMIZER) -> None:
        said = f"{', '.join(wrong[:4])}: {detail}" if wrong else ""
        error = math.inf if wrong else 0.0
        findings.append(Finding(module if wrong else OPTIMIZER, "contract", check, error, EXACT, detail=said))

    own = dict(network.named_parameters())
    held = [id(parameter) for parameter in optimizer.parameters]
    missing = [name for name, parameter in own.items() if id(parameter) not in held]
    rule("it holds every parameter of the network", missing, "not held by the optimizer, so they never change")
    try:
        trace = own_step(network, loss, batch)
    except BrokenPassError:
        return findings  # the network's own verdicts say so
    after = dict(network.named_parameters())
    gone = [name for name in own if after.get(name) is not own[name]]
    rule("a backward leaves the parameters the same objects", gone,
         "a new Parameter after a backward, which the optimizer does not hold", _owner(gone))  # fmt: skip
    before = {name: parameter.value.clone() for name, parameter in own.items()}
    if optimizer.lr > 0:
        optimizer.step()
        still = [n for n, p in after.items() if bool(trace.grads[n].any()) and torch.equal(p.value, before[n])]
        rule("a step changes every parameter that has a gradient", still, "not changed by a step, despite its gradient",
             _owner(still) if set(still) <= set(gone) else OPTIMIZER)  # fmt: skip
    optimizer.zero_grad()
    kept = [name for name, parameter in network.named_parameters() if bool(parameter.grad.any())]
    network.zero_grad()
    always = [name for name, parameter in network.named_parameters() if bool(parameter.grad.any())]
    rule("zero_grad clears every gradient of the network", kept, "the gradient is not cleared",
         _owner(kept) if kept == always or set(kept) <= set(gone) else OPTIMIZER)  # fmt: skip
    return findings


def check_updates(optimizer: Optimizer, generator: Generator, oracle: bool) -> list[Finding]:
    """The optimizer's rule, over some steps with random gradients: beside PyTorch's, and by algebra.

    Each parameter moves as it would alone; under plain or momentum SGD a constant gradient g gives the displacements
    -lr g (1 + m), then -lr g (1 + m + m^2), ... of the velocity's geometric series.
    """
    values = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3, 2), (3, 2), (4,))]
    grads = [[torch.randn(v.shape, generator=generator, dtype=torch.float64) for v in values] for _ in range(_UPDATES)]
    together = _updated(optimizer, values, grads)
    alone = [_updated(optimizer, [v], [[step[i]] for step in grads])[0] for i, v in enumerate(values)]
    findings = [
        compare(OPTIMIZER, "contract", "each parameter moves as it would alone", _flat(together), _flat(alone), EXACT,
                "parameters share what each should have of its own")
    ]  # fmt: skip
    if oracle:
        tensors = [value.clone().requires_grad_() for value in values]
        if (reference := reference_optimizer(optimizer, tensors)) is not None:
            for step in grads:
                for tensor, grad in zip(tensors, step, strict=True):
                    tensor.grad = grad.clone()
                reference.step()
            expected = _flat([tensor.detach() for tensor in tensors])
            check = f"torch.optim.{type(reference).__name__}, {_UPDATES} steps"
            findings.append(compare(OPTIMIZER, "contract", check, _flat(together), expected, EXACT))
    if isinstance(optimizer, SGD) and not optimizer.weight_decay and not optimizer.nesterov:
        constant = [grads[0]] * _UPDATES
        m, velocity, moved = optimizer.momentum, 0.0, 0.0
        for _ in range(_UPDATES):
            velocity = m * velocity + 1
            moved += velocity
        expected = _flat([v - optimizer.lr * moved * g for v, g in zip(values, grads[0], strict=True)])
        got = _flat(_updated(optimizer, values, constant))
        findings.append(
            compare(OPTIMIZER, "contract", f"momentum {m:g} under a constant gradient", got, expected, EXACT)
        )
    return [finding if not finding.passed else Finding(**{**vars(finding), "detail": ""}) for finding in findings]


def _updated(optimizer: Optimizer, values: list[Tensor], grads: list[list[Tensor]]) -> list[Tensor]:
    """What a fresh optimizer of the same settings makes of `values`."""
    fresh = copy.copy(optimizer)
    fresh.parameters = [Parameter(value) for value in values]
    fresh.steps = 0
    fresh._state = [{} for _ in values]
    for step in grads:
        for parameter, grad in zip(fresh.parameters, step, strict=True):
            parameter.grad = grad
        fresh.step()
    return [parameter.value for parameter in fresh.parameters]


def _owner(names: list[str]) -> str:
    """The module of the first parameter."""
    return names[0].rpartition(".")[0] or NETWORK if names else OPTIMIZER


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


@contextmanager
def _watched(network: Module, trace: Trace) -> Iterator[None]:
    """Note in `trace` what passes through every module; the modules are as before afterwards."""
    modules = list(network.named_modules())
    inside = set(leaves(network))
    composite = {name for name in inside if name}

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

    watched: list[Any] = []
    for name, module in modules:
        if any(name.startswith(f"{outer}.") for outer in composite):
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
