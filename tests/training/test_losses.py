"""The loss of outputs outside of a step: its number, its words, and nothing left behind."""

import pytest
import torch

from scratch_dl.nn import CharbonnierLoss, L1Loss, MSELoss
from scratch_dl.training.losses import is_squared_error, loss_label, loss_of


@pytest.mark.parametrize(
    ("group", "label", "is_squared"),
    [
        ({"_target_": "scratch_dl.nn.MSELoss"}, "mean squared error", True),
        ({"_target_": "scratch_dl.nn.MSELoss", "reduction": "mean"}, "mean squared error", True),
        ({"_target_": "scratch_dl.nn.MSELoss", "reduction": "sum"}, "MSELoss(reduction=sum)", True),
        ({"_target_": "scratch_dl.nn.L1Loss"}, "mean absolute error", False),
        ({"_target_": "scratch_dl.nn.CharbonnierLoss", "eps": 0.001}, "CharbonnierLoss(eps=0.001)", False),
        ({"_target_": "my_losses.MSELoss"}, "MSELoss", False),
    ],
)
def test_a_loss_in_words(group, label, is_squared):
    assert (loss_label(group), is_squared_error(group)) == (label, is_squared)


@pytest.mark.parametrize("kind", [MSELoss, L1Loss, CharbonnierLoss])
def test_a_number_leaves_nothing_for_a_backward_and_the_loss_in_training(kind):
    loss = kind()
    output, target = torch.rand(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert loss_of(loss, output, target, 8) == float(kind()(output, target))
    with pytest.raises(RuntimeError, match="needs a"):
        loss.backward()
    loss(output, target)
    assert loss.backward().shape == output.shape
    total = kind(reduction="sum")
    assert loss_of(total, output, target, 8) == pytest.approx(2 * float(total(output, target)), rel=1e-6)


def test_a_validation_is_no_training_for_the_loss():
    """A loss of a user's own may count its steps, or keep a running mean."""
    seen = []

    class Watching(MSELoss):
        def forward(self, input, target):
            seen.append(self.training)
            return super().forward(input, target)

    loss = Watching()
    loss_of(loss, torch.rand(2, 3), torch.rand(2, 3), 2)
    assert (seen, loss.training) == ([False], True)
