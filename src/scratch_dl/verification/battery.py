"""All checks of one module at one shape."""

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
Input = Tensor | tuple[int, ...]
"""A tensor as it is, or a shape to draw one of."""


def all_checks(
    name: str,
    module: Module,
    function: Function | None,
    inputs: Sequence[Input],
    seed: int,
    note: Callable[[str], None],
    dtypes: Iterable[torch.dtype] = (torch.float64, torch.float32),
) -> list[Finding]:
    """Oracle in every dtype, algebra and contract in float64 (in float32 if the module takes nothing else)."""
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
            output = forward(own, drawn)
            if output.dtype != dtype:
                raise BrokenPassError("forward", f"returned {output.dtype} for an input of {dtype}")
        except BrokenPassError as error:
            check = f"a forward in {short(dtype)}"
            refused[dtype] = Finding(name, error.direction, check, math.inf, ORACLE[dtype], detail=str(error))
            continue
        if not bool(torch.isfinite(output).all()):
            if function is None:
                detail = "the output is not finite"
                findings.append(Finding(name, "forward", "a finite output", math.inf, ORACLE[dtype], detail=detail))
            algebra_done = True  # which has nothing to say about what is no number
        if function is not None:
            grad_output = draw_like(output, generator) if takes_gradient(own, output) else None
            findings += check_oracle(name, own, function, drawn, grad_output)
            if len(drawn) == 1 and not isinstance(inputs[0], Tensor):
                large = check_oracle(name, own, function, [_with_large(drawn[0])], grad_output)
                findings += [replace(finding, check=f"{finding.check}, large numbers") for finding in large]
        if not algebra_done:
            for checks in (check_linearity, check_adjoint, check_contract):
                findings += checks(name, own, drawn, generator)
            findings += check_another_batch(name, converted(module, dtype), own, drawn, generator)
            algebra_done = True
    if not findings:
        return list(refused.values())[:1]
    for dtype, finding in refused.items():  # one that takes the other dtype is not wrong, only less well checked
        note(
            f"{name} took no {short(dtype)}: its forward {finding.detail}. In float32 algebra sees "
            "no error below 2 %; torch.zeros_like(x), or dtype=x.dtype, takes both"
        )
    return findings


def draw(inputs: Sequence[Input], dtype: torch.dtype, generator: Generator) -> list[Tensor]:
    """N(0, 1) in each shape; a tensor as it is but for the dtype."""
    return [
        converted_to(item, dtype)
        if isinstance(item, Tensor)
        else torch.randn(item, generator=generator, dtype=torch.float64).to(dtype)
        for item in inputs
    ]


def _with_large(input: Tensor) -> Tensor:
    """Every other number so large that exp of it overflows."""
    flat = input.flatten().clone()
    flat[::2] *= 100 if input.dtype == torch.float32 else 1000
    return flat.view(input.shape)
