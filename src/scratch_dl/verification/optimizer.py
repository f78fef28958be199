"""The contract between network and optimizer, and the optimizer's rule."""

import math
from dataclasses import replace

import torch
from torch import Generator, Tensor

from scratch_dl.nn import Module, Parameter
from scratch_dl.optim import SGD, Optimizer
from scratch_dl.verification.counterparts import pytorch_optimizer
from scratch_dl.verification.network import EXACT
from scratch_dl.verification.passes import BrokenPassError, compare, copied, draw_like, flat, naming
from scratch_dl.verification.report import NETWORK, Finding
from scratch_dl.verification.trace import Batch, own_step

OPTIMIZER = "optimizer"
_UPDATES = 4


def check_optimizer(
    network: Module, optimizer: Optimizer, loss: Module, batch: Batch, generator: Generator
) -> list[Finding]:
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
        own_step(network, loss, batch)
    except BrokenPassError:
        return findings  # the network's own verdicts say so
    after = dict(network.named_parameters())
    gone = [name for name in own if after.get(name) is not own[name]]
    rule("a backward leaves the parameters the same objects", gone,
         "a new Parameter after a backward, which the optimizer does not hold", _owner(gone))  # fmt: skip
    before = {name: parameter.value.clone() for name, parameter in own.items()}
    # The settings may be too small, or the gradient, for a step to be seen in the parameter's last digit.
    optimizer.lr = 0.1
    for parameter in after.values():
        parameter.grad.copy_(draw_like(parameter.grad, generator))
    try:
        with naming("contract"):
            optimizer.step()
    except BrokenPassError as error:
        return [*findings, Finding(OPTIMIZER, "contract", "a step", math.inf, EXACT, detail=str(error))]
    still = [name for name, parameter in after.items() if torch.equal(parameter.value, before[name])]
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
        compare(OPTIMIZER, "contract", "each parameter moves as it would alone", flat(together), flat(alone), EXACT,
                "parameters share what each should have of its own")
    ]  # fmt: skip
    if oracle:
        tensors = [value.clone().requires_grad_() for value in values]
        if (reference := pytorch_optimizer(optimizer, tensors)) is not None:
            for step in grads:
                for tensor, grad in zip(tensors, step, strict=True):
                    tensor.grad = grad.clone()
                reference.step()
            expected = flat([tensor.detach() for tensor in tensors])
            check = f"torch.optim.{type(reference).__name__}, {_UPDATES} steps"
            findings.append(compare(OPTIMIZER, "contract", check, flat(together), expected, EXACT))
    if isinstance(optimizer, SGD) and not optimizer.weight_decay and not optimizer.nesterov:
        constant = [grads[0]] * _UPDATES
        m, velocity, moved = optimizer.momentum, 0.0, 0.0
        for _ in range(_UPDATES):
            velocity = m * velocity + 1
            moved += velocity
        expected = flat([v - optimizer.lr * moved * g for v, g in zip(values, grads[0], strict=True)])
        got = flat(_updated(optimizer, values, constant))
        findings.append(
            compare(OPTIMIZER, "contract", f"momentum {m:g} under a constant gradient", got, expected, EXACT)
        )
    return [finding if not finding.passed else replace(finding, detail="") for finding in findings]


def _updated(optimizer: Optimizer, values: list[Tensor], grads: list[list[Tensor]]) -> list[Tensor]:
    """What a fresh optimizer of the same settings makes of `values`."""
    fresh = copied(optimizer)
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
