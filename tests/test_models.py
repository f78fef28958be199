"""The two networks: their shapes, their refusals, and prediction at any size."""

import pytest
import torch

from scratch_dl.models import count_parameters, paper, reflect_to_multiple, trace, unet

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


def test_an_even_kernel_in_the_unet_is_refused():
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        unet(**{**UNET, "kernel_size": 4})


@pytest.mark.parametrize(
    "build", [lambda **more: paper(**PAPER, **more), lambda **more: unet(**UNET, **more)], ids=["paper", "unet"]
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
@pytest.mark.parametrize("network", [paper(**PAPER), unet(**UNET)], ids=["paper", "unet"])
def test_prediction_works_at_any_size(network, size):
    images = torch.rand(2, 3, *size)
    before = images.clone()
    assert network.predict(images).shape == images.shape
    assert torch.equal(images, before)


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


def test_the_seed_draws_the_weights():
    one, two, other = (paper(**PAPER, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a.value, b.value) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.parameters()[0].value, other.parameters()[0].value)
