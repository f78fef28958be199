"""What the conformance tests share: PyTorch's own samples, the comparison with PyTorch in float64, and the counts."""

import contextlib
import os
import random
import sys
import tempfile
import textwrap
import warnings
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis.configuration import set_hypothesis_home_dir

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}

# Why a sample cannot be computed by a hand-written module, which then has to refuse it. There is no other reason.
REASONS = (
    "dtype",  # neither float32 nor float64
    "unbatched",  # (c, h, w)
    "groups",
    "padding",  # "same" or "valid" of a convolution
    "reduction none",
    "not 2-d",  # enlarging lines or volumes
    "factor",  # an enlargement by a factor that is not whole, or a reduction
    "tensor option",  # a learning rate or beta given as a tensor
    "maximize",
    "dampening",
    "amsgrad",
)
ARGUMENT = "bad argument"  # PyTorch's error inputs: what it refuses itself

PROPERTY = "PyTorch's own samples"


def pytest_configure(config):
    """Hypothesis writes down the constants that it finds in the code, even without a database: not in the work tree."""
    folder = tempfile.TemporaryDirectory(prefix="hypothesis-")
    config.add_cleanup(folder.cleanup)
    set_hypothesis_home_dir(folder.name)


@contextlib.contextmanager
def undisturbed():
    """Leave the process as it was: PyTorch's test code seeds, freezes flags, patches and reads the command line."""
    saved = sys.argv, sys.path, dict(os.environ), random.getstate(), np.random.get_state()  # noqa: NPY002
    script = torch._C.ScriptFunction.__call__, torch._C.ScriptMethod.__call__
    frozen, dtype = torch.backends.flags_frozen(), torch.get_default_dtype()
    sys.argv, sys.path = sys.argv[:1], list(sys.path)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Another release of PyTorch's test code may use what its dependencies deprecate: nothing of ours.
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.argv, sys.path, environ, *states = saved
        os.environ.clear()
        os.environ.update(environ)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch._C.ScriptFunction.__call__, torch._C.ScriptMethod.__call__ = script
        torch.set_default_dtype(dtype)
        if not frozen:
            # There is no public way back, and torch.backends is a wrapper of the module that has the flag.
            torch.backends.flags_frozen.__globals__["__allow_nonbracketed_mutation_flag"] = True


@pytest.fixture(scope="session")
def databases():
    """PyTorch's databases of operators, modules and optimizers, by name; a function that draws from them."""
    with undisturbed():
        from torch.testing._internal.common_methods_invocations import op_db
        from torch.testing._internal.common_modules import module_db
        from torch.testing._internal.common_optimizers import optim_db

    def draw(samples, *arguments, **options):
        with undisturbed():
            torch.manual_seed(20240607)
            return list(samples(*arguments, **options))

    return SimpleNamespace(
        operators={(op.name, op.variant_test_name): op for op in op_db},
        modules={info.module_cls.__name__: info for info in module_db},
        optimizers={info.optim_cls.__name__: info for info in optim_db},
        draw=draw,
    )


def same(tensor):
    return tensor


def strided(tensor):
    """Every second number of its memory, from the second one on."""
    return torch.stack([torch.full_like(tensor, torch.nan), tensor], dim=-1)[..., 1]


def transposed(tensor):
    """Columns lie in memory as rows do."""
    return tensor.mT.contiguous().mT if tensor.ndim > 1 else tensor


def channels_last(tensor):
    """The second axis is the last one in memory."""
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1) if tensor.ndim > 2 else tensor


def expanded(tensor):
    """Three times the first sample, which lies in memory once."""
    return tensor[:1].expand(3, *tensor.shape[1:]) if tensor.ndim and len(tensor) else tensor


def empty(tensor):
    """No sample at all."""
    return tensor[:0] if tensor.ndim else tensor


LAYOUTS = {  # what becomes of the batch, and how input, parameters and upstream gradient lie in memory
    "as given": (same, same),
    "strided": (same, strided),
    "transposed": (same, transposed),
    "channels last": (same, channels_last),
    "expanded": (expanded, same),
    "empty": (empty, same),
}


def assert_near(actual, expected, dtype, name, floor=0.0):
    """Fail unless shape, dtype and what is not finite agree, and the error's norm is within the tolerance."""
    assert actual.dtype == dtype, f"{name}: {actual.dtype} is not {dtype}"
    assert actual.shape == expected.shape, f"{name}: {tuple(actual.shape)} is not {tuple(expected.shape)}"
    actual, expected = actual.double(), expected.detach()
    finite = expected.isfinite()
    assert torch.equal(actual[~finite].nan_to_num(0), expected[~finite].nan_to_num(0)), f"{name}: infinities differ"
    assert torch.equal(actual.isnan(), expected.isnan()), f"{name}: NaNs differ"
    expected, error = expected[finite], (actual - expected)[finite]
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    scale = scale or 1.0  # the squares of the largest numbers overflow
    error, norm = float((error / scale).norm()), float((expected / scale).norm())
    # A number below the smallest normal one may have become 0.
    floor += torch.finfo(dtype).tiny * expected.numel() ** 0.5
    allowed = TOLERANCE[dtype] * norm + floor / scale
    assert error <= allowed, f"{name}: error {error:.3g} beside the norm {norm:.3g}, both times {scale:.3g}"


@pytest.fixture(scope="session")
def near():
    return assert_near


@pytest.fixture(scope="session")
def agrees():
    """Compare output and every gradient of a module with those of `function(input, parameters by name)` in float64.

    The truth comes from the very numbers that the module is given. A loss takes a target and no upstream gradient.
    Where a sigmoid saturates, its derivative Z (1 - Z) is no finer than numbers lie near 1, here and in PyTorch.
    """

    def agrees(module, function, input, what, *, target=None, saturates=False, layouts=LAYOUTS, draw=torch.randn):
        dtype = input.dtype
        spacing = torch.finfo(dtype).eps if saturates else 0.0
        for layout in layouts:
            batch, memory = LAYOUTS[layout]
            name = f"{what}, {layout}"
            inputs = [memory(batch(tensor.detach())) for tensor in (input, target) if tensor is not None]
            for parameter in module.parameters():
                parameter.value = memory(parameter.value)
            module.zero_grad()
            leaves = [tensor.to(torch.float64, copy=True).contiguous().requires_grad_() for tensor in inputs]
            twins = {n: p.value.to(torch.float64, copy=True).requires_grad_() for n, p in module.named_parameters()}
            expected = function(*leaves, twins)
            if target is None:
                drawn = draw(expected.shape, generator=torch.Generator().manual_seed(7), dtype=dtype)
                upstream = [memory(batch(drawn))]
            else:
                upstream = []
            expected.backward(*(grad.double() for grad in upstream))
            given = [tensor.clone() for tensor in inputs + upstream]

            assert_near(module(*inputs), expected, dtype, f"output of {name}")
            floor = spacing * float(sum(grad.norm() for grad in upstream))
            assert_near(module.backward(*upstream), leaves[0].grad, dtype, f"input gradient of {name}", floor)
            for n, parameter in module.named_parameters():
                assert_near(parameter.grad, twins[n].grad, dtype, f"gradient of {n} of {name}")
            for tensor, kept in zip(inputs + upstream, given, strict=True):
                assert torch.equal(tensor.nan_to_num(), kept.nan_to_num()), f"{name}: an argument was changed in place"

    return agrees


@pytest.fixture
def tally(record_property):
    """Counts samples by name: `run`, and `refused` for a reason of the list, of which it makes sure."""
    counts = {}
    record_property(PROPERTY, counts)

    def count(name, kind):
        counts.setdefault(name, {}).setdefault(kind, 0)
        counts[name][kind] += 1

    def refused(name, reason, what, attempt, *arguments, **options):
        assert reason in (*REASONS, ARGUMENT), f"{what}: {reason!r} is no reason to set a sample aside"
        message = None
        try:
            attempt(*arguments, **options)
        except (TypeError, ValueError) as error:
            message = str(error)
        assert message is not None, f"{what}: was not refused ({reason})"
        assert len(message) > 10, f"{what}: refused without a message"
        count(name, reason)

    return SimpleNamespace(run=lambda name: count(name, "run"), refused=refused, counts=counts)


def pytest_terminal_summary(terminalreporter):
    """A line for each operator, module and optimizer; from the tests' reports, which workers of pytest send as well."""
    totals = {}
    for report in terminalreporter.getreports("passed"):
        for counts in (value for key, value in report.user_properties if key == PROPERTY):
            for name, kinds in counts.items():
                totals.setdefault(name, Counter()).update(kinds)
    if totals:
        terminalreporter.section(PROPERTY)
    for name, kinds in totals.items():
        run, arguments = kinds.pop("run", 0), kinds.pop(ARGUMENT, 0)
        line = f"{name}: {run} run"
        if kinds:
            line += f", {kinds.total()} set aside ({', '.join(f'{k} {n}' for k, n in kinds.most_common())})"
        if arguments:
            line += f", {arguments} errors refused"
        terminalreporter.write_line(textwrap.fill(line, width=100, subsequent_indent="    "))
