"""The modules on PyTorch's sample inputs of its operators: computed as PyTorch does, or refused for a stated reason."""

import os
import random
import sys

import pytest
import torch

from scratch_dl.nn import Conv2d, ConvTranspose2d, MSELoss, ReLU, Sigmoid, UpsamplingNearest2d

FLOATS = (torch.float64, torch.float32)

# At least so many samples run, in the releases of PyTorch from 2.11 on.
CONVOLUTIONS = [  # operator, module, axes of the weight with the channels (in, out), least
    pytest.param("nn.functional.conv2d", Conv2d, (1, 0), 8, id="conv2d"),
    pytest.param("nn.functional.conv_transpose2d", ConvTranspose2d, (0, 1), 6, id="conv_transpose2d"),
]
ACTIVATIONS = [
    pytest.param("nn.functional.relu", ReLU, 40, id="relu"),
    pytest.param("sigmoid", Sigmoid, 40, id="sigmoid"),
]
ENLARGEMENTS = [  # operator, its variant in the database, how else it is called
    pytest.param("nn.functional.upsample_nearest", "", {}, id="upsample_nearest"),
    pytest.param("nn.functional.interpolate", "nearest", {"mode": "nearest"}, id="interpolate"),
]
OWN_FACTORS = [(1, 1), (2, 2), (3, 2), (1, 4)]


@pytest.fixture
def samples(databases):
    """(dtype, sample, its description) of all samples of an operator, in every dtype that it takes."""

    def samples(operator):
        for dtype in sorted(operator.dtypes, key=str):
            drawn = databases.draw(operator.reference_inputs, "cpu", dtype)
            assert drawn, f"{operator.name} has no sample of {dtype}"
            for position, sample in enumerate(drawn):
                shapes = [tuple(t.shape) if isinstance(t, torch.Tensor) else t for t in (sample.input, *sample.args)]
                yield dtype, sample, f"{operator.name}, sample {position} of {dtype}, {shapes}, {sample.kwargs}"

    return samples


def convolve(kind, axes, sample, use=lambda module, x: module(x)):
    """Build the hand-written module with the sample's settings, weight and bias, and use it."""
    weight, bias = (*sample.args, None)[:2]
    settings = {name: value for name, value in sample.kwargs.items() if (name, value) != ("groups", 1)}
    channels = [weight.shape[axis] for axis in axes]
    module = kind(*channels, tuple(weight.shape[2:]), bias=bias is not None, **settings).to(weight.dtype)
    module.weight.value = weight
    if bias is not None:
        module.bias.value = bias
    return use(module, sample.input)


def why_no_convolution(dtype, sample):
    """The reason to set a sample aside, or None."""
    if dtype not in FLOATS:
        return "dtype"
    if sample.input.ndim != 4:
        return "unbatched"
    if sample.kwargs.get("groups", 1) != 1:
        return "groups"
    return "padding" if isinstance(sample.kwargs.get("padding"), str) else None


@pytest.mark.parametrize(("name", "kind", "axes", "least"), CONVOLUTIONS)
def test_convolutions_compute_pytorchs_samples_or_refuse_them(
    name, kind, axes, least, databases, samples, agrees, tally
):
    operator, short = databases.operators[name, ""], name.rpartition(".")[2]

    def check(sample, what):
        function = lambda x, p: operator.op(x, p["weight"], p.get("bias"), **sample.kwargs)  # noqa: E731
        convolve(kind, axes, sample, lambda module, x: agrees(module, function, x, what))

    for dtype, sample, what in samples(operator):
        if reason := why_no_convolution(dtype, sample):
            tally.refused(short, reason, what, convolve, kind, axes, sample)
        else:
            check(sample, what)
            tally.run(short)
    assert tally.counts[short]["run"] >= least, f"only {tally.counts[short]} of {name}"


@pytest.mark.parametrize(("name", "kind", "least"), ACTIVATIONS)
def test_activations_compute_pytorchs_samples_or_refuse_them(name, kind, least, databases, samples, agrees, tally):
    """Among them a million numbers at once, the largest and the smallest ones, infinities and NaN."""
    operator, short = databases.operators[name, ""], name.rpartition(".")[2]
    for dtype, sample, what in samples(operator):
        assert not sample.args, f"{what}: an argument that no activation has"
        assert not sample.kwargs, f"{what}: an argument that no activation has"
        if dtype in FLOATS:
            agrees(kind(), lambda x, _: operator.op(x), sample.input, what, saturates=kind is Sigmoid)
            tally.run(short)
        else:
            tally.refused(short, "dtype", what, kind(), sample.input)
    assert tally.counts[short]["run"] >= least, f"only {tally.counts[short]} of {name}"


def test_the_loss_computes_pytorchs_samples_or_refuses_them(databases, samples, agrees, tally):
    operator = databases.operators["nn.functional.mse_loss", ""]

    def compute(input, target, settings):
        return MSELoss(**settings)(input, target)

    def check(input, target, settings, what):
        agrees(MSELoss(**settings), lambda x, t, _: operator.op(x, t, **settings), input, what, target=target)

    for dtype, sample, what in samples(operator):
        (target,) = sample.args
        if dtype not in FLOATS:
            tally.refused("mse_loss", "dtype", what, compute, sample.input, target, sample.kwargs)
        elif sample.kwargs.get("reduction") == "none":
            tally.refused("mse_loss", "reduction none", what, compute, sample.input, target, sample.kwargs)
        else:
            check(sample.input, target, sample.kwargs, what)
            tally.run("mse_loss")
    assert tally.counts["mse_loss"]["run"] >= 8, f"only {tally.counts}"


def factors(sample):
    """The factor of each axis: as it is given, or of the sizes, in whole numbers where it is whole."""
    options = {"size": sample.args[0] if sample.args else None, **sample.kwargs}
    axes = sample.input.shape[2:]
    given = options.get("scale_factor")
    ratios = [given] * len(axes) if given else [new / old for new, old in zip(options["size"], axes, strict=True)]
    return tuple(int(ratio) if ratio == int(ratio) else ratio for ratio in ratios)


def why_not_enlarged(dtype, sample):
    """The reason to set a sample aside, or None."""
    if dtype not in FLOATS:
        return "dtype"
    if sample.input.ndim != 4:
        return "not 2-d"
    return None if all(isinstance(factor, int) for factor in factors(sample)) else "factor"


@pytest.mark.filterwarnings("ignore:`nn.functional.upsample_nearest` is deprecated:UserWarning")  # it is an oracle
@pytest.mark.parametrize(("name", "variant", "options"), ENLARGEMENTS)
def test_enlarging_computes_pytorchs_samples_or_refuses_them(name, variant, options, databases, samples, agrees, tally):
    """PyTorch has no sample of a whole factor, so that its pictures are enlarged by factors of our own, too."""
    operator, short = databases.operators[name, variant], name.rpartition(".")[2]

    def enlarge(factor, input):
        return UpsamplingNearest2d(factor)(input)

    def check(factor, input, what, *arguments, **options):
        function = lambda x, _: operator.op(x, *arguments, **options)  # noqa: E731
        agrees(UpsamplingNearest2d(factor), function, input, what)

    for dtype, sample, what in samples(operator):
        reason = why_not_enlarged(dtype, sample)
        if reason == "dtype":
            tally.refused(short, reason, what, enlarge, 2, sample.input)
        elif reason:
            tally.refused(short, reason, what, enlarge, factors(sample), sample.input)
        else:
            check(factors(sample), sample.input, what, *sample.args, **sample.kwargs)
            tally.run(short)
        for own in OWN_FACTORS if reason == "factor" else ():
            check(own, sample.input, f"{what} by {own}", scale_factor=own, **options)
            tally.run(f"{short} by whole factors")
    assert tally.counts[f"{short} by whole factors"]["run"] >= 16, f"only {tally.counts}"


def test_what_pytorch_refuses_is_refused(databases, tally):
    """Negative strides, paddings and dilations, weights and biases of another dtype or rank, impossible groups."""
    errors = databases.draw(databases.operators["nn.functional.conv2d", ""].error_inputs, "cpu")
    for position, error in enumerate(errors):
        what = f"conv2d, error input {position}: PyTorch says {error.error_regex!r}"
        tally.refused("conv2d", "bad argument", what, convolve, Conv2d, (1, 0), error.sample_input)
    assert tally.counts["conv2d"]["bad argument"] >= 8, f"only {tally.counts}"


def test_no_other_operator_has_error_inputs(databases):
    names = [("nn.functional.conv_transpose2d", ""), ("nn.functional.relu", ""), ("sigmoid", "")]
    names += [("nn.functional.mse_loss", ""), *((row.values[0], row.values[1]) for row in ENLARGEMENTS)]
    assert [name for name in names if databases.operators[name].error_inputs_func is not None] == []


def test_pytorchs_test_code_leaves_the_process_as_it_was(databases):
    """It seeds every generator before each sample, and forbids to set torch.backends' flags."""
    before = torch.get_rng_state(), random.getstate(), dict(os.environ), sys.argv
    databases.draw(databases.operators["sigmoid", ""].sample_inputs, "cpu", torch.float32)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), dict(os.environ), sys.argv) == before[1:]
    assert not torch.backends.flags_frozen()
