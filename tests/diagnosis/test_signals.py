"""Nothing of a training depends on being watched, and what is watched is what happens."""

import copy
import inspect
import math
import random

import numpy as np
import pytest
import torch

from scratch_dl import models, nn, optim
from scratch_dl.diagnosis import inspection, signals
from scratch_dl.faults import FAULTS
from scratch_dl.nn.reach import reach
from scratch_dl.training import checkpoint
from scratch_dl.verification.trace import Batch

SIZE = (12, 8)


class Dropout:
    """A module of a user's own: it knows nothing of this package, and draws from every global random state."""

    def __init__(self):
        self.w, self.dw = torch.ones(8), torch.zeros(8)
        self.calls = 0
        self.seen = []

    def forward(self, x):
        self.calls += 1
        self.seen.append(float(x.detach().sum()))
        keep = 0.8 + 0.1 * random.random() + 0.1 * np.random.rand()  # noqa: NPY002 (the global state)
        self.mask = (torch.rand(x.shape) < keep).to(x.dtype)
        self.x = x
        return x * self.mask * self.w.to(x.dtype)[:, None, None]

    def backward(self, g):
        self.dw += (g * self.x * self.mask).sum((0, 2, 3)).to(self.dw.dtype)
        return g * self.mask * self.w.to(g.dtype)[:, None, None]

    def param(self):
        return [(self.w, self.dw)]


def paper():
    return models.paper([8, 8, 8], 3, "same", "nearest", True, "pytorch", SIZE, torch.Generator().manual_seed(3))


def unet():
    return models.unet(4, 3, "transposed", True, "he", SIZE, torch.Generator().manual_seed(3))


def residual():
    return models.unet(4, 3, "nearest", True, "he", SIZE, torch.Generator().manual_seed(3), residual=True)


def foreign():
    generator = torch.Generator().manual_seed(3)
    inside = {"conv": nn.Conv2d(3, 8, 3, padding=1, generator=generator), "drop": Dropout(), "relu": nn.ReLU(),
              "last": nn.Conv2d(8, 3, 3, padding=1, generator=generator), "sigmoid": nn.Sigmoid()}  # fmt: skip
    return models.sequential(inside, 1, SIZE)


def sgd(network):
    return optim.SGD(network.parameters(), lr=0.5, momentum=0.9)


def adam(network):
    return optim.Adam(network.parameters(), lr=0.01)


TRAININGS = [
    pytest.param(paper, sgd, id="paper-momentum"),
    pytest.param(paper, adam, id="paper-adam"),
    pytest.param(unet, adam, id="unet-adam"),
    pytest.param(residual, adam, id="residual-adam"),
    pytest.param(foreign, sgd, id="a-module-of-ones-own"),
]


def drawn(seed, samples=6):
    generator = torch.Generator().manual_seed(seed)
    return Batch(*torch.rand((2, samples, 3, *SIZE), generator=generator))


def made_steps(network, optimizer, loss, number):
    """A training's steps; the last one stops before its backward, so that every cache is full."""
    for step in range(number):
        batch = drawn(step)
        optimizer.zero_grad()
        loss(network(batch.input), batch.target)
        network.backward(loss.backward())
        optimizer.step()
    batch = drawn(number)
    loss(network(batch.input), batch.target)


def everything(*things):
    """Each object that can be reached from these, and what is in it: tensors' bits and versions, plain values."""
    found = []
    for name, item in reach(list(things)):
        if isinstance(item, torch.Tensor):
            found.append((name, id(item), item._version, checkpoint.digest(item)))
        elif isinstance(item, nn.Module):
            found.append((name, id(item), type(item), list(vars(item)), item.training))
        elif isinstance(item, int | float | str | bool | None):
            found.append((name, item))
    return found


def random_states():
    state = np.random.get_state()  # noqa: NPY002 (the global state)
    return checkpoint.digest([torch.random.get_rng_state(), list(map(str, state)), repr(random.getstate())])


@pytest.mark.parametrize(("make", "choose"), TRAININGS)
@pytest.mark.parametrize("look", [signals.watch, inspection.inspect], ids=["watch", "inspect"])
@pytest.mark.parametrize("number", [0, 2], ids=["at-the-start", "after-two-steps"])
def test_looking_changes_no_bit_of_what_is_looked_at(make, choose, look, number):
    """Network, optimizer, loss and data, their caches and versions, and no random state of torch, NumPy or Python."""
    network, loss, batch = make(), nn.MSELoss(), drawn(9)
    optimizer = choose(network)
    made_steps(network, optimizer, loss, number)
    before, states = everything(network, optimizer, loss, batch.input, batch.target), random_states()
    assert len(before) > 20
    assert look(network, optimizer, loss, batch)
    assert random_states() == states
    assert everything(network, optimizer, loss, batch.input, batch.target) == before
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(("make", "choose"), TRAININGS)
def test_a_training_that_is_looked_at_before_every_step_ends_with_the_same_bits(make, choose):
    """Weights and the optimizer's state, beside a training that is not."""
    ends = []
    for looked in (False, True):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002 (the global state)
        network, loss = make(), nn.MSELoss()
        optimizer = choose(network)
        for step in range(4):
            if looked:
                if step == 0:
                    inspection.inspect(network, optimizer, loss, drawn(step))
                signals.watch(network, optimizer, loss, drawn(step))
            made_steps(network, optimizer, loss, 1)
        ends.append(checkpoint.digest([network.state_dict(), optimizer.state_dict(), random_states()]))
    assert ends[0] == ends[1]


def test_the_first_steps_are_watched_closely_and_then_one_of_many():
    """And multiples of `every` after them; what comes before the first step is looked at then."""
    due = [step for step in range(2001) if signals.is_due(step, 400)]
    assert due == [1, 2, 5, 10, 20, 50, 100, 200, 400, 800, 1200, 1600, 2000]
    assert all(signals.is_due(step, 7) == (step % 7 == 0) for step in range(201, 300))


# What is watched is what happens ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def step():
    """(network before, network after a step, its gradients, signals of that step, what was given), all of 4 samples."""
    network, loss, batch = paper(), nn.MSELoss(), drawn(1, samples=signals.SAMPLES)
    optimizer = sgd(network)
    seen = signals.watch(network, optimizer, loss, batch)
    before = copy.deepcopy(network)
    loss(network(batch.input), batch.target)
    network.backward(loss.backward())
    grads = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    optimizer.step()
    return before, network, grads, seen, batch


def test_activations_are_those_of_the_forward(step):
    """Mean and deviation of every module; the share of zeros and of dead channels of a ReLU; the output's own."""
    before, _, _, seen, batch = step
    images = batch.input
    for name, module in before.children():
        images = module(images)
        assert seen[f"{name}/activation_mean"] == pytest.approx(float(images.mean()), rel=1e-4, abs=1e-7)
        assert seen[f"{name}/activation_std"] == pytest.approx(float(images.std()), rel=1e-4)
        if "relu" in name:
            assert seen[f"{name}/zero_share"] == pytest.approx(float((images == 0).float().mean()), abs=1e-6)
            dead = (images.amax(dim=(0, 2, 3)) == 0).float().mean()
            assert seen[f"{name}/dead"] == pytest.approx(float(dead), abs=1e-6)
    assert seen["output_mean"] == pytest.approx(float(images.mean()), rel=1e-4)
    assert seen["output_std"] == pytest.approx(float(images.std()), rel=1e-4)
    assert seen["sigmoid/saturated"] == 0


def test_gradients_and_updates_are_those_of_the_step(step):
    """The norm at every module's output, first to last; how far a module's parameters move."""
    before, after, _, seen, batch = step
    x = batch.input
    kept = []
    for name, module in before.children():
        x = getattr(torch, name.rstrip("123"))(x) if name.rstrip("123") in ("relu", "sigmoid") else module(x)
        x = x.detach().requires_grad_() if not kept else x
        kept.append(x)
    norm = (2 * (kept[-1].detach() - batch.target) / batch.target.numel()).norm()
    assert seen["sigmoid/grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    logit = 2 * (kept[-1] - batch.target) / batch.target.numel() * kept[-1] * (1 - kept[-1])
    assert seen["up2/grad_norm"] == pytest.approx(float(logit.norm()), rel=1e-4)
    assert seen["grad_ratio"] == pytest.approx(seen["conv1/grad_norm"] / seen["sigmoid/grad_norm"], rel=1e-4)
    for name in ("conv1", "conv2", "up1", "up2"):
        keys = [f"{name}.weight", f"{name}.bias"]
        moved = math.hypot(*(float((after.state_dict()[k] - before.state_dict()[k]).norm()) for k in keys))
        size = math.hypot(*(float(before.state_dict()[key].norm()) for key in keys))
        assert seen[f"{name}/update_ratio"] == pytest.approx(moved / size, rel=1e-4)


def test_a_right_networks_last_gradient_follows_the_error_and_nothing_is_amiss(step):
    """The signals of what is 0 in a healthy network are not there."""
    seen = step[3]
    assert seen["sigmoid/error_sign"] == 1
    assert seen["sigmoid/error_correlation"] > 0.95
    assert seen["sigmoid/at_upstream"] > 0.5
    amiss = {"leaks", "blocked", "lost", "weight_left_over", "bias_left_over"}
    assert not [name for name in seen if name.rpartition("/")[2] in amiss]


def test_where_the_output_is_not_the_last_modules_own_its_gradient_is_not_held_against_the_error():
    """A network whose input is added at the end; its last convolution has the shape of an image on both sides."""
    network = models.unet(3, 3, "nearest", True, "he", SIZE, torch.Generator().manual_seed(3), residual=True)
    seen = signals.watch(network, adam(network), nn.MSELoss(), drawn(1))
    assert "residual.inner.conv3/grad_norm" in seen
    assert not [name for name in seen if name.endswith(("/error_correlation", "/error_sign", "/at_upstream"))]


def faulty(name):
    """A network of which a step has been made, with the fault."""
    network = paper()
    FAULTS[name].put_into_network(network)
    optimizer, loss = sgd(network), nn.MSELoss()
    batch = drawn(0)
    optimizer.zero_grad()
    loss(network(batch.input), batch.target)
    network.backward(loss.backward())
    return signals.watch(network, optimizer, loss, drawn(1))


@pytest.mark.parametrize(
    ("fault", "signal", "low", "high"),
    [
        ("sigmoid_gradient_at_upstream", "sigmoid/at_upstream", 0, 1e-6),
        ("sigmoid_gradient_at_upstream", "sigmoid/error_sign", 0.1, 0.9),
        ("relu_forgets_input", "relu3/blocked", 1, 1),
        ("relu_mask_from_gradient", "relu3/leaks", 0.05, 0.6),
        ("conv_bias_never_cleared", "conv1/bias_left_over", 1e-6, 1),
        ("upsampling_gradient_never_cleared", "up2/weight_left_over", 1e-6, 1),
        ("stale_gradient_reference", "conv1/lost", 0.5, 0.5),
    ],
)
def test_a_fault_shows_in_its_own_signal(fault, signal, low, high):
    """And is seen in no healthy network, as the tests above have it."""
    seen = faulty(fault)
    assert low <= seen[signal] <= high, f"{signal} is {seen[signal]:.3g}"


# Before the first step ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [paper, unet], ids=["paper", "unet"])
@pytest.mark.parametrize("choose", [sgd, adam], ids=["sgd", "adam"])
def test_every_slope_of_a_right_network_is_one(make, choose):
    """Of each parameter and of the loss, far within the tolerance; there are gains, and room for the first steps."""
    network = make()
    seen = inspection.inspect(network, choose(network), nn.MSELoss(), drawn(1))
    slopes = {name: value for name, value in seen.items() if name.endswith("/slope")}
    assert {f"{name}/slope" for name, _ in network.named_parameters()} <= set(slopes)
    worst = max(slopes, key=lambda name: abs(slopes[name] - 1))
    assert abs(slopes[worst] - 1) < 1e-4, f"{worst} is {slopes[worst]}"
    assert seen["conv1/gain"] > 0.1
    assert seen["optimizer/room"] > 0
    assert not [name for name in seen if name.endswith("/unread")]


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({"kernel_size": 1, "stride": 2}, 0.75),
        ({"kernel_size": 2, "stride": 2}, 0.0),
        ({"kernel_size": (1, 2), "stride": 2}, 0.5),
        ({"kernel_size": 2, "stride": 3}, 5 / 9),
        ({"kernel_size": 2, "stride": 4, "dilation": 2}, 0.75),
        ({"kernel_size": 3, "padding": 1}, 0.0),
    ],
)
def test_the_share_of_unread_pixels_is_that_of_the_strides_remainders(settings, share, generator):
    """Kernels narrower than their stride leave them."""
    module = nn.Conv2d(3, 5, **settings, generator=generator)
    input = torch.rand(2, 3, 24, 24, generator=generator)
    assert inspection.unread(module, input) == pytest.approx(share)


@pytest.mark.parametrize("scale", [1.0, 255.0, 1 / 255])
def test_the_level_of_the_data_is_its_mean(scale):
    """Of the whole batch; noise of mean 0 changes nothing of it."""
    network, batch = paper(), drawn(1)
    scaled = Batch(batch.input * scale, batch.target)
    seen = inspection.inspect(network, sgd(network), nn.MSELoss(), scaled)
    assert seen["data/level"] == pytest.approx(float(scaled.input.mean()), rel=1e-4)


def test_a_longer_step_has_less_room():
    """In proportion, within a step of the search; momentum counts as the steps that it adds up to."""
    rooms = {}
    for lr in (0.1, 1.6):
        network = paper()
        rooms[lr] = inspection.inspect(network, optim.SGD(network.parameters(), lr=lr), nn.MSELoss(), drawn(1))
    ratio = rooms[0.1]["optimizer/room"] / rooms[1.6]["optimizer/room"]
    assert 16 / 1.5 < ratio < 16 * 1.5, ratio
    network = paper()
    plain = optim.SGD(network.parameters(), lr=0.1)
    heavy = optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    both = [inspection.inspect(network, each, nn.MSELoss(), drawn(1))["optimizer/room"] for each in (plain, heavy)]
    assert both[1] == pytest.approx(0.1 * both[0])


def test_what_is_watched_has_no_reference():
    """No oracle is asked: PyTorch's network library and its autograd appear in neither file."""
    for module in (signals, inspection):
        source = inspect.getsource(module)
        assert "torch.nn" not in source
        assert "autograd" not in source
        assert "reference_for" not in source
