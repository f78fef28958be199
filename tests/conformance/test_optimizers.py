"""The optimizers on PyTorch's own settings of them: some steps beside torch.optim, or refused for a stated reason."""

import inspect

import pytest
import torch

from scratch_dl import optim
from scratch_dl.nn import Parameter

FLOATS = [pytest.param(torch.float64, id="float64"), pytest.param(torch.float32, id="float32")]
LEAST = {"SGD": 6, "Adam": 3}  # so many settings run
SHAPES = [(4, 3, 3, 2), (5,), (5,), ()]
OPTIONS = ("maximize", "dampening", "amsgrad")


def why_not(settings):
    """The reason to set settings aside, or None."""
    for value in settings.values():
        if any(isinstance(entry, torch.Tensor) for entry in (value if isinstance(value, tuple) else [value])):
            return "tensor option"
    return next((option for option in OPTIONS if option in settings), None)


def start(dtype, generator):
    """Parameters as after an initialisation: weights and, from zero, biases."""
    drawn = [torch.randn(shape, generator=generator, dtype=dtype) for shape in SHAPES]
    return [drawn[0], drawn[1], torch.zeros_like(drawn[2]), drawn[3]]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", LEAST)
def test_optimizers_step_as_pytorchs_or_refuse_the_settings(kind, dtype, databases, generator, near, tally):
    info, own = databases.optimizers[kind], getattr(optim, kind)
    for sample in databases.draw(info.optim_inputs_func, device="cpu", dtype=dtype):
        what, values = f"{kind}({sample.desc}: {sample.kwargs})", start(dtype, generator)
        assert sample.params is None, f"{what}: parameters of its own"
        ours = [Parameter(value) for value in values]
        theirs = [torch.nn.Parameter(value.double()) for value in values]
        reference = info.optim_cls(theirs, **sample.kwargs)
        # The rate has no default in SGD here; PyTorch's is then the one of the sample.
        settings = {"lr": reference.defaults["lr"], **sample.kwargs}
        if reason := why_not(settings):
            tally.refused(f"optim.{kind}", reason, what, own, ours, **settings)
            continue
        optimizer = own(ours, **settings)
        for step in range(1, 11):
            for parameter, other in zip(ours, theirs, strict=True):
                parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=dtype)
                other.grad = parameter.grad.double()
            optimizer.step()
            reference.step()
            for position, (parameter, other) in enumerate(zip(ours, theirs, strict=True)):
                near(parameter.value, other, dtype, f"parameter {position} after step {step} of {what}")
        tally.run(f"optim.{kind}")
    assert tally.counts[f"optim.{kind}"]["run"] >= LEAST[kind], f"only {tally.counts}"


@pytest.mark.parametrize("kind", LEAST)
def test_settings_that_pytorch_refuses_are_refused(kind, databases, tally):
    """Parameters twice, alone, in groups or with names; numbers out of their ranges; tensors for numbers."""
    info, own = databases.optimizers[kind], getattr(optim, kind)
    twins = {}

    def convert(params):
        """PyTorch's parameters as ours, each once, in the same lists, tuples and dicts."""
        if isinstance(params, torch.Tensor):
            return twins.setdefault(id(params), Parameter(params))
        if isinstance(params, dict):
            return {name: convert(value) for name, value in params.items()}
        return type(params)(map(convert, params)) if isinstance(params, list | tuple) else params

    for error in databases.draw(info.optim_error_inputs_func, device="cpu", dtype=torch.float64):
        sample = error.optimizer_error_input
        params = [Parameter(torch.ones(3))] if sample.params is None else convert(sample.params)
        what = f"{kind}({sample.desc}: {sample.kwargs})"
        settings = {"lr": 0.1, **sample.kwargs}
        tally.refused(f"optim.{kind}", "bad argument", what, own, params, **settings)
        names = inspect.signature(own).parameters
        if any(name not in names for name in sample.kwargs):  # refused for what remains, too
            rest = {name: value for name, value in settings.items() if name in names}
            tally.refused(f"optim.{kind}", "bad argument", what, own, params, **rest)
    assert tally.counts[f"optim.{kind}"]["bad argument"] >= 5, f"only {tally.counts}"
