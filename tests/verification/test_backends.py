"""Each backend under `verify_network`; and what is wrong only where modules are computed in one is found and named."""

import pytest
import torch
from variants import exhaustive

from scratch_dl import kernels, models, nn, optim
from scratch_dl.config.schema import Verification
from scratch_dl.nn import container
from scratch_dl.verification import verify_network

SIZE = (12, 8)
IN_ONE = "as in training, modules computed in one, float64"


def paper(kernel, upsampling):
    generator = torch.Generator().manual_seed(3)
    return models.paper([4, 5, 4], kernel, "same", upsampling, True, "pytorch", SIZE, generator)


def unet(upsampling):
    return models.unet(2, 3, upsampling, True, "he", SIZE, torch.Generator().manual_seed(3))


NETWORKS = [
    pytest.param(lambda: paper(3, "nearest"), lambda p: optim.SGD(p, 0.5, 0.9, nesterov=True), id="paper-nearest"),
    exhaustive(lambda: paper(4, "transposed"), lambda p: optim.SGD(p, 0.5, 0.9), id="paper-transposed"),
    exhaustive(lambda: unet("nearest"), lambda p: optim.Adam(p, 1e-3), id="unet"),
]


def verified(network, optimizer=None, steps=3):
    what = Verification(True, "stop", True, True, False, lockstep_steps=steps, lockstep_max_s=60.0)
    optimizer = optimizer or optim.SGD(network.parameters(), 0.5, 0.9)
    return verify_network(network, optimizer, SIZE, what, seed=0)


def of_network(report, check):
    return [finding for finding in report.findings if finding.module == "network" and finding.check == check]


@pytest.mark.parametrize(("make", "optimizer"), NETWORKS)
def test_a_right_network_passes_on_every_backend(make, optimizer, backend):
    """Each module, the whole, and a hundred steps beside PyTorch in float64 and float32, as a training does them."""
    network = make()
    report = verified(network, optimizer(network.parameters()), steps=100)
    assert report.passed, f"{backend}: {report}"
    assert len(of_network(report, IN_ONE)) == 1
    assert {f.check for f in report.findings if f.direction == "lockstep"} == {"lock-step float64", "lock-step float32"}
    assert not any("ended after step" in note for note in report.notes), report.notes
    assert kernels.used() == backend


def wrong_relu(function):
    """A ReLU computed along lets a little of what is negative through."""

    def call(*arguments):
        if arguments[-1] != "relu":
            return function(*arguments)
        output = function(*arguments[:-1], None)
        return torch.where(output > 0, output, 0.01 * output)

    return call


def wrong_mask(function):
    """A gradient through a ReLU is masked by the sign of what is not there: not at all."""
    return lambda *arguments: function(*arguments[:-1], None)


def wrong_sigmoid(function):
    return lambda *arguments: function(*arguments) * (1.001 if arguments[-1] == "sigmoid" else 1)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        pytest.param("convolution", wrong_relu, id="relu-of-a-convolution"),
        pytest.param("convolution_transposed", wrong_relu, id="relu-of-a-block"),
        pytest.param("convolution_transposed", wrong_sigmoid, id="sigmoid-of-a-block"),
        pytest.param("convolution_grad_input", wrong_mask, id="relu-before-a-convolution"),
        pytest.param("convolution_transposed_grad_input", wrong_mask, id="relu-before-a-block"),
    ],
)
def test_what_is_wrong_only_in_one_is_found_by_that_check_and_the_lockstep(name, wrong, monkeypatch):
    """Each module alone is right, so it is nobody's fault but of the way they are computed together."""
    monkeypatch.setattr(kernels, name, wrong(getattr(kernels, name)))
    report = verified(paper(4, "transposed"))
    (in_one,) = of_network(report, IN_ONE)
    assert not in_one.passed, f"{in_one.error:g} is within {in_one.limit:g}"
    assert {finding.module for finding in report.findings if not finding.passed} == {"network"}
    lockstep = [finding for finding in report.findings if finding.direction == "lockstep" and not finding.passed]
    assert lockstep, str(report)
    for finding in lockstep:
        assert "each module's gradients are right, those of several computed in one are not" in finding.detail
        assert "at step 1 of the training" in finding.detail


def test_a_gradient_lost_with_the_inputs_is_found(monkeypatch):
    """Where the first module's whole backward is left out, not its input's gradient alone."""

    def nothing(module, grad_output):
        module._take() if isinstance(module, nn.Conv2d) else None
        return own(module, grad_output) if isinstance(module, nn.Sequential) else torch.empty(0)

    own = container.parameter_gradients
    monkeypatch.setattr(container, "parameter_gradients", nothing)
    report = verified(paper(4, "transposed"))
    (in_one,) = of_network(report, IN_ONE)
    assert not in_one.passed
    assert not report.passed


def test_a_backend_that_is_wrong_everywhere_is_found_in_its_module(monkeypatch):
    """As would be a library that was compiled wrongly."""
    function = kernels.convolution_transposed
    monkeypatch.setattr(kernels, "convolution_transposed", lambda *arguments: function(*arguments) * 1.001)
    report = verified(paper(4, "transposed"))
    failed = {finding.module for finding in report.findings if not finding.passed}
    assert {"up1", "up2"} <= failed, failed
    assert not failed & {"conv1", "conv2", "relu1", "sigmoid"}, failed
