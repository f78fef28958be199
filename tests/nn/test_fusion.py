"""Modules computed in one: the same numbers, each module as it would be alone, and whoever wants to be called is."""

import pytest
import torch
from variants import DTYPES

from scratch_dl import kernels, nn
from scratch_dl.models import paper, unet
from scratch_dl.nn import (
    Conv2d,
    ConvTranspose2d,
    MSELoss,
    Observer,
    ReLU,
    Sequential,
    Sigmoid,
    Skip,
    Upsampling,
    fusion,
    observing,
)
from scratch_dl.nn import UpsamplingNearest2d as Nearest
from scratch_dl.optim import SGD


def conv(c, o, **more):
    return Conv2d(c, o, (3, 2), padding=(1, 0), **more)


def strided(c, o, **more):
    return Conv2d(c, o, 4, stride=2, padding=1, **more)


def transposed(c, o, **more):
    return ConvTranspose2d(c, o, 3, stride=2, padding=1, output_padding=1, **more)


def nearest(c, o, **more):
    return Upsampling(c, o, 3, **more)


def block(c, o, **more):
    return Upsampling(c, o, 4, mode="transposed", **more)


KINDS = [conv, strided, transposed, nearest, block]


def chain(make):
    return lambda g: Sequential(make(3, 4, generator=g), ReLU(), make(4, 5, generator=g), Sigmoid())


NETWORKS = {
    **{f"{make.__name__}-relu-{make.__name__}-sigmoid": chain(make) for make in KINDS},
    **{f"{make.__name__}-alone": lambda g, make=make: Sequential(make(3, 4, generator=g)) for make in KINDS},
    "no-bias": lambda g: Sequential(conv(3, 4, generator=g, bias=False), ReLU(), conv(4, 2, generator=g, bias=False)),
    "relu-first": lambda g: Sequential(ReLU(), conv(3, 4, generator=g), Sigmoid(), nearest(4, 2, generator=g)),
    "relu-relu": lambda g: Sequential(conv(3, 4, generator=g), ReLU(), ReLU(), block(4, 2, generator=g), Sigmoid()),
    "relu-sigmoid": lambda g: Sequential(conv(3, 4, generator=g), ReLU(), Sigmoid(), conv(4, 2, generator=g)),
    "relu-repetition": lambda g: Sequential(conv(3, 4, generator=g), ReLU(), Nearest(2), conv(4, 2, generator=g)),
    "nested": lambda g: Sequential(Sequential(conv(3, 4, generator=g), ReLU()), Sequential(conv(4, 2, generator=g))),
    "nested-relu-before": lambda g: Sequential(strided(3, 4, generator=g), ReLU(), Sequential(conv(4, 2, generator=g))),
    "skip-concatenate": lambda g: Sequential(
        conv(3, 4, generator=g), ReLU(), Skip(Sequential(Conv2d(4, 4, 3, padding=1, generator=g), ReLU())),
        conv(8, 3, generator=g), Sigmoid(),
    ),
    "skip-add-a-convolution": lambda g: Sequential(
        conv(3, 4, generator=g), ReLU(), Skip(Conv2d(4, 4, 3, padding=1, generator=g), "add"), ReLU(),
        conv(4, 3, generator=g),
    ),
    "paper": lambda g: paper([4, 6, 5], 4, "same", "transposed", True, "pytorch", (8, 8), g),
    "paper-nearest": lambda g: paper([4, 6, 5], 3, "same", "nearest", True, "pytorch", (8, 8), g),
    "unet": lambda g: unet(3, 3, "nearest", True, "he", (8, 8), g),
    "unet-residual": lambda g: unet(3, 3, "nearest", True, "he", (8, 8), g, residual=True),
    "unet-transposed": lambda g: unet(3, 3, "transposed", True, "he", (8, 8), g),
}  # fmt: skip


def observed(network):
    """The network with an observer at each module, so that none is computed with another one."""
    for _, module in network.named_modules():
        module.observers = (Observer(),)
    return network


def twins(make, dtype, generator):
    """The same network twice; of the second each module computes alone."""
    seed = generator.initial_seed()
    one, other = (make(torch.Generator().manual_seed(seed)).to(dtype) for _ in range(2))
    return one, observed(other)


def step(network, x, draw_grad, backward=None):
    """Output, gradient of the input, and parameters' gradients by name."""
    network.zero_grad()
    output = network(x)
    grad = (backward or network.backward)(draw_grad(output))
    return output, grad, {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


@pytest.fixture
def calls(monkeypatch):
    """The names of the kernels that the modules call, in order, with what they are asked to compute along."""
    seen = []

    def watch(name, function):
        def call(*arguments, **named):
            along = [value for value in arguments if value in ("relu", "sigmoid")] if name in FORWARDS else []
            seen.append(" ".join([name, *along]))
            return function(*arguments, **named)

        return call

    for name in kernels.__all__:
        if callable(getattr(kernels, name)) and getattr(kernels, name).__module__ == "scratch_dl.kernels.reference":
            monkeypatch.setattr(kernels, name, watch(name, getattr(kernels, name)))
    return seen


FORWARDS = ("convolution", "convolution_transposed", "upsampled_convolution")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.usefixtures("backend")
def test_computed_in_one_the_numbers_are_those_of_each_module_alone(make, dtype, generator, draw, assert_near):
    """Output and every gradient; also of a second step, which finds nothing left of the first."""
    fused, alone = twins(make, dtype, generator)
    for n in (2, 3):
        x = draw(n, 3, 8, 8, dtype=dtype)
        g = None

        def grad(output):
            nonlocal g
            g = draw(*output.shape, dtype=dtype) if g is None else g
            return g

        (output, grad_input, grads), (z, grad_x, others) = step(fused, x, grad), step(alone, x, grad)
        tolerance = {torch.float64: 1e-14, torch.float32: 1e-6}[dtype]
        assert_near(output, z, "output", tolerance)
        assert_near(grad_input, grad_x, "gradient of the input", tolerance)
        for name, expected in others.items():
            assert_near(grads[name], expected, f"gradient of {name}", tolerance)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.usefixtures("backend")
def test_without_the_inputs_gradient_the_parameters_have_the_same_bits(make, generator, draw):
    network = make(generator)
    x = draw(2, 3, 8, 8, dtype=torch.float32)
    g = draw(*network(x).shape, dtype=torch.float32)
    whole = step(network, x, lambda _: g)
    for backward in (lambda g: nn.parameter_gradients(network, g), lambda g: network.backward(g, input_grad=False)):
        output, _, grads = step(network, x, lambda _: g, backward)
        assert torch.equal(output, whole[0])
        for name, grad in grads.items():
            assert torch.equal(grad, whole[2][name]), f"gradient of {name} differs"


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_each_pair_is_one_call_of_a_kernel_and_the_first_input_gradient_none(make, calls, generator, draw):
    network = chain(make)(generator)
    x = draw(2, 3, 8, 8, dtype=torch.float32)
    output = network(x)
    forward = {"nearest": "upsampled_convolution"}.get(make.__name__, "convolution_transposed")
    forward = "convolution" if make in (conv, strided) else forward
    assert calls == [f"{forward} relu", f"{forward} sigmoid"]
    backwards = {"convolution": "convolution_grad_input", "upsampled_convolution": "upsampled_convolution_grad_input"}
    of_input = backwards.get(forward, "convolution_transposed_grad_input")
    calls.clear()
    nn.parameter_gradients(network, output)
    assert "relu_grad" not in calls
    assert calls.count(of_input) == 1, calls
    network(x)
    calls.clear()
    network.backward(output)
    assert calls.count(of_input) == 2, calls


@pytest.mark.parametrize("join", ["add", "concatenate"])
def test_a_skip_at_the_beginning_asks_for_no_gradient_of_the_input(join, calls, generator, draw):
    """Unless it is asked for; one inside is always asked by the module before it."""
    network = Sequential(
        Skip(Sequential(Skip(Conv2d(3, 3, 3, padding=1, bias=False, generator=generator), "add")), join)
    )
    output = network(draw(2, 3, 8, 8, dtype=torch.float32))
    calls.clear()
    nn.parameter_gradients(network, output)
    assert calls == ["convolution_grad_weight"]
    network(draw(2, 3, 8, 8, dtype=torch.float32))
    calls.clear()
    network.backward(output)
    assert sorted(calls) == ["convolution_grad_input", "convolution_grad_weight"]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_each_module_keeps_what_it_would_alone_and_gives_it_out_once(make, generator, draw, assert_near):
    """After a forward in one, each module's own backward serves, and raises the second time."""
    fused, alone = twins(chain(make), torch.float64, generator)
    x = draw(2, 3, 8, 8)
    fused(x)
    z = alone(x)
    grad = draw(*z.shape)
    expected = grad
    for own, other in zip(reversed(list(fused)), reversed(list(alone)), strict=True):
        kept = [item for item, _ in own._cache], [item for item, _ in other._cache]
        for one, same in zip(*kept, strict=True):
            assert_near(one, same, "kept") if isinstance(same, torch.Tensor) else None
            assert type(one) is type(same)
        grad, expected = own.backward(grad), other.backward(expected)
        assert_near(grad, expected, type(own).__name__)
        with pytest.raises(RuntimeError, match=rf"{type(own).__name__}.backward needs a .* \(each forward serves one"):
            own.backward(grad)


def test_after_a_backward_in_one_no_module_has_anything_left(generator, draw):
    network = paper([4, 6, 5], 4, "same", "transposed", True, "pytorch", (8, 8), generator)
    x = draw(2, 3, 8, 8, dtype=torch.float32)
    for backward in (network.backward, lambda g: nn.parameter_gradients(network, g)):
        g = network(x)
        backward(g)
        for name, module in network.children():
            assert module._cache is None, name
            with pytest.raises(RuntimeError, match="each forward serves one backward"):
                module.backward(g)
        with pytest.raises(RuntimeError, match=r"Sigmoid.backward needs a Sigmoid.forward before it"):
            backward(g)


@pytest.mark.usefixtures("backend")
def test_in_evaluation_nothing_is_kept_and_the_output_is_the_same(generator, draw):
    network = unet(3, 3, "nearest", True, "he", (8, 8), generator)
    x = draw(2, 3, 8, 8, dtype=torch.float32)
    trained = network(x)
    assert torch.equal(network.eval()(x), trained)
    assert all(module._cache is None for _, module in network.named_modules())
    with pytest.raises(RuntimeError, match="in evaluation mode a forward keeps nothing"):
        network.backward(trained)


def noting(seen, name, function):
    def call(*arguments, **named):
        seen.append(name)
        return function(*arguments, **named)

    return call


class Noting(Observer):
    """Notes the directions in which its module is called."""

    def __init__(self):
        self.seen = []

    def forward(self, function, *inputs):
        self.seen.append("forward")
        return function(*inputs)

    def backward(self, function, *grad_outputs, **options):
        self.seen.append("backward")
        return function(*grad_outputs, **options)


def steps_are_near(network, alone, draw, assert_near):
    x = draw(2, 3, 8, 8)
    got, expected = (step(one, x, torch.ones_like) for one in (network, alone))
    for one, other in zip((*got[:2], *got[2].values()), (*expected[:2], *expected[2].values()), strict=True):
        assert_near(one, other)


@pytest.mark.parametrize("position", range(4))
def test_an_observed_module_is_called_itself(position, generator, draw, assert_near):
    """The numbers stay the same; after the context it is no longer observed."""
    network, alone = twins(chain(conv), torch.float64, generator)
    observer = Noting()
    with observing([(network[position], observer)]):
        steps_are_near(network, alone, draw, assert_near)
    assert observer.seen == ["forward", "backward"]
    step(network, draw(2, 3, 8, 8), torch.ones_like)
    assert len(observer.seen) == 2


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_module_whose_method_was_replaced_on_the_object_is_called_itself(
    direction, position, generator, draw, assert_near
):
    network, alone = twins(chain(conv), torch.float64, generator)
    seen, module = [], network[position]
    vars(module)[direction] = noting(seen, direction, getattr(module, direction))
    steps_are_near(network, alone, draw, assert_near)
    assert seen == [direction]


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_module_of_a_subclass_is_called_itself(direction, position, generator, draw, assert_near):
    network, alone = twins(chain(nearest), torch.float64, generator)
    kind, seen = type(network[position]), []

    def call(self, argument):
        seen.append(type(self).__name__)
        return getattr(kind, direction)(self, argument)

    network[position].__class__ = type("Mine", (kind,), {direction: call})
    steps_are_near(network, alone, draw, assert_near)
    assert seen == ["Mine"]


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d, Upsampling, ReLU, Sigmoid], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_method_replaced_in_the_class_is_called(direction, kind, generator, draw, monkeypatch):
    """With the arguments that it has had ever since: a tensor alone."""
    make = {ConvTranspose2d: transposed, Upsampling: nearest}.get(kind, conv)
    network, seen = chain(make)(generator), []
    own = getattr(kind, direction)

    def call(self, tensor):
        seen.append(type(self))
        return own(self, tensor)

    monkeypatch.setattr(kind, direction, call)
    x = draw(2, 3, 8, 8, dtype=torch.float32)
    for backward in (network.backward, lambda g: nn.parameter_gradients(network, g)):
        seen.clear()
        step(network, x, torch.ones_like, backward)
        assert seen == [kind] * sum(type(module) is kind for module in network)


def test_a_sequence_of_ones_own_with_a_backward_of_its_own_still_trains(generator, draw):
    """It knows no `input_grad`, and must be called all the same, as the network and as its first module."""

    class Mine(Sequential):
        calls = 0

        def backward(self, grad_output):
            type(self).calls += 1
            return super().backward(grad_output)

    x, target = draw(4, 3, 8, 8, dtype=torch.float32), torch.zeros(4, 2, 8, 6)
    mine = Mine(conv(3, 4, generator=generator), ReLU(), conv(4, 2, generator=generator))
    for network in (mine, Sequential(mine)):
        loss, optimizer, losses = MSELoss(), SGD(network.parameters(), 0.05), []
        for _ in range(5):
            optimizer.zero_grad()
            losses.append(float(loss(network(x), target)))
            nn.parameter_gradients(network, loss.backward())
            optimizer.step()
        assert losses[-1] < losses[0], losses
    assert Mine.calls == 10


def test_an_observed_network_still_leaves_out_the_inputs_gradient(generator, draw):
    """An observer of the whole network times what a training does; each module inside is computed as ever."""
    network, observer = chain(conv)(generator), Noting()
    with observing([(network, observer)]):
        z = network(draw(2, 3, 8, 8, dtype=torch.float32))
        assert nn.parameter_gradients(network, z).numel() == 0
    assert observer.seen == ["forward", "backward"]


def test_a_network_with_another_backward_is_asked_for_it_as_ever(generator, draw):
    network, seen = chain(conv)(generator), []
    vars(network)["backward"] = noting(seen, "backward", network.backward)
    z = network(draw(2, 3, 8, 8, dtype=torch.float32))
    assert nn.parameter_gradients(network, z).shape == (2, 3, 8, 8)
    assert seen == ["backward"]


def test_a_relu_that_was_given_something_else_meanwhile_is_not_passed_over(generator, draw, assert_near):
    """Then the mask is that of its last forward, as when each module is called."""
    network, alone = twins(chain(conv), torch.float64, generator)
    x, g = draw(2, 3, 8, 8), None
    grads = []
    for one in (network, alone):
        z = one(x)
        other = torch.linspace(-1, 1, one[2]._cache[0][0].numel(), dtype=torch.float64)
        one[1](other.view_as(one[2]._cache[0][0]))
        g = draw(*z.shape) if g is None else g
        grads.append(one.backward(g))
    assert_near(*grads)


def test_a_convolution_that_was_given_something_else_meanwhile_is_not_passed_through_its_relu(generator, draw):
    """Of the same shape and size, or of another."""
    network, alone = twins(chain(conv), torch.float64, generator)
    x, g = draw(2, 3, 8, 8), None
    other, grads = draw(2, 4, 8, 7), []
    for one in (network, alone):
        z = one(x)
        one[2](other)
        g = draw(*z.shape) if g is None else g
        grads.append(one.backward(g))
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-13)


def test_a_convolution_given_the_relus_output_in_another_order_is_not_passed_through(generator, draw):
    """The transposed square has the same first number and the same shape; the mask must stay the ReLU's own."""
    make = lambda g: Sequential(ReLU(), Conv2d(2, 2, 3, padding=1, generator=g))  # noqa: E731
    network, alone = twins(make, torch.float64, generator)
    x, g = draw(1, 2, 5, 5), draw(1, 2, 5, 5)
    grads = []
    for one in (network, alone):
        one[1](one[0](x).transpose(2, 3))
        grads.append(one.backward(g))
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("mode", ["network", "first"])
def test_a_kept_tensor_changed_in_place_is_still_an_error(mode, generator, draw):
    for position, name in [(0, "Conv2d"), (2, "Conv2d"), (3, "Sigmoid")]:
        network = chain(conv)(generator)
        z = network(draw(2, 3, 8, 8, dtype=torch.float32))
        kept = network[position]._cache[0][0]
        kept.add_(1)
        backward = network.backward if mode == "network" else lambda g, net=network: nn.parameter_gradients(net, g)
        with pytest.raises(RuntimeError, match=rf"a tensor that {name}.forward kept .* was changed in place after it"):
            backward(torch.ones_like(z))


def test_a_not_fitting_gradient_is_refused_as_ever(generator, draw):
    network = chain(conv)(generator)
    z = network(draw(2, 3, 8, 8, dtype=torch.float32))
    with pytest.raises(ValueError, match="grad_output must have the output's shape"):
        network.backward(z[:1])


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize(("following", "expected"), [(ReLU, "relu"), (Sigmoid, "sigmoid"), (Nearest, None)])
def test_what_may_be_computed_in_one_is_a_convolution_and_an_activation(make, following, expected):
    module = make(3, 4)
    other = following(2) if following is Nearest else following()
    assert fusion.activation_of(module, other) == expected
    assert fusion.activation_of(other, module) is None
    assert fusion.activation_of(ReLU(), other) is None


@pytest.mark.parametrize("kind", [nn.Module, ReLU, Conv2d])
def test_a_module_observed_through_its_call_is_called(kind, monkeypatch):
    network, seen, before = Sequential(conv(3, 4), ReLU()), [], kind.__call__

    def call(self, *inputs):
        seen.append(type(self))
        return before(self, *inputs)

    monkeypatch.setattr(kind, "__call__", call, raising=False)
    network(torch.rand(1, 3, 6, 6))
    assert (kind if kind is not nn.Module else ReLU) in seen


def test_a_sequence_whose_class_has_another_backward_is_given_what_that_takes(monkeypatch):
    network, before = Sequential(conv(3, 4), ReLU()), Sequential.backward
    output = network(torch.rand(1, 3, 6, 6))
    monkeypatch.setattr(Sequential, "backward", lambda self, grad_output: before(self, grad_output))
    assert nn.parameter_gradients(network, torch.ones_like(output)).shape == (1, 3, 6, 6)
