"""Every deliberately broken copy is caught and named, with PyTorch as the oracle and without it."""

import broken
import pytest
import torch

from scratch_dl import models, nn, optim
from scratch_dl.config.schema import Verification
from scratch_dl.verification import check_module, verify_network

CONV = {"in_channels": 2, "out_channels": 3, "kernel_size": (3, 2), "stride": (2, 1), "padding": 1, "dilation": (1, 2)}
IMAGES = (4, 2, 8, 9)
ORACLE_ONLY = "consistent in every pass, so that algebra cannot see it"


def conv(kind):
    return lambda: kind(**CONV)


# (broken copy, shapes of its inputs, directions that fail with the oracle, and without it)
MODULES = [
    (conv(broken.KernelNotFlipped), IMAGES, {"grad_input"}, {"grad_input"}),
    (lambda: broken.KernelAxesSwapped(2, 3, 3), IMAGES, {"grad_input"}, {"grad_input"}),
    (conv(broken.ForwardStridesSwapped), IMAGES, {"forward"}, ORACLE_ONLY),
    (conv(broken.StridesSwapped), IMAGES, {"grad_input"}, {"grad_input"}),
    (conv(broken.PaddingCroppedOnOneSide), IMAGES, {"grad_input"}, {"grad_input"}),
    (conv(broken.DilationIgnored), IMAGES, {"grad_weight"}, {"grad_weight"}),
    (conv(broken.StrideIgnored), IMAGES, {"grad_input"}, {"grad_input"}),
    (conv(broken.OverlapsAssigned), IMAGES, {"grad_input"}, {"grad_input"}),
    (conv(broken.BiasGradientMean), IMAGES, {"grad_bias"}, {"grad_bias"}),
    (conv(broken.BiasGradientOnClass), IMAGES, {"grad_bias"}, {"grad_bias"}),
    (conv(broken.BiasNeverCleared), IMAGES, {"contract"}, {"contract"}),
    (conv(broken.GradientsReplaced), IMAGES, {"contract"}, {"contract"}),
    (conv(broken.StaleGradients), IMAGES, {"contract"}, {"contract"}),
    (conv(broken.ForwardKernelFlipped), IMAGES, {"forward", "grad_input", "grad_weight"}, ORACLE_ONLY),
    (broken.SigmoidGradientAtUpstream, IMAGES, {"grad_input"}, {"grad_input"}),
    (broken.SigmoidGradientWrongForm, IMAGES, {"grad_input"}, {"grad_input"}),
    (broken.SigmoidForgetsUpstream, IMAGES, {"grad_input"}, {"grad_input"}),
    (broken.ReLUMaskFromGradient, IMAGES, {"grad_input"}, {"grad_input"}),
    (broken.ReLUForgetsInput, IMAGES, {"grad_input"}, {"grad_input"}),
    (broken.ReLUInPlace, IMAGES, {"contract"}, {"contract"}),
    (lambda: broken.UpsamplingGradientAveraged(2), IMAGES, {"grad_input"}, {"grad_input"}),
    (lambda: broken.BlockGradientAveraged(2, 3, 3), IMAGES, {"grad_input"}, {"grad_input"}),
    (lambda: broken.BlockNeverCleared(2, 3, 3), IMAGES, {"contract"}, {"contract"}),
    (lambda: broken.TransposedForgetsOverlap(2, 3, 4, 2), IMAGES, {"grad_weight"}, {"grad_weight"}),
    (broken.MSENotDivided, [IMAGES, IMAGES], {"grad_input"}, {"grad_input"}),
    (broken.MSENotDividedByBatch, [IMAGES, IMAGES], {"grad_input"}, {"grad_input"}),
    (lambda: broken.SkipForgetsItself(nn.ReLU()), IMAGES, {"grad_input"}, {"grad_input"}),
    (lambda: broken.SkipForgetsItself(nn.ReLU(), "add"), IMAGES, {"grad_input"}, {"grad_input"}),
]


@pytest.mark.parametrize(
    ("make", "inputs", "with_oracle", "without"),
    [pytest.param(*row, id=f"{type(row[0]()).__name__}-{number}") for number, row in enumerate(MODULES)],
)
def test_a_broken_module_fails_in_its_own_directions_and_no_other(make, inputs, with_oracle, without):
    """The right directions stay green, so that the report points at the line to mend."""
    module = make()
    failed = {finding.direction for finding in check_module(module, inputs=inputs, draws=1).failures}
    assert failed == with_oracle
    failed = {finding.direction for finding in check_module(module, inputs=inputs, draws=1, oracle=False).failures}
    assert failed == (set() if without is ORACLE_ONLY else without)


def network():
    """The paper's network, small; its strides are 2."""
    generator = torch.Generator().manual_seed(3)
    return models.paper([4, 5, 4], 3, "same", "nearest", True, "pytorch", (12, 8), generator)


def replaced(name, kind, **settings):
    """The same with the module `name` of another class, with the same weights."""
    whole = network()
    old = getattr(whole, name)
    new = kind(**{key: getattr(old, key) for key in settings.pop("keys", ())})
    new.load_state_dict(old.state_dict())
    setattr(whole, name, new)
    return whole


CONV_KEYS = ("in_channels", "out_channels", "kernel_size", "stride", "padding")
UP_KEYS = ("in_channels", "out_channels", "kernel_size")
# (place, broken class, keys of its arguments, direction that fails, whether algebra alone names it)
PLACES = [
    ("conv2", broken.KernelNotFlipped, CONV_KEYS, "grad_input", True),
    ("conv1", broken.StrideIgnored, CONV_KEYS, "grad_input", True),
    ("conv2", broken.BiasGradientMean, CONV_KEYS, "grad_bias", True),
    ("conv1", broken.BiasGradientOnClass, CONV_KEYS, "grad_bias", True),
    ("conv2", broken.BiasNeverCleared, CONV_KEYS, "contract", True),
    ("conv1", broken.StaleGradients, CONV_KEYS, "contract", True),
    ("conv2", broken.ForwardKernelFlipped, CONV_KEYS, "forward", False),
    ("relu1", broken.ReLUMaskFromGradient, (), "grad_input", True),
    ("relu3", broken.ReLUForgetsInput, (), "grad_input", True),
    ("up1", broken.BlockGradientAveraged, UP_KEYS, "grad_input", True),
    ("up2", broken.BlockNeverCleared, UP_KEYS, "contract", True),
    ("sigmoid", broken.SigmoidGradientAtUpstream, (), "grad_input", True),
    ("sigmoid", broken.SigmoidGradientWrongForm, (), "grad_input", True),
]


def verdicts(whole, optimizer, loss=None, *, oracle=True):
    settings = Verification(
        True, "stop", oracle=oracle, float32=False, geometries=False, lockstep_steps=3, lockstep_max_s=20
    )
    return verify_network(whole, optimizer, (12, 8), settings, loss=loss)


@pytest.mark.parametrize("oracle", [True, False], ids=["oracle", "algebra"])
@pytest.mark.parametrize(
    ("place", "kind", "keys", "direction", "algebra"), [pytest.param(*row, id=row[1].__name__) for row in PLACES]
)
def test_a_broken_module_in_a_network_is_named_and_no_other(place, kind, keys, direction, algebra, oracle):
    """Only the network as a whole, and the optimizer that is not served, may fail beside it."""
    whole = replaced(place, kind, keys=keys)
    report = verdicts(whole, optim.SGD(whole.parameters(), lr=0.5, momentum=0.9), oracle=oracle)
    failed = {(finding.module, finding.direction) for finding in report.failures}
    assert {module for module, _ in failed} <= {place, "network", "optimizer"}
    assert ((place, direction) in failed) == (oracle or algebra)
    if failed:
        assert report.failures[0].module == place


@pytest.mark.parametrize(
    ("place", "kind", "keys", "where"),
    [
        ("sigmoid", broken.SigmoidGradientAtUpstream, (), "first wrong in sigmoid grad_input"),
        ("up1", broken.BlockGradientAveraged, UP_KEYS, "first wrong in up1 grad_input"),
        ("conv2", broken.BiasGradientMean, CONV_KEYS, "first wrong in conv2 gradient of bias"),
        ("conv2", broken.ForwardKernelFlipped, CONV_KEYS, "first wrong in conv2 forward"),
        ("conv2", broken.BiasNeverCleared, CONV_KEYS, "at step 2 of the training first wrong in conv2 gradient of bi"),
    ],
)  # fmt: skip
def test_the_lock_step_names_the_first_module_and_the_step(place, kind, keys, where):
    """A module that spoils everything before it is told from those it spoils."""
    whole = replaced(place, kind, keys=keys)
    report = verdicts(whole, optim.SGD(whole.parameters(), lr=0.5, momentum=0.9))
    assert where in report.verdicts["network"]["lockstep"].decisive.detail


@pytest.mark.parametrize("oracle", [True, False], ids=["oracle", "algebra"])
@pytest.mark.parametrize(
    ("kind", "settings", "algebra"),
    [
        (broken.MomentumIgnored, {"lr": 0.5, "momentum": 0.9}, True),
        (broken.MomentumShared, {"lr": 0.5, "momentum": 0.9}, True),
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


@pytest.mark.parametrize("oracle", [True, False], ids=["oracle", "algebra"])
@pytest.mark.parametrize("kind", [broken.MSENotDivided, broken.MSENotDividedByBatch])
def test_a_broken_loss_is_named(kind, oracle):
    """It stands under its own name."""
    whole = network()
    report = verdicts(whole, optim.SGD(whole.parameters(), lr=0.1), kind(), oracle=oracle)
    assert report.failures[0].module == "loss"
    assert {finding.module for finding in report.failures} <= {"loss", "network"}


def test_the_table_of_geometries_finds_what_the_networks_own_shapes_hide():
    """Dilation 1 cannot show a dilation ignored, nor equal strides strides swapped."""
    for kind, direction in ((broken.DilationIgnored, "grad_weight"), (broken.StridesSwapped, "grad_input")):
        whole = replaced("conv1", kind, keys=CONV_KEYS)
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
    whole.half = broken.SkipForgetsItself(whole.half.inner)
    report = verdicts(whole, optim.SGD(whole.parameters(), lr=0.1))
    assert report.failures[0].module == "half"
    assert {finding.module for finding in report.failures} == {"half", "network"}
