"""Objects that know nothing of this package, as modules: their passes, parameters, copies and conversions."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name)

from scratch_dl.nn import Conv2d, MSELoss, Observer, Parameter, ReLU, Sequential, adapt, observing
from scratch_dl.optim import SGD, Adam


def drawn(o, c, dtype=torch.float64):
    return torch.randn(o, c, 1, 1, dtype=dtype, generator=torch.Generator().manual_seed(o))


class Pointwise:
    """A 1x1 convolution; its subclasses list the parameters in one way each. Its gradients are bound anew each time."""

    def __init__(self, c, o, dtype=torch.float64):
        self.w, self.b = drawn(o, c, dtype), torch.zeros(o, dtype=dtype)
        self.dw, self.db = torch.zeros_like(self.w), torch.zeros_like(self.b)

    def forward(self, x):
        self.x = x
        return F.conv2d(x, self.w, self.b)

    def backward(self, g):
        self.dw = self.dw + torch.einsum("nohw,nchw->oc", g, self.x)[:, :, None, None]
        self.db = self.db + g.sum((0, 2, 3))
        return torch.einsum("oc,nohw->nchw", self.w[:, :, 0, 0], g)


class Course(Pointwise):
    """As the EPFL course asks for it."""

    def forward(self, *input):
        return (super().forward(*input),)

    def backward(self, *gradwrtoutput):
        return super().backward(*gradwrtoutput)

    def param(self):
        return [(self.w, self.dw), (self.b, self.db)]


class Listed(Pointwise):
    """Lists of two, where parameters() counts before param()."""

    def parameters(self):
        yield [self.w, self.dw]
        yield [self.b, self.db]

    def param(self):
        raise AssertionError("param() is the last that is asked")


class Named(Pointwise):
    def named_parameters(self):
        return iter({"kernel": (self.w, self.dw), "shift": (self.b, self.db)}.items())

    def parameters(self):
        raise AssertionError("parameters() has no names")


class Box:
    __slots__ = ("grad", "value")

    def __init__(self, value):
        self.value, self.grad = value, torch.zeros_like(value)


class Boxed(Pointwise):
    """Objects with value and grad, whose gradient is bound anew, too."""

    def __init__(self, c, o, dtype=torch.float64):
        self.boxes = {"w": Box(drawn(o, c, dtype)), "b": Box(torch.zeros(o, dtype=dtype))}

    w, b = property(lambda self: self.boxes["w"].value), property(lambda self: self.boxes["b"].value)
    dw = property(lambda self: self.boxes["w"].grad, lambda self, grad: setattr(self.boxes["w"], "grad", grad))
    db = property(lambda self: self.boxes["b"].grad, lambda self, grad: setattr(self.boxes["b"], "grad", grad))

    def parameters(self):
        return list(self.boxes.values())


class Ours(Pointwise):
    """Our Parameters, and no method that lists them."""

    def __init__(self, c, o, dtype=torch.float64):
        self.weight, self.more = Parameter(drawn(o, c, dtype)), [Parameter(torch.zeros(o, dtype=dtype))]

    w, b = property(lambda self: self.weight.value), property(lambda self: self.more[0].value)
    dw = property(lambda self: self.weight.grad, lambda self, grad: setattr(self.weight, "grad", grad))
    db = property(lambda self: self.more[0].grad, lambda self, grad: setattr(self.more[0], "grad", grad))


class Torchs(torch.nn.Module):
    """PyTorch's Parameters and gradients, computed by hand. Its zero_grad leaves None."""

    def __init__(self, c, o, dtype=torch.float64):
        super().__init__()
        self.w, self.b = torch.nn.Parameter(drawn(o, c, dtype)), torch.nn.Parameter(torch.zeros(o, dtype=dtype))

    def forward(self, x):
        self.x = x
        return F.conv2d(x, self.w, self.b)

    def backward(self, g):
        dw, db = torch.einsum("nohw,nchw->oc", g, self.x)[:, :, None, None], g.sum((0, 2, 3))
        self.w.grad = dw if self.w.grad is None else self.w.grad + dw
        self.b.grad = db if self.b.grad is None else self.b.grad + db
        return torch.einsum("oc,nohw->nchw", self.w[:, :, 0, 0], g)


KINDS = {
    Course: ("w", "b"),
    Listed: ("w", "b"),
    Named: ("kernel", "shift"),
    Boxed: ("boxes.w", "boxes.b"),
    Ours: ("weight", "more.0"),
    Torchs: ("w", "b"),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def tensors(inner):
    return (inner.w, inner.b)


@every_kind
def test_the_passes_match_autograd_and_the_parameters_have_names(kind, draw, assert_matches_autograd):
    module = adapt(kind(2, 3))
    w, b = KINDS[kind]
    assert [name for name, _ in module.named_parameters()] == [w, b]
    assert_matches_autograd(module, lambda x, p: F.conv2d(x, p[w], p[b]), draw(4, 2, 3, 5))


@every_kind
@pytest.mark.parametrize(
    "optimizer", [lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=0.01), lambda p: Adam(p, 0.01)], ids=["sgd", "adam"]
)
def test_an_optimizer_trains_it_bit_for_bit_alike(kind, optimizer):
    """However it lists its parameters, the steps are those of the course's way."""
    networks = [Sequential({"last": adapt(kind(2, 3))}), Sequential({"last": adapt(Course(2, 3))})]
    losses = [[], []]
    for network, values in zip(networks, losses, strict=True):
        loss, steps = MSELoss(), optimizer(network.parameters())
        x, target = (torch.randn(4, c, 3, 3, generator=torch.Generator().manual_seed(7)).double() for c in (2, 3))
        for _ in range(6):
            steps.zero_grad()
            values.append(float(loss(network(x), target)))
            network.backward(loss.backward())
            steps.step()
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]
    inner = networks[0].last.inner
    assert all(
        torch.equal(p.value, t) and torch.equal(q.value, t)
        for p, q, t in zip(networks[0].parameters(), networks[1].parameters(), tensors(inner), strict=True)
    )


@every_kind
def test_what_is_assigned_is_copied_into_the_objects_tensor(kind, draw):
    inner = kind(2, 3)
    module = adapt(inner)
    before, (weight, _) = inner.w, module.parameters()
    new = draw(3, 2, 1, 1)
    weight.value = new
    assert torch.equal(inner.w, new)
    if kind is not Ours:  # whose own Parameter binds a copy
        assert inner.w is before
    weight.value += 1
    assert torch.equal(inner.w, new + 1)
    weight.grad = new
    weight.grad += 1
    assert torch.equal(weight.grad, new + 1)
    assert not torch.equal(new, weight.grad)
    assert weight.shape == (3, 2, 1, 1)
    assert "LiveParameter(shape=(3, 2, 1, 1), dtype=torch.float64)" in repr(weight)
    with pytest.raises(ValueError, match=r"value must have the parameter's shape \(3, 2, 1, 1\), but got \(1,\)"):
        weight.value = torch.ones(1)


@every_kind
def test_gradients_are_zeroed_in_place(kind, draw):
    module = adapt(kind(2, 3))
    for zero in (module.zero_grad, lambda: [p.zero_grad() for p in module.parameters()], Sequential(module).zero_grad):
        module(draw(1, 2, 2, 2))
        module.backward(draw(1, 3, 2, 2))
        assert all(p.grad.any() for p in module.parameters())
        zero()
        assert not any(p.grad.any() for p in module.parameters())


def test_a_value_that_the_object_binds_anew_is_followed(draw):
    inner = Course(2, 3)
    (weight, _) = adapt(inner).parameters()
    inner.w = draw(3, 2, 1, 1)
    assert torch.equal(weight.value, inner.w)
    weight.value = torch.zeros(3, 2, 1, 1)
    assert not inner.w.any()


@every_kind
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))], ids=["deepcopy", "pickle"]
)
def test_a_copy_is_live_to_its_own_tensors(kind, copied, draw):
    network = Sequential({"first": kind(2, 3), "act": ReLU()})
    state = network.state_dict()
    twin = copied(network)
    x = draw(2, 2, 3, 3)
    assert torch.equal(twin(x), network(x))
    for parameter in twin.parameters():
        parameter.value += 1
    assert all(torch.equal(network.state_dict()[name], value) for name, value in state.items())
    assert torch.equal(twin.first.inner.w, network.first.inner.w + 1)
    twin(x)
    twin.backward(draw(2, 3, 3, 3))
    assert all(parameter.grad.any() for parameter in twin.parameters())
    assert not any(parameter.grad.any() for parameter in network.parameters())
    twin.load_state_dict(state)
    assert torch.equal(twin(x), network(x))


@every_kind
def test_a_conversion_takes_the_whole_object_along(kind, draw):
    """The passes work in the new dtype, and parameters that an optimizer holds already stay live."""
    inner = kind(2, 3, torch.float32)
    network = Sequential({"first": inner})
    held = network.parameters()
    x, g = draw(2, 2, 3, 3), draw(2, 3, 3, 3)
    network(x.float())
    network.backward(g.float())
    grads = [p.grad.clone() for p in held]
    assert network.to(torch.float64) is network
    assert network.first.inner is inner
    assert [id(p) for p in network.parameters()] == [id(p) for p in held]
    assert all(p.value.dtype == p.grad.dtype == torch.float64 for p in held)
    assert all(torch.equal(p.grad, grad.double()) for p, grad in zip(held, grads, strict=True))
    assert all(torch.equal(p.value, t) for p, t in zip(held, tensors(inner), strict=True))
    assert network(x).dtype == torch.float64
    network.backward(g)
    held[0].to(torch.float32)
    assert inner.b.dtype == torch.float32


class Tangle(Course):
    """Its weight stands at five places, one of them in a tuple and one in an object; it has integers and itself."""

    def __init__(self, c, o, dtype=torch.float32):
        super().__init__(c, o, dtype)
        self.places = {"tuple": (self.w, [self.w]), "box": Box(self.w)}
        self.order, self.me = torch.arange(3), self
        self.generator = torch.Generator()
        self.function = self.forward


def test_a_conversion_keeps_apart_and_together_what_was(draw):
    inner = Tangle(2, 3)
    box, list_, w, order = inner.places["box"], inner.places["tuple"][1], inner.w, inner.order
    adapt(inner).to(torch.float64)
    assert inner.w is not w
    assert w.dtype == torch.float32
    assert inner.w is inner.places["tuple"][0] is inner.places["tuple"][1][0] is inner.places["box"].value
    assert (inner.places["box"], inner.places["tuple"][1], inner.me, inner.order) == (box, list_, inner, order)
    assert inner.order.dtype == torch.int64
    assert inner.dw is not inner.w
    assert inner.function(draw(1, 2, 2, 2))[0].dtype == torch.float64


def test_what_is_no_parameter_is_converted_too(draw):
    module = Scaled()
    network = Sequential(module).to(torch.float64)
    assert module.factors.dtype == torch.float64
    assert network(draw(2, 3)).dtype == torch.float64
    assert network.parameters() == []


class Scaled:
    """A tensor that is not learnt."""

    def __init__(self):
        self.factors = torch.arange(3.0)

    def forward(self, x):
        return self.factors * x

    backward = forward


def test_without_a_change_no_tensor_is_replaced():
    inner = Torchs(2, 3)
    w = inner.w
    adapt(inner).to(torch.float64, "cpu")
    assert inner.w is w
    adapt(inner).to(torch.float32)
    assert isinstance(inner.w, torch.nn.Parameter)
    assert inner.w.requires_grad


def test_a_module_of_ours_stays_itself():
    module = Conv2d(2, 3, 1)
    assert adapt(module) is module


@pytest.mark.parametrize(
    ("object", "got"),
    [
        pytest.param(3, "int", id="number"),
        pytest.param(None, "NoneType", id="none"),
        pytest.param(torch.nn.ReLU(), "ReLU", id="pytorchs-module"),
        pytest.param(Course, "the class Course", id="class"),
    ],
)
def test_what_has_no_forward_or_no_backward_is_refused(object, got):
    with pytest.raises(TypeError, match=rf"^module must have a forward and a backward, but got {got}(, |$)"):
        adapt(object)


class Returning:
    def __init__(self, returned, entries=()):
        self.returned, self.entries = returned, entries

    def forward(self, *_):
        return self.returned

    def backward(self):
        return self.returned

    def param(self):
        return self.entries


@pytest.mark.parametrize(
    ("returned", "got"), [(None, "NoneType"), (0.5, "float"), ((), "tuple"), ([torch.ones(1)] * 2, "list")]
)
def test_what_returns_no_tensor_is_refused(returned, got):
    module = adapt(Returning(returned))
    with pytest.raises(TypeError, match=rf"Returning\.forward must return a torch.Tensor, but returned {got}"):
        module(torch.ones(1))
    with pytest.raises(TypeError, match=rf"Returning\.backward must return a torch.Tensor, but returned {got}"):
        module.backward()


@pytest.mark.parametrize(
    ("entry", "error", "message"),
    [
        pytest.param("w", TypeError, r"Returning's parameter 'entries.0' must be a pair .*, but got str", id="text"),
        pytest.param([torch.ones(1)], TypeError, r"parameter 'entries.0' must be a pair .*, but got list", id="single"),
        pytest.param((torch.ones(1), 3), TypeError, r"the gradient of .* must be a float32 .*got int", id="grad"),
        pytest.param(torch.arange(2), TypeError, r"the value of .* must be a float32 .*int64", id="ints"),
    ],
)  # fmt: skip
def test_a_parameter_that_is_none_is_refused(entry, error, message):
    with pytest.raises(error, match=message):
        adapt(Returning(None, [entry]))


def test_nothing_is_no_parameter_and_one_listed_twice_is_one():
    w, dw = torch.ones(2), torch.ones(2)
    module = adapt(Returning(None, [None, (None, None), (w, dw), (w, dw)]))
    assert [(name, p.value.tolist()) for name, p in module.named_parameters()] == [("entries.2", [1, 1])]
    assert adapt(Returning(None)).parameters() == []


def test_a_gradient_that_is_not_there_yet_counts_as_zeros():
    w = torch.ones(2)
    module = adapt(Returning(None, [(w, None)]))
    (parameter,) = module.parameters()
    assert parameter.grad.tolist() == [0, 0]
    module.zero_grad()
    with pytest.raises(ValueError, match=r"parameter 'entries.0' has no gradient to assign to"):
        parameter.grad = torch.ones(2)


def test_a_gradient_of_another_shape_is_refused():
    (parameter,) = adapt(Returning(None, [(torch.ones(2), torch.ones(1, 2))])).parameters()
    with pytest.raises(ValueError, match=r"must have the value's shape \(2,\), but got \(1, 2\)"):
        _ = parameter.grad


def test_two_parameters_of_one_name_are_refused():
    inner = Named(2, 3)
    inner.named_parameters = lambda: [("w", (inner.w, inner.dw)), ("w", (inner.b, inner.db))]
    with pytest.raises(ValueError, match=r"the parameters of Named must have distinct names, but got 'w'"):
        adapt(inner)


def test_a_parameter_that_is_listed_no_more_is_an_error():
    inner = Returning(None, [(torch.ones(2), torch.ones(2))])
    (parameter,) = adapt(inner).parameters()
    inner.entries = []
    with pytest.raises(ValueError, match=r"Returning's parameter 'entries.0' is not listed any more"):
        _ = parameter.value


class SquaredError:
    """A loss, whose backward takes nothing."""

    def forward(self, input, target):
        self.error = input - target
        return self.error.square().sum()

    def backward(self):
        return 2 * self.error


def test_a_loss_takes_two_inputs_and_its_backward_none(draw):
    y, t = draw(2, 3), draw(2, 3)
    loss, own = adapt(SquaredError()), MSELoss("sum")
    assert torch.equal(loss(y, t), own(y, t))
    assert torch.equal(loss.backward(), own.backward())


class Viewing:
    """Flattens by `view`, which fails on memory that lies channels last; cannot be given a graph, either."""

    def forward(self, x):
        assert not torch.is_grad_enabled()
        assert not x.requires_grad
        return 2 * x.view(-1).view(x.shape)

    def backward(self, g):
        return 2 * g.view(-1).view(g.shape)


def test_it_is_given_plain_tensors(draw):
    x = draw(2, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    module = adapt(Viewing())
    assert torch.equal(module(x), 2 * x)
    assert torch.equal(module.backward(x), 2 * x)
    assert not module(x).requires_grad


class Modal:
    """Counts what it is told; its zero_grad does more than the gradients."""

    def __init__(self):
        self.told = []

    def forward(self, x):
        return x

    backward = forward

    def train(self):
        self.told.append("train")

    def eval(self):
        self.told.append("eval")

    def zero_grad(self):
        self.told.append("zero_grad")


def test_modes_and_zero_grad_are_passed_on():
    module = Modal()
    network = Sequential(module)
    network.eval()
    network.train()
    network.zero_grad()
    assert module.told == ["eval", "train", "zero_grad"]


class Composite:
    """A module of ours inside an object that is none; its `train` is another thing."""

    def __init__(self):
        self.conv = Conv2d(2, 2, 1)

    def forward(self, x):
        return self.conv(x)

    def backward(self, g):
        return self.conv.backward(g)

    def train(self, epochs):
        raise AssertionError(f"it is not asked to train for {epochs} epochs")


def test_a_module_of_ours_inside_keeps_nothing_in_evaluation_mode():
    network = Sequential({"block": Composite()}).to(torch.float64)
    assert list(network.state_dict()) == ["block.conv.weight", "block.conv.bias"]
    assert network.block.inner.conv.weight.value.dtype == torch.float64
    network.eval()(torch.ones(1, 2, 3, 3, dtype=torch.float64))
    assert network.block.inner.conv._cache is None
    network.train()(torch.ones(1, 2, 3, 3, dtype=torch.float64))
    network.backward(torch.ones(1, 2, 3, 3, dtype=torch.float64))
    assert all(parameter.grad.any() for parameter in network.parameters())


def test_an_object_is_observed_as_any_module_is():
    class Doubling(Observer):
        def forward(self, function, *inputs):
            return 2 * function(*inputs)

        def backward(self, function, *grad_outputs):
            return 3 * function(*grad_outputs)

    network, x = Sequential({"course": Course(2, 3), "relu": ReLU()}), torch.ones(1, 2, 3, 3, dtype=torch.float64)
    output = network(x)
    grad = network.backward(torch.ones_like(output))
    with observing([(network.course, Doubling())]):
        assert torch.equal(network(x), 2 * output)
        assert torch.equal(network.backward(torch.ones_like(output)), 3 * grad)


def test_its_description_has_the_objects_class():
    assert repr(adapt(Course(2, 3))) == "Adapted(Course)"


def test_the_size_of_its_output_is_its_own_answer():
    inner = Course(2, 3)
    with pytest.raises(TypeError, match=r"Course has no output_size"):
        adapt(inner).output_size((4, 5))
    inner.output_size = lambda size: [size[0] // 2, size[1]]
    assert adapt(inner).output_size((4, 5)) == (2, 5)
