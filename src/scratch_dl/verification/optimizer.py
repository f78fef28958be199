"""The contract between network and optimizer, and the optimizer's update rule."""

import math
from dataclasses import replace

import torch
from torch import Generator, Tensor

from scratch_dl.nn import Module, Parameter
from scratch_dl.optim import SGD, Optimizer
from scratch_dl.verification.counterparts import pytorch_optimizer
from scratch_dl.verification.network import EXACT
from scratch_dl.verification.passes import BrokenPassError, compare, copied, draw_like, flat, pass_errors
from scratch_dl.verification.report import NETWORK, Finding
from scratch_dl.verification.trace import Batch, own_step

OPTIMIZER = "optimizer"
_UPDATES = 4


def check_optimizer(
    network: Module, optimizer: Optimizer, loss: Module, batch: Batch, generator: Generator
) -> list[Finding]:
    """Check that the optimizer updates and clears the network's own parameters, by their own gradients alone."""
    own = dict(network.named_parameters())
    held = [id(parameter) for parameter in optimizer.parameters]
    missing = [name for name, parameter in own.items() if id(parameter) not in held]
    detail = "not held by the optimizer, so they never change"
    findings = [_rule("it holds every parameter of the network", missing, detail)]
    try:
        own_step(network, loss, batch)
    except BrokenPassError:
        return findings  # the network's own verdicts say so
    after = dict(network.named_parameters())
    gone = [name for name in own if after.get(name) is not own[name]]
    rule, detail = (
        "a backward leaves the parameters the same objects",
        "a new Parameter after a backward, which the optimizer does not hold",
    )
    findings.append(_rule(rule, gone, detail, _owner(gone)))
    try:
        findings.append(_step_changes_all(own, after, gone, optimizer, generator))
    except BrokenPassError as error:
        return [*findings, Finding(OPTIMIZER, "contract", "a step", math.inf, EXACT, detail=str(error))]
    return [*findings, _clears_all(network, optimizer, gone)]


def _rule(check: str, wrong: list[str], detail: str, module: str = OPTIMIZER) -> Finding:
    """The finding of a rule that some parameters break; it names `module` as the culprit."""
    if not wrong:
        return Finding(OPTIMIZER, "contract", check, 0.0, EXACT)
    return Finding(module, "contract", check, math.inf, EXACT, detail=f"{', '.join(wrong[:4])}: {detail}")


def _step_changes_all(
    own: dict[str, Parameter],
    after: dict[str, Parameter],
    gone: list[str],
    optimizer: Optimizer,
    generator: Generator,
) -> Finding:
    """Whether a step with random gradients changes every parameter.

    Raises:
        BrokenPassError: if the step raises.
    """
    before = {name: parameter.value.clone() for name, parameter in own.items()}
    # At the optimizer's own rate, or the network's gradients, a step may be too small for the parameter's last digit.
    optimizer.lr = 0.1
    for parameter in after.values():
        parameter.grad.copy_(draw_like(parameter.grad, generator))
    with pass_errors("contract"):
        optimizer.step()
    still = [name for name, parameter in after.items() if torch.equal(parameter.value, before[name])]
    module = _owner(still) if set(still) <= set(gone) else OPTIMIZER
    rule = "a step changes every parameter that has a gradient"
    return _rule(rule, still, "not changed by a step, despite its gradient", module)


def _clears_all(network: Module, optimizer: Optimizer, gone: list[str]) -> Finding:
    """Whether the optimizer's zero_grad clears every gradient; a module whose own zero_grad does not is the culprit."""
    optimizer.zero_grad()
    left = _with_gradient(network)
    network.zero_grad()
    always = _with_gradient(network)
    module = _owner(left) if left == always or set(left) <= set(gone) else OPTIMIZER
    return _rule("zero_grad clears every gradient of the network", left, "the gradient is not cleared", module)


def _with_gradient(network: Module) -> list[str]:
    return [name for name, parameter in network.named_parameters() if bool(parameter.grad.any())]


def check_updates(optimizer: Optimizer, generator: Generator, oracle: bool) -> list[Finding]:
    """Check the update rule over some steps with random gradients, against PyTorch and by algebra.

    Each parameter must move as it would alone; under plain or momentum SGD a constant gradient g must give the
    displacements -lr g (1 + m), then -lr g (1 + m + m^2), ... of the velocity's geometric series.
    """
    values = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3, 2), (3, 2), (4,))]
    grads = [[torch.randn(v.shape, generator=generator, dtype=torch.float64) for v in values] for _ in range(_UPDATES)]
    together = _updated(optimizer, values, grads)
    alone = [_updated(optimizer, [v], [[step[i]] for step in grads])[0] for i, v in enumerate(values)]
    findings = [
        compare(
            OPTIMIZER,
            "contract",
            "each parameter moves as it would alone",
            flat(together),
            flat(alone),
            EXACT,
            "parameters share what each should have of its own",
        )
    ]
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
    """The values after one step per entry of `grads`, by a fresh optimizer of the same settings."""
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
    """The module of the first parameter: the one to name as the culprit."""
    return names[0].rpartition(".")[0] or NETWORK if names else OPTIMIZER
