"""`verify_network`: no false alarm over networks, optimizers, rates and seeds; nothing given to it is changed."""

import random

import numpy as np
import pytest
import torch
from variants import exhaustive

from scratch_dl import models, nn, optim
from scratch_dl.config.schema import Verification
from scratch_dl.verification import verify_network

SIZE = (12, 8)
OPTIMIZERS = {
    "sgd": lambda p, lr: optim.SGD(p, lr),
    "momentum": lambda p, lr: optim.SGD(p, lr, 0.9),
    "nesterov": lambda p, lr: optim.SGD(p, lr, 0.9, 0.01, True),
    "adam": lambda p, lr: optim.Adam(p, lr),
    "adam-decay": lambda p, lr: optim.Adam(p, lr, weight_decay=0.01),
}


def settings(*, oracle=True, float32=True, geometries=False, steps=30):
    return Verification(True, "stop", oracle, float32, geometries, lockstep_steps=steps, lockstep_max_s=60.0)


def paper(seed=0, kernel=3, upsampling="nearest", bias=True, init="pytorch"):
    generator = torch.Generator().manual_seed(seed)
    return models.paper([4, 5, 4], kernel, "same", upsampling, bias, init, SIZE, generator)


def unet(seed=0, upsampling="nearest", init="he"):
    return models.unet(2, 3, upsampling, True, init, SIZE, torch.Generator().manual_seed(seed))


def verified(network, optimizer=None, what=None, seed=0, loss=None, **options):
    optimizer = optimizer or optim.SGD(network.parameters(), 0.5, 0.9)
    return verify_network(network, optimizer, SIZE, what or settings(**options), loss=loss, seed=seed)


@pytest.mark.parametrize("bias", [True, exhaustive(False)], ids=["bias", "no-bias"])
@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])
@pytest.mark.parametrize("kernel", [1, exhaustive(2), exhaustive(3), 4, exhaustive(5)])
def test_the_papers_network_passes_at_every_kernel(kernel, upsampling, bias):
    """Each under another initialisation; kernel 1 under one with zero biases has outputs exactly at the ReLU's kink."""
    for seed, init in enumerate(("pytorch", "he", "xavier")):
        try:
            network = paper(seed, kernel, upsampling, bias, init)
        except ValueError:
            assert kernel % 2 == 0  # and this size is not divided exactly
            continue
        report = verified(network, seed=seed, steps=3)
        assert report.passed, str(report)


@pytest.mark.parametrize("rates", [(1.0,), exhaustive((0.01, 0.1, 10.0))], ids=["one", "all"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("make", [paper, exhaustive(unet)])
def test_every_optimizer_passes_at_every_rate_and_seed(make, name, rates):
    """30 steps in both dtypes, rates from 0.01 to 10: what rounding alone separates is no failure."""
    for seed, lr in enumerate(rates):
        network = make(seed)
        report = verified(network, OPTIMIZERS[name](network.parameters(), lr), seed=seed)
        assert report.passed, (lr, str(report))


@pytest.mark.parametrize(("name", "seed"), [("sgd", 2), exhaustive("adam", 2)])
def test_the_default_network_passes_where_rounding_flips_a_relu(name, seed):
    """At these seeds float32 puts one number on the other side of 0 than PyTorch's float32 does."""
    generator = torch.Generator().manual_seed(seed)
    network = models.paper([24, 32, 24], 4, "same", "transposed", True, "pytorch", (32, 32), generator)
    optimizer = {"sgd": optim.SGD(network.parameters(), 1.0, 0.9), "adam": optim.Adam(network.parameters(), 2e-3)}[name]
    report = verify_network(network, optimizer, (32, 32), settings(steps=60), seed=seed)
    assert report.passed, str(report)


def test_every_module_and_the_whole_have_verdicts():
    """The network's modules in its order, then loss, classes, optimizer, network."""
    report = verified(unet(), geometries=True, steps=2)
    assert report.passed, str(report)
    modules = list(report.verdicts)
    assert modules[:2] == ["conv1", "relu1"]
    assert {"half", "half.inner.quarter", "half.inner.quarter.inner.down", "loss", "optimizer", "network"} <= {*modules}
    assert {"Conv2d", "ReLU", "Upsampling", "Sigmoid", "MSELoss"} <= {*modules}
    assert set(report.verdicts["network"]) == {
        "forward", "grad_input", "grad_weight", "grad_bias", "contract", "lockstep",
    }  # fmt: skip
    assert set(report.verdicts["conv1"]) == {"forward", "grad_input", "grad_weight", "grad_bias", "contract"}


def test_a_smaller_setting_checks_less():
    """Without the oracle no forward and no lock-step; without float32 half the comparisons with PyTorch."""
    full = verified(paper(), steps=2)
    algebra = verified(paper(), oracle=False)
    single = verified(paper(), float32=False, steps=2)
    none = verified(paper(), steps=0)
    assert not [finding for finding in algebra.findings if finding.direction in ("forward", "lockstep")]
    assert any("without a reference" in note for note in algebra.notes)
    assert not [finding for finding in single.findings if "float32" in finding.check]
    assert [finding for finding in full.findings if "float32" in finding.check]
    assert "lockstep" not in none.verdicts["network"]
    assert algebra.passed
    assert single.passed
    assert none.passed


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_that_diverges_is_no_failure(name):
    """At a rate where PyTorch's own training loses all meaning."""
    network = paper()
    report = verified(network, OPTIMIZERS[name](network.parameters(), 1e30))
    assert report.passed, str(report)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rate_of_zero_passes(name):
    """Nothing moves, and nothing should."""
    network = paper()
    report = verified(network, OPTIMIZERS[name](network.parameters(), 0.0), steps=3)
    assert report.passed, str(report)


def random_states():
    """Of torch, NumPy and Python."""
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()  # noqa: NPY002


def state(network, optimizer):
    """Everything that a training goes on from, and the random states."""
    tensors = [t.clone() for p in network.parameters() for t in (p.value, p.grad)]
    slots = optimizer.state_dict()
    tensors += [tensor.clone() for slot in slots["state"] for tensor in slot.values()]
    return tensors, (slots["lr"], slots["steps"], random_states()), [id(p) for p in optimizer.parameters]


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_network_optimizer_and_random_states_stay_as_they_are(name, generator):
    """In the middle of a training: momenta, step count, gradients and what the last forward kept included."""
    network = paper()
    optimizer = OPTIMIZERS[name](network.parameters(), 0.1)
    images = torch.rand(2, 2, 3, *SIZE, generator=generator)
    loss = nn.MSELoss()
    for _ in range(3):
        optimizer.zero_grad()
        loss(network(images[0]), images[1])
        network.backward(loss.backward())
        optimizer.step()
    kept = loss(network(images[0]), images[1])
    before = state(network, optimizer)
    verified(network, optimizer, geometries=True, steps=2)
    after = state(network, optimizer)
    assert before[1:] == after[1:]
    for one, other in zip(before[0], after[0], strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    network.backward(loss.backward())  # the caches are there still
    assert float(kept) > 0
    assert not any(key in vars(module) for _, module in network.named_modules() for key in ("forward", "backward"))


def test_what_a_module_draws_is_not_missing_afterwards():
    """Or a training with dropout would be another one with verification than without."""

    class Draws(nn.ReLU):
        def forward(self, input):
            torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
            return super().forward(input)

    network = paper()
    network.relu1 = Draws()
    before = random_states()
    reports = [verified(network, steps=2) for _ in range(2)]
    assert random_states() == before
    assert reports[0].findings == reports[1].findings


def test_the_optimizers_momenta_do_not_disturb_the_lock_step(generator):
    """One that has made steps is compared as a fresh one of its settings, or from its state: it agrees either way."""
    network = paper()
    optimizer = optim.SGD(network.parameters(), 0.1, 0.9)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()
    report = verified(network, optimizer, steps=3)
    assert report.passed, str(report)


@pytest.mark.parametrize("oracle", [True, False], ids=["oracle", "algebra"])
def test_a_network_of_float64_is_verified_too(oracle):
    """As dtype=float64 trains it; it stays in it."""
    network = paper().to(torch.float64)
    report = verified(network, oracle=oracle, steps=3)
    assert report.passed, str(report)
    assert network.parameters()[0].value.dtype == torch.float64


LOSSES = {
    "l1": nn.L1Loss,
    "charbonnier": nn.CharbonnierLoss,
    "charbonnier-smooth": lambda: nn.CharbonnierLoss(0.1),
    "l1-sum": lambda: nn.L1Loss("sum"),
}


@pytest.mark.parametrize("oracle", [True, False], ids=["oracle", "algebra"])
@pytest.mark.parametrize("seeds", [(0,), exhaustive(range(1, 20))], ids=["one", "many"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_network_passes_under_every_loss(name, seeds, oracle):
    """The absolute error has a kink at each number of the output, which a difference quotient may meet."""
    for seed in seeds:
        report = verified(paper(seed), seed=seed, loss=LOSSES[name](), geometries=True, oracle=oracle, steps=5)
        assert report.passed, str(report)
        assert ("forward" in report.verdicts["loss"]) is oracle


class Huber:
    """A loss of a user's own: no Module, without a reference, with a tensor that must follow the dtype."""

    def __init__(self):
        self.weight = torch.ones(3, 1, 1)

    def forward(self, output, target):
        self.error = output - target
        small = self.error.abs() <= 0.1
        return torch.where(small, self.error**2 / 2, 0.1 * (self.error.abs() - 0.05)).sum() * self.scale(output)

    def scale(self, output):
        assert self.weight.dtype == output.dtype
        return float(self.weight.sum()) / 3 / output.numel()

    def backward(self):
        return self.error.clamp(-0.1, 0.1) * self.scale(self.error)


class HuberUndivided(Huber):
    def backward(self):
        return super().backward() * len(self.error)


def test_a_loss_without_a_reference_is_verified_by_differences_and_the_report_names_what_was_looked_at():
    loss = nn.adapt(Huber())
    report = verified(paper(), loss=loss, steps=3)
    assert report.passed, str(report)
    assert set(report.verdicts["loss"]) == {"grad_input", "contract"}
    (note,) = [note for note in report.notes if note.startswith("loss has no reference")]
    assert "checked by: central differences, " in note
    assert "backward belongs to the last forward" in note
    assert not hasattr(loss.inner, "error"), "the loss itself was called, not a copy"
    report = verified(paper(), loss=nn.adapt(HuberUndivided()), steps=3)
    assert (report.failures[0].module, report.failures[0].direction) == ("loss", "grad_input")
