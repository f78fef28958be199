"""`check_module`: healthy modules pass, whatever their numbers are, and nothing of them is changed."""

import copy
import random

import numpy as np
import pytest
import torch
from variants import SEEDS

from scratch_dl import nn
from scratch_dl.verification import check_module
from scratch_dl.verification.geometries import GEOMETRIES
from scratch_dl.verification.module import NO_ORACLE, as_inputs

WEIGHTS = (1.0, 1e-3, 30.0, 1e3)


@SEEDS
@pytest.mark.parametrize("kind", GEOMETRIES, ids=lambda kind: kind.__name__)
def test_healthy_modules_pass_for_every_seed_and_size_of_numbers(kind, seeds):
    """20 seeds over the geometries in turn, with PyTorch and without; inputs and weights of four sizes. No alarm."""
    cases = GEOMETRIES[kind]
    for seed in seeds:
        case = cases[seed % len(cases)]
        for scale in (1e-3, 1.0, 1e3):
            generator = torch.Generator().manual_seed(seed)
            module = kind(**case.arguments)
            for parameter in module.parameters():
                parameter.value = torch.randn(parameter.shape, generator=generator) * WEIGHTS[seed % len(WEIGHTS)]
            inputs = [scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in case.shapes]
            for oracle in (True, False):
                report = check_module(module, inputs=inputs, draws=1, oracle=oracle, seed=seed)
                assert report.passed, (seed, scale, case, str(report))


def random_states():
    """Of torch, NumPy and Python."""
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()  # noqa: NPY002


def test_the_module_given_is_left_as_it_is(generator):
    """Weights, gradients, mode and cache, and every random state: it can be in the middle of a training."""
    conv = nn.Conv2d(2, 3, 3, generator=generator)
    conv.weight.grad = torch.randn(conv.weight.shape, generator=generator)
    x = torch.randn(1, 2, 5, 5, generator=generator)
    u = torch.ones_like(conv(x))
    twin = copy.deepcopy(conv)
    twin(x)
    values, grads = ([getattr(p, what).clone() for p in conv.parameters()] for what in ("value", "grad"))
    held, before = conv.parameters(), random_states()
    assert check_module(conv, inputs=(2, 2, 6, 6)).passed
    assert random_states() == before
    for now, parameter, value, grad in zip(conv.parameters(), held, values, grads, strict=True):
        assert now is parameter
        assert now.value.dtype == torch.float32
        assert torch.equal(now.value, value)
        assert torch.equal(now.grad, grad)
    assert conv.training
    assert torch.equal(conv.backward(u), twin.backward(u))  # what its forward kept is still there


def test_an_object_and_the_inputs_given_are_left_as_they_are(generator):
    """Tensors of any attribute, and the tensors that the check is run at."""

    class InPlace:
        def __init__(self):
            self.w, self.seen = torch.ones(3), []

        def forward(self, x):
            self.seen.append((torch.rand(1), np.random.rand(), random.random()))  # noqa: NPY002
            return x.mul_(self.w)

        def backward(self, g):
            return g.mul_(self.w)

    module, x = InPlace(), torch.randn(3, generator=generator)
    before, states = x.clone(), random_states()
    check_module(module, inputs=x)
    assert (module.seen, random_states()) == ([], states)
    assert torch.equal(x, before)
    assert torch.equal(module.w, torch.ones(3))


def test_the_same_seed_repeats_the_report_and_another_draws_anew():
    """Findings are equal to the last bit."""
    conv = nn.Conv2d(2, 3, 3)
    reports = [check_module(conv, inputs=(2, 2, 6, 6), seed=seed, draws=1) for seed in (0, 0, 1)]
    errors = [[finding.error for finding in report.findings] for report in reports]
    assert errors[0] == errors[1] != errors[2]


def test_more_draws_are_more_comparisons():
    """Each with inputs of its own."""
    one, two = ([f.error for f in check_module(nn.Sigmoid(), inputs=(3, 4), draws=n).findings] for n in (1, 2))
    assert two[: len(one)] == one
    assert len(two) == 2 * len(one)
    assert two[len(one) :] != one


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        pytest.param((4, 3), [(4, 3)], id="shape"),
        pytest.param([4, 3], [(4, 3)], id="list-of-sides"),
        pytest.param([(4, 3), [4, 3]], [(4, 3), (4, 3)], id="shapes"),
        pytest.param(((4, 3), (4, 3)), [(4, 3), (4, 3)], id="tuple-of-shapes"),
    ],
)
def test_shapes_may_be_given_in_any_of_these_ways(inputs, expected):
    """One, or one for each argument of the forward."""
    assert as_inputs(inputs) == expected


def test_tensors_are_taken_as_they_are_beside_shapes():
    """At their own values."""
    x = torch.ones(2, 3)
    assert as_inputs([x, (2, 3)])[0] is as_inputs(x)[0] is x
    assert as_inputs([x, (2, 3)])[1] == (2, 3)


@pytest.mark.parametrize(
    ("inputs", "error", "match"),
    [
        pytest.param(None, TypeError, r"inputs must be a shape such as \[4, 3, 16, 16\].*got None", id="none"),
        pytest.param("4,3", TypeError, "inputs must be a shape .* but got '4,3'", id="text"),
        pytest.param(4, TypeError, "inputs must be a shape .* but got 4", id="number"),
        pytest.param([], TypeError, r"inputs must be a shape .* but got \[\]", id="nothing"),
        pytest.param({"x": 1}, TypeError, "inputs must be a shape", id="mapping"),
        pytest.param([(2, 3), "x"], TypeError, "inputs must be shapes .* but got 'x'", id="text-inside"),
        pytest.param((1.5, 2), TypeError, "inputs must be shapes .* but got 1.5", id="half-a-pixel"),
        pytest.param((True, 2), TypeError, "inputs must be shapes .* but got True", id="boolean"),
        pytest.param((2, -3), ValueError, "inputs must be >= 1, but got -3", id="negative"),
    ],
)
def test_inputs_that_are_none_are_refused(inputs, error, match):
    """With the rule and what came."""
    with pytest.raises(error, match=match):
        check_module(nn.ReLU(), inputs=inputs)


@pytest.mark.parametrize(
    ("module", "options", "error", "match"),
    [
        (nn.ReLU, {}, TypeError, "module must have a forward and a backward, but got the class ReLU"),
        (object(), {}, TypeError, "module must have a forward and a backward, but got object"),
        (nn.ReLU(), {"draws": 0}, ValueError, "draws must be >= 1, but got 0"),
        (nn.ReLU(), {"reference": "relu"}, TypeError, "reference must be a torch.nn.Module or a function, but got str"),
        (nn.ReLU(), {"reference": torch.nn.Linear(2, 2)}, ValueError, "reference must have parameters of the shapes"),
        (nn.ReLU(), {"reference": lambda x, y: x}, ValueError, "reference must take what the module takes"),  # noqa: ARG005
    ],
    ids=["class", "object", "draws", "text", "parameters", "arguments"],
)
def test_other_arguments_are_refused_too(module, options, error, match):
    """None of them is a verdict on the module."""
    with pytest.raises(error, match=match):
        check_module(module, inputs=(2, 3), **options)


class Linear:
    """x W' + b by hand, its parameters in a form that `form` says."""

    def __init__(self, form):
        self.form = form
        self.w, self.b = torch.randn(4, 3), torch.randn(4)
        self.dw, self.db = torch.zeros(4, 3), torch.zeros(4)
        if form == "tensors":
            self.w, self.b = (torch.nn.Parameter(tensor) for tensor in (self.w, self.b))
        if form == "objects":
            self.w, self.b = Pair(self.w), Pair(self.b)
        if form == "parameters":
            self.w, self.b = nn.Parameter(self.w), nn.Parameter(self.b)

    def listed(self):
        return [(self.w, self.dw), (self.b, self.db)] if self.form == "param" else [self.w, self.b]

    def _values(self):
        return [item.value if hasattr(item, "value") else item for item in (self.w, self.b)]

    def forward(self, x):
        self.x = x
        w, b = self._values()
        return x @ w.T + b

    def backward(self, g):
        for item, old, grad in zip((self.w, self.b), (self.dw, self.db), (g.T @ self.x, g.sum(0)), strict=True):
            if self.form == "param":
                old += grad
            else:
                item.grad = grad if item.grad is None else item.grad + grad
        return g @ self._values()[0]


def linear(form):
    return type("Linear", (Linear,), {"param" if form == "param" else "parameters": Linear.listed})(form)


class Pair:
    """A value and its gradient, none at first."""

    def __init__(self, value):
        self.value, self.grad = value, None


@pytest.mark.parametrize("form", ["param", "tensors", "objects", "parameters"])
@pytest.mark.parametrize("reference", [None, torch.nn.Linear(3, 4), lambda x, w, b: x @ w.T + b],
                         ids=["algebra", "torch-module", "function"])  # fmt: skip
def test_parameters_of_every_kind_are_found_and_verified(form, reference):
    """Weight and bias have a verdict each, with a reference of either kind and without one."""
    report = check_module(linear(form), reference, inputs=(5, 3), draws=2)
    assert report.passed, report
    assert set(report.verdicts["Linear"]) - {"forward"} == {"grad_input", "grad_weight", "grad_bias", "contract"}
    assert (NO_ORACLE in report.notes) == (reference is None)


class Block(nn.Module):
    """A composite of a user's own, with a parameter beside its modules."""

    def __init__(self):
        self.conv, self.relu, self.gain = nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Parameter(torch.ones(1))

    def forward(self, x):
        self.y = self.relu(self.conv(x))
        return x + self.gain.value * self.y

    def backward(self, g):
        self.gain.grad += (g * self.y).sum().reshape(1)
        return g + self.conv.backward(self.relu.backward(self.gain.value * g))


@SEEDS
@pytest.mark.parametrize("module", [Block(), nn.Sequential(Block(), nn.Skip(Block()), nn.Sigmoid())],
                         ids=["own", "containers"])  # fmt: skip
def test_composite_modules_pass_for_every_seed(module, seeds):
    """All parameters below are verified."""
    for seed in seeds:
        report = check_module(module, inputs=(2, 2, 5, 4), seed=seed, draws=1)
        assert report.passed, report


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Sigmoid(), (7,)), (nn.Sigmoid(), (1, 2, 2, 3, 2)), (nn.Conv2d(2, 3, 3), (1, 2, 4, 4)),
    ],
    ids=["1-d", "5-d", "one-sample"],
)  # fmt: skip
def test_any_number_of_axes_passes(module, shape):
    """Samples and channels are no matter of the checks."""
    assert check_module(module, inputs=shape, draws=1).passed


def test_an_input_of_nothing_is_refused():
    """Nothing would be compared, and everything pass."""
    with pytest.raises(ValueError, match="inputs must be >= 1, but got 0"):
        check_module(nn.Sigmoid(), inputs=(0, 3))


class OfTheFirstBatch:
    """Keeps the size of the first batch that it has seen."""

    size = None

    def forward(self, x):
        self.size = self.size or len(x)
        self.x = x
        return (x**2).view(self.size, -1)

    def backward(self, g):
        return 2 * self.x * g.view(self.x.shape)


def test_a_size_kept_from_the_first_batch_is_against_the_contract():
    """The last batch of an epoch has another one."""
    (failure,) = check_module(OfTheFirstBatch(), inputs=(4, 3), draws=1).failures
    assert failure.direction == "contract"
    assert "after a batch of 4 one of 5: raised RuntimeError" in failure.detail


class Overflows:
    """exp of a large number is none; of N(0, 1) nobody would see it."""

    def forward(self, x):
        self.y = x.exp() / (1 + x.exp())
        return self.y

    def backward(self, g):
        return g * self.y * (1 - self.y)


def test_an_overflow_at_large_numbers_is_seen_beside_a_reference():
    """PyTorch's sigmoid has none."""
    report = check_module(Overflows(), torch.nn.Sigmoid(), inputs=(4, 3), draws=1)
    assert {failure.direction for failure in report.failures} == {"forward", "grad_input"}
    assert all("large numbers" in failure.check for failure in report.failures)
    assert check_module(Overflows(), inputs=(4, 3), draws=1).passed


class Dropout:
    """Draws its mask from torch's random state."""

    def forward(self, x):
        self.mask = (torch.rand(x.shape) > 0.3).to(x)
        return self.mask * x

    def backward(self, g):
        return self.mask * g


def test_a_module_that_draws_is_verified_at_seeded_draws():
    """As one function; a backward that has forgotten the mask is none of its gradient."""
    assert check_module(Dropout(), inputs=(4, 30)).passed
    wrong = type("Wrong", (Dropout,), {"backward": lambda _, g: 0.7 * g})()
    assert {failure.direction for failure in check_module(wrong, inputs=(4, 30)).failures} == {"grad_input"}


class Cancelling:
    """A bias before a normalisation over it: its gradient is 0 but for rounding."""

    def __init__(self):
        self.bias, self.grad = torch.zeros(3), torch.zeros(3)

    def param(self):
        return [(self.bias, self.grad)]

    def forward(self, x):
        y = x + self.bias[:, None]
        self.size = y.shape[2]
        return y - y.mean(2, keepdim=True)

    def backward(self, g):
        g = g - g.mean(2, keepdim=True)
        self.grad += g.sum((0, 2))
        return g


@SEEDS
def test_a_gradient_that_cancels_to_nothing_passes(seeds):
    """Of rounding alone no digit is right."""
    for seed in seeds:
        report = check_module(Cancelling(), lambda x, b: (x + b[:, None]) - (x + b[:, None]).mean(2, keepdim=True),
                              inputs=(4, 3, 7), seed=seed, draws=1)  # fmt: skip
        assert report.passed, report
