"""The networks: their shapes, their refusals, and prediction at any size."""

import numpy as np
import pytest
import torch

from scratch_dl.models import (
    Denoiser,
    check_size,
    count_parameters,
    paper,
    reflect_to_multiple,
    sequential,
    trace,
    unet,
)
from scratch_dl.nn import Conv2d, Module, ReLU, Sequential, Upsampling

PAPER = {
    "channels": [4, 6, 5],
    "kernel_size": 3,
    "padding": "same",
    "upsampling": "nearest",
    "bias": True,
    "init": "pytorch",
}
# With biases of zero, as "he" has them, a patch of zeros lies exactly on a ReLU's kink, where differences mislead.
UNET = {"channels": 4, "kernel_size": 3, "upsampling": "nearest", "bias": True, "init": "pytorch"}


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5, 6, [2, 3, 4, 5]])
@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])
def test_same_padding_keeps_the_size_for_every_kernel(kernel_size, upsampling):
    network = paper(**{**PAPER, "kernel_size": kernel_size, "upsampling": upsampling}, size=(32, 48))
    assert network(torch.rand(2, 3, 32, 48)).shape == (2, 3, 32, 48)


def test_the_paper_network_has_the_papers_modules_in_order():
    network = paper(**PAPER)
    names = ["conv1", "relu1", "conv2", "relu2", "up1", "relu3", "up2", "sigmoid"]
    assert [name for name, _ in network.children()] == names
    assert network[0].weight.shape == (4, 3, 3, 3)
    assert network[6].weight.shape == (3, 5, 3, 3)


@pytest.mark.parametrize(
    ("padding", "message"),
    [
        pytest.param(0, r"input 32x32, conv1 15x15, .*up2 22x22", id="one-for-all"),
        pytest.param([1, 1, 1, 0], r"up1 16x16, .*up2 30x30, sigmoid 30x30", id="the-last-only"),
    ],
)
def test_a_geometry_that_changes_the_size_is_refused_with_every_size(padding, message):
    with pytest.raises(ValueError, match=message):
        paper(**{**PAPER, "padding": padding})


def test_a_kernel_larger_than_its_input_is_named_with_its_module():
    with pytest.raises(ValueError, match=r"conv2 the kernel \(20x20.*must fit into the padded input"):
        paper(**{**PAPER, "kernel_size": [2, 20, 3, 3], "padding": [0, 0, "same", "same"]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": [4, 6]}, "channels must be three integers"),
        ({"channels": [4, 0, 5]}, r"channels\[1\] must be >= 1, but got 0"),
        ({"kernel_size": 0}, "kernel_size must be >= 1, but got 0"),
        ({"kernel_size": [3, 3]}, "kernel_size must be one value, or one for each of conv1, conv2, up1 and up2"),
        ({"padding": -1}, "padding must be >= 0, but got -1"),
        ({"padding": "valid"}, "padding must be one of same, but got 'valid'"),
        ({"upsampling": "nearst"}, "upsampling must be one of nearest, transposed, .*did you mean 'nearest'"),
        ({"init": "hee"}, "init must be one of pytorch, he, xavier, but got 'hee'; did you mean 'he'"),
    ],
)
def test_a_bad_setting_is_named_with_its_rule(change, message):
    with pytest.raises(ValueError, match=message):
        paper(**{**PAPER, **change})


def test_the_default_unet_has_between_40_and_200_thousand_parameters():
    assert 40_000 < count_parameters(unet(**{**UNET, "channels": 20})) < 200_000


def test_a_residual_unet_adds_to_its_input_what_its_layers_make_of_it(generator):
    network = unet(**UNET, residual=True, generator=generator)
    images = torch.rand(2, 3, 8, 12, generator=generator)
    layers = network.residual.inner
    assert [*dict(network.children()), *dict(layers.children())] == [
        "residual", "conv1", "relu1", "half", "conv2", "relu2", "conv3"
    ]  # fmt: skip
    assert torch.equal(network(images), images + layers(images))
    layers.conv3.weight.value.zero_()
    layers.conv3.bias.value.zero_()
    assert torch.equal(network(images), images)


def test_the_residual_unet_draws_the_weights_of_the_other_one():
    one, other = (
        unet(**UNET, residual=residual, generator=torch.Generator().manual_seed(1)) for residual in (False, True)
    )
    assert all(torch.equal(a.value, b.value) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_an_even_kernel_in_the_unet_is_refused():
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        unet(**{**UNET, "kernel_size": 4})


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda **more: paper(**PAPER, **more), id="paper"),
        pytest.param(lambda **more: unet(**UNET, **more), id="unet"),
        pytest.param(lambda **more: unet(**UNET, residual=True, **more), id="unet-residual"),
    ],
)
def test_every_gradient_of_the_network_matches_central_differences(build, generator):
    network = build(generator=generator).to(dtype=torch.float64)
    images = torch.rand(2, 3, 8, 12, dtype=torch.float64, generator=generator)
    upstream = torch.randn(2, 3, 8, 12, dtype=torch.float64, generator=generator)
    network(images)
    grad_input = network.backward(upstream)

    def directional(direction_of, value, grad):
        direction = torch.randn(value.shape, dtype=torch.float64, generator=generator)
        h = 1e-6
        sides = []
        for sign in (1, -1):
            direction_of(value + sign * h * direction)
            sides.append((network(images_now[0]) * upstream).sum())
        assert torch.isclose((sides[0] - sides[1]) / (2 * h), (grad * direction).sum(), rtol=1e-6, atol=1e-8)
        direction_of(value)

    images_now = [images]
    directional(lambda value: images_now.__setitem__(0, value), images, grad_input)
    for parameter in network.parameters():
        directional(lambda value, p=parameter: setattr(p, "value", value), parameter.value.clone(), parameter.grad)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (5, 4), (33, 30), (32, 32)])
@pytest.mark.parametrize(
    "network", [paper(**PAPER), unet(**UNET), unet(**UNET, residual=True)], ids=["paper", "unet", "unet-residual"]
)
def test_prediction_works_at_any_size(network, size):
    images = torch.rand(2, 3, *size)
    before = images.clone()
    assert network.predict(images).shape == images.shape
    assert torch.equal(images, before)


def test_prediction_crops_what_it_padded():
    """A network that changes nothing predicts every pixel where it was, for sizes that must be padded too."""
    identity = Conv2d(3, 3, 1, bias=False)
    identity.weight.value = torch.eye(3)[:, :, None, None]
    network = Denoiser({"identity": identity}, multiple=4, size=(8, 8))
    images = torch.rand(2, 3, 5, 7)
    torch.testing.assert_close(network.predict(images), images)


def test_prediction_at_a_multiple_is_the_forward_pass_and_keeps_no_cache():
    network = paper(**PAPER)
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(network.predict(images), network(images))
    network.predict(images)
    with pytest.raises(RuntimeError, match=r"needs a .*forward"):
        network.backward(torch.ones(1, 3, 32, 32))


def test_reflection_does_not_repeat_the_border():
    row = torch.arange(5.0).expand(1, 1, 1, 5)
    assert reflect_to_multiple(row, 4)[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]


def test_the_trace_names_every_module():
    assert trace(paper(**PAPER), (32, 32))[:3] == [("input", (32, 32)), ("conv1", (16, 16)), ("relu1", (16, 16))]


class Halving:
    """Nobody's module, which does not say that it halves the size: every second pixel, mixed by NumPy's weights."""

    def __init__(self, c=3, o=3):
        self.w = torch.from_numpy(np.linspace(-1, 1, c * o).reshape(o, c))
        self.dw = torch.zeros_like(self.w)
        self.modes = []

    def forward(self, x):
        self.x = x[:, :, ::2, ::2]
        return torch.einsum("oc,nchw->nohw", self.w, self.x)

    def backward(self, g):
        self.dw += torch.einsum("nohw,nchw->oc", g, self.x)
        grad = torch.zeros(len(g), self.w.shape[1], 2 * g.shape[2], 2 * g.shape[3], dtype=g.dtype)
        grad[:, :, ::2, ::2] = torch.einsum("oc,nohw->nchw", self.w, g)
        return grad

    def param(self):
        return [(self.w, self.dw)]

    def train(self):
        self.modes.append("train")

    def eval(self):
        self.modes.append("eval")


class Failing:
    def __init__(self, error):
        self.error = error

    def forward(self, *_):
        raise self.error

    backward = forward


class Strided(Module):
    """A module of ours that leaves `output_size` as it is, and is wrong thereby."""

    def forward(self, input):
        return input[:, :, ::2, ::2]

    def backward(self, grad_output):
        raise NotImplementedError


def test_the_trace_runs_the_modules_and_believes_no_answer():
    network = Sequential({"half": Halving(), "again": Strided(), "up": Upsampling(3, 3, 2)})
    network.to(torch.float64)
    assert trace(network, (8, 12)) == [("input", (8, 12)), ("half", (4, 6)), ("again", (2, 3)), ("up", (4, 6))]


def test_the_trace_leaves_modes_and_caches_as_they_were():
    halving = Halving()
    network = Sequential({"conv": Conv2d(3, 3, 1), "half": halving}).to(torch.float32)
    network.eval()
    halving.modes.clear()
    trace(network, (4, 4))
    assert (halving.modes, network.conv.training) == (["eval", "eval"], False)
    network.train()
    trace(network, (4, 4))
    assert halving.modes[-2:] == ["eval", "train"]
    assert network.conv.training
    assert network.conv._cache is None
    assert not any(parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        pytest.param(Failing(IndexError("no\nroom")), "bad IndexError: no room$", id="another-error"),
        pytest.param(Failing(AssertionError()), "bad AssertionError: $", id="no-words"),
        pytest.param(Failing(ValueError("so not")), "bad so not$", id="refusal"),
        pytest.param(Conv2d(5, 3, 1), r"bad input must have .*\(n, 5, h, w\), but got \(1, 3, 4, 6\)$", id="channels"),
    ],
)  # fmt: skip
def test_whatever_a_module_raises_is_the_reason(module, reason):
    network = Sequential({"relu": ReLU(), "bad": module})
    with pytest.raises(ValueError, match=rf"input's size 4x6, but the sizes are: input 4x6, relu 4x6, {reason}") as got:
        check_size(network, (4, 6))
    assert got.value.__cause__ is not None
    assert network.training


def test_an_output_of_other_channels_or_no_images_is_refused():
    with pytest.raises(ValueError, match=r"must have 3 channels as the input has, but has 5; .*conv 4x6, relu 4x6"):
        check_size(Sequential({"conv": Conv2d(3, 5, 1), "relu": ReLU()}), (4, 6))

    class Flat(Failing):
        def forward(self, x):
            return x.flatten(1)

    with pytest.raises(ValueError, match=r"flat the output must be \(n, c, h, w\), but is \(1, 72\)"):
        check_size(Sequential({"flat": Flat(None)}), (4, 6))


def test_a_network_with_a_forward_of_its_own_is_run_as_a_whole():
    class Backwards(Sequential):
        def forward(self, input):
            return self[0](self[1](input))

    network = Backwards({"last": Conv2d(5, 3, 1), "first": Conv2d(3, 5, 1)})
    assert trace(network, (4, 6)) == [("input", (4, 6)), ("network", (4, 6))]


def test_any_modules_make_a_denoiser(generator):
    """Weights of NumPy's making come in float64; the network has one dtype all the same."""
    modules = {"half": Halving(3, 4), "relu": ReLU(), "up": Upsampling(4, 3, 3, generator=generator)}
    network = sequential(modules, multiple=2, size=(8, 12))
    assert {parameter.value.dtype for parameter in network.parameters()} == {torch.float32}
    assert network.predict(torch.rand(2, 3, 5, 7, generator=generator)).shape == (2, 3, 5, 7)
    images = torch.rand(2, 3, 8, 12, generator=generator)
    assert network.backward(network(images)).shape == images.shape


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"modules": [ReLU()]}, TypeError, r"modules must be names and modules, but got \[ReLU\(\)\]"),
        ({"modules": {}}, TypeError, r"modules must be names and modules, but got {}"),
        ({"modules": {"a": 3}}, TypeError, r"modules\['a'\] must have a forward and a backward, but got int"),
        ({"modules": {"a": Halving()}}, ValueError, r"input's size 32x32, .*: input 32x32, a 16x16"),
        ({"modules": {"a": ReLU()}, "multiple": 0}, ValueError, r"multiple must be >= 1, but got 0"),
    ],
)
def test_what_makes_no_denoiser_is_refused(settings, error, message):
    with pytest.raises(error, match=message):
        sequential(**{"multiple": 2, **settings})


def test_the_seed_draws_the_weights():
    one, two, other = (paper(**PAPER, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a.value, b.value) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.parameters()[0].value, other.parameters()[0].value)
