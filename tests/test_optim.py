"""Optimizers and clipping, step by step beside PyTorch's."""

import math
from itertools import product

import pytest
import torch

from scratch_dl.nn import Conv2d, Parameter
from scratch_dl.optim import SGD, Adam, clip_grad_norm
from scratch_dl.schedule import Cosine

SHAPES = [(3, 2), (3, 2), (4,), ()]  # two of one shape: a buffer of their own each

SGD_OPTIONS = [
    {"momentum": momentum, "weight_decay": decay, "nesterov": nesterov}
    for momentum, decay, nesterov in product((0.0, 0.9, 0.5), (0.0, 0.1), (False, True))
    if momentum or not nesterov
]
ADAM_OPTIONS = [
    {"betas": betas, "eps": eps, "weight_decay": decay}
    for betas, eps, decay in product(((0.9, 0.999), (0.0, 0.9), (0.5, 0.0)), (1e-8, 0.1), (0.0, 0.1))
]
OPTIONS = [
    *(pytest.param(SGD, torch.optim.SGD, options, id=f"sgd-{tuple(options.values())}") for options in SGD_OPTIONS),
    *(pytest.param(Adam, torch.optim.Adam, options, id=f"adam-{tuple(options.values())}") for options in ADAM_OPTIONS),
]
KEEPING = [  # each that keeps something; the first without a weight decay, which would make a tensor of its own
    pytest.param(lambda p, lr=0.1: SGD(p, lr, momentum=0.9), id="momentum"),
    pytest.param(lambda p, lr=0.1: SGD(p, lr, momentum=0.9, nesterov=True, weight_decay=0.01), id="nesterov"),
    pytest.param(lambda p, lr=0.1: Adam(p, lr, weight_decay=0.01), id="adam"),
]


@pytest.fixture
def draw(generator):
    return lambda shape, dtype=torch.float64: torch.randn(shape, generator=generator, dtype=dtype)


@pytest.fixture
def parameters(draw):
    return [Parameter(draw(shape)) for shape in SHAPES]


def copies(parameters):
    return [Parameter(p.value) for p in parameters]


def assert_equal(first, second):
    assert all(torch.equal(a.value, b.value) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("kind", "twin", "options"), OPTIONS)
def test_twenty_steps_match_pytorch_while_a_schedule_changes_the_rate(kind, twin, options, dtype, draw):
    ours = [Parameter(draw(shape, dtype)) for shape in SHAPES]
    theirs = [torch.nn.Parameter(p.value.clone()) for p in ours]
    optimizer, reference = kind(ours, lr=0.05, **options), twin(theirs, lr=0.05, **options)
    schedule, tolerance = Cosine(0.1), 1e-12 if dtype == torch.float64 else 1e-5
    for step in range(20):
        optimizer.lr = reference.param_groups[0]["lr"] = 0.05 * schedule.factor(step / 20)
        for parameter, other in zip(ours, theirs, strict=True):
            parameter.grad = draw(tuple(parameter.shape), dtype)
            other.grad = parameter.grad.clone()
        optimizer.step()
        reference.step()
        for parameter, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(
                parameter.value, other.detach(), rtol=tolerance, atol=tolerance, msg=f"step {step}"
            )


@pytest.mark.parametrize(("kind", "twin"), [(SGD, torch.optim.SGD), (Adam, torch.optim.Adam)])
def test_the_defaults_are_pytorchs(kind, twin, parameters, draw):
    theirs = [torch.nn.Parameter(p.value.clone()) for p in parameters]
    optimizer = kind(parameters) if kind is Adam else kind(parameters, 0.1)
    reference = twin(theirs) if kind is Adam else twin(theirs, 0.1)
    for _ in range(3):
        for parameter, other in zip(parameters, theirs, strict=True):
            parameter.grad = draw(tuple(parameter.shape))
            other.grad = parameter.grad.clone()
        optimizer.step()
        reference.step()
    for parameter, other in zip(parameters, theirs, strict=True):
        torch.testing.assert_close(parameter.value, other.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("build", KEEPING)
def test_parameters_of_one_shape_share_no_buffer(build, draw):
    """The course's fault F20: each moves as if it were alone."""
    together = [Parameter(torch.zeros(3, dtype=torch.float64)) for _ in range(2)]
    alone = copies(together)
    optimizers = [build(together), *(build([p]) for p in alone)]
    for _ in range(5):
        for parameter, other in zip(together, alone, strict=True):
            parameter.grad = draw(3)
            other.grad = parameter.grad
        for optimizer in optimizers:
            optimizer.step()
    assert_equal(together, alone)
    assert not torch.equal(together[0].value, together[1].value)


def run(optimizer, gradients):
    for grads in gradients:
        for parameter, grad in zip(optimizer.parameters, grads, strict=True):
            parameter.grad = grad
        optimizer.step()


@pytest.mark.parametrize("build", KEEPING)
def test_a_saved_state_goes_on_bit_for_bit(build, parameters, draw):
    gradients = [[draw(shape) for shape in SHAPES] for _ in range(10)]
    optimizer = build(parameters)
    optimizer.lr = 0.03
    run(optimizer, gradients[:4])
    state = optimizer.state_dict()
    resumed = copies(parameters)
    run(optimizer, gradients[4:])  # what is saved is not changed by going on
    other = build(resumed, 0.7)
    other.load_state_dict(state)
    assert other.lr == 0.03
    run(other, gradients[4:])
    assert_equal(resumed, parameters)
    again = copies(resumed)
    build(again).load_state_dict(state)  # nor by what has been loaded from it
    saved = [tensor for slots in state["state"] for tensor in slots.values()]
    loaded = [tensor for slots in other.state_dict()["state"] for tensor in slots.values()]
    assert saved
    assert all(not torch.equal(a, b) for a, b in zip(saved, loaded, strict=True))


def test_sgd_without_momentum_keeps_nothing_and_goes_on_from_its_state(parameters):
    optimizer = SGD(parameters, 0.1)
    for _ in range(2):
        optimizer.step()
    state = optimizer.state_dict()
    assert state["state"] == [{}] * len(parameters)
    again = SGD(parameters, 0.1)
    again.load_state_dict(state)
    assert again.steps == 2


@pytest.mark.parametrize("build", KEEPING)
def test_a_state_saved_before_the_first_step_is_that_of_a_new_optimizer(build, parameters, draw):
    gradients = [[draw(shape) for shape in SHAPES] for _ in range(3)]
    twins, optimizer = copies(parameters), build(parameters)
    fresh = build(twins)
    fresh.load_state_dict(optimizer.state_dict())
    run(optimizer, gradients)
    run(fresh, gradients)
    assert_equal(parameters, twins)


@pytest.mark.parametrize(("kind", "twin"), [(SGD, torch.optim.SGD), (Adam, torch.optim.Adam)])
def test_values_assigned_between_steps_are_what_the_next_step_starts_from(kind, twin, draw):
    parameter = Parameter(draw(3))
    other = torch.nn.Parameter(parameter.value.clone())
    options = {"lr": 0.1, "weight_decay": 0.1, **({"momentum": 0.9} if kind is SGD else {})}
    optimizer, reference = kind([parameter], **options), twin([other], **options)
    for _ in range(4):
        value, parameter.grad = draw(3), draw(3)
        parameter.value = value
        other.data, other.grad = value.clone(), parameter.grad.clone()
        optimizer.step()
        reference.step()
        torch.testing.assert_close(parameter.value, other.detach(), rtol=1e-12, atol=1e-12)


def test_a_step_uses_the_gradients_that_backward_added(draw):
    """The course's faults F6 and F3: an optimizer made before the backward holds what the backward writes to."""
    module = Conv2d(2, 3, 3).to(torch.float64)
    before = module.state_dict()
    optimizer = SGD(module.parameters(), 0.1)
    optimizer.zero_grad()
    module.backward(module(draw((2, 2, 5, 5))))
    grads = [p.grad.clone() for p in module.parameters()]
    optimizer.step()
    for value, old, grad in zip(module.state_dict().values(), before.values(), grads, strict=True):
        assert grad.any()
        torch.testing.assert_close(value, old - 0.1 * grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("build", KEEPING)
def test_a_step_leaves_gradients_and_assigned_tensors_alone(build, draw):
    value, grad = draw(3), draw(3)
    kept_value, kept_grad = value.clone(), grad.clone()
    parameter = Parameter(value)
    parameter.grad = grad
    optimizer = build([parameter])
    for _ in range(3):
        optimizer.step()
    assert torch.equal(parameter.grad, kept_grad)
    assert torch.equal(value, kept_value)
    assert torch.equal(grad, kept_grad)


@pytest.mark.parametrize("build", KEEPING)
def test_zero_grad_clears_every_parameter(build, parameters):
    for parameter in parameters:
        parameter.grad += 1
    build(parameters).zero_grad()
    assert all(not parameter.grad.any() for parameter in parameters)


@pytest.mark.parametrize("build", KEEPING)
def test_a_rate_of_zero_moves_nothing_and_parameters_may_come_from_an_iterator(build, parameters):
    before = copies(parameters)
    for parameter in parameters:
        parameter.grad += 1
    optimizer = build(iter(parameters), 0.0)
    optimizer.step()
    assert len(optimizer.parameters) == len(SHAPES)
    assert_equal(parameters, before)


def test_no_parameters_are_no_error():
    optimizer = SGD([], 0.1)
    optimizer.zero_grad()
    optimizer.step()
    assert clip_grad_norm([], 1.0) == 0


ONE = [Parameter(torch.zeros(2))]
REFUSED = [
    pytest.param(SGD, {"lr": -0.1}, ValueError, r"lr must be a finite number >= 0, but got -0\.1", id="lr-negative"),
    pytest.param(SGD, {"lr": math.nan}, ValueError, r"lr must be a finite number >= 0, but got nan", id="lr-nan"),
    pytest.param(SGD, {"lr": "0.1"}, TypeError, r"lr must be a finite number >= 0, but got '0\.1'", id="lr-text"),
    pytest.param(SGD, {"momentum": 1}, ValueError, r"momentum must be .*>= 0 and < 1, but got 1", id="momentum-one"),
    pytest.param(
        SGD, {"momentum": -0.1}, ValueError, r"momentum must be .*>= 0 and < 1, but got -0\.1", id="momentum-negative"
    ),
    pytest.param(
        SGD, {"weight_decay": -1}, ValueError, r"weight_decay must be .*>= 0, but got -1", id="decay-negative"
    ),
    pytest.param(
        SGD, {"nesterov": True}, ValueError, r"nesterov=True needs a momentum > 0, but got momentum=0", id="nesterov"
    ),
    pytest.param(SGD, {"nesterov": 1}, TypeError, r"nesterov must be true or false, but got 1", id="nesterov-number"),
    pytest.param(Adam, {"lr": math.inf}, ValueError, r"lr must be a finite number >= 0, but got inf", id="adam-lr-inf"),
    pytest.param(Adam, {"betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must be .*< 1, but got 1\.0", id="beta-one"),
    pytest.param(
        Adam, {"betas": (-0.1, 0.9)}, ValueError, r"betas\[0\] must be .*>= 0.*, but got -0\.1", id="beta-negative"
    ),
    pytest.param(Adam, {"betas": (0.9,)}, ValueError, r"betas must be two numbers, but got \(0\.9,\)", id="one-beta"),
    pytest.param(
        Adam, {"betas": 0.9}, (TypeError, ValueError), r"betas must be two numbers, but got 0\.9", id="beta-number"
    ),
    pytest.param(Adam, {"eps": -1e-8}, ValueError, r"eps must be .*>= 0, but got -1e-08", id="eps-negative"),
    pytest.param(Adam, {"weight_decay": None}, TypeError, r"weight_decay must be .*, but got None", id="decay-none"),
    pytest.param(SGD, {"parameters": ONE + ONE}, ValueError, r"parameters must be distinct", id="twice"),
    pytest.param(SGD, {"parameters": [torch.zeros(2)]}, TypeError, r"parameters must be .*\['Tensor'\]", id="tensors"),
    pytest.param(SGD, {"parameters": Conv2d(1, 1, 1)}, TypeError, r"parameters must be .*Conv2d", id="a-module"),
    pytest.param(SGD, {"parameters": ONE[0]}, TypeError, r"parameters must be .*Parameter", id="a-parameter"),
]


@pytest.mark.parametrize(("kind", "arguments", "error", "message"), REFUSED)
def test_a_bad_argument_is_named_with_its_value_and_the_rule(kind, arguments, error, message):
    with pytest.raises(error, match=message):
        kind(**{"parameters": ONE, "lr": 0.1, **arguments})


@pytest.mark.parametrize("build", KEEPING)
def test_a_bad_rate_set_later_is_refused_and_the_former_stays(build):
    optimizer = build(ONE)
    with pytest.raises(ValueError, match=r"lr must be a finite number >= 0, but got -1"):
        optimizer.lr = -1
    assert optimizer.lr == 0.1


def state_of(optimizer, steps=1):
    for parameter in optimizer.parameters:
        parameter.grad += 1
    for _ in range(steps):
        optimizer.step()
    return optimizer.state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda _: {}, r"state must be that of a Adam of 1 parameters", id="empty"),
        pytest.param(
            lambda s: {**s, "state": s["state"] * 2}, r"state must be that of a Adam of 1 parameters", id="of-two"
        ),
        pytest.param(lambda s: {**s, "more": 1}, r"state must be that of a Adam", id="unknown-entry"),
        pytest.param(
            lambda s: {**s, "state": [{"mean": torch.zeros(3), "square": torch.zeros(3)}]},
            r"'mean' of shape \(3,\)",
            id="shape",
        ),
        pytest.param(
            lambda s: {**s, "state": [{"velocity": torch.zeros(2)}]}, r"'velocity' of shape \(2,\)", id="another-kind"
        ),
        pytest.param(lambda s: {**s, "state": [{"mean": torch.zeros(2)}]}, r"state", id="half-of-it"),
        pytest.param(lambda s: {**s, "state": [{}]}, r"state", id="steps-without-state"),
        pytest.param(lambda s: {**s, "lr": -1}, r"lr must be a finite number >= 0, but got -1", id="lr"),
    ],
)
def test_a_state_of_another_optimizer_is_refused_and_changes_nothing(change, message):
    optimizer = Adam([Parameter(torch.zeros(2))], 0.2)
    state = state_of(Adam([Parameter(torch.zeros(2))], 0.1), 3)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(change(state))
    assert optimizer.state_dict() == {"lr": 0.2, "steps": 0, "state": [{}]}


# Clipping


@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e3], ids=["far-below", "below", "above"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_clipping_matches_pytorch(max_norm, dtype, draw):
    """PyTorch adds 1e-6 to the norm that it divides by."""
    ours = [Parameter(draw(shape, dtype)) for shape in SHAPES]
    theirs = [torch.nn.Parameter(p.value.clone()) for p in ours]
    for parameter, other in zip(ours, theirs, strict=True):
        parameter.grad = 2 * draw(tuple(parameter.shape), dtype)
        other.grad = parameter.grad.clone()
    norm = clip_grad_norm(iter(ours), max_norm)
    expected = float(torch.nn.utils.clip_grad_norm_(theirs, max_norm))
    assert norm == pytest.approx(expected, rel=1e-12 if dtype == torch.float64 else 1e-6)
    for parameter, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-6, atol=0)
    clipped = math.sqrt(sum(float(p.grad.double().square().sum()) for p in ours))
    assert clipped == pytest.approx(min(norm, max_norm), rel=1e-6)


def test_clipping_leaves_small_and_zero_gradients_bit_for_bit(parameters):
    assert clip_grad_norm(parameters, 1.0) == 0
    assert all(not p.grad.any() for p in parameters)
    parameters[0].grad += 1 / 3
    kept = parameters[0].grad.clone()
    assert clip_grad_norm(parameters, 10.0) == pytest.approx(math.sqrt(6) / 3)
    assert torch.equal(parameters[0].grad, kept)


@pytest.mark.parametrize(
    ("max_norm", "error"), [(-1, ValueError), (math.nan, ValueError), ("1", TypeError), (None, TypeError)], ids=repr
)
def test_clipping_at_what_is_no_norm_is_refused(max_norm, error):
    """A negative one would turn every gradient around."""
    parameter = Parameter(torch.ones(2))
    parameter.grad += 1
    with pytest.raises(error, match=r"max_norm must be .*, but got"):
        clip_grad_norm([parameter], max_norm)
