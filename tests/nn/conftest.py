"""What the tests of the network share: random tensors, a distance, and the comparison with PyTorch's autograd."""

import pytest
import torch

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


@pytest.fixture
def draw(generator):
    """A function of a shape (and a dtype) that draws normal numbers from the test's own generator."""

    def draw(*shape, dtype=torch.float64):
        return torch.randn(shape, generator=generator, dtype=dtype)

    return draw


@pytest.fixture
def assert_near():
    """Fail unless shape and dtype agree and the norm of the error is below the tolerance times the expected norm."""

    def assert_near(actual, expected, name="value", tolerance=None):
        expected = expected.detach()
        assert actual.shape == expected.shape, f"{name}: {tuple(actual.shape)} is not {tuple(expected.shape)}"
        assert actual.dtype == expected.dtype, f"{name}: {actual.dtype} is not {expected.dtype}"
        tolerance = TOLERANCE[expected.dtype] if tolerance is None else tolerance
        error, norm = float((actual - expected).norm()), float(expected.norm())
        assert error <= tolerance * norm, f"{name}: error {error:.3g} beside the norm {norm:.3g}"

    return assert_near


@pytest.fixture
def assert_matches_autograd(draw, assert_near):
    """Compare output and all gradients of a module with those of `function(input, parameters by name)` by autograd."""

    def assert_matches_autograd(module, function, input):
        twins = {name: p.value.clone().requires_grad_() for name, p in module.named_parameters()}
        x = input.detach().clone().requires_grad_()
        expected = function(x, twins)
        grad_output = draw(*expected.shape, dtype=expected.dtype)
        expected.backward(grad_output)

        assert_near(module(input), expected, "output")
        assert_near(module.backward(grad_output), x.grad, "gradient of the input")
        for name, parameter in module.named_parameters():
            assert_near(parameter.grad, twins[name].grad, f"gradient of {name}")
            assert twins[name].grad.norm() > 0, f"the comparison of {name} proves nothing: its gradient is zero"

    return assert_matches_autograd
