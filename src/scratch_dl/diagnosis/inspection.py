"""What can be seen before the first step, on copies and without any reference.

slope    along each parameter's gradient g the loss changes by |g|^2 a unit: 1 where it does (directional derivative)
gain     how much larger, in root mean square, a module makes its input, bias apart (He et al. 2015)
unread   the share of an input's pixels that change nothing in a module's output
room     how many of the optimizer's first steps one could go before the loss rises (line search)
level    the 99th percentile of |image|
"""

import contextlib
import math
from itertools import product

import torch
from torch import Tensor

from scratch_dl.diagnosis.signals import OPTIMIZER, Signals
from scratch_dl.nn import Module
from scratch_dl.optim import SGD, Optimizer
from scratch_dl.verification.blame import LOSS
from scratch_dl.verification.passes import BrokenPassError, copied, forward
from scratch_dl.verification.references import leaves
from scratch_dl.verification.trace import Batch, Trace, own_step

DATA = "data"
_SAMPLES, _MORE_SAMPLES = 2, 8
_DISTANCES = (1e-7, 1e-6, 1e-8)  # of a parameter's norm; a kink spoils one of them, a wrong gradient all
_HIDDEN = 1e-4
_FARTHEST = 2.0**24


def inspect(network: Module, optimizer: Optimizer, loss: Module, batch: Batch) -> Signals:
    """All of it, as far as the modules take float64.

    Args:
        network: is copied, as optimizer and loss are.
        optimizer: of its parameters.
        loss: of the network's output and the target.
        batch: the training's first one.
    """
    signals = {f"{DATA}/level": float(batch.input.abs().double().quantile(0.99) if batch.input.numel() <= 2**24
                                      else batch.input.abs().max())}  # fmt: skip
    few, several = (Batch(batch.input[:n], batch.target[:n]) for n in (_SAMPLES, _MORE_SAMPLES))
    try:
        network, optimizer, loss = copied((network, optimizer, loss))
        network.to(dtype=torch.float64)
        trace = own_step(network, loss, few.to(torch.float64))
    except BrokenPassError:  # float32 hides a difference quotient
        return signals
    with contextlib.suppress(BrokenPassError):
        signals |= _of_modules(network, trace)
        signals |= slopes(network, loss, few.to(torch.float64), trace)
        signals |= _of_loss(loss, trace, few.to(torch.float64))
        signals[f"{OPTIMIZER}/room"] = room(network, optimizer, loss, several.to(torch.float64))
    return {key: value for key, value in signals.items() if math.isfinite(value)}


def slopes(network: Module, loss: Module, batch: Batch, trace: Trace) -> Signals:
    """`<parameter>/slope`: how the loss changes along the parameter's gradient, in units of its squared norm."""
    own = dict(network.named_parameters())
    found: Signals = {}
    for name, grad in trace.grads.items():
        norm, start = float(grad.norm()), own[name].value.clone()
        size = float(start.norm()) or 1.0
        if not norm or not math.isfinite(norm):
            continue
        tried = []
        for distance in _DISTANCES:
            h = distance * size / norm
            losses = []
            for sign in (1, -1):
                own[name].value = start + sign * h * grad
                losses.append(_loss(network, loss, batch))
            slope = (losses[0] - losses[1]) / (2 * h * norm**2)
            if 8 * torch.finfo(torch.float64).eps * abs(losses[0]) < _HIDDEN * 2 * h * norm**2:
                tried.append(slope)
        own[name].value = start
        if tried:
            found[f"{name}/slope"] = min(tried, key=lambda slope: abs(slope - 1))
    return found


def room(network: Module, optimizer: Optimizer, loss: Module, batch: Batch) -> float:
    """The multiple of the optimizer's first step at which the loss is least, in steps of sqrt(2).

    Times 1 - m for a momentum m, under which as many more steps add up.
    """
    network, optimizer, loss = copied((network, optimizer, loss))
    before = [parameter.value.clone() for parameter in network.parameters()]
    with torch.no_grad():
        optimizer.zero_grad()
        start = own_step(network, loss, batch, clear=False).loss
        optimizer.step()
    ways = [p.value - value for p, value in zip(network.parameters(), before, strict=True)]
    if not any(bool(way.any()) for way in ways):
        return math.nan
    best, least, multiple = 0.0, start, 2.0**-4
    while multiple <= _FARTHEST:
        for parameter, value, way in zip(network.parameters(), before, ways, strict=True):
            parameter.value = value + multiple * way
        now = _loss(network, loss, batch)
        if now < least:
            best, least = multiple, now
        elif not now <= start:
            break
        multiple *= math.sqrt(2)
    return best * (1 - optimizer.momentum if isinstance(optimizer, SGD) else 1.0)


def unread(module: Module, input: Tensor) -> float:
    """The share of the input's pixels, by their remainders modulo the stride, that change nothing in the output."""
    module = copied(module).eval()
    output = forward(module, [input])
    strides = [max(1, round(a / b)) for a, b in zip(input.shape[2:], output.shape[2:], strict=True)]
    classes = list(product(*(range(stride) for stride in strides)))
    if len(classes) == 1:
        return 0.0
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(input.shape, generator=generator, dtype=torch.float64).to(input)
    blind = 0
    for row, column in classes:
        changed = input.clone()
        some = (..., slice(row, None, strides[0]), slice(column, None, strides[1]))
        changed[some] += noise[some]
        blind += torch.equal(forward(module, [changed]), output)
    return blind / len(classes)


def _of_modules(network: Module, trace: Trace) -> Signals:
    signals: Signals = {}
    for name, module in leaves(network).items():
        input, output = trace.inputs.get(name), trace.outputs.get(name)
        if input is None or output is None or not name:
            continue
        if module.parameters():
            nothing = forward(copied(module).eval(), [torch.zeros_like(input)])
            given = float(input.square().mean().sqrt())
            if given:
                signals[f"{name}/gain"] = float((output - nothing).square().mean().sqrt()) / given
        if input.ndim == output.ndim == 4 and (share := unread(module, input)):
            signals[f"{name}/unread"] = share
    return signals


def _of_loss(loss: Module, trace: Trace, batch: Batch) -> Signals:
    """How far the loss's slope along its gradient is from the gradient's squared norm, and from that by the batch."""
    output, grad = trace.outputs[""], _first(trace)
    norm = float(grad.norm())
    if not norm:
        return {}
    h = 1e-5 * float(output.norm()) / norm
    above, below = (float(forward(loss, [output + sign * h * grad, batch.target])) for sign in (1, -1))
    slope = (above - below) / (2 * h * norm**2)
    return {f"{LOSS}/slope": slope, f"{LOSS}/undivided": abs(slope * len(output) - 1)}


def _first(trace: Trace) -> Tensor:
    """The gradient that the loss has given."""
    return trace.grad_outputs[""] if "" in trace.grad_outputs else next(iter(trace.grad_outputs.values()))


def _loss(network: Module, loss: Module, batch: Batch) -> float:
    return float(forward(loss, [forward(network, [batch.input]), batch.target]))
