"""Modules made of modules: the chain rule through them, their names, and what they refuse."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name)
from variants import DTYPES

from scratch_dl.nn import Conv2d, Module, MSELoss, ReLU, Sequential, Sigmoid, Skip, Upsampling, UpsamplingNearest2d
from scratch_dl.nn.adapter import Adapted
from scratch_dl.optim import SGD


@pytest.fixture
def conv(generator):
    """A function that builds a float64 convolution, drawn by the test's generator."""
    return lambda c, o, k=3, **settings: Conv2d(c, o, k, generator=generator, **settings).to(torch.float64)


# Sequential


def test_one_after_another_matches_autograd(conv, draw, assert_matches_autograd):
    net = Sequential(conv(2, 4, padding=1), ReLU(), conv(4, 3, stride=2), Sigmoid())

    def function(x, p):
        hidden = torch.relu(F.conv2d(x, p["0.weight"], p["0.bias"], padding=1))
        return torch.sigmoid(F.conv2d(hidden, p["2.weight"], p["2.bias"], stride=2))

    assert_matches_autograd(net, function, draw(3, 2, 6, 7))


def test_of_none_it_is_the_identity(draw):
    net, x, g = Sequential(), draw(2, 3), draw(2, 3)
    assert torch.equal(net(x), x)
    assert torch.equal(net.backward(g), g)
    assert (len(net), net.parameters(), net.state_dict()) == (0, [], {})
    assert net.output_size((3, 4)) == (3, 4)


def test_of_one_it_is_that_module(conv, draw):
    module, x = conv(2, 3), draw(2, 2, 5, 6)
    net = Sequential(module)
    z = net(x)
    assert torch.equal(z, module(x))
    grad = net.backward(z)
    module(x)
    assert torch.equal(grad, module.backward(z))
    assert len(net) == 1
    assert net[0] is module


def test_of_a_dict_it_has_those_names_in_that_order(conv):
    net = Sequential({"second": conv(2, 4), "act": ReLU(), "first": conv(4, 3, bias=False)})
    assert [name for name, _ in net.named_modules()] == ["", "second", "act", "first"]
    assert list(net.state_dict()) == ["second.weight", "second.bias", "first.weight"]
    assert net.second is net[0]
    assert net.first is net[-1]
    assert list(net) == [net.second, net.act, net.first]


def test_positions_are_names_in_the_order_of_numbers():
    net = Sequential(*(ReLU() for _ in range(12)))
    assert [name for name, _ in net.children()] == [str(i) for i in range(12)]


def test_names_inside_one_another_are_joined_by_dots(conv):
    net = Sequential(
        {"body": Sequential(conv(2, 2), ReLU()), "skip": Skip(Sequential({"deep": conv(2, 2, padding=1)}))}
    )
    assert [name for name, _ in net.named_modules()] == [
        "",
        "body",
        "body.0",
        "body.1",
        "skip",
        "skip.inner",
        "skip.inner.deep",
    ]
    expected = ["body.0.weight", "body.0.bias", "skip.inner.deep.weight", "skip.inner.deep.bias"]
    assert [name for name, _ in net.named_parameters()] == expected
    assert [id(p) for p in net.parameters()] == [id(p) for _, p in net.named_parameters()]


def test_a_replaced_attribute_takes_the_place_of_the_former(conv, draw):
    net = Sequential({"conv": conv(2, 3), "act": ReLU(), "last": conv(3, 2)})
    net.act = Sigmoid()
    net.conv = conv(2, 3, padding=1)
    x = draw(2, 2, 5, 6)
    assert [name for name, _ in net.children()] == ["conv", "act", "last"]
    assert torch.equal(net(x), net.last(Sigmoid()(net.conv(x))))
    assert net.output_size((5, 6)) == (3, 4)


def test_the_sizes_are_traced_through_all_modules(conv):
    net = Sequential(conv(2, 2, stride=2, padding=1), UpsamplingNearest2d((3, 1)), Upsampling(2, 2, 4, padding=0))
    assert net.output_size((7, 9)) == tuple(net.to(torch.float64)(torch.zeros(1, 2, 7, 9).double()).shape[2:])


class Scale:
    """Nobody's module: z = f x, without a parameter."""

    def __init__(self, factor):
        self.factor = factor

    def forward(self, x):
        return self.factor * x

    def backward(self, g):
        return self.factor * g


def test_an_object_with_a_forward_and_a_backward_stands_where_a_module_does(conv, draw):
    net = Sequential({"conv": conv(2, 3), "scale": Scale(2.0), "skip": Skip(Scale(3.0), "add")})
    x, g = draw(2, 2, 5, 6), draw(2, 3, 3, 4)
    assert torch.equal(net(x), 2 * net.conv(x) * (1 + 3))
    grad = net.backward(g)
    net.conv(x)
    assert torch.equal(grad, net.conv.backward((g + 3 * g) * 2))
    assert [name for name, _ in net.named_modules()] == ["", "conv", "scale", "skip", "skip.inner"]
    assert isinstance(Sequential(Scale(2.0))[0], Adapted)


def test_an_object_assigned_to_a_modules_name_takes_its_place(draw):
    """It does not vanish from the network because it is no Module."""
    net, x = Sequential({"first": ReLU(), "skip": Skip(ReLU(), "add"), "last": Sigmoid()}), draw(2, 3)
    net.first = Scale(2.0)
    net.skip.inner = Scale(3.0)
    assert [name for name, _ in net.children()] == ["first", "skip", "last"]
    assert torch.equal(net(x), Sigmoid()(2 * x + 3 * (2 * x)))
    net.first = Skip(net.first, "add")
    assert torch.equal(net[0](x), 3 * x)
    net.first = ReLU()
    assert isinstance(net[0], ReLU)
    with pytest.raises(TypeError, match=r"first must have a forward and a backward, but got NoneType"):
        net.first = None
    assert isinstance(net.first, ReLU)


def test_an_attribute_that_is_no_module_stays_what_it_is():
    net = Sequential(ReLU())
    net.note = scale = Scale(2.0)
    assert net.note is scale
    assert len(net) == 1


@pytest.mark.parametrize(
    ("modules", "error", "message"),
    [
        pytest.param([3], TypeError, r"modules\['0'\] must have a forward and a backward, but got int", id="number"),
        pytest.param([ReLU], TypeError, r"modules\['0'\] must have .*, but got the class ReLU", id="class"),
        pytest.param([[ReLU()]], TypeError, r"modules\['0'\] must have .*but got list", id="list"),
        pytest.param([torch.nn.ReLU()], TypeError, r"modules\['0'\] must have .*but got ReLU", id="pytorchs-module"),
        pytest.param([{"a": None}], TypeError, r"modules\['a'\] must have .*but got NoneType", id="dict-of-none"),
        pytest.param([{"a.b": ReLU()}], ValueError, r"name must be .*without dots, but got 'a.b'", id="dot"),
        pytest.param([{"": ReLU()}], ValueError, r"name must be .*not empty.*, but got ''", id="empty"),
        pytest.param([{"forward": ReLU()}], ValueError, r"name must be new.*, but got 'forward'", id="method"),
        pytest.param([{"training": ReLU()}], ValueError, r"name must be new.*, but got 'training'", id="attribute"),
        pytest.param([{1: ReLU()}], ValueError, r"name must be .*, but got 1", id="number-as-name"),
    ],
)
def test_what_cannot_stand_in_a_sequence_is_refused(modules, error, message):
    with pytest.raises(error, match=message):
        Sequential(*modules)


@pytest.mark.parametrize("relu", [ReLU(), Scale(2.0)], ids=["module", "object"])
def test_one_module_at_two_places_is_refused(relu):
    """It has one cache: the second forward would overwrite the first's."""
    net = Sequential({"one": relu, "other": Skip(Sigmoid())})
    for twice in (
        lambda: Sequential(relu, relu),
        lambda: Sequential(relu, Sequential(relu)),
        lambda: Sequential(Skip(relu), relu),
        lambda: setattr(net, "other", relu),
    ):
        with pytest.raises(ValueError, match=r"modules must be distinct"):
            twice()


def test_zero_grad_and_dtype_reach_every_level(draw):
    net = Sequential(Sequential(Conv2d(2, 2, 1)), Skip(Upsampling(2, 2, 1, 1)))
    z = net(draw(2, 2, 3, 3, dtype=torch.float32))
    net.backward(torch.ones_like(z))
    assert len(net.parameters()) == 4
    assert all(p.grad.any() for p in net.parameters())
    net.zero_grad()
    assert all(not p.grad.any() for p in net.parameters())
    net.to(torch.float64)
    assert all(p.value.dtype == p.grad.dtype == torch.float64 for p in net.parameters())
    assert net(draw(2, 2, 3, 3)).dtype == torch.float64


# Skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("join", ["concatenate", "add"])
def test_both_joins_match_autograd(join, dtype, generator, draw, assert_matches_autograd):
    inner = Sequential(Conv2d(3, 3, 3, padding=1, generator=generator), Sigmoid())

    def function(x, p):
        z = torch.sigmoid(F.conv2d(x, p["inner.0.weight"], p["inner.0.bias"], padding=1))
        return x + z if join == "add" else torch.cat([x, z], dim=1)

    assert_matches_autograd(Skip(inner, join).to(dtype), function, draw(2, 3, 5, 4, dtype=dtype))


def test_concatenation_takes_other_channels_and_keeps_the_inputs_first(conv, draw, assert_matches_autograd):
    module = Skip(conv(2, 5, padding=1))
    x = draw(2, 2, 4, 5)
    z = module(x)
    assert z.shape == (2, 7, 4, 5)
    assert torch.equal(z[:, :2], x)

    def function(x, p):
        return torch.cat([x, F.conv2d(x, p["inner.weight"], p["inner.bias"], padding=1)], dim=1)

    assert_matches_autograd(module, function, x)


@pytest.mark.parametrize(("join", "factor"), [("add", 2), ("concatenate", 1)])
def test_around_nothing_it_doubles_and_shares_no_memory(join, factor, draw):
    module, x = Skip(Sequential(), join), draw(2, 3, 4, 5)
    kept = x.clone()
    z = module(x)
    assert torch.equal(z, 2 * x if join == "add" else torch.cat([x, x], 1))
    g = draw(*z.shape)
    kept_g = g.clone()
    grad = module.backward(g)
    assert torch.equal(grad, factor * g if join == "add" else g[:, :3] + g[:, 3:])
    z.zero_()
    grad.zero_()
    assert torch.equal(x, kept)
    assert torch.equal(g, kept_g)


def test_the_default_join_is_concatenation():
    assert Skip(ReLU())(torch.ones(1, 2, 3, 3)).shape == (1, 4, 3, 3)


def test_shapes_that_cannot_be_joined_are_refused(conv):
    x = torch.zeros(1, 2, 5, 6, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"concatenate needs matching shapes, but got \(1, 2, 5, 6\), \(1, 2, 3, 4\)"):
        Skip(conv(2, 2))(x)
    with pytest.raises(ValueError, match=r"add needs matching shapes, but got \(1, 2, 5, 6\), \(1, 3, 5, 6\)"):
        Skip(conv(2, 3, padding=1), "add")(x)
    with pytest.raises(ValueError, match=r"inner must keep the size 5x6, but makes it 3x4"):
        Skip(conv(2, 2)).output_size((5, 6))


@pytest.mark.parametrize(("join", "hint"), [("concat", "did you mean 'concatenate'"), ("Add", "add"), (None, "None")])
def test_an_unknown_join_is_refused(join, hint):
    with pytest.raises(ValueError, match=rf"join must be one of concatenate, add, but got {join!r}.*{hint}|{hint}"):
        Skip(ReLU(), join)


def test_an_inner_that_is_no_module_is_refused():
    with pytest.raises(TypeError, match=r"inner must have a forward and a backward, but got int"):
        Skip(3)


def test_a_gradient_of_another_shape_is_refused(conv):
    module = Skip(conv(2, 2, padding=1))
    module(torch.zeros(1, 2, 4, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"output's shape \(1, 4, 4, 4\), but got \(1, 2, 4, 4\)"):
        module.backward(torch.zeros(1, 2, 4, 4, dtype=torch.float64))


# The whole network of the paper, in lock-step with its twin in PyTorch


def paper_twin(mode, kernel_size):
    """The paper's network as PyTorch builds it; "same" of the nearest block is a plain padding of 1 at kernel 3."""

    def up(c, o):
        if mode == "transposed":
            return [torch.nn.ConvTranspose2d(c, o, kernel_size, stride=2, padding=1)]
        return [torch.nn.Upsample(scale_factor=2), torch.nn.Conv2d(c, o, kernel_size, padding=1)]

    convs = [torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(4, 6, 3, 2, 1), torch.nn.ReLU()]
    return torch.nn.Sequential(*convs, *up(6, 5), torch.nn.ReLU(), *up(5, 3), torch.nn.Sigmoid()).double()


@pytest.mark.parametrize(("mode", "kernel_size"), [("nearest", 3), ("transposed", 4)])
def test_the_papers_network_goes_in_lock_step_with_pytorchs(mode, kernel_size, generator, draw, assert_near):
    """All gradients, and twenty steps of SGD with momentum on batches of changing size."""
    up = {"kernel_size": kernel_size, "mode": mode, "generator": generator}
    net = Sequential(
        {
            "conv1": Conv2d(3, 4, 3, 2, 1, generator=generator),
            "relu1": ReLU(),
            "conv2": Conv2d(4, 6, 3, 2, 1, generator=generator),
            "relu2": ReLU(),
            "up1": Upsampling(6, 5, **up),
            "relu3": ReLU(),
            "up2": Upsampling(5, 3, **up),
            "sigmoid": Sigmoid(),
        }
    ).to(torch.float64)
    twin = paper_twin(mode, kernel_size)
    twin.load_state_dict(dict(zip(twin.state_dict(), net.state_dict().values(), strict=True)))
    loss, optimizer = MSELoss(), SGD(net.parameters(), lr=2.0, momentum=0.9)
    twin_optimizer = torch.optim.SGD(twin.parameters(), lr=2.0, momentum=0.9)
    start = net.state_dict()

    for step in range(20):
        x, target = draw(2 + step % 2, 3, 8, 12), draw(2 + step % 2, 3, 8, 12)
        optimizer.zero_grad()
        value = loss(net(x), target)
        grad_input = net.backward(loss.backward())

        twin_optimizer.zero_grad()
        twin_x = x.clone().requires_grad_()
        twin_value = F.mse_loss(twin(twin_x), target)
        twin_value.backward()

        assert_near(value, twin_value, f"loss of step {step}", 1e-10)
        assert_near(grad_input, twin_x.grad, f"gradient of the input of step {step}", 1e-10)
        for (name, parameter), theirs in zip(net.named_parameters(), twin.parameters(), strict=True):
            assert_near(parameter.grad, theirs.grad, f"gradient of {name} of step {step}", 1e-10)
        optimizer.step()
        twin_optimizer.step()
        for (name, parameter), theirs in zip(net.named_parameters(), twin.parameters(), strict=True):
            assert_near(parameter.value, theirs, f"{name} after step {step}", 1e-10)

    assert all(not torch.equal(value, start[name]) for name, value in net.state_dict().items())


class Twice(Module):
    """A user's module: one parameter under two names, and a module under two."""

    def __init__(self, inner):
        self.first = inner
        self.second = inner
        self.tied = inner.weight


def test_a_user_modules_shared_parts_are_listed_once(conv):
    module = Twice(conv(2, 2))
    assert [name for name, _ in module.named_parameters()] == ["tied", "first.bias"]
    assert [name for name, _ in module.named_modules()] == ["", "first"]
