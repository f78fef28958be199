"""Algebra alone: right derivatives pass, at kinks and without a reference too, and wrong ones do not."""

import pytest
import torch
from variants import SEEDS

from scratch_dl import nn
from scratch_dl.verification import check_module
from scratch_dl.verification.algebra import check_adjoint, check_linearity, numeric_gradient


def failures(module, inputs, **options):
    report = check_module(module, inputs=inputs, oracle=False, draws=1, **options)
    return [(finding.direction, finding.check, finding.error, finding.limit) for finding in report.failures]


KINKED = [
    pytest.param(torch.zeros(3, 4), id="all-zero"),
    pytest.param(torch.tensor([0.0, 1.0, -1.0, 0.0, 2.0, 0.0]), id="many-zeros"),
    pytest.param(torch.tensor([0.0, 1e-3, -1e-3, 1e3, -1e3, 0.0]), id="zeros-among-all-sizes"),
    pytest.param(torch.tensor([[1e-7, -1e-7], [1.0, -1.0]]), id="a-step-from-zero"),
]


@SEEDS
@pytest.mark.parametrize("inputs", KINKED)
def test_a_relu_at_its_kink_is_no_failure(inputs, seeds):
    """There the slope is what one takes it to be; with the oracle it is PyTorch's."""
    for seed in seeds:
        assert not failures(nn.ReLU(), inputs, seed=seed), seed
        assert check_module(nn.ReLU(), inputs=inputs, seed=seed, draws=1).passed, seed


@SEEDS
def test_a_relu_of_rounded_numbers_passes(seeds):
    """Pixels of a black picture, or sums of such, are exactly 0 here and there."""
    for seed in seeds:
        inputs = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)).round()
        assert not failures(nn.ReLU(), inputs, seed=seed), seed


def test_a_wrong_relu_still_fails_where_most_is_at_the_kink():
    """The guard leaves out the outputs at the kink, not the others."""
    wrong = type("Wrong", (nn.ReLU,), {"backward": lambda self, g: nn.ReLU.backward(self, g) * 1.01})
    inputs = torch.cat([torch.zeros(20), torch.tensor([1.0, -1.0])])
    assert {direction for direction, *_ in failures(wrong(), inputs)} == {"grad_input"}


class Elementwise:
    """A smooth function of one number, and what is said to be its derivative."""

    def __init__(self, function, derivative):
        self.function, self.derivative = function, derivative

    def forward(self, x):
        self.x = x
        return self.function(x)

    def backward(self, g):
        return g * self.derivative(self.x)


def tanh_wrong(x):
    return 1 - x.tanh()


SMOOTH = {
    "tanh": (torch.tanh, lambda x: 1 - x.tanh() ** 2),
    "cube": (lambda x: x * x * x, lambda x: 3 * x**2),
    "softplus": (lambda x: (1 + x.exp()).log(), lambda x: 1 / (1 + (-x).exp())),
    "sine": (torch.sin, torch.cos),
    "bell": (lambda x: (-x * x).exp(), lambda x: -2 * x * (-x * x).exp()),
}
WRONG = {
    "tanh-without-square": ("tanh", lambda x: 1 - x.tanh()),
    "tanh-at-its-output": ("tanh", lambda x: 1 - x.tanh().tanh() ** 2),
    "cube-factor": ("cube", lambda x: 2 * x**2),
    "cube-power": ("cube", lambda x: 3 * x),
    "softplus-sign": ("softplus", lambda x: 1 / (1 + x.exp())),
    "softplus-nearly": ("softplus", lambda x: (1 + 1e-4) / (1 + (-x).exp())),
    "sine-sign": ("sine", lambda x: -torch.cos(x)),
    "bell-forgets-inner": ("bell", lambda x: (-x * x).exp()),
    "one": ("sine", torch.ones_like),
    "zero": ("bell", torch.zeros_like),
}


@SEEDS
@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0])
@pytest.mark.parametrize("name", SMOOTH)
def test_a_smooth_module_without_a_reference_passes(name, scale, seeds):
    """Over many seeds, and where the numbers are small or large."""
    for seed in seeds:
        inputs = scale * torch.randn(3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert not failures(Elementwise(*SMOOTH[name]), inputs, seed=seed), seed


@SEEDS
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_derivative_fails_for_every_seed(name, seeds):
    """Even by a ten-thousandth; the input's gradient is named and nothing else."""
    function, derivative = SMOOTH[WRONG[name][0]][0], WRONG[name][1]
    for seed in seeds:
        found = failures(Elementwise(function, derivative), (3, 4), seed=seed)
        assert {direction for direction, *_ in found} == {"grad_input"}, seed


class Scaled(nn.Module):
    """x * x * scale, linear in its parameter and not in its input."""

    def __init__(self, power=2):
        self.scale, self.power = nn.Parameter(torch.tensor([1.5])), power

    def forward(self, x):
        self.x = x
        return self.scale.value * x**self.power

    def backward(self, g):
        self.scale.grad += (g * self.x**self.power).sum().reshape(1)
        return g * self.scale.value * self.power * self.x ** (self.power - 1)


@pytest.mark.parametrize(
    ("power", "witnesses"),
    [
        pytest.param(2, ["central differences", "adjoint"], id="square"),
        pytest.param(1, ["adjoint", "adjoint"], id="linear"),
    ],
)
def test_where_the_forward_is_affine_the_slope_is_exact(power, witnesses, generator):
    """The adjoint test's band is 1e-10, not that of central differences; told for each argument by itself."""
    x = [torch.randn(3, 4, generator=generator, dtype=torch.float64)]
    found = check_adjoint("m", Scaled(power).to(torch.float64), x, generator)
    assert [(finding.direction, finding.check) for finding in found] == [
        ("grad_input", witnesses[0]),
        ("grad_weight", witnesses[1]),
    ]
    assert [finding.limit for finding in found] == [1e-10 if w == "adjoint" else 1e-6 for w in witnesses]
    assert all(finding.passed for finding in found)


@pytest.mark.parametrize(
    ("backward", "check"),
    [
        pytest.param(lambda self, g: g + 1e-6, "backward(0) = 0", id="a-constant"),  # noqa: ARG005
        pytest.param(lambda self, g: g * g.abs(), "backward(2u) = 2 backward(u)", id="a-square"),  # noqa: ARG005
        pytest.param(lambda self, g: g.clamp(min=0), "backward(u + u')", id="a-mask-of-its-own"),  # noqa: ARG005
    ],
)
def test_a_backward_that_is_not_linear_fails_by_its_own_rule(backward, check, generator):
    """Each rule sees what the others let through: the mask keeps zeros and doubles."""
    module = type("Broken", (nn.ReLU,), {"backward": backward})()
    x = [torch.rand(3, 4, generator=generator, dtype=torch.float64)]
    found = check_linearity("m", module, x, generator)
    assert f"linearity: {check}" in [finding.check for finding in found if not finding.passed]


def test_a_loss_has_no_linearity_to_check(generator):
    """Its backward is given nothing."""
    x = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    assert check_linearity("loss", nn.MSELoss(), list(x), generator) == []


class Single:
    """tanh, which takes float32 alone: by refusing float64, or by casting to it."""

    def __init__(self, refuses):
        self.refuses = refuses

    def forward(self, x):
        if self.refuses and x.dtype != torch.float32:
            raise TypeError("float32 alone")
        self.y = x.float().tanh()
        return self.y

    def backward(self, g):
        return g * (1 - self.y**2)


@SEEDS
@pytest.mark.parametrize("refuses", [True, False], ids=["refuses", "casts"])
def test_a_module_of_float32_alone_is_checked_in_float32_and_that_is_said(refuses, seeds):
    """For every seed, with and without a reference; a wrong one is caught there too."""
    for seed in seeds:
        for reference in (None, torch.tanh):
            report = check_module(Single(refuses), reference, inputs=(3, 4), seed=seed, draws=1)
            assert report.passed, report
            assert [note for note in report.notes if note.startswith("Single took no float64: its forward r")]
    wrong = type("Wrong", (Single,), {"backward": lambda self, g: g * tanh_wrong(self.y)})
    for seed in seeds:
        assert {direction for direction, *_ in failures(wrong(refuses), (3, 4), seed=seed)} == {"grad_input"}, seed


@pytest.mark.parametrize("key", ["input", "weight", "bias"])
def test_numeric_gradients_are_autograds(key, generator):
    """Number by number, of the input and of each parameter, which is put back."""
    conv = nn.Conv2d(1, 2, 2, generator=generator).to(torch.float64)
    x = torch.randn(1, 1, 3, 3, generator=generator, dtype=torch.float64)
    u = torch.randn(1, 2, 2, 2, generator=generator, dtype=torch.float64)
    arguments = [x, conv.weight.value.clone(), conv.bias.value.clone()]
    tensors = [tensor.clone().requires_grad_() for tensor in arguments]
    torch.nn.functional.conv2d(*tensors).backward(u)
    expected = tensors[["input", "weight", "bias"].index(key)].grad
    torch.testing.assert_close(numeric_gradient(conv, [x], key, u), expected, rtol=1e-6, atol=1e-8)
    assert torch.equal(conv.weight.value, arguments[1])
    assert torch.equal(conv.bias.value, arguments[2])
