"""The twin and the optimizer's counterpart: PyTorch's side of a whole network."""

import pytest
import torch
from course import Linear

from scratch_dl import models, nn, optim
from scratch_dl.verification.counterparts import pytorch_optimizer
from scratch_dl.verification.references import TrustedModule, Twin, gradients, leaves


class Brings(Linear):
    """Says itself what it is to be compared with."""

    def pytorch_reference(self):
        return lambda x, b, w: torch.nn.functional.linear(x, w, b)


def drawn(module, shape, generator):
    """An input of the shape, the module's parameters drawn anew, in float64."""
    for parameter in module.to(torch.float64).parameters():
        parameter.value = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_leaves_are_the_modules_that_are_no_containers():
    """A user's composite, or a container with a reference of its own, is one module."""
    whole = models.unet(2, 3, "nearest", True, "he", (8, 8), torch.Generator())
    found = leaves(whole)
    assert [name for name in found if name.startswith("half.inner.quarter.inner.")] == [
        f"half.inner.quarter.inner.{name}" for name in ("down", "relu1", "conv", "relu2", "up", "relu3")
    ]
    owned = type("Owned", (nn.Sequential,), {"pytorch_reference": lambda _: torch.tanh})(nn.ReLU())
    assert list(leaves(nn.Sequential(owned))) == ["0"]
    x = torch.tensor([-1.0, 1.0])
    assert torch.equal(Twin(nn.Sequential(owned), torch.float32).forward(x), x.tanh())


def test_a_twin_takes_a_module_without_counterpart_at_its_word(generator):
    """Output and gradients are those of the same network with the counterpart; the network's own stay as they are."""
    network = nn.Sequential({"flat": Brings(3, 4), "relu": nn.ReLU(), "last": Brings(4, 2)})
    x = drawn(network, (5, 3), generator)
    blind = nn.Sequential({"flat": Linear(3, 4), "relu": nn.ReLU(), "last": Linear(4, 2)}).to(torch.float64)
    blind.load_state_dict(network.state_dict())
    twins = [Twin(network, torch.float64), Twin(blind, torch.float64)]
    seen = []
    for twin in twins:
        twin.forward(x).sum().backward()  # what an earlier step has left must not be added
        for value in twin.values.values():
            value.grad = None
        output = twin.forward(x)
        output.square().sum().backward()
        seen.append((output.detach(), dict(gradients(twin))))
    (one, grads), (other, others) = seen
    torch.testing.assert_close(one, other)
    for name, expected in grads.items():
        torch.testing.assert_close(others[name], expected)
    assert not any(parameter.grad.any() for parameter in blind.parameters())


def test_a_module_at_its_word_passes_a_wrong_gradient_on(generator):
    """So that it is not the network's twin that shows it: the module's own checks do."""
    module = type("Doubled", (nn.ReLU,), {"backward": lambda self, g: 2 * nn.ReLU.backward(self, g)})()
    x = torch.randn(3, generator=generator, dtype=torch.float64).abs().requires_grad_()
    TrustedModule.apply(module, "module", x).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 2.0))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda p: optim.SGD(p, 0.3, 0.8, 0.01, True),
            {"lr": 0.3, "momentum": 0.8, "weight_decay": 0.01, "nesterov": True, "dampening": 0},
        ),
        (
            lambda p: optim.Adam(p, 0.3, (0.8, 0.95), 1e-4, 0.01),
            {"lr": 0.3, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.01, "amsgrad": False},
        ),
    ],
    ids=["sgd", "adam"],
)
def test_an_optimizers_counterpart_has_its_settings(make, expected):
    """Every one, and on the tensors given."""
    tensor = torch.zeros(2, requires_grad=True)
    made = pytorch_optimizer(make([nn.Parameter(torch.zeros(2))]), [tensor])
    assert made.param_groups[0]["params"] == [tensor]
    assert {name: made.param_groups[0][name] for name in expected} == expected


def test_an_optimizer_of_ones_own_has_no_counterpart():
    """None, which the lock-step then says."""
    own = type("Own", (optim.Optimizer,), {"_update": lambda *_: None})
    assert pytorch_optimizer(own([], 0.1, 0.0), [torch.zeros(1)]) is None
