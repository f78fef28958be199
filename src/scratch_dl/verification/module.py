"""Verify a single module: `check_module`, for a user's own tests."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from scratch_dl.nn import adapt
from scratch_dl.system.checks import integer
from scratch_dl.system.seeding import seeded
from scratch_dl.verification.battery import NO_ORACLE, Input, all_checks
from scratch_dl.verification.counterexample import explain
from scratch_dl.verification.passes import copied, foreign
from scratch_dl.verification.references import as_function, reference_for
from scratch_dl.verification.report import Report


def check_module(
    module: object,
    reference: Any = None,
    inputs: Any = None,
    *,
    name: str | None = None,
    draws: int = 3,
    oracle: bool = True,
    seed: int = 0,
) -> Report:
    """Check a hand-written module: in float64 and float32 against PyTorch, and by algebra alone.

    Copies are checked, so that neither the module nor any random state changes; only what a module writes to its class
    cannot be copied.

    Args:
        module: a `scratch_dl.nn.Module`, or any object with `forward` and `backward` that lists its parameters by
            `parameters()`, `named_parameters()` or the (value, gradient) pairs of `param()`.
        reference: a `torch.nn.Module` (its parameters take the module's values), or a function (*inputs, *parameters)
            -> output. None: the module's own `pytorch_reference()`, else PyTorch's counterpart of scratch_dl's modules.
        inputs: the input's shape, such as (4, 3, 16, 16), to draw N(0, 1), or a tensor; a list of several if the
            forward takes several (a loss: output and target).
        name: of the module in the report; its class by default.
        draws: how many random inputs, upstream gradients and directions.
        oracle: whether to use a reference at all.
        seed: of the draws.

    Returns:
        The report; `assert report.passed, str(report)` in a test.

    Raises:
        TypeError: if the module has no forward or backward, or an argument has a wrong type.
        ValueError: if the reference's parameters have other shapes.
    """
    start = time.perf_counter()
    with seeded("verification", seed):
        adapted = copied(adapt(module))
        kind = type(foreign(adapted)).__name__
        name = name or kind
        own = reference_for if reference is None else partial(as_function, reference)
        function = own(adapted) if oracle else None
        report = Report(f"verification of {kind}", kinds={name: kind})
        if function is None:
            report.note(NO_ORACLE)
        shapes = as_inputs(inputs)
        for number in range(integer("draws", draws, minimum=1)):
            report.add(all_checks(name, adapted, function, shapes, seed + number, report.note))
        explain(report, {name: adapted}, {name: function}, {name: shapes}, seed)
    report.seconds = time.perf_counter() - start
    return report


def as_inputs(inputs: Any, name: str = "inputs") -> list[Input]:
    """A shape, a tensor or a list of them, as a list with one for each argument of the forward.

    Raises:
        TypeError: if it is none of these.
        ValueError: if a size is below 1.
    """
    if isinstance(inputs, Tensor) or _is_shape(inputs):
        inputs = [inputs]
    if not isinstance(inputs, Sequence) or isinstance(inputs, str) or not inputs:
        raise TypeError(
            f"{name} must be a shape such as [4, 3, 16, 16], a tensor, or a list of them, but got {inputs!r}"
        )
    made: list[Input] = []
    for item in inputs:
        if isinstance(item, Tensor):
            made.append(item)
        elif _is_shape(item):
            made.append(tuple(integer(name, side, minimum=1) for side in item))
        else:
            raise TypeError(
                f"{name} must be shapes of whole numbers such as [4, 3, 16, 16], or tensors, but got {item!r}"
            )
    return made


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and bool(value)
        and all(isinstance(side, int) and not isinstance(side, bool) for side in value)
    )
