"""The mean squared error: value and gradient against PyTorch."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name)
from variants import DTYPES

from scratch_dl.nn import MSELoss


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 3, 5, 4), (7,), ()], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_and_gradient_match_pytorch(reduction, shape, dtype, draw, assert_near):
    x, target = draw(*shape, dtype=dtype), draw(*shape, dtype=dtype)
    twin = x.clone().requires_grad_()
    expected = F.mse_loss(twin, target, reduction=reduction)
    expected.backward()
    loss = MSELoss(reduction)
    assert_near(loss(x, target), expected, "loss")
    assert_near(loss.backward(), twin.grad, "gradient")


def test_the_mean_is_the_default_and_counts_every_number():
    """The course's fault F12: not divided by the batch, or by the batch alone. Here 2 (3 - 1) / 12 and 2 (3 - 1)."""
    x, target = torch.full((2, 3, 2), 3.0), torch.ones(2, 3, 2)
    loss = MSELoss()
    assert loss(x, target) == 4
    torch.testing.assert_close(loss.backward(), torch.full((2, 3, 2), 1 / 3))
    loss = MSELoss("sum")
    assert loss(x, target) == 48
    assert torch.equal(loss.backward(), torch.full((2, 3, 2), 4.0))


def test_the_loss_is_a_scalar_that_later_calls_do_not_change(draw):
    loss = MSELoss()
    first = loss(draw(2, 3), draw(2, 3))
    kept = first.clone()
    grad = loss.backward()
    kept_grad = grad.clone()
    loss(draw(2, 3), draw(2, 3))
    loss.backward().fill_(7)
    assert first.shape == ()
    assert torch.equal(first, kept)
    assert torch.equal(grad, kept_grad)


def test_input_and_target_stay_and_may_be_reused_before_the_backward(draw):
    x, target = draw(2, 3), draw(2, 3)
    kept_x, kept_target = x.clone(), target.clone()
    loss = MSELoss("sum")
    loss(x, target)
    assert torch.equal(x, kept_x)
    assert torch.equal(target, kept_target)
    x.zero_()
    target.zero_()
    assert torch.equal(loss.backward(), 2 * (kept_x - kept_target))


def test_strided_and_expanded_inputs_match_their_copies(draw, assert_near):
    x, target = draw(4, 6)[::2, ::3], draw(2, 1).expand(2, 2)
    loss, copy = MSELoss(), MSELoss()
    assert_near(loss(x, target), copy(x.clone(), target.clone()))
    assert_near(loss.backward(), copy.backward())


def test_an_empty_batch_has_an_empty_gradient():
    """PyTorch's mean of nothing is nan, its sum 0."""
    loss = MSELoss()
    assert math.isnan(loss(torch.zeros(0, 3), torch.zeros(0, 3)))
    assert loss.backward().shape == (0, 3)
    assert MSELoss("sum")(torch.zeros(0, 3), torch.zeros(0, 3)) == 0


def test_each_forward_serves_one_backward():
    loss = MSELoss()
    with pytest.raises(RuntimeError, match=r"MSELoss.backward needs a MSELoss.forward before it"):
        loss.backward()
    loss(torch.ones(2), torch.zeros(2))
    loss.backward()
    with pytest.raises(RuntimeError, match=r"MSELoss.backward needs a MSELoss.forward before it"):
        loss.backward()
    loss.eval()
    loss(torch.ones(2), torch.zeros(2))
    with pytest.raises(RuntimeError, match=r"evaluation mode"):
        loss.backward()


@pytest.mark.parametrize("reduction", ["none", "Mean", None, 1, ["mean"]], ids=repr)
def test_an_unknown_reduction_is_refused(reduction):
    with pytest.raises(ValueError, match=r"reduction must be one of mean, sum, but got"):
        MSELoss(reduction)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        pytest.param(torch.ones(3), ValueError, r"input's shape \(2, 3\), but got \(3,\)", id="would-broadcast"),
        pytest.param(
            torch.ones(2, 1), ValueError, r"input's shape \(2, 3\), but got \(2, 1\)", id="would-broadcast-too"
        ),
        pytest.param(torch.ones(2, 3).double(), TypeError, r"target must be torch.float32", id="dtype"),
        pytest.param(torch.ones(2, 3).int(), TypeError, r"target must be a float32 or float64 tensor", id="integers"),
        pytest.param(1.0, TypeError, r"target must be a float32 or float64 tensor, but got float", id="number"),
    ],
)
def test_a_target_that_does_not_fit_is_refused(target, error, message):
    with pytest.raises(error, match=message):
        MSELoss()(torch.ones(2, 3), target)
