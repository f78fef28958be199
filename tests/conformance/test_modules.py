"""The modules on PyTorch's own samples of its modules: the same constructor arguments, state and input."""

import pytest
import torch

from scratch_dl import nn

FLOATS = (torch.float64, torch.float32)
LEAST = {"Conv2d": 2, "ConvTranspose2d": 2, "ReLU": 6, "Sigmoid": 6, "MSELoss": 8, "L1Loss": 8}  # so many samples run


def why_not(kind, dtype, settings, input):
    """The reason to set a sample aside, or None."""
    if dtype not in FLOATS:
        return "dtype"
    if kind.startswith("Conv") and input.ndim != 4:
        return "unbatched"
    if isinstance(settings.get("padding"), str):
        return "padding"
    return "reduction none" if settings.get("reduction") == "none" else None


@pytest.fixture
def samples(databases):
    """(dtype, constructor's arguments, inputs, description) of a module's samples, in every dtype that it takes."""

    def samples(info, training):
        for dtype in sorted(info.dtypes, key=str):
            options = {"requires_grad": False, "training": training}
            drawn = databases.draw(info.module_inputs_func, info, "cpu", dtype, **options)
            assert drawn, f"{info.name} has no sample of {dtype}"
            for position, sample in enumerate(drawn):
                constructor, forward = sample.constructor_input, sample.forward_input
                what = f"{info.name}{constructor.args}, {constructor.kwargs}, sample {position} of {dtype}"
                assert not forward.kwargs, f"{what}: an argument that no forward has"
                yield dtype, constructor, forward.args, what

    return samples


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("kind", LEAST)
def test_modules_compute_pytorchs_samples_or_refuse_them(
    kind, training, databases, samples, agrees, near, tally, generator
):
    info, name = databases.modules[kind], f"nn.{kind}"

    def build(dtype, constructor):
        return getattr(nn, kind)(*constructor.args, **constructor.kwargs).to(dtype).train(training)

    def compute(dtype, constructor, inputs):
        return build(dtype, constructor)(*inputs)

    def check(dtype, constructor, inputs, what):
        twin = info.module_cls(*constructor.args, **constructor.kwargs).to(dtype).train(training)
        for parameter in twin.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=dtype)
        module = build(dtype, constructor)
        module.load_state_dict(twin.state_dict())
        if training:
            function = lambda *x: torch.func.functional_call(twin, x[-1], x[:-1])  # noqa: E731
            agrees(module, function, inputs[0], what, target=inputs[1] if len(inputs) > 1 else None)
            return
        near(module(*inputs), twin.double()(*(x.double() for x in inputs)), dtype, what)
        with pytest.raises(RuntimeError, match="in evaluation mode a forward keeps nothing"):
            module.backward(*(() if kind.endswith("Loss") else inputs))

    for dtype, constructor, inputs, what in samples(info, training):
        if reason := why_not(kind, dtype, constructor.kwargs, inputs[0]):
            tally.refused(name, reason, what, compute, dtype, constructor, inputs)
        else:
            check(dtype, constructor, inputs, what)
            tally.run(name)
    assert tally.counts[name]["run"] >= LEAST[kind], f"only {tally.counts}"


def test_no_module_of_the_database_is_left_out(databases):
    assert set(LEAST) == set(databases.modules) & set(nn.__all__)
    assert [kind for kind in LEAST if databases.modules[kind].module_error_inputs_func is not None] == []
