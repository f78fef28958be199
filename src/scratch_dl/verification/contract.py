"""What a training relies on beyond the numbers of one pass: the contract between module, optimizer and loop."""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Generator, Tensor

from scratch_dl.nn import Module
from scratch_dl.nn.adapter import LiveParameter
from scratch_dl.system.seeding import seeded
from scratch_dl.verification.bands import ORACLE
from scratch_dl.verification.passes import (
    INPUT,
    BrokenPassError,
    draw_like,
    forward,
    mean_abs_error,
    naming,
    own_pass,
    relative_error,
    takes_gradient,
)
from scratch_dl.verification.report import Finding

SAME_TENSOR = "a pair's gradient stays the same tensor"
"""Of no concern to scratch_dl's optimizers, which look anew at each step."""


def check_contract(name: str, module: Module, inputs: Sequence[Tensor], generator: Generator) -> list[Finding]:
    """One finding a rule; the rules are the checks' names."""
    try:
        return _check(name, module, inputs, generator)
    except BrokenPassError as error:
        limit = ORACLE[inputs[0].dtype]
        return [Finding(name, error.direction, "a pass after another", math.inf, limit, detail=str(error))]


def _check(name: str, module: Module, inputs: Sequence[Tensor], generator: Generator) -> list[Finding]:
    limit = ORACLE[inputs[0].dtype]
    findings: list[Finding] = []

    def rule(check: str, got: Tensor, expected: Tensor, detail: str) -> None:
        error = relative_error(got, expected)
        said = "" if error <= limit else detail
        findings.append(Finding(name, "contract", check, error, limit, mean_abs_error(got, expected), said))

    output = forward(module, inputs)
    u = draw_like(output, generator) if takes_gradient(module, output) else None
    once = own_pass(module, inputs, u)
    rule("the same input gives the same output", forward(module, inputs), output,
         "two forwards of one input, their random numbers seeded alike, differ")  # fmt: skip

    with torch.no_grad(), naming("contract"):
        tensors = {key: parameter.grad for key, parameter in module.named_parameters()}
        values = {key: parameter.value.clone() for key, parameter in module.named_parameters()}
        module.zero_grad()
        parameters = dict(module.named_parameters())
        start = {key: parameter.grad.clone() for key, parameter in parameters.items()}
        given, upstream = [tensor.clone() for tensor in inputs], [] if u is None else [u.clone()]
        with seeded("forward"):
            module.forward(*given)
        module.backward(*upstream)
        _forward_of_another(module, inputs, generator)
        with seeded("forward"):
            module.forward(*given)
        second = module.backward(*upstream)
        now = dict(module.named_parameters())
    for tensor, before in zip(given, inputs, strict=True):
        rule("forward leaves its input alone", tensor, before, "forward changes its input in place")
    for tensor in upstream:
        rule("backward leaves the output's gradient alone", tensor, cast(Tensor, u), "backward changes it")
    rule("backward belongs to the last forward", second, once.gradients[INPUT],
         "after forward(a), forward(b) the gradient is not that of b")  # fmt: skip
    for key, parameter in parameters.items():
        rule(
            "forward and backward leave the parameters alone", parameter.value, values[key], f"{key} is not what it was"
        )
    for key, parameter in parameters.items():
        rule("zero_grad clears", start[key], torch.zeros_like(start[key]), f"{key}'s gradient is not 0 after zero_grad")
        current = now[key].grad
        rule("gradients add up over two backwards", current - start[key], 2 * once.gradients[key],
             f"{key}'s gradient after two backwards is not the sum of both")  # fmt: skip
        gone = now[key] is not parameter
        said = f"{key} is a new Parameter after a backward: an optimizer holds the old one" if gone else ""
        findings.append(Finding(name, "contract", "no stale copies", math.inf if gone else 0.0, limit, 0.0, said))
        if isinstance(parameter, LiveParameter) and isinstance(parameter.entry, tuple | list):
            rule(SAME_TENSOR, tensors[key], current, f"{key}'s gradient is a new tensor after a backward: who "
                 "holds the old one, as an optimizer made before, is not served")  # fmt: skip
    return findings


def check_another_batch(
    name: str, pristine: Module, used: Module, inputs: Sequence[Tensor], generator: Generator
) -> list[Finding]:
    """A batch of another size than the first one: `used` has seen one, and must do what `pristine` does."""
    larger = [torch.cat([draw_like(tensor, generator), tensor[:1]]) for tensor in inputs]
    try:
        expected = forward(pristine, larger)
    except BrokenPassError:
        return []  # a first axis that is no batch
    check, limit = "a forward does not depend on the ones before", ORACLE[inputs[0].dtype]
    try:
        got = forward(used, larger)
    except BrokenPassError as error:
        detail = f"after a batch of {len(inputs[0])} one of {len(larger[0])}: {error}"
        return [Finding(name, "contract", check, math.inf, limit, detail=detail)]
    error_there = relative_error(got, expected)
    said = "" if error_there <= limit else "after a batch of another size the output is another one"
    return [Finding(name, "contract", check, error_there, limit, mean_abs_error(got, expected), said)]


def _forward_of_another(module: Module, inputs: Sequence[Tensor], generator: Generator) -> None:
    """Of other numbers, and of one sample more if the module takes it: nothing of the sort may be kept."""
    other = [draw_like(tensor, generator) for tensor in inputs]
    try:
        module.forward(*(torch.cat([tensor, tensor[:1]]) for tensor in other))
    except Exception:  # a first axis that is no batch
        module.forward(*other)
