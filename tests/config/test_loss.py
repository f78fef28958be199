"""The group `loss`: every choice, a loss of a user's own, and what cannot be one, refused in one line before a run."""

import copy

import pytest
import torch

from scratch_dl import nn
from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config
from scratch_dl.config.loss import make_loss
from scratch_dl.system.errors import ConfigError

OWN = """
import torch

class Weighted:
    def __init__(self, weight=2.0):
        self.weight, self.calls = torch.tensor([weight]), 0
    def forward(self, output, target):
        self.calls += 1
        self.error = output - target
        return (self.weight * self.error.square()).mean()
    def backward(self):
        return 2 * self.weight * self.error / self.error.numel()

class Images(Weighted):
    def forward(self, output, target):
        return super().forward(output, target) * output

class Number(Weighted):
    def forward(self, output, target):
        return float(super().forward(output, target))

class Infinite(Weighted):
    def forward(self, output, target):
        return super().forward(output, target) / 0

class Backwardless(Weighted):
    def backward(self):
        raise NotImplementedError("later")

class Short(Weighted):
    def backward(self):
        return super().backward()[:1]

class Wide(Weighted):
    def backward(self):
        return super().backward().double()
"""


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Builds a training by overrides, with the module `own_losses` at hand and permitted."""
    (tmp_path / "own_losses.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda *overrides: build(compose_config("train", ["allowed_targets=[own_losses.]", *overrides]))


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ([], "MSELoss(reduction='mean')"),
        (["loss=l1"], "L1Loss(reduction='mean')"),
        (["loss=charbonnier", "loss.eps=0.01"], "CharbonnierLoss(eps=0.01, reduction='mean')"),
        (["loss=l1", "+loss.reduction=sum"], "L1Loss(reduction='sum')"),
    ],
)
def test_a_choice_makes_its_loss(built, overrides, text):
    assert repr(built(*overrides).loss) == text


def test_a_loss_of_ones_own_is_adapted_in_the_trainings_dtype_and_was_only_tried_as_a_copy(built):
    loss = built("loss._target_=own_losses.Weighted", "+loss.weight=3.0", "dtype=float64").loss
    assert isinstance(loss, nn.Module)
    assert (loss.inner.weight.dtype, loss.inner.calls) == (torch.float64, 0)
    assert float(loss(torch.ones(2, 3).double(), torch.zeros(2, 3).double())) == 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss=l1", "+loss.eps=1"], r"loss\.eps is not a setting"),
        (["loss=charbonnier", "loss.eps=0"], r"loss\.eps must be a finite number >= 1e-12, but got 0$"),
        (["+loss.reduction=none"], r"loss\.reduction must be one of mean, sum, but got 'none'"),
        (["loss._target_=own_losses.Wieghted"], r"loss\._target_ must name a callable.*did you mean 'Weighted'"),
        (["loss._target_=own_losses.Images"], r"'own_losses\.Images' returns torch\.float32 of shape \(2, 3, 32, 32\)"),
        (["loss._target_=own_losses.Number"], r"'own_losses\.Number' fails in forward: .* but returned float"),
        (["loss._target_=own_losses.Infinite"], r"'own_losses\.Infinite' is inf for random pixels"),
        (["loss._target_=own_losses.Backwardless"], r"fails in backward: NotImplementedError: later"),
        (["loss._target_=own_losses.Short"], r"returns torch\.float32 of shape \(1, 3, 32, 32\) from backward for an "),
        (["loss._target_=own_losses.Wide"], r"returns torch\.float64 of shape .* for an output that is torch\.float32"),
        (["loss._target_=scratch_dl.nn.ReLU"], r"loss\._target_ must be a loss: .* 'scratch_dl\.nn\.ReLU' fails in fo"),
        (["loss=l1", "fault=mse_gradient_not_divided"], r"fault=mse_gradient_not_divided needs an MSELoss .* got L1Lo"),
        (["loss._target_=own_losses.Weighted", "fault=mse_gradient_not_divided"], r"needs an MSELoss .* but got Weigh"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_loss_is_refused_by_its_key(built, overrides, message):
    with pytest.raises(ConfigError, match=message) as refused:
        built(*overrides)
    assert "\n" not in str(refused.value)


def test_a_module_of_ours_that_returns_a_number_of_python_is_refused_too():
    config = {"loss": {"_target_": "scratch_dl.nn.MSELoss"}, "dtype": "float32", "allowed_targets": []}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.MSELoss, "forward", lambda *_: 0.5)
        with pytest.raises(ConfigError, match=r"returns a float from forward"):
            make_loss(copy.deepcopy(config), (8, 8), "cpu")
