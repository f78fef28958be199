"""The losses: value and gradient against PyTorch, at their kinks too."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name)
from variants import DTYPES

from scratch_dl.nn import CharbonnierLoss, L1Loss, MSELoss


def charbonnier(eps):
    """By the definition in PyTorch's differentiable arithmetic, which has no such loss."""

    def function(x, target, reduction):
        each = ((x - target) ** 2 + eps**2) ** 0.5
        return each.mean() if reduction == "mean" else each.sum()

    return function


LOSSES = [
    pytest.param(MSELoss, F.mse_loss, id="mse"),
    pytest.param(L1Loss, F.l1_loss, id="l1"),
    pytest.param(CharbonnierLoss, charbonnier(1e-3), id="charbonnier"),
    pytest.param(lambda reduction="mean": CharbonnierLoss(0.5, reduction), charbonnier(0.5), id="charbonnier-0.5"),
]
KINDS = pytest.mark.parametrize("kind", [MSELoss, L1Loss, CharbonnierLoss])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 3, 5, 4), (7,), ()], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("make", "function"), LOSSES)
def test_loss_and_gradient_match_pytorch(make, function, reduction, shape, dtype, draw, assert_near):
    x, target = draw(*shape, dtype=dtype), draw(*shape, dtype=dtype)
    twin = x.clone().requires_grad_()
    expected = function(twin, target, reduction=reduction)
    expected.backward()
    loss = make(reduction=reduction)
    assert_near(loss(x, target), expected, "loss")
    assert_near(loss.backward(), twin.grad, "gradient")


@pytest.mark.parametrize(("make", "function"), LOSSES)
def test_where_output_and_target_agree_the_gradient_is_pytorchs_zero(make, function, draw, assert_near):
    """At the kink of the absolute error, where only a convention says what the derivative is; beside other numbers."""
    x = draw(2, 3, 4)
    target = torch.where(draw(2, 3, 4) > 0, x, draw(2, 3, 4))
    twin = x.clone().requires_grad_()
    function(twin, target, reduction="mean").backward()
    loss = make()
    loss(x, target)
    grad = loss.backward()
    assert_near(grad, twin.grad)
    assert bool((x == target).any())
    assert not bool(grad[x == target].any())


def test_the_mean_is_the_default_and_counts_every_number():
    """The course's fault F12: not divided by the batch, or by the batch alone. Here 2 (3 - 1) / 12 and 2 (3 - 1)."""
    x, target = torch.full((2, 3, 2), 3.0), torch.ones(2, 3, 2)
    loss = MSELoss()
    assert loss(x, target) == 4
    torch.testing.assert_close(loss.backward(), torch.full((2, 3, 2), 1 / 3))
    loss = MSELoss("sum")
    assert loss(x, target) == 48
    assert torch.equal(loss.backward(), torch.full((2, 3, 2), 4.0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_charbonnier_is_eps_at_a_perfect_output_and_the_absolute_error_far_from_it(dtype):
    x = torch.full((2, 3), 0.25, dtype=dtype)
    loss = CharbonnierLoss()
    assert float(loss(x, x)) == pytest.approx(1e-3, rel=1e-6)
    assert float(loss(x, x + 100)) == pytest.approx(100, rel=1e-6)
    torch.testing.assert_close(loss.backward(), torch.full((2, 3), -1 / 6, dtype=dtype))
    assert float(CharbonnierLoss(1e-12)(x, x)) == pytest.approx(1e-12, rel=1e-6)


@KINDS
def test_the_loss_is_a_scalar_that_later_calls_do_not_change(kind, draw):
    loss = kind()
    first = loss(draw(2, 3), draw(2, 3))
    kept = first.clone()
    grad = loss.backward()
    kept_grad = grad.clone()
    loss(draw(2, 3), draw(2, 3))
    loss.backward().fill_(7)
    assert first.shape == ()
    assert torch.equal(first, kept)
    assert torch.equal(grad, kept_grad)


@KINDS
def test_input_and_target_stay_and_may_be_reused_before_the_backward(kind, draw):
    x, target = draw(2, 3), draw(2, 3)
    kept_x, kept_target = x.clone(), target.clone()
    loss, other = kind(reduction="sum"), kind()
    loss(x, target)
    assert torch.equal(x, kept_x)
    assert torch.equal(target, kept_target)
    x.zero_()
    target.zero_()
    other(kept_x, kept_target)
    torch.testing.assert_close(loss.backward(), 6 * other.backward())


@KINDS
def test_strided_and_expanded_inputs_match_their_copies(kind, draw, assert_near):
    x, target = draw(4, 6)[::2, ::3], draw(2, 1).expand(2, 2)
    loss, copy = kind(), kind()
    assert_near(loss(x, target), copy(x.clone(), target.clone()))
    assert_near(loss.backward(), copy.backward())


@KINDS
def test_an_empty_batch_has_an_empty_gradient(kind):
    """PyTorch's mean of nothing is nan, its sum 0."""
    loss = kind()
    assert math.isnan(loss(torch.zeros(0, 3), torch.zeros(0, 3)))
    assert loss.backward().shape == (0, 3)
    assert kind(reduction="sum")(torch.zeros(0, 3), torch.zeros(0, 3)) == 0


@KINDS
def test_each_forward_serves_one_backward(kind):
    loss, message = kind(), rf"{kind.__name__}.backward needs a {kind.__name__}.forward before it"
    with pytest.raises(RuntimeError, match=message):
        loss.backward()
    loss(torch.ones(2), torch.zeros(2))
    loss.backward()
    with pytest.raises(RuntimeError, match=message):
        loss.backward()
    loss.eval()
    loss(torch.ones(2), torch.zeros(2))
    with pytest.raises(RuntimeError, match=r"evaluation mode"):
        loss.backward()


@KINDS
@pytest.mark.parametrize("reduction", ["none", "Mean", None, 1, ["mean"]], ids=repr)
def test_an_unknown_reduction_is_refused(kind, reduction):
    with pytest.raises(ValueError, match=r"reduction must be one of mean, sum, but got"):
        kind(reduction=reduction)


@pytest.mark.parametrize(("eps", "error"), [(0, ValueError), (-1.0, ValueError), (1e-20, ValueError), ("a", TypeError)])
def test_an_eps_that_is_not_above_zero_is_refused(eps, error):
    with pytest.raises(error, match=r"eps must be a finite number"):
        CharbonnierLoss(eps)


def test_the_settings_stand_in_the_text():
    texts = ["MSELoss(reduction='mean')", "L1Loss(reduction='sum')", "CharbonnierLoss(eps=0.001, reduction='mean')"]
    assert [repr(loss) for loss in (MSELoss(), L1Loss("sum"), CharbonnierLoss())] == texts


@KINDS
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
def test_a_target_that_does_not_fit_is_refused(kind, target, error, message):
    with pytest.raises(error, match=message):
        kind()(torch.ones(2, 3), target)
