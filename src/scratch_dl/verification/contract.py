"""The contract between module, optimizer and training loop: what a training needs beyond the numbers of one pass."""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from scratch_dl.nn import Module, Parameter
from scratch_dl.nn.adapter import LiveParameter
from scratch_dl.system.seeding import seeded
from scratch_dl.verification.bands import ORACLE
from scratch_dl.verification.passes import (
    INPUT,
    BrokenPassError,
    draw_like,
    forward,
    mean_abs_error,
    own_pass,
    pass_errors,
    relative_error,
    takes_gradient,
)
from scratch_dl.verification.report import Finding

SAME_TENSOR = "a pair's gradient stays the same tensor"
"""The rule matters to other optimizers only: those of scratch_dl look the gradient up at each step."""


def check_contract(name: str, module: Module, inputs: Sequence[Tensor], generator: Generator) -> list[Finding]:
    """Check each rule of the contract; the findings' checks are the rules."""
    try:
        return _Contract(name, module, inputs, generator).findings
    except BrokenPassError as error:
        limit = ORACLE[inputs[0].dtype]
        return [Finding(name, error.direction, "a pass after another", math.inf, limit, detail=str(error))]


class _Contract:
    """Passes of a module one after another, and what each rule says of them.

    Raises:
        BrokenPassError: if the module raises.
    """

    def __init__(self, name: str, module: Module, inputs: Sequence[Tensor], generator: Generator) -> None:
        self.name, self.module, self.inputs = name, module, inputs
        self.limit = ORACLE[inputs[0].dtype]
        self.findings: list[Finding] = []
        output = forward(module, inputs)
        self.upstream = [draw_like(output, generator)] if takes_gradient(module, output) else []
        self.once = own_pass(module, inputs, self.upstream[0] if self.upstream else None)
        detail = "two forwards of one input, their random numbers seeded alike, differ"
        self._compare("the same input gives the same output", forward(module, inputs), output, detail)
        self._two_backwards(generator)

    def _compare(self, rule: str, got: Tensor, expected: Tensor, detail: str) -> None:
        error = relative_error(got, expected)
        shown = "" if error <= self.limit else detail
        distance = mean_abs_error(got, expected)
        self.findings.append(Finding(self.name, "contract", rule, error, self.limit, distance, shown))

    def _two_backwards(self, generator: Generator) -> None:
        """Go forward and backward, forward with another batch, then forward and backward again; compare with once."""
        module = self.module
        with torch.no_grad(), pass_errors("contract"):
            parameters = dict(module.named_parameters())
            tensors = {key: parameter.grad for key, parameter in parameters.items()}
            values = {key: parameter.value.clone() for key, parameter in parameters.items()}
            module.zero_grad()
            parameters = dict(module.named_parameters())
            cleared = {key: parameter.grad.clone() for key, parameter in parameters.items()}
            inputs = [tensor.clone() for tensor in self.inputs]
            upstream = [tensor.clone() for tensor in self.upstream]
            with seeded("forward"):
                module.forward(*inputs)
            module.backward(*upstream)
            _forward_of_another(module, self.inputs, generator)
            with seeded("forward"):
                module.forward(*inputs)
            grad_input = module.backward(*upstream)
            now = dict(module.named_parameters())
        for tensor, before in zip(inputs, self.inputs, strict=True):
            self._compare("forward leaves its input alone", tensor, before, "forward changes its input in place")
        for tensor, before in zip(upstream, self.upstream, strict=True):
            self._compare("backward leaves the output's gradient alone", tensor, before, "backward changes it in place")
        detail = "after forward(a), forward(b) the gradient is not that of b"
        self._compare("backward belongs to the last forward", grad_input, self.once.gradients[INPUT], detail)
        for key, parameter in parameters.items():
            rule, detail = "forward and backward leave the parameters alone", f"{key} was changed by a pass"
            self._compare(rule, parameter.value, values[key], detail)
        for key, parameter in parameters.items():
            self._gradient(key, parameter, now[key], cleared[key], tensors[key])

    def _gradient(self, key: str, held: Parameter, now: Parameter, cleared: Tensor, tensor: Tensor) -> None:
        """The rules on one parameter's gradient.

        Args:
            key: the parameter's name.
            held: the parameter before the passes, as an optimizer holds it.
            now: the module's parameter after them.
            cleared: the gradient after `zero_grad`.
            tensor: the gradient's tensor before everything.
        """
        detail = f"{key}'s gradient is not 0 after zero_grad"
        self._compare("zero_grad clears", cleared, torch.zeros_like(cleared), detail)
        detail = f"{key}'s gradient after two backwards is not the sum of both"
        added, expected = now.grad - cleared, 2 * self.once.gradients[key]
        self._compare("gradients add up over two backwards", added, expected, detail)
        gone = now is not held
        detail = f"{key} is a new Parameter after a backward: an optimizer holds the old one" if gone else ""
        error = math.inf if gone else 0.0
        self.findings.append(Finding(self.name, "contract", "no stale copies", error, self.limit, 0.0, detail))
        if isinstance(held, LiveParameter) and isinstance(held.entry, tuple | list):
            detail = (
                f"backward replaced {key}'s gradient by a new tensor; an optimizer created earlier still holds the old "
                "one and will not see updates. Accumulate in place."
            )
            self._compare(SAME_TENSOR, tensor, now.grad, detail)


def check_another_batch(
    name: str, pristine: Module, used: Module, inputs: Sequence[Tensor], generator: Generator
) -> list[Finding]:
    """Compare the outputs for a larger batch: `used` has seen another batch before, `pristine` has not."""
    larger = [torch.cat([draw_like(tensor, generator), tensor[:1]]) for tensor in inputs]
    try:
        expected = forward(pristine, larger)
    except BrokenPassError:
        return []  # the first axis is not a batch
    check, limit = "a forward does not depend on the ones before", ORACLE[inputs[0].dtype]
    try:
        got = forward(used, larger)
    except BrokenPassError as error:
        detail = f"after a batch of {len(inputs[0])} one of {len(larger[0])}: {error}"
        return [Finding(name, "contract", check, math.inf, limit, detail=detail)]
    difference = relative_error(got, expected)
    detail = "" if difference <= limit else "after a batch of another size the output differs"
    return [Finding(name, "contract", check, difference, limit, mean_abs_error(got, expected), detail)]


def _forward_of_another(module: Module, inputs: Sequence[Tensor], generator: Generator) -> None:
    """Go forward with other numbers, and with one more sample if the module takes it; the module must not keep them."""
    other = [draw_like(tensor, generator) for tensor in inputs]
    try:
        module.forward(*(torch.cat([tensor, tensor[:1]]) for tensor in other))
    except Exception:  # the first axis is not a batch
        module.forward(*other)
