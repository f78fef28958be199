"""What every module promises: a cache for one backward, gradients that add up, tensors that stay, and parameters."""

import copy
import pickle

import pytest
import torch

from scratch_dl.nn import (
    Conv2d,
    ConvTranspose2d,
    Module,
    Observer,
    Parameter,
    ReLU,
    Sequential,
    Sigmoid,
    Skip,
    Upsampling,
    UpsamplingNearest2d,
    observing,
)
from scratch_dl.optim import SGD

# Every module once or more, as it takes (n, 3, 6, 5); all are float64.
MODULES = {
    "conv": lambda g: Conv2d(3, 4, (3, 2), (2, 1), 1, generator=g),
    "conv-fewer-outputs": lambda g: Conv2d(3, 2, 3, padding=1, generator=g),
    "conv-pointwise": lambda g: Conv2d(3, 4, 1, generator=g),
    "transposed": lambda g: ConvTranspose2d(3, 2, (3, 2), 2, 1, 1, generator=g),
    "transposed-stride-1": lambda g: ConvTranspose2d(3, 4, 3, padding=1, generator=g),
    "nearest": lambda _: UpsamplingNearest2d((2, 3)),
    "up-nearest": lambda g: Upsampling(3, 2, 4, generator=g),
    "up-nearest-factor-1": lambda g: Upsampling(3, 4, 3, 1, generator=g),
    "up-transposed": lambda g: Upsampling(3, 4, 3, mode="transposed", generator=g),
    "relu": lambda _: ReLU(),
    "sigmoid": lambda _: Sigmoid(),
    "sequential": lambda g: Sequential(
        Conv2d(3, 4, 3, 2, 1, generator=g), ReLU(), Upsampling(4, 3, 3, generator=g), Sigmoid()
    ),
    "skip-concatenate": lambda g: Skip(Conv2d(3, 2, 3, padding=1, generator=g)),
    "skip-add": lambda g: Skip(Sequential(Conv2d(3, 3, 3, padding=1, generator=g), Sigmoid()), "add"),
}
LEARNING = [name for name in MODULES if name not in ("nearest", "relu", "sigmoid")]
SIZE = (3, 6, 5)

LAYOUTS = {  # the same numbers, lying differently in memory
    "channels-last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "batch-last": lambda x: x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "strided": lambda x: torch.zeros(*(2 * side + 1 for side in x.shape), dtype=x.dtype)[1::2, ::2, 1::2, ::2][
        : x.shape[0], : x.shape[1], : x.shape[2], : x.shape[3]
    ].copy_(x),
    "backwards": lambda x: x.flip(3).contiguous().flip(3),
}


@pytest.fixture(params=list(MODULES))
def build(request):
    """A function that builds one and the same new module at each call, in float64."""
    return lambda: MODULES[request.param](torch.Generator().manual_seed(11)).to(torch.float64)


def grads(module):
    return [parameter.grad.clone() for parameter in module.parameters()]


def equal(first, second):
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# The cache: row N1 of the reliability table


def test_a_forward_of_another_batch_in_between_leaves_no_trace(build, draw):
    module, fresh = build(), build()
    a, b = draw(4, *SIZE), draw(2, *SIZE)
    module(a)
    z = module(b)
    g = draw(*z.shape)
    assert torch.equal(z, fresh(b))
    assert torch.equal(module.backward(g), fresh.backward(g))
    assert equal(grads(module), grads(fresh))


def test_backward_needs_a_forward_of_its_own(build, draw):
    module = build()
    z = build()(draw(2, *SIZE))
    with pytest.raises(
        RuntimeError, match=r"backward needs a \w+\.forward before it \(each forward serves one backward\)"
    ):
        module.backward(z)
    module(draw(2, *SIZE))
    module.backward(z)
    before = grads(module)
    with pytest.raises(
        RuntimeError, match=r"backward needs a \w+\.forward before it \(each forward serves one backward\)"
    ):
        module.backward(z)
    assert equal(grads(module), before)


def test_evaluation_keeps_nothing_and_computes_the_same(build, draw):
    module, x = build(), draw(2, *SIZE)
    z = module(x)
    assert module.eval() is module
    assert all(inner._cache is None for _, inner in module.named_modules())
    assert torch.equal(module(x), z)
    assert all(inner._cache is None and not inner.training for _, inner in module.named_modules())
    with pytest.raises(RuntimeError, match=r"in evaluation mode a forward keeps nothing"):
        module.backward(z)
    module.train()
    assert all(inner.training for _, inner in module.named_modules())
    module(x)
    module.backward(z)


def test_switching_to_evaluation_and_back_forgets_the_forward(build, draw):
    module = build()
    z = module(draw(2, *SIZE))
    module.eval().train()
    with pytest.raises(RuntimeError, match=r"each forward serves one backward"):
        module.backward(z)


@pytest.mark.parametrize("kind", ["conv", "transposed", "up-nearest", "up-nearest-factor-1", "up-transposed"])
def test_an_input_changed_in_place_before_the_backward_is_an_error(kind, generator, draw):
    """What has been changed would give a wrong gradient without a word."""
    module, x = MODULES[kind](generator).to(torch.float64), draw(2, *SIZE)
    z = module(x)
    x[0, 0, 0, 0] = 7
    with pytest.raises(RuntimeError, match=r"kept for its backward was changed in place"):
        module.backward(z)
    module.backward(module(x))  # and the next forward starts anew


@pytest.mark.parametrize("kind", ["nearest", "relu", "sigmoid"])
def test_an_input_that_the_backward_does_not_need_may_be_changed(kind, draw):
    module, fresh = (MODULES[kind](torch.Generator().manual_seed(11)).to(torch.float64) for _ in range(2))
    x = draw(2, *SIZE)
    z = fresh(x)
    module(x)
    kept = fresh.backward(z)
    x.fill_(torch.nan)
    assert torch.equal(module.backward(z), kept)
    assert equal(grads(module), grads(fresh))


@pytest.mark.parametrize("kind", [ReLU, Sigmoid])
def test_an_output_changed_in_place_is_an_error_where_the_backward_needs_it(kind, draw):
    module = kind()
    z = module(draw(2, 3))
    z += 1
    with pytest.raises(RuntimeError, match=rf"{kind.__name__}.forward kept for its backward was changed in place"):
        module.backward(z)


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["deepcopy", "pickle"]
)
def test_a_copy_has_forgotten_the_forward_and_goes_on_alone(build, clone, draw):
    module, fresh = build(), build()
    x, y = draw(2, *SIZE), draw(2, *SIZE)
    z = module(x)
    twin = clone(module)
    with pytest.raises(RuntimeError, match=r"each forward serves one backward"):
        twin.backward(z)
    twin(y)
    fresh(x)
    assert torch.equal(module.backward(z), fresh.backward(z))
    assert equal(grads(module), grads(fresh))
    assert all(not p.grad.any() for p in twin.parameters())
    fresh(y)
    assert torch.equal(twin.backward(z), fresh.backward(z))


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_has_no_observers(clone, build):
    """Nor has the state; and one module's observers are no other's."""
    module, keys = build(), list(build().state_dict())
    with observing((inner, Observer()) for _, inner in module.named_modules()):
        assert all(inner.observers for _, inner in module.named_modules())
        assert not any(inner.observers for whole in (build(), clone(module)) for _, inner in whole.named_modules())
        assert list(module.state_dict()) == keys
    assert not any(inner.observers for _, inner in module.named_modules())


# Gradients: row N2


def test_gradients_add_up_over_two_backwards_and_zero_grad_clears_all(build, draw):
    module, first, second = build(), build(), build()
    (a, b), shape = (draw(2, *SIZE), draw(2, *SIZE)), build()(draw(2, *SIZE)).shape
    g, h = draw(*shape), draw(*shape)
    for x, y, single in ((a, g, first), (b, h, second)):
        single(x)
        single.backward(y)
        module(x)
        module.backward(y)
    for total, one, two in zip(grads(module), grads(first), grads(second), strict=True):
        torch.testing.assert_close(total, one + two, rtol=1e-12, atol=1e-12)
        assert one.any()
        assert two.any()
    module.zero_grad()
    assert all(not p.grad.any() for p in module.parameters())
    assert all(p.grad is not None and p.grad.shape == p.value.shape for p in module.parameters())


def test_the_backward_is_linear(build, draw):
    """backward(0) is 0 and backward(-2 g) is -2 backward(g), in the input's and in every parameter's gradient."""
    module, x = build(), draw(2, *SIZE)
    g = draw(*module(x).shape)
    results = []
    for scale in (1.0, -2.0, 0.0):
        module.zero_grad()
        module(x)
        results.append([module.backward(scale * g), *grads(module)])
    for one, minus_two, none in zip(*results, strict=True):
        torch.testing.assert_close(minus_two, -2 * one, rtol=1e-12, atol=1e-12)
        assert one.any()
        assert not none.any()


def test_a_network_without_gradients_yet_has_zeros_of_each_shape(build):
    for parameter in build().parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter.value))


# Tensors that come in


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tensor_lying_differently_in_memory_gives_the_same(build, layout, draw, assert_near):
    module, plain = build(), build()
    x = draw(3, *SIZE)
    z = plain(x)
    g = draw(*z.shape)
    expected = plain.backward(g)
    assert_near(module(LAYOUTS[layout](x)), z, "output")
    assert_near(module.backward(LAYOUTS[layout](g)), expected, "gradient of the input")
    for ours, theirs in zip(grads(module), grads(plain), strict=True):
        assert_near(ours, theirs, "gradient of a parameter")


def test_an_expanded_tensor_gives_what_its_copy_gives(build, draw, assert_near):
    module, plain = build(), build()
    x = draw(1, 3, 1, 5).expand(4, *SIZE)
    z = plain(x.clone(memory_format=torch.contiguous_format))
    g = draw(1, z.shape[1], 1, 1).expand(z.shape)
    expected = plain.backward(g.clone(memory_format=torch.contiguous_format))
    assert_near(module(x), z, "output")
    assert_near(module.backward(g), expected, "gradient of the input")
    for ours, theirs in zip(grads(module), grads(plain), strict=True):
        assert_near(ours, theirs, "gradient of a parameter")


@pytest.mark.parametrize("layout", ["plain", "channels-last"])
def test_no_input_and_no_upstream_gradient_is_changed(build, layout, draw):
    module = build()
    x = LAYOUTS.get(layout, torch.clone)(draw(2, *SIZE))
    kept_x = x.clone()
    g = LAYOUTS.get(layout, torch.clone)(draw(*module(x).shape))
    kept_g = g.clone()
    values = [p.value.clone() for p in module.parameters()]
    module.backward(g)
    assert torch.equal(x, kept_x)
    assert torch.equal(g, kept_g)
    assert equal([p.value for p in module.parameters()], values)


def test_an_empty_batch_has_an_empty_output_and_zero_gradients(build, draw):
    module = build()
    shape = build()(draw(1, *SIZE)).shape
    z = module(draw(0, *SIZE))
    assert z.shape == (0, *shape[1:])
    assert module.backward(z).shape == (0, *SIZE)
    assert equal(grads(module), [torch.zeros_like(p.value) for p in module.parameters()])


def test_every_sample_of_a_batch_is_treated_as_if_alone(build, draw, assert_near):
    module, single = build(), build()
    x = draw(3, *SIZE)
    z = module(x)
    g = draw(*z.shape)
    grad = module.backward(g)
    for i in range(3):
        assert_near(z[i : i + 1], single(x[i : i + 1]), "output")
        assert_near(grad[i : i + 1], single.backward(g[i : i + 1]), "gradient of the input")
    for ours, theirs in zip(grads(module), grads(single), strict=True):
        assert_near(ours, theirs, "sum of the gradients")


# Tensors that go out


def test_what_a_caller_keeps_is_never_overwritten(build, draw):
    module = build()
    kept = []
    for _ in range(3):
        z = module(draw(2, *SIZE))
        results = z, module.backward(draw(*z.shape)), *module.state_dict().values()
        kept += [(tensor, tensor.clone()) for tensor in results]
        if module.parameters():
            SGD(module.parameters(), 0.1).step()
    for tensor, copied in kept:
        assert torch.equal(tensor, copied)


def test_what_a_caller_writes_into_a_result_changes_no_later_one(build, draw):
    module, fresh, x = build(), build(), draw(2, *SIZE)
    g = draw(*module(x).shape)
    module.backward(g).fill_(torch.nan)
    module.eval()(x).fill_(torch.nan)
    for value in module.state_dict().values():
        value.fill_(torch.nan)
    module.zero_grad()
    assert torch.equal(module.train()(x), fresh(x))
    assert torch.equal(module.backward(g), fresh.backward(g))
    assert equal(grads(module), grads(fresh))


def test_an_output_has_memory_of_its_own(build, draw):
    """Writing into it changes no input, and reusing the input's buffer does not change it."""
    module = build().eval()
    for x in (draw(2, *SIZE), LAYOUTS["channels-last"](draw(2, *SIZE))):
        kept_x = x.clone()
        z = module(x)
        kept = z.clone()
        x.zero_()
        assert torch.equal(z, kept)
        x.copy_(kept_x)
        z.zero_()
        assert torch.equal(x, kept_x)


# Parameters


@pytest.mark.parametrize("name", ["value", "grad"])
@pytest.mark.parametrize(
    ("assigned", "error", "message"),
    [
        pytest.param(
            torch.ones(3), ValueError, r"must have the parameter's shape \(2, 3\), but got \(3,\)", id="broadcast"
        ),
        pytest.param(
            torch.ones(3, 2), ValueError, r"must have the parameter's shape \(2, 3\), but got \(3, 2\)", id="turned"
        ),
        pytest.param(
            torch.ones(2, 3, dtype=torch.int64), TypeError, r"float32 or float64 tensor, but got torch.int64", id="int"
        ),
        pytest.param(
            torch.ones(2, 3).half(), TypeError, r"float32 or float64 tensor, but got torch.float16", id="half"
        ),
        pytest.param([[1.0] * 3] * 2, TypeError, r"float32 or float64 tensor, but got list", id="list"),
        pytest.param(None, TypeError, r"float32 or float64 tensor, but got NoneType", id="none"),
    ],
)
def test_what_cannot_be_a_value_or_gradient_is_refused(name, assigned, error, message):
    parameter = Parameter(torch.zeros(2, 3))
    with pytest.raises(error, match=rf"{name} must be a .*{message}" if error is TypeError else f"{name} {message}"):
        setattr(parameter, name, assigned)
    assert torch.equal(getattr(parameter, name), torch.zeros(2, 3))


@pytest.mark.parametrize(
    "value", [[1.0], 1.0, None, torch.ones(2, dtype=torch.int32)], ids=["list", "float", "none", "int"]
)
def test_a_parameter_of_what_is_no_float_tensor_is_refused(value):
    with pytest.raises(TypeError, match=r"value must be a float32 or float64 tensor, but got"):
        Parameter(value)


@pytest.mark.parametrize(
    "tensor", [torch.ones(1).expand(3), torch.ones(6)[::2], torch.ones(3)], ids=["expanded", "strided", "plain"]
)
def test_what_is_given_and_assigned_is_copied(tensor):
    parameter = Parameter(tensor)
    parameter.value += torch.arange(3.0)
    assert torch.equal(parameter.value, torch.arange(1.0, 4.0))
    parameter.value, parameter.grad = tensor, tensor
    SGD([parameter], 0.5).step()
    parameter.grad += torch.arange(3.0)
    assert torch.equal(parameter.value, torch.full((3,), 0.5))
    assert torch.equal(parameter.grad, torch.arange(1.0, 4.0))
    assert torch.equal(tensor, torch.ones(3))


def test_what_is_read_is_live_and_can_be_changed_in_place():
    parameter = Parameter(torch.zeros(3))
    value, grad = parameter.value, parameter.grad
    parameter.value[0] = 2
    parameter.grad[1] = 3
    parameter.value += 1
    parameter.grad *= 2
    assert parameter.value is value
    assert parameter.grad is grad
    assert torch.equal(value, torch.tensor([3.0, 1.0, 1.0]))
    assert torch.equal(grad, torch.tensor([0.0, 6.0, 0.0]))


def test_a_value_that_requires_grad_or_comes_from_a_view_is_taken_as_numbers():
    parameter = Parameter(torch.ones(2, requires_grad=True))
    assert not parameter.value.requires_grad
    parameter.value = torch.full((2,), 2.0, requires_grad=True) * 3
    assert not parameter.value.requires_grad
    assert torch.equal(parameter.value, torch.full((2,), 6.0))


@pytest.mark.parametrize("kind", [name for name in LEARNING if "skip" not in name and name != "sequential"])
def test_an_assigned_value_is_what_forward_backward_and_step_use(kind, generator, draw, assert_near):
    """float64 into a float32 module, at first; then a new value between a forward and its backward."""
    module, reference = MODULES[kind](generator), MODULES[kind](generator).to(torch.float64)
    for parameter, other in zip(module.parameters(), reference.parameters(), strict=True):
        parameter.value = other.value
        assert parameter.value.dtype == parameter.grad.dtype == torch.float64
    x = draw(2, *SIZE)
    z = module(x)
    g = draw(*z.shape)
    assert torch.equal(z, reference(x))
    assert torch.equal(module.backward(g), reference.backward(g))
    assert equal(grads(module), grads(reference))

    new = 3 * module.weight.value
    SGD(module.parameters(), 0.1).step()
    module.weight.value = new
    assert_near(module(x) - module(torch.zeros_like(x)), 3 * (z - reference(torch.zeros_like(x))), "output")

    module(x)
    module.weight.value = 2 * new
    assert_near(module.backward(g), 6 * reference_grad(reference, x, g), "gradient of the input")

    module.weight.grad, before = torch.full_like(new, 5.0), module.weight.value.clone()
    SGD([module.weight], 0.1).step()
    assert_near(module.weight.value, before - 0.5, "value after a step")


def reference_grad(module, x, g):
    module(x)
    return module.backward(g)


def test_a_float64_gradient_assigned_to_a_float32_parameter_is_used_by_the_next_step():
    parameter = Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([1.0, 2.0], dtype=torch.float64)
    SGD([parameter], 0.5, momentum=0.9).step()
    assert torch.equal(parameter.value, torch.tensor([-0.5, -1.0]))


def test_a_backward_adds_to_an_assigned_gradient(draw):
    module = Conv2d(3, 2, 1).to(torch.float64)
    module.bias.grad = torch.tensor([10.0, 20.0], dtype=torch.float64)
    z = module(draw(2, *SIZE))
    module.backward(torch.ones_like(z))
    assert torch.equal(module.bias.grad, torch.tensor([70.0, 80.0], dtype=torch.float64))


# Names, state and dtype


def test_parameters_keep_their_identity_through_every_change(build):
    """The course's fault F6: an optimizer that holds the objects of before sees every later gradient and value."""
    module = build()
    held = module.parameters()
    module.zero_grad()
    module.load_state_dict(module.state_dict())
    module.to(torch.float32).to(torch.float64)
    assert [id(p) for p in module.parameters()] == [id(p) for p in held]


def test_state_comes_back_bit_for_bit(build, draw):
    module, other, x = build(), build(), draw(2, *SIZE)
    z = module(x)
    state = module.state_dict()
    for parameter in other.parameters():
        parameter.value.normal_()
    other.load_state_dict(state)
    assert torch.equal(other(x), z)
    for parameter in other.parameters():
        parameter.value.zero_()
    assert equal(list(state.values()), [p.value for p in module.parameters()])


def test_loading_keeps_the_modules_own_dtype():
    module = Conv2d(2, 3, 3)
    module.load_state_dict(Conv2d(2, 3, 3).to(torch.float64).state_dict())
    assert module.weight.value.dtype == torch.float32


STATES = [
    pytest.param(
        lambda s: {"weight": s["weight"]}, ValueError, r"lacks the entry 'bias' of shape \(3,\)", id="missing"
    ),
    pytest.param(lambda _: {}, ValueError, r"lacks the entry 'weight' of shape \(3, 2, 3, 3\)", id="empty"),
    pytest.param(
        lambda s: {**s, "wieght": s["weight"]},
        ValueError,
        r"unknown entry 'wieght'; did you mean 'weight'",
        id="unknown",
    ),
    pytest.param(
        lambda s: {**s, "bias": torch.ones(1)},
        ValueError,
        r"state\['bias'\] must have shape \(3,\), but got \(1,\)",
        id="shape",
    ),
    pytest.param(
        lambda s: {**s, "bias": [1.0, 2.0, 3.0]}, TypeError, r"state\['bias'\] must be a .*tensor.* list", id="list"
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), STATES)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change, error, message):
    module = Conv2d(2, 3, 3)
    before = module.state_dict()
    with pytest.raises(error, match=message):
        module.load_state_dict(change({name: value + 1 for name, value in before.items()}))
    assert equal(list(module.state_dict().values()), list(before.values()))


def test_to_converts_values_and_gradients_and_forgets_the_forward(build, draw):
    module = build()
    z = module(draw(2, *SIZE))
    module.backward(z)
    before = grads(module)
    module(draw(2, *SIZE))
    assert module.to(torch.float32) is module
    assert all(p.value.dtype == p.grad.dtype == torch.float32 for p in module.parameters())
    assert equal(grads(module), [grad.float() for grad in before])
    with pytest.raises(RuntimeError, match=r"each forward serves one backward"):
        module.backward(z)
    assert module(draw(2, *SIZE, dtype=torch.float32)).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32, "float64"], ids=str)
def test_to_another_dtype_than_float32_and_float64_is_refused(dtype):
    with pytest.raises(TypeError, match=r"dtype must be torch.float32 or torch.float64, but got"):
        Conv2d(1, 1, 1).to(dtype)


def test_evaluation_mode_survives_a_conversion():
    assert not Conv2d(1, 1, 1).eval().to(torch.float64).training


def test_repr_says_what_the_module_is():
    net = Sequential({"conv": Conv2d(2, 3, 3, stride=2), "skip": Skip(ReLU(), "add")})
    assert repr(net).startswith("Sequential(\n  (conv): Conv2d(2, 3, kernel_size=(3, 3), stride=(2, 2)")
    assert "(inner): ReLU()" in repr(net)
    assert repr(Upsampling(2, 3, 3)).startswith(
        "Upsampling(2, 3, kernel_size=(3, 3), scale_factor=(2, 2), padding='same'"
    )
    assert repr(Parameter(torch.zeros(2))) == "Parameter(shape=(2,), dtype=torch.float32)"


class Scale(Module):
    """A module of a user's: Z = a X."""

    def __init__(self, a):
        self.a = Parameter(torch.tensor(a))

    def forward(self, input):
        self._keep(input)
        return input * self.a.value

    def backward(self, grad_output):
        (input,) = self._take()
        self.a.grad += (grad_output * input).sum()
        return grad_output * self.a.value


def test_a_module_written_by_a_user_trains_among_the_others():
    net = Sequential({"scale": Scale(2.0), "relu": ReLU()})
    net(torch.tensor([1.0, -1.0, 3.0]))
    assert torch.equal(net.backward(torch.ones(3)), torch.tensor([2.0, 0.0, 2.0]))
    assert net.scale.a.grad == 4
    SGD(net.parameters(), 0.1).step()
    assert net.state_dict()["scale.a"] == pytest.approx(1.6)


def test_a_tensor_that_requires_a_gradient_is_taken_as_its_numbers(build, draw):
    """No autograd graph gets in: neither into what is returned nor into the gradients."""
    module, plain = build(), build()
    input = draw(2, *SIZE)
    output, expected = module(input.clone().requires_grad_()), plain(input)
    upstream = torch.randn_like(expected)
    grad_input = module.backward(upstream.clone().requires_grad_())
    assert torch.equal(output, expected)
    assert torch.equal(grad_input, plain.backward(upstream))
    assert not any(t.requires_grad for t in [output, grad_input, *(p.grad for p in module.parameters())])
