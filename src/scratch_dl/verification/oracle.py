"""Compare a module with PyTorch, the oracle: forward and every gradient, under a random upstream gradient.

The truth is PyTorch in float64 at the same numbers. Where PyTorch's own float32 is farther from it than a quarter of
the band, the band is four times that distance.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scratch_dl.nn import Module
from scratch_dl.verification.bands import ORACLE, limit_of, short
from scratch_dl.verification.passes import (
    BrokenPassError,
    Function,
    compare,
    direction_of,
    nothing_beside,
    own_pass,
    reference_pass,
    relative_error,
)
from scratch_dl.verification.report import Finding


def check_oracle(
    name: str, module: Module, function: Function, inputs: Sequence[Tensor], grad_output: Tensor | None
) -> list[Finding]:
    """Compare one pass of `module`, in the dtype of the inputs, with PyTorch's."""
    dtype = inputs[0].dtype
    check = f"PyTorch {short(dtype)}"
    try:
        own = own_pass(module, inputs, grad_output)
    except BrokenPassError as error:
        return [Finding(name, error.direction, check, math.inf, ORACLE[dtype], detail=str(error))]
    truth = reference_pass(function, module, inputs, grad_output, torch.float64)
    rounded = reference_pass(function, module, inputs, grad_output, torch.float32)

    nothing = nothing_beside(truth.gradients.values(), dtype)

    def finding(direction: str, got: Tensor, expected: Tensor, theirs: Tensor, detail: str = "") -> Finding:
        limit = limit_of(dtype, relative_error(theirs, expected))
        least = 0.0 if direction == "forward" else nothing
        return compare(name, direction, check, got, expected, limit, detail, least)

    findings = [finding("forward", own.output, truth.output, rounded.output)]
    for key, expected in truth.gradients.items():
        direction = direction_of(key, module)
        detail = "" if key in ("input", "weight", "bias") else f"parameter {key}"
        findings.append(finding(direction, own.gradients[key], expected, rounded.gradients[key], detail))
    return findings
