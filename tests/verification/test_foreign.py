"""`verify_network` of what is not this package's: modules, optimizers and losses of a user's own, right or not."""

from dataclasses import replace

import pytest
import torch
from variants import exhaustive

from scratch_dl import models, nn, optim
from scratch_dl.config.schema import Verification
from scratch_dl.verification import verify_network

SIZE = (8, 8)
SETTINGS = Verification(
    True, "stop", oracle=True, float32=True, geometries=False, lockstep_steps=3, lockstep_max_s=60.0
)


class Pointwise:
    """A 1x1 convolution in the course's convention; `view` needs contiguous memory."""

    def __init__(self, channels=3):
        self.w, self.b = 0.5 * torch.randn(channels, 3), torch.zeros(channels)
        self.dw, self.db = torch.zeros_like(self.w), torch.zeros_like(self.b)

    def forward(self, x):
        self.shape, self.x = x.shape, x.view(len(x), 3, -1)
        return (torch.einsum("oc,ncp->nop", self.w, self.x) + self.b[:, None]).view(len(x), -1, *x.shape[2:])

    def backward(self, g):
        g = g.view(len(g), -1, self.x.shape[2])
        self.dw += torch.einsum("nop,ncp->oc", g, self.x)
        self.db += g.sum((0, 2))
        return torch.einsum("oc,nop->ncp", self.w, g).view(self.shape)

    def param(self):
        return [(self.w, self.dw), (self.b, self.db)]


class Referenced(Pointwise):
    """Brings its counterpart along."""

    def pytorch_reference(self):
        return lambda x, w, b: torch.nn.functional.conv2d(x, w[:, :, None, None], b)


def changed(base=Referenced, **methods):
    return type("Changed", (base,), methods)()


def network(module):
    """The module, then modules of this package."""
    generator = torch.Generator().manual_seed(1)
    last = nn.Conv2d(3, 3, 3, padding=1, generator=generator)
    return models.Denoiser({"mine": module, "relu": nn.ReLU(), "conv": last, "sigmoid": nn.Sigmoid()}, 1, SIZE)


def verified(whole, optimizer=None, settings=SETTINGS, **options):
    optimizer = optimizer or optim.SGD(whole.parameters(), 0.5, 0.9)
    return verify_network(whole, optimizer, SIZE, settings, **options)


@pytest.mark.parametrize("seeds", [(0,), exhaustive(range(1, 5))], ids=["one", "many"])
@pytest.mark.parametrize(("kind", "noted"), [(Pointwise, True), (Referenced, False)], ids=["without", "with"])
def test_a_network_with_a_foreign_module_passes(kind, noted, seeds):
    """With a reference it has a forward verdict; without one that is said, and the twin takes it at its word."""
    for seed in seeds:
        torch.manual_seed(seed)
        report = verified(network(kind()), seed=seed)
        assert report.passed, str(report)
        assert ("forward" in report.verdicts["mine"]) != noted
        assert any("mine has no reference" in note for note in report.notes) == noted
        assert report.kinds["mine"] == kind.__name__


def raising(*_):
    raise ZeroDivisionError("first line\nsecond line")


def bias_forgotten(self, g):
    before = self.db.clone()
    result = Pointwise.backward(self, g)
    self.db.copy_(before)
    return result


BROKEN = [
    pytest.param({"backward": lambda self, g: 2 * Pointwise.backward(self, g)}, "grad_input", id="twice"),
    pytest.param({"backward": bias_forgotten}, "grad_bias", id="bias-forgotten"),
    pytest.param({"backward": raising}, "grad_input", id="backward-raises"),
    pytest.param({"zero_grad": lambda _: None}, "contract", id="never-cleared"),
    pytest.param({"zero_grad": raising}, "contract", id="zero_grad-raises"),
]


@pytest.mark.parametrize("kind", [exhaustive(Pointwise), Referenced])
@pytest.mark.parametrize(("methods", "direction"), BROKEN)
def test_a_broken_foreign_module_is_named(methods, direction, kind):
    """Before the network, which it spoils, and with no exception."""
    report = verified(network(changed(kind, **methods)))
    assert (report.failures[0].module, report.failures[0].direction) == ("mine", direction)
    assert {failure.module for failure in report.failures} <= {"mine", "network", "optimizer"}


def test_a_wrong_forward_is_seen_by_the_reference_alone():
    """Consistently wrong: twice the right thing, and its gradient."""
    twice = {
        "forward": lambda self, x: 2 * Pointwise.forward(self, x),
        "backward": lambda self, g: Pointwise.backward(self, 2 * g),
    }
    assert verified(network(changed(Pointwise, **twice))).passed
    report = verified(network(changed(Referenced, **twice)))
    assert (report.failures[0].module, report.failures[0].direction) == ("mine", "forward")


@pytest.mark.parametrize("place", [0, 2], ids=["first", "within"])
def test_a_module_that_raises_in_its_forward_fails_under_its_name(place):
    """A report with the class and the words of the exception; what stands behind it is said not to be reached."""
    whole = network(Pointwise())
    name = ("mine", "relu", "conv")[place]
    setattr(whole, name, changed(forward=raising))
    report = verified(whole)
    assert not report.passed
    failure = report.failures[0]
    assert (failure.module, failure.direction) == (name, "forward")
    assert "ZeroDivisionError: first line" in failure.detail
    assert any("sigmoid was not reached" in note for note in report.notes)


def test_an_output_that_is_no_tensor_or_of_another_shape_is_a_failure():
    """As one that raises."""
    for forward in (lambda _, x: None, lambda _, x: x[:, :2]):  # noqa: ARG005
        whole = network(Pointwise())
        whole.mine = changed(forward=forward)
        report = verified(whole)
        assert not report.passed


class Sign(optim.Optimizer):
    """Steps of one size."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, lr, 0.0)

    def _update(self, values, grads, states):
        for value, grad, count in zip(values, grads, self._kept("count", values, states), strict=True):
            count.add_(1)
            value.sub_(grad.sign(), alpha=self.lr)


def test_an_optimizer_without_counterpart_is_noted():
    """Its contract is verified, the lock-step is not."""
    whole = network(Referenced())
    report = verified(whole, Sign(whole.parameters(), 0.01))
    assert report.passed, str(report)
    assert "lockstep" not in report.verdicts["network"]
    assert "no lock-step: Sign has no counterpart in torch.optim" in report.notes
    assert set(report.verdicts["optimizer"]) == {"contract"}


class Absolute(nn.Module):
    """Mean absolute error, a loss that PyTorch's references do not have."""

    reduction = "mean"

    def forward(self, output, target):
        self.difference = output - target
        return self.difference.abs().mean()

    def backward(self):
        return self.difference.sign() / self.difference.numel()


def test_a_loss_of_ones_own_is_verified_by_algebra():
    """And the network under it."""
    whole = network(Referenced())
    report = verified(whole, loss=Absolute())
    assert report.passed, str(report)
    wrong = type("Wrong", (Absolute,), {"backward": lambda self: self.difference.sign()})
    report = verified(whole, loss=wrong())
    assert report.failures[0].module == "loss"
    assert report.failures[0].direction == "grad_input"


class Wide(nn.Conv2d):
    """A subclass with arguments of its own."""

    def __init__(self, width):
        super().__init__(3, width, 3, padding=1)


def test_a_class_with_arguments_of_its_own_is_checked_at_the_networks_shapes():
    """No table of geometries can make it; that is said."""
    whole = network(Wide(3))
    report = verified(whole, settings=replace(SETTINGS, geometries=True))
    assert report.passed, str(report)
    assert any(note.startswith("Wide takes arguments of its own") for note in report.notes)
    assert set(report.verdicts["mine"]) == {"forward", "grad_input", "grad_weight", "grad_bias", "contract"}


def test_a_parameter_that_the_optimizer_does_not_hold_is_named():
    """It would never change."""
    whole = network(Referenced())
    report = verified(whole, optim.SGD(whole.parameters()[:-1], 0.1))
    assert (report.failures[0].module, report.failures[0].direction) == ("optimizer", "contract")
    assert "conv.bias: not held by the optimizer" in report.failures[0].detail


class Refuses(Referenced):
    """Takes float32 alone, as what hands its numbers to another library may."""

    def forward(self, x):
        if x.dtype != torch.float32:
            raise TypeError("float32 alone")
        return super().forward(x)


class Casts(Referenced):
    """Takes float64 and returns float32."""

    def forward(self, x):
        return super().forward(x).float()


@pytest.mark.parametrize("kind", [Refuses, Casts])
def test_a_module_of_float32_alone_does_not_stop_a_network_of_float32(kind):
    """It trains; what could not be verified in float64 is said."""
    report = verified(network(kind()))
    assert report.passed, str(report)
    assert any(note.startswith("mine took no float64") for note in report.notes)


@pytest.mark.parametrize(
    "reference",
    [
        pytest.param(lambda _: lambda x: x, id="takes-less"),
        pytest.param(lambda _: lambda x, w, b: None, id="returns-nothing"),  # noqa: ARG005
        pytest.param(raising, id="raises"),
        pytest.param(lambda _: "torch.nn.Conv2d", id="is-a-text"),
    ],
)
def test_a_reference_that_cannot_be_used_is_refused_under_the_modules_name(reference):
    """It is the user's, as the module is: a refusal or a failing verdict, but in words, with the place."""
    whole = network(changed(Pointwise, pytorch_reference=reference))
    try:
        said = str(verified(whole))
    except (TypeError, ValueError) as error:
        said = str(error)
    assert "mine" in said
    assert "reference" in said
