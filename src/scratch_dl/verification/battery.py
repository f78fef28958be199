"""All checks of one module at one shape, together."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from scratch_dl.nn import Module
from scratch_dl.verification.algebra import check_adjoint, check_linearity
from scratch_dl.verification.bands import ORACLE, short
from scratch_dl.verification.contract import check_another_batch, check_contract
from scratch_dl.verification.oracle import check_oracle
from scratch_dl.verification.passes import (
    BrokenPassError,
    Function,
    converted,
    converted_to,
    draw_like,
    forward,
    takes_gradient,
    unlisted,
)
from scratch_dl.verification.report import Finding

NO_ORACLE = "without a reference a forward that is wrong, and its backward with it, is not seen"
_BOTH_DTYPES = "In float32 algebra sees no error below 2 %; torch.zeros_like(x), or dtype=x.dtype, takes both"
Input = Tensor | tuple[int, ...]
"""A tensor to use as it is, or the shape of one to draw."""


def all_checks(
    name: str,
    module: Module,
    function: Function | None,
    inputs: Sequence[Input],
    seed: int,
    note: Callable[[str], None],
    dtypes: Iterable[torch.dtype] = (torch.float64, torch.float32),
) -> list[Finding]:
    """Check a module at one shape: the oracle in every dtype, algebra and contract in the first dtype that it takes.

    `function` is the module's reference, None for algebra alone; `note` is called with what could not be checked.
    """
    if names := unlisted(module):
        note(f"{name} lists no parameter for {', '.join(names[:6])}: neither trained nor verified")
    findings: list[Finding] = []
    algebra_done = False
    refused: dict[torch.dtype, Finding] = {}
    for dtype in dtypes:
        generator = torch.Generator().manual_seed(seed)
        own = converted(module, dtype)
        drawn = draw(inputs, dtype, generator)
        try:
            output = _forward_in(dtype, own, drawn)
        except BrokenPassError as error:
            check = f"a forward in {short(dtype)}"
            refused[dtype] = Finding(name, error.direction, check, math.inf, ORACLE[dtype], detail=str(error))
            continue
        if not bool(torch.isfinite(output).all()):
            if function is None:
                detail = "the output is not finite"
                findings.append(Finding(name, "forward", "a finite output", math.inf, ORACLE[dtype], detail=detail))
            algebra_done = True  # NaN and infinity cannot be checked by algebra
        if function is not None:
            grad_output = draw_like(output, generator) if takes_gradient(own, output) else None
            findings += check_oracle(name, own, function, drawn, grad_output)
            if len(drawn) == 1 and not isinstance(inputs[0], Tensor):
                findings += _at_large_numbers(check_oracle(name, own, function, [_with_large(drawn[0])], grad_output))
        if not algebra_done:
            for checks in (check_linearity, check_adjoint, check_contract):
                findings += checks(name, own, drawn, generator)
            findings += check_another_batch(name, converted(module, dtype), own, drawn, generator)
            algebra_done = True
    if not findings:
        return list(refused.values())[:1]
    for dtype, finding in refused.items():  # a module that takes the other dtype is not wrong, only less well checked
        note(f"{name} took no {short(dtype)}: its forward {finding.detail}. {_BOTH_DTYPES}")
    return findings


def _at_large_numbers(findings: Iterable[Finding]) -> list[Finding]:
    return [replace(finding, check=f"{finding.check}, large numbers") for finding in findings]


def _forward_in(dtype: torch.dtype, module: Module, inputs: Sequence[Tensor]) -> Tensor:
    """The output.

    Raises:
        BrokenPassError: if the module raises, or returns something other than a tensor of the inputs' dtype.
    """
    output = forward(module, inputs)
    if output.dtype != dtype:
        raise BrokenPassError("forward", f"returned {output.dtype} for an input of {dtype}")
    return output


def draw(inputs: Sequence[Input], dtype: torch.dtype, generator: Generator) -> list[Tensor]:
    """Draw N(0, 1) in each shape; a tensor stays as it is, apart from its dtype."""
    return [
        converted_to(item, dtype)
        if isinstance(item, Tensor)
        else torch.randn(item, generator=generator, dtype=torch.float64).to(dtype)
        for item in inputs
    ]


def _with_large(input: Tensor) -> Tensor:
    """The input with every other number so large that its exp overflows."""
    flat = input.flatten().clone()
    flat[::2] *= 100 if input.dtype == torch.float32 else 1000
    return flat.view(input.shape)
