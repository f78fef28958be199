"""Every deliberately broken copy is caught and named, with PyTorch as the oracle and without it."""

import broken
import pytest
import torch

from scratch_dl import models, nn, optim
from scratch_dl.config.schema import Verification
from scratch_dl.faults import modules, outside_modules
from scratch_dl.verification import check_module, verify_network

CONV = {"in_channels": 2, "out_channels": 3, "kernel_size": (3, 2), "stride": (2, 1), "padding": 1, "dilation": (1, 2)}
IMAGES = (4, 2, 8, 9)
ORACLE_ONLY = "consistent in every pass, so that algebra cannot see it"


def conv():
    return nn.Conv2d(**CONV)


def up():
    return nn.Upsampling(2, 3, 3)


# (right module, its mistake, directions that fail with the oracle, and without it)
MODULES = [
    (conv, modules.ConvNotFlipped, {"grad_input"}, {"grad_input"}),
    (lambda: nn.Conv2d(2, 3, 3), broken.KernelAxesSwapped, {"grad_input"}, {"grad_input"}),
    (conv, broken.ForwardStridesSwapped, {"forward"}, ORACLE_ONLY),
    (conv, broken.StridesSwapped, {"grad_input"}, {"grad_input"}),
    (conv, broken.PaddingCroppedOnOneSide, {"grad_input"}, {"grad_input"}),
    (conv, broken.DilationIgnored, {"grad_weight"}, {"grad_weight"}),
    (conv, modules.ConvIgnoresStride, {"grad_input"}, {"grad_input"}),
    (conv, modules.ConvAssigned, {"grad_input"}, {"grad_input"}),
    (conv, modules.ConvBiasMean, {"grad_bias"}, {"grad_bias"}),
    (conv, modules.ConvBiasOnClass, {"grad_bias"}, {"grad_bias"}),
    (conv, outside_modules.keep_bias_gradients, {"contract"}, {"contract"}),
    (conv, broken.GradientsReplaced, {"contract"}, {"contract"}),
    (conv, modules.ConvNewParameters, {"contract"}, {"contract"}),
    (conv, broken.ForwardKernelFlipped, {"forward", "grad_input", "grad_weight"}, ORACLE_ONLY),
    (nn.Sigmoid, modules.SigmoidAtUpstream, {"grad_input"}, {"grad_input"}),
    (nn.Sigmoid, modules.SigmoidWrongForm, {"grad_input"}, {"grad_input"}),
    (nn.Sigmoid, broken.SigmoidForgetsUpstream, {"grad_input"}, {"grad_input"}),
    (nn.ReLU, modules.ReLUMaskFromGradient, {"grad_input"}, {"grad_input"}),
    (nn.ReLU, modules.ReLUForgetsInput, {"grad_input"}, {"grad_input"}),
    (nn.ReLU, broken.ReLUInPlace, {"contract"}, {"contract"}),
    (lambda: nn.UpsamplingNearest2d(2), modules.UpsamplingNearestAveraged, {"grad_input"}, {"grad_input"}),
    (up, modules.UpsamplingAveraged, {"grad_input"}, {"grad_input"}),
    (up, outside_modules.keep_upsampling_gradients, {"contract"}, {"contract"}),
    (lambda: nn.ConvTranspose2d(2, 3, 4, 2), broken.TransposedForgetsOverlap, {"grad_weight"}, {"grad_weight"}),
    (nn.MSELoss, broken.MSEWithoutFactor, {"grad_input"}, {"grad_input"}),
    (nn.MSELoss, modules.MSENotDivided, {"grad_input"}, {"grad_input"}),
    (nn.L1Loss, broken.L1SignForgotten, {"grad_input"}, {"grad_input"}),
    (nn.CharbonnierLoss, broken.CharbonnierForgetsRoot, {"grad_input"}, {"grad_input"}),
    (lambda: nn.Skip(nn.ReLU()), broken.SkipForgetsItself, {"grad_input"}, {"grad_input"}),
    (lambda: nn.Skip(nn.ReLU(), "add"), broken.SkipForgetsItself, {"grad_input"}, {"grad_input"}),
]
ORACLE = pytest.mark.parametrize(
    "oracle", [pytest.param(True, id="oracle"), pytest.param(False, id="algebra", marks=pytest.mark.exhaustive)]
)


@ORACLE
@pytest.mark.parametrize(
    ("make", "mistake", "with_oracle", "without"),
    [pytest.param(*row, id=f"{row[1].__name__}-{number}") for number, row in enumerate(MODULES)],
)
def test_a_broken_module_fails_in_its_own_directions_and_no_other(make, mistake, with_oracle, without, oracle):
    """The right directions stay green, so that the report points at the line to mend."""
    module = broken.spoil(make(), mistake)
    inputs = [IMAGES, IMAGES] if isinstance(module, nn.Loss) else IMAGES
    failed = {finding.direction for finding in check_module(module, inputs=inputs, draws=1, oracle=oracle).failures}
    assert failed == (with_oracle if oracle else set() if without is ORACLE_ONLY else without)


def network():
    """The paper's network, small; its strides are 2."""
    generator = torch.Generator().manual_seed(3)
    return models.paper([4, 5, 4], 3, "same", "nearest", True, "pytorch", (12, 8), generator)


def spoiled(place, mistake):
    """The same with a mistake in the module `place`."""
    whole = network()
    broken.spoil(getattr(whole, place), mistake)
    return whole


# (place, mistake, direction that fails, whether algebra alone names it, what the lock-step says of it)
PLACES = [
    ("conv2", modules.ConvNotFlipped, "grad_input", True, ""),
    ("conv1", modules.ConvIgnoresStride, "grad_input", True, ""),
    ("conv2", modules.ConvBiasMean, "grad_bias", True, "first wrong in conv2 gradient of bias"),
    ("conv1", modules.ConvBiasOnClass, "grad_bias", True, ""),
    ("conv2", outside_modules.keep_bias_gradients, "contract", True,
     "at step 2 of the training first wrong in conv2 gradient of bi"),
    ("conv1", modules.ConvNewParameters, "contract", True, ""),
    ("conv2", broken.ForwardKernelFlipped, "forward", False, "first wrong in conv2 forward"),
    ("relu1", modules.ReLUMaskFromGradient, "grad_input", True, ""),
    ("relu3", modules.ReLUForgetsInput, "grad_input", True, ""),
    ("up1", modules.UpsamplingAveraged, "grad_input", True, "first wrong in up1 grad_input"),
    ("up2", outside_modules.keep_upsampling_gradients, "contract", True, ""),
    ("sigmoid", modules.SigmoidAtUpstream, "grad_input", True, "first wrong in sigmoid grad_input"),
    ("sigmoid", modules.SigmoidWrongForm, "grad_input", True, ""),
]  # fmt: skip


def verdicts(whole, optimizer, loss=None, *, oracle=True):
    settings = Verification(
        True, "stop", oracle=oracle, float32=False, geometries=False, lockstep_steps=3, lockstep_max_s=20
    )
    return verify_network(whole, optimizer, (12, 8), settings, loss=loss)


@ORACLE
@pytest.mark.parametrize(
    ("place", "mistake", "direction", "algebra", "where"), [pytest.param(*row, id=row[1].__name__) for row in PLACES]
)
def test_a_broken_module_in_a_network_is_named_and_no_other(place, mistake, direction, algebra, where, oracle):
    """Only the network as a whole, and the optimizer that is not served, may fail beside it.

    The lock-step names the first module and the step: a module that spoils others is told from those it spoils.
    """
    whole = spoiled(place, mistake)
    report = verdicts(whole, optim.SGD(whole.parameters(), lr=0.5, momentum=0.9), oracle=oracle)
    failed = {(finding.module, finding.direction) for finding in report.failures}
    assert {module for module, _ in failed} <= {place, "network", "optimizer"}
    assert ((place, direction) in failed) == (oracle or algebra)
    if failed:
        assert report.failures[0].module == place
    if oracle:
        assert where in report.verdicts["network"]["lockstep"].decisive.detail


@ORACLE
@pytest.mark.parametrize(
    ("kind", "settings", "algebra"),
    [
        (broken.MomentumIgnored, {"lr": 0.5, "momentum": 0.9}, True),
        (outside_modules.MomentumShared, {"lr": 0.5, "momentum": 0.9}, True),
        (broken.HoldsCopies, {"lr": 0.5}, True),
        (broken.AdamWithoutCorrection, {"lr": 0.01}, False),
    ],
)
def test_a_broken_optimizer_is_named(kind, settings, algebra, oracle):
    """The modules stay green."""
    whole = network()
    report = verdicts(whole, kind(whole.parameters(), **settings), oracle=oracle)
    failed = {(finding.module, finding.direction) for finding in report.failures}
    assert (("optimizer", "contract") in failed) == (oracle or algebra)
    assert failed <= {("optimizer", "contract"), ("network", "lockstep")}


@ORACLE
@pytest.mark.parametrize(
    "kind",
    [broken.MSEWithoutFactor, modules.MSENotDivided, broken.L1SignForgotten, broken.CharbonnierForgetsRoot],
)
def test_a_broken_loss_is_named(kind, oracle):
    """It stands under its own name."""
    whole = network()
    report = verdicts(whole, optim.SGD(whole.parameters(), lr=0.1), kind(), oracle=oracle)
    assert report.failures[0].module == "loss"
    assert {finding.module for finding in report.failures} <= {"loss", "network"}


def test_the_table_of_geometries_finds_what_the_networks_own_shapes_hide():
    """Dilation 1 cannot show a dilation ignored, nor equal strides strides swapped."""
    for kind, direction in ((broken.DilationIgnored, "grad_weight"), (broken.StridesSwapped, "grad_input")):
        whole = spoiled("conv1", kind)
        optimizer = optim.SGD(whole.parameters(), lr=0.1)
        assert verdicts(whole, optimizer).passed
        full = Verification(
            True, "stop", oracle=True, float32=False, geometries=True, lockstep_steps=0, lockstep_max_s=20
        )
        failed = verify_network(whole, optimizer, (12, 8), full).failures
        assert [(finding.module, finding.direction) for finding in failed] == [(kind.__name__, direction)]
        assert "dilation=" in failed[0].detail or "stride=" in failed[0].detail


def test_a_broken_skip_in_a_unet_is_named():
    """Containers are checked around an identity."""
    whole = models.unet(2, 3, "nearest", True, "he", (8, 8), torch.Generator().manual_seed(0))
    broken.spoil(whole.half, broken.SkipForgetsItself)
    report = verdicts(whole, optim.SGD(whole.parameters(), lr=0.1))
    assert report.failures[0].module == "half"
    assert {finding.module for finding in report.failures} == {"half", "network"}
