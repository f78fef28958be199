"""Activations: values and gradients against PyTorch, and to the last bits, where floats end as well."""

import math

import pytest
import torch
from variants import DTYPES

from scratch_dl.nn import ReLU, Sigmoid

PAIRS = [pytest.param(ReLU, torch.relu, id="relu"), pytest.param(Sigmoid, torch.sigmoid, id="sigmoid")]
SHAPES = [(), (7,), (0,), (3, 5), (2, 3, 4, 5), (2, 0, 3)]
EDGES = [math.nan, math.inf, -math.inf, 1e4, -1e4, 0.0, -0.0, 1.0, -1.0, 17.0, -17.0, 40.0, -40.0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("kind", "function"), PAIRS)
def test_output_and_gradient_match_pytorch_for_any_shape(kind, function, shape, dtype, draw, assert_matches_autograd):
    assert_matches_autograd(kind(), lambda x, _: function(x), draw(*shape, dtype=dtype) * 3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", EDGES)
@pytest.mark.parametrize(("kind", "function"), PAIRS)
def test_output_and_gradient_match_pytorch_where_floats_end(kind, function, value, dtype):
    """Alone and among others: vectorised code may treat the two differently."""
    for size in (1, 37):
        x = torch.full((size,), value, dtype=dtype, requires_grad=True)
        grad_output = torch.full((size,), -1.5, dtype=dtype)
        expected = function(x)
        expected.backward(grad_output)
        module = kind()
        z = module(x.detach())
        close = {"rtol": 4 * torch.finfo(dtype).eps, "atol": torch.finfo(dtype).tiny, "equal_nan": True}
        torch.testing.assert_close(z, expected.detach(), **close)
        torch.testing.assert_close(module.backward(grad_output), x.grad, **close)


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_is_exact_at_denormals_and_passes_the_gradient_where_they_are_positive(dtype):
    tiny = torch.finfo(dtype).smallest_normal / 1024
    x = torch.tensor([tiny, -tiny, 0.0, -0.0], dtype=dtype)
    module = ReLU()
    assert torch.equal(module(x), torch.tensor([tiny, 0, 0, 0], dtype=dtype))
    assert torch.equal(module.backward(torch.full((4,), 2.0, dtype=dtype)), torch.tensor([2.0, 0, 0, 0], dtype=dtype))


def test_relus_mask_is_the_inputs_sign_and_not_the_gradients():
    """The course's faults F7 and F8: all four combinations of the two signs."""
    module = ReLU()
    module(torch.tensor([2.0, 3.0, -2.0, -3.0]))
    assert torch.equal(module.backward(torch.tensor([5.0, -7.0, 5.0, -7.0])), torch.tensor([5.0, -7.0, 0.0, 0.0]))


def test_relu_shuts_out_an_infinite_gradient():
    """A mask applied by multiplication would make 0 * inf = nan of it."""
    module = ReLU()
    module(torch.tensor([-1.0, 1.0]))
    assert torch.equal(module.backward(torch.tensor([math.inf, math.inf])), torch.tensor([0.0, math.inf]))


def test_sigmoid_is_right_to_a_few_units_in_the_last_place_in_both_tails():
    x = torch.linspace(-708, 60, 4001, dtype=torch.float64)
    exact = [math.exp(v) / (1 + math.exp(v)) if v < 0 else 1 / (1 + math.exp(-v)) for v in x.tolist()]
    for z, expected in zip(Sigmoid()(x).tolist(), exact, strict=True):
        assert abs(z - expected) <= 4 * math.ulp(expected), f"{z!r} is not {expected!r}"


def test_sigmoid_in_float32_is_right_to_a_few_units_in_the_last_place_in_both_tails():
    x = torch.linspace(-87, 20, 20_001)
    exact = 1 / (1 + (-x.double()).exp())
    unit = torch.finfo(torch.float32).eps
    error = ((Sigmoid()(x).double() - exact) / exact).abs().max()
    assert error <= 3 * unit, f"a relative error of {error / unit:.2f} units"


@pytest.mark.parametrize("dtype", DTYPES)
def test_sigmoid_is_finite_within_its_range_and_rises_for_every_finite_float(dtype):
    largest = torch.finfo(dtype).max
    x = torch.tensor([-largest, -1e30, -1e4, -800, -100, -1, 0, 1, 100, 800, 1e4, 1e30, largest], dtype=dtype)
    module = Sigmoid()
    z = module(x)
    assert ((z >= 0) & (z <= 1)).all()
    assert (z.diff() >= 0).all()
    assert z[6] == 0.5
    grad = module.backward(torch.ones_like(x))
    assert ((grad >= 0) & (grad <= 0.25)).all()


def test_the_gradient_of_sigmoid_scales_with_the_upstream_gradient():
    """The course's fault F1: sigma' at the incoming gradient gives 0.25 for every small one. 0 must give 0."""
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)
    module = Sigmoid()
    z = module(x)
    assert not module.backward(torch.zeros_like(x)).any()
    for scale in (1e-5, 1.0, -2.0):
        module(x)
        torch.testing.assert_close(module.backward(torch.full_like(x, scale)), scale * z * (1 - z), rtol=1e-14, atol=0)


@pytest.mark.parametrize("kind", [ReLU, Sigmoid])
@pytest.mark.parametrize(
    ("input", "got"),
    [
        pytest.param(torch.ones(2, dtype=torch.int64), "torch.int64", id="integers"),
        pytest.param(torch.ones(2, dtype=torch.float16), "torch.float16", id="half"),
        pytest.param([1.0], "list", id="list"),
    ],
)
def test_what_is_no_float32_or_float64_tensor_is_refused(kind, input, got):
    with pytest.raises(TypeError, match=f"input must be a float32 or float64 tensor, but got {got}"):
        kind()(input)


@pytest.mark.parametrize("kind", [ReLU, Sigmoid])
def test_a_gradient_of_another_shape_or_dtype_is_refused(kind):
    module = kind()
    module(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"grad_output must have the output's shape \(2, 3\), but got \(3,\)"):
        module.backward(torch.ones(3))
    module(torch.ones(2, 3))
    with pytest.raises(TypeError, match=r"grad_output must be torch.float32 as the output is, but got torch.float64"):
        module.backward(torch.ones(2, 3).double())
