"""One pass and one error: what is compared, how far apart it is, and where an exception belongs."""

import math
import re

import pytest
import torch

from scratch_dl import nn
from scratch_dl.nn import adapt
from scratch_dl.verification import passes
from scratch_dl.verification.passes import BrokenPassError, BrokenReferenceError

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("got", "expected", "error"),
    [
        pytest.param([3.0, 4.0], [3.0, 4.0], 0.0, id="equal"),
        pytest.param([3.0, 5.0], [3.0, 4.0], 0.2, id="norm-wise"),
        pytest.param([1e-3, 5.0], [0.0, 5.0], 2e-4, id="a-zero-among-others"),
        pytest.param([6.0, 8.0], [3.0, 4.0], 1.0, id="relative-to-the-expected"),
        pytest.param([0.0, 0.0], [0.0, 0.0], 0.0, id="both-zero"),
        pytest.param([1e-100, 0.0], [0.0, 0.0], INF, id="zero-expected"),
        pytest.param([1.0, 2.0, 3.0], [1.0, 2.0], INF, id="shapes"),
        pytest.param([[1.0]], [1.0], INF, id="axes"),
        pytest.param([NAN, 1.0], [1.0, 1.0], INF, id="nan-got"),
        pytest.param([1.0, 1.0], [NAN, 1.0], INF, id="nan-expected"),
        pytest.param([INF, 1.0], [1.0, 1.0], INF, id="inf-got"),
        pytest.param([1.0, 1.0], [INF, 1.0], INF, id="inf-expected"),
        pytest.param([], [], 0.0, id="empty"),
    ],
)
def test_the_relative_error_is_of_norms(got, expected, error):
    """||got - expected|| / ||expected||, in float64; inf where there is nothing to divide by."""
    got, expected = (torch.tensor(values, dtype=torch.float64) for values in (got, expected))
    assert passes.relative_error(got, expected) == pytest.approx(error, rel=1e-12)


def test_float32_is_compared_in_float64():
    """Or the difference itself would be rounded away, and the norm of large numbers be infinite."""
    large = torch.full((4,), 1e25)
    assert passes.relative_error(2 * large, large) == pytest.approx(1)
    got = torch.full((10_000,), 1.0)
    expected = got.double() + 1e-9
    assert passes.relative_error(got, expected) == pytest.approx(1e-9, rel=1e-6)


@pytest.mark.parametrize(
    ("got", "expected", "error"),
    [
        pytest.param([1.0, -1.0], [0.0, 0.0], 1.0, id="mean-of-amounts"),
        pytest.param([1.0], [1.0, 2.0], NAN, id="shapes"),
        pytest.param([], [], NAN, id="empty"),
    ],
)
def test_the_mean_absolute_error_is_the_papers(got, expected, error):
    """Mean |got - expected|, and no number where there is none."""
    assert passes.mean_abs_error(torch.tensor(got), torch.tensor(expected)) == pytest.approx(error, nan_ok=True)


def test_a_finding_of_different_shapes_says_both():
    """Beside what else is to be said."""
    found = passes.compare("conv1", "forward", "PyTorch", torch.zeros(2, 3), torch.zeros(3, 2), 1.0, "parameter w")
    assert found.error == INF
    assert found.detail == "parameter w, shape (2, 3) instead of (3, 2)"


class Course:
    """Two pairs without names, one of a bias's shape."""

    def __init__(self):
        self.pairs = [(torch.ones(2, 2), torch.zeros(2, 2)), (torch.ones(2), torch.zeros(2))]

    def forward(self, x):
        return x

    def backward(self, g):
        return g

    def param(self):
        return [(value, grad) for value, grad in self.pairs]


class Named(nn.Module):
    """Parameters under names of all kinds."""

    def __init__(self):
        for name in ("w", "b", "weight", "bias", "out_bias", "beta", "gain"):
            setattr(self, name, nn.Parameter(torch.ones(2)))


@pytest.mark.parametrize(
    ("module", "name", "direction"),
    [
        (Named, "input", "grad_input"),
        (Named, "w", "grad_weight"),
        (Named, "weight", "grad_weight"),
        (Named, "gain", "grad_weight"),
        (Named, "beta", "grad_weight"),
        (Named, "b", "grad_bias"),
        (Named, "bias", "grad_bias"),
        (Named, "out_bias", "grad_bias"),
        (lambda: adapt(Course()), "pairs.0.0", "grad_weight"),
        (lambda: adapt(Course()), "pairs.1.0", "grad_bias"),
        (lambda: nn.Sequential(nn.Conv2d(1, 1, 1)), "0.weight", "grad_weight"),
        (lambda: nn.Sequential(nn.Conv2d(1, 1, 1)), "0.bias", "grad_bias"),
    ],
    ids=lambda item: item if isinstance(item, str) else getattr(item, "__name__", "module"),
)
def test_a_gradient_belongs_to_a_direction_by_its_name(module, name, direction):
    """By the last part of it; what has a position only goes by its shape."""
    made = module()
    names = dict(made.named_parameters())
    if name != "input" and name not in names:  # what an adapter calls a pair is its own business
        name = list(names)[int(name.split(".")[1])]
    assert passes.direction_of(name, made) == direction


class Backward:
    """A forward, and a backward of a signature given by a subclass."""

    def forward(self, x):
        return x


class OfNothing(Backward):
    def backward(self):
        return torch.ones(1)


class OfKeywords(Backward):
    def backward(self, **_):
        return torch.ones(1)


class OfAny(Backward):
    def backward(self, *gradients):
        return gradients[0]


class OfOne(Backward):
    def backward(self, gradient):
        return gradient


@pytest.mark.parametrize(
    ("make", "takes"),
    [(nn.MSELoss, False), (nn.ReLU, True), (OfNothing, False), (OfKeywords, False), (OfAny, True), (OfOne, True)],
)
def test_a_backward_without_arguments_is_a_loss(make, takes):
    """An adapted object is asked itself, not its adapter, which takes anything."""
    assert passes.takes_gradient(adapt(make()), torch.zeros(3)) is takes
    assert passes.takes_gradient(adapt(make()), torch.tensor(0.0)) is (takes and make in (nn.ReLU, OfOne))


def failing(**methods):
    return adapt(type("Failing", (OfOne,), methods)())


def raising(*_):
    raise ZeroDivisionError("first line\nsecond line")


@pytest.mark.parametrize(
    ("methods", "direction"),
    [
        pytest.param({"forward": raising}, "forward", id="forward"),
        pytest.param({"backward": raising}, "grad_input", id="backward"),
        pytest.param({"zero_grad": raising}, "contract", id="zero_grad"),
    ],
)
def test_an_exception_names_its_pass(methods, direction):
    """In one line, with its class."""
    with pytest.raises(BrokenPassError) as caught:
        passes.own_pass(failing(**methods), [torch.ones(2)], torch.ones(2))
    assert caught.value.direction == direction
    assert re.fullmatch(r"raised ZeroDivisionError: first line \(test_passes.py, line \d+\)", str(caught.value))


class Nothing(nn.Module):
    """Returns something other than a tensor from one of its passes; a Module, so that no adapter says so."""

    def __init__(self, where):
        self.where = where

    def forward(self, x):
        return None if self.where == "forward" else x

    def backward(self, g):
        return None if self.where == "backward" else g


@pytest.mark.parametrize(("where", "direction"), [("forward", "forward"), ("backward", "grad_input")])
def test_what_is_no_tensor_is_a_broken_pass(where, direction):
    """And the message says what came instead."""
    with pytest.raises(BrokenPassError, match=f"{where} returned NoneType instead of a tensor") as caught:
        passes.own_pass(Nothing(where), [torch.ones(2)], torch.ones(2))
    assert caught.value.direction == direction


def test_a_pass_gives_copies_and_leaves_the_input_alone():
    """A module that writes over what it is given, or over what it returned, spoils no comparison."""

    class InPlace(nn.Module):
        def forward(self, x):
            self.y = x.mul_(2)
            return self.y

        def backward(self, g):
            self.y.zero_()
            return g.mul(2)

    x, g = torch.ones(3), torch.ones(3)
    found = passes.own_pass(InPlace(), [x], g)
    assert torch.equal(x, torch.ones(3))
    assert torch.equal(found.output, torch.full((3,), 2.0))


def test_what_zero_grad_leaves_is_no_gradient():
    """It is taken off: the contract has a check of its own for it."""
    conv = nn.Conv2d(1, 1, 1)
    conv.bias.zero_grad = lambda: None
    x, g = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    for _ in range(2):
        assert passes.own_pass(conv, [x], g).gradients["bias"].item() == 4


def test_a_reference_that_raises_is_the_users_fault_and_says_so():
    """A ValueError, which a command turns into a usage error."""
    with pytest.raises(BrokenReferenceError, match="reference must take what the module takes, but raised RuntimeErr"):
        passes.reference_pass(lambda x: x.reshape(7), nn.ReLU(), [torch.ones(2)], torch.ones(2), torch.float64)


@pytest.mark.parametrize("result", [None, 3.0, (torch.ones(2),)], ids=["none", "number", "tuple"])
def test_a_reference_that_returns_no_tensor_is_refused(result):
    """In the same words as one that raises."""
    with pytest.raises(BrokenReferenceError, match="reference must"):
        passes.reference_pass(lambda x: result, nn.ReLU(), [torch.ones(2)], torch.ones(2), torch.float64)  # noqa: ARG005


def test_an_argument_that_the_reference_does_not_use_has_gradient_zero():
    """As autograd's None means."""
    conv = nn.Conv2d(1, 1, 1)
    found = passes.reference_pass(
        lambda x, weight, bias: x * weight,  # noqa: ARG005
        conv, [torch.ones(1, 1, 2, 2)], torch.ones(1, 1, 2, 2), torch.float64,
    )  # fmt: skip
    assert torch.equal(found.gradients["bias"], torch.zeros(1, dtype=torch.float64))
    assert found.gradients["weight"].item() == 4
