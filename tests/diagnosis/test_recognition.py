"""Which mistake a module makes is read off what it does, in a fault of the bank as in a class of a user's own."""

import broken
import pytest
import torch

from scratch_dl import models, nn, optim
from scratch_dl.config.schema import Verification
from scratch_dl.diagnosis import conclude, known_mistakes
from scratch_dl.diagnosis.recognition import recognise, unrecognised
from scratch_dl.faults import modules, outside_modules
from scratch_dl.nn import Sequential
from scratch_dl.verification import verify_network
from scratch_dl.verification.report import Report
from scratch_dl.verification.trace import Batch

SIZE = (12, 8)


def network(upsampling="nearest"):
    """The paper's, small."""
    return models.paper([4, 5, 4], 3, "same", upsampling, True, "pytorch", SIZE, torch.Generator().manual_seed(3))


def with_repetition():
    """One in which an enlargement stands alone."""
    generator = torch.Generator().manual_seed(3)
    inside = {"conv1": nn.Conv2d(3, 4, 3, 2, 1, generator=generator), "relu1": nn.ReLU(),
              "enlarge": nn.UpsamplingNearest2d(2), "conv2": nn.Conv2d(4, 3, 3, 1, 1, generator=generator),
              "sigmoid": nn.Sigmoid()}  # fmt: skip
    return Sequential(inside)


def spoiled(place, mistake, whole=None):
    """The network with a mistake in its module `place`."""
    whole = whole or network()
    broken.spoil(getattr(whole, place), mistake)
    return whole


def verdict(whole, optimizer=None, loss=None, *, oracle):
    """What the verification has found, and the mistakes among it."""
    loss = loss or nn.MSELoss()
    optimizer = optimizer or optim.SGD(whole.parameters(), lr=0.5, momentum=0.9)
    settings = Verification(True, "warn", oracle=oracle, float32=False, geometries=False, lockstep_steps=0,
                            lockstep_max_s=20)  # fmt: skip
    report = verify_network(whole, optimizer, SIZE, settings, loss=loss)
    batch = Batch(*torch.rand((2, 4, 3, *SIZE), generator=torch.Generator().manual_seed(1)))
    return conclude(recognise(report, whole, loss, batch), progress=False), report


ORACLE = pytest.mark.parametrize("oracle", [True, False], ids=["oracle", "algebra"])

# (place, mistake, the fault's name, direction)
IN_THE_BANK = [
    ("sigmoid", modules.SigmoidAtUpstream, "sigmoid_gradient_at_upstream", "grad_input"),
    ("sigmoid", modules.SigmoidWrongForm, "sigmoid_gradient_wrong_form", "grad_input"),
    ("conv1", modules.ConvBiasOnClass, "conv_bias_gradient_on_class", "grad_bias"),
    ("conv2", modules.ConvBiasMean, "conv_bias_gradient_mean", "grad_bias"),
    ("conv2", outside_modules.keep_bias_gradients, "conv_bias_never_cleared", "contract"),
    ("conv1", modules.ConvNewParameters, "stale_gradient_reference", "contract"),
    ("conv2", modules.ConvNotFlipped, "conv_input_gradient_not_flipped", "grad_input"),
    ("conv1", modules.ConvIgnoresStride, "conv_input_gradient_ignores_stride", "grad_input"),
    ("conv2", modules.ConvAssigned, "conv_input_gradient_assigned", "grad_input"),
    ("relu1", modules.ReLUMaskFromGradient, "relu_mask_from_gradient", "grad_input"),
    ("relu3", modules.ReLUForgetsInput, "relu_forgets_input", "grad_input"),
    ("up1", modules.UpsamplingAveraged, "upsampling_gradient_averaged", "grad_input"),
    ("up2", outside_modules.keep_upsampling_gradients, "upsampling_gradient_never_cleared", "contract"),
]


@ORACLE
@pytest.mark.parametrize(
    ("place", "kind", "cause", "direction"),
    [pytest.param(*row, id=f"{row[1].__name__}-{row[0]}") for row in IN_THE_BANK],
)
def test_a_mistake_of_the_bank_is_called_by_its_name(place, kind, cause, direction, oracle):
    """In the right module and direction, whoever wrote it, with PyTorch as the oracle and without it."""
    found, report = verdict(spoiled(place, kind), oracle=oracle)
    assert (found.cause, found.module, found.direction) == (cause, place, direction), str(report)
    assert found.step == 0
    assert found.what
    assert found.cure


@ORACLE
def test_a_repetition_that_averages_is_called_by_its_name(oracle):
    """Where it is a module of its own, too."""
    whole = spoiled("enlarge", modules.UpsamplingNearestAveraged, with_repetition())
    found, _ = verdict(whole, oracle=oracle)
    assert (found.cause, found.module) == ("upsampling_gradient_averaged", "enlarge")


@ORACLE
def test_a_loss_and_an_optimizer_of_the_bank_are_called_by_their_names(oracle):
    """F12 and F20."""
    found, _ = verdict(network(), loss=modules.MSENotDivided(), oracle=oracle)
    assert (found.cause, found.module, found.direction) == ("mse_gradient_not_divided", "loss", "grad_input")
    whole = network()
    found, _ = verdict(whole, outside_modules.MomentumShared(whole.parameters(), lr=0.5, momentum=0.9), oracle=oracle)
    assert (found.cause, found.module, found.direction) == ("sgd_momentum_shared", "optimizer", "contract")


# (place, mistake, cause with the oracle and without it, direction)
IN_NO_BANK = [
    ("sigmoid", broken.SigmoidForgetsUpstream, "gradient_wrong", "gradient_not_linear", "grad_input"),
    ("conv2", broken.KernelAxesSwapped, "gradient_wrong", "gradient_wrong", "grad_input"),
    ("conv2", broken.PaddingCroppedOnOneSide, "gradient_wrong", "gradient_wrong", "grad_input"),
    ("conv1", broken.GradientsReplaced, "contract_broken", "contract_broken", "contract"),
    ("relu2", broken.ReLUInPlace, "contract_broken", "contract_broken", "contract"),
    ("conv2", broken.ForwardKernelFlipped, "forward_wrong", None, "forward"),
]


@ORACLE
@pytest.mark.parametrize(
    ("place", "kind", "with_oracle", "without", "direction"),
    [pytest.param(*row, id=row[1].__name__) for row in IN_NO_BANK],
)
def test_a_mistake_of_no_bank_has_its_module_its_direction_and_a_general_cause(
    place, kind, with_oracle, without, direction, oracle
):
    """Nothing is guessed: no fault's name. What is consistent in every pass only the oracle sees."""
    found, report = verdict(spoiled(place, kind), oracle=oracle)
    cause = with_oracle if oracle else without
    if cause is None:
        assert found.healthy
    else:
        assert found.module == place, str(report)
        assert found.direction == direction, str(report)
        # What wins with the oracle is whichever comparison failed first; both are general.
        assert found.cause in {with_oracle, without}, str(report)


@ORACLE
@pytest.mark.parametrize("kind", [broken.MSEWithoutFactor])
def test_a_loss_of_no_bank_is_a_wrong_gradient(kind, oracle):
    """Times N / 2 is not times the batch."""
    found, _ = verdict(network(), loss=kind(), oracle=oracle)
    assert (found.cause, found.module, found.direction) == ("gradient_wrong", "loss", "grad_input")


@ORACLE
@pytest.mark.parametrize("kind", [broken.MomentumIgnored, broken.HoldsCopies])
def test_an_optimizer_of_no_bank_is_a_wrong_optimizer(kind, oracle):
    """Under no other one's name."""
    whole = network()
    found, report = verdict(whole, kind(whole.parameters(), lr=0.5, momentum=0.9), oracle=oracle)
    assert (found.cause, found.module, found.direction) == ("optimizer_wrong", "optimizer", "contract"), str(report)


# Modules of a user's own, which know nothing of this package --------------------------------------------------------


class MySigmoid:
    def forward(self, x):
        self.y = 1 / (1 + (-x).exp())
        return self.y

    def backward(self, g):
        return g * self.y * (1 - self.y)


class MySigmoidAtUpstream(MySigmoid):
    def backward(self, g):
        s = 1 / (1 + (-g).exp())
        return s * (1 - s)


class MySigmoidWithoutSquare(MySigmoid):
    def backward(self, g):
        return g * self.y


class MySigmoidTwice(MySigmoid):
    def backward(self, g):
        return g * (self.y * (1 - self.y)) ** 2


class MyReLU:
    def forward(self, x):
        self.x = x
        return x * (x > 0)

    def backward(self, g):
        return g * (self.x > 0)


class MyReLUFromGradient(MyReLU):
    def backward(self, g):
        return g * (g > 0)


class MyReLUForgets(MyReLU):
    def backward(self, g):
        return g * 0


class MyLeakyBackward(MyReLU):
    def backward(self, g):
        return g * (self.x > 0) + 0.1 * g * (self.x <= 0)


@ORACLE
@pytest.mark.parametrize(
    ("place", "kind", "causes"),
    [
        ("sigmoid", MySigmoidAtUpstream, {"sigmoid_gradient_at_upstream"}),
        ("sigmoid", MySigmoidWithoutSquare, {"sigmoid_gradient_wrong_form"}),
        ("sigmoid", MySigmoidTwice, {"gradient_wrong"}),
        ("relu2", MyReLUFromGradient, {"relu_mask_from_gradient"}),
        ("relu1", MyReLUForgets, {"relu_forgets_input"}),
        ("relu3", MyLeakyBackward, {"gradient_wrong"}),
    ],
)
def test_a_class_of_ones_own_that_computes_a_relu_or_a_sigmoid_is_recognised(place, kind, causes, oracle):
    """No subclass of ours; one whose mistake is in no bank has the general cause."""
    whole = network()
    setattr(whole, place, kind())
    found, report = verdict(whole, oracle=oracle)
    assert found.cause in causes, str(report)
    assert (found.module, found.direction) == (place, "grad_input")


@ORACLE
def test_right_classes_of_ones_own_are_healthy(oracle):
    """A sigmoid and a ReLU, in place of two of ours."""
    whole = network("transposed")
    whole.sigmoid, whole.relu2 = MySigmoid(), MyReLU()
    found, report = verdict(whole, oracle=oracle)
    assert found.healthy, str(report)


def test_the_verification_names_the_known_mistakes_in_a_line_each():
    """As `verify` prints them: those of the bank, and nothing that is guessed."""
    for kind, place, known in [
        (modules.ConvBiasMean, "conv2", ["conv_bias_gradient_mean"]),
        (broken.KernelAxesSwapped, "conv2", []),
    ]:
        whole = spoiled(place, kind)
        _, report = verdict(whole, oracle=True)
        batch = Batch(*torch.rand((2, 4, 3, *SIZE), generator=torch.Generator().manual_seed(1)))
        lines = known_mistakes(report, whole, nn.MSELoss(), batch)
        assert len(lines) == len(known), lines
        for line, name in zip(lines, known, strict=True):
            assert line.startswith(f"{place} makes a known mistake, {name}: ")
            assert "cure" in line


def test_from_a_report_alone_it_is_said_what_kind_of_verdict_failed():
    """As `diagnose` has it of a run that was verified and not watched: place and direction, and a general cause."""
    _, report = verdict(spoiled("conv2", modules.ConvBiasMean), oracle=True)
    found = conclude(unrecognised(Report.from_json(report.to_json())), progress=True)
    assert (found.cause, found.module, found.direction) == ("gradient_wrong", "conv2", "grad_bias")
    _, report = verdict(spoiled("conv1", modules.ConvNewParameters), oracle=True)
    found = conclude(unrecognised(Report.from_json(report.to_json())), progress=True)
    assert (found.cause, found.module) == ("stale_gradient_reference", "conv1")


def test_recognising_changes_nothing():
    """Copies are tried."""
    whole = spoiled("relu1", modules.ReLUMaskFromGradient)
    before, state = whole.state_dict(), torch.random.get_rng_state()
    verdict(whole, oracle=False)
    assert type(whole.relu1) is modules.ReLUMaskFromGradient
    assert all(torch.equal(before[name], value) for name, value in whole.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
