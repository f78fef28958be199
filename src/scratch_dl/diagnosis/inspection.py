"""What can be seen before the first step, on copies and without any reference.

slope    measured directional derivative of the loss along each parameter's gradient g, divided by |g|^2;
         1 if the gradient is right
gain     root mean square of a module's output, without its bias, divided by that of its input (He et al. 2015)
unread   the share of the input's pixels that do not change a module's output
room     how many times the optimizer's first step could be taken before the loss rises (line search)
level    absolute value of the mean of the images, which noise of mean 0 does not change
"""

import contextlib
import math
from itertools import product

import torch
from torch import Tensor

from scratch_dl.diagnosis.signals import Signals
from scratch_dl.diagnosis.signs import NO_GRADIENT, is_off
from scratch_dl.models import check_size
from scratch_dl.nn import Module
from scratch_dl.optim import SGD, Optimizer, clip_grad_norm
from scratch_dl.system.seeding import seeded
from scratch_dl.verification.blame import LOSS
from scratch_dl.verification.optimizer import OPTIMIZER
from scratch_dl.verification.passes import BrokenPassError, copied, draw_like, forward, step_aside
from scratch_dl.verification.references import leaves
from scratch_dl.verification.trace import Batch, Trace, own_step

DATA = "data"
_SAMPLES, _MORE_SAMPLES = 2, 8
_DISTANCES = (1e-7, 1e-6, 1e-8)  # relative to a parameter's norm; a kink spoils one of them, a wrong gradient all
_HIDDEN = 1e-4  # rounding above this share of the change hides a slope
_POINTS = 3  # points tried beside a kink
_FARTHEST = 2.0**24  # times the first step
_SIDE = 32  # pixels; larger images are cropped


def inspect(
    network: Module, optimizer: Optimizer, loss: Module, batch: Batch, clip_norm: float | None = None
) -> Signals:
    """Return all signals; only the level if the modules do not take float64.

    Args:
        network: is copied, like optimizer and loss.
        optimizer: of its parameters.
        loss: of the network's output and the target.
        batch: the first one of the training.
        clip_norm: norm to which the training clips its gradients.
    """
    signals = {f"{DATA}/level": abs(float(batch.input.double().mean()))}
    try:
        network, optimizer, loss = copied((network, optimizer, loss))
        batch = _cropped(network, batch)
        few, several = (Batch(batch.input[:n], batch.target[:n]) for n in (_SAMPLES, _MORE_SAMPLES))
        network.to(dtype=torch.float64)
        trace = own_step(network, loss, few.to(torch.float64))
    except BrokenPassError:  # in float32, rounding would hide the difference quotients
        return signals
    with contextlib.suppress(BrokenPassError):
        signals |= _of_modules(network, trace)
        signals |= slopes(network, loss, few.to(torch.float64))
        signals |= _of_loss(loss, trace, few.to(torch.float64))
        signals[f"{OPTIMIZER}/room"] = room(network, optimizer, loss, several.to(torch.float64), clip_norm)
    return {key: value for key, value in signals.items() if math.isfinite(value)}


def _cropped(network: Module, batch: Batch) -> Batch:
    """Return smaller images if the network takes them: they show the same mistakes in less time."""
    size = tuple(min(_SIDE, side) for side in batch.input.shape[2:])
    try:
        with seeded("size"):
            check_size(network, (size[0], size[1]))
    except ValueError:
        return batch
    return Batch(*(images[..., : size[0], : size[1]] for images in (batch.input, batch.target)))


def slopes(network: Module, loss: Module, batch: Batch) -> Signals:
    """Return `<parameter>/slope`: the change of the loss along the parameter's gradient, divided by its squared norm.

    If a ReLU is exactly at its kink, as with a bias of 0 behind units that are all off, the loss has two slopes. Then
    neighbouring points are tried; a wrong gradient is wrong there too.
    """
    network = copied(network)
    generator = torch.Generator().manual_seed(0)
    found = _slopes(network, loss, batch)
    for _ in range(_POINTS):
        if not any(is_off(slope) for slope in found.values()):
            break
        step_aside(network, generator)
        beside = _slopes(network, loss, batch)
        found = {name: min(slope, beside.get(name, slope), key=_distance) for name, slope in found.items()}
    return found


def _slopes(network: Module, loss: Module, batch: Batch) -> Signals:
    for parameter in network.parameters():  # also those that a wrong zero_grad forgets
        parameter.grad.zero_()
    trace = own_step(network, loss, batch)
    if own_step(network, loss, batch).loss != trace.loss:  # it draws random numbers that no seed controls
        return {}
    draws = abs(_loss(network, loss, batch) - trace.loss) > 1e-9 * abs(trace.loss)
    own = dict(network.named_parameters())
    generator = torch.Generator().manual_seed(1)
    found: Signals = {}
    for name, grad in trace.grads.items():
        start = own[name].value.clone()
        # If the gradient is 0, the loss must not change in any direction.
        way = grad if bool(grad.any()) else draw_like(grad, generator)
        norm, size = float(way.norm()), float(start.norm()) or 1.0
        if not norm or not math.isfinite(norm):
            continue
        tried = []
        for distance in _DISTANCES:
            h = distance * size / norm
            losses = []
            for sign in (1, -1):
                own[name].value = start + sign * h * way
                # A module that draws random numbers, as dropout does, draws the same ones in each watched step.
                losses.append(own_step(network, loss, batch).loss if draws else _loss(network, loss, batch))
            change, rounding = losses[0] - losses[1], 8 * torch.finfo(torch.float64).eps * abs(losses[0])
            if way is not grad:
                tried.append(NO_GRADIENT if abs(change) > rounding / _HIDDEN else 1.0)
            elif rounding < _HIDDEN * 2 * h * norm**2:
                tried.append(change / (2 * h * norm**2))
        own[name].value = start
        if tried:
            # Every distance shows a wrong slope. For a gradient of 0, rounding hides a small change at small distances.
            found[f"{name}/slope"] = (min if way is grad else max)(tried, key=_distance)
    return found


def _distance(slope: float) -> float:
    return abs(slope - 1)


def room(network: Module, optimizer: Optimizer, loss: Module, batch: Batch, clip_norm: float | None = None) -> float:
    """Return the multiple of the optimizer's first step at which the loss is lowest, tried in factors of sqrt(2).

    It is multiplied by 1 - m for a momentum m, because the steps add up to 1 / (1 - m) times the first one.
    """
    network, optimizer, loss = copied((network, optimizer, loss))
    before = [parameter.value.clone() for parameter in network.parameters()]
    with torch.no_grad():
        optimizer.zero_grad()
        start = own_step(network, loss, batch, clear=False).loss
        if clip_norm is not None:
            clip_grad_norm(optimizer.parameters, clip_norm)
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
    """Return the share of the input's pixels, by their remainders modulo the stride, that do not change the output."""
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
            given, made = (float(some.square().mean().sqrt()) for some in (input, output - nothing))
            if given and made:  # weights may begin at 0, for example on the path beside a skip connection
                signals[f"{name}/gain"] = made / given
        if input.ndim == output.ndim == 4 and (share := unread(module, input)):
            signals[f"{name}/unread"] = share
    return signals


def _of_loss(loss: Module, trace: Trace, batch: Batch) -> Signals:
    """Return the loss's slope, and its distance from 1 / n, the slope of a gradient not divided by the batch size n."""
    output, grad = trace.outputs[""], trace.grad_outputs[""]
    norm = float(grad.norm())
    if not norm:
        return {}
    h = 1e-5 * float(output.norm()) / norm
    above, below = (float(forward(loss, [output + sign * h * grad, batch.target])) for sign in (1, -1))
    slope = (above - below) / (2 * h * norm**2)
    return {f"{LOSS}/slope": slope, f"{LOSS}/undivided": abs(slope * len(output) - 1)}


def _loss(network: Module, loss: Module, batch: Batch) -> float:
    return float(forward(loss, [forward(network, [batch.input]), batch.target]))
