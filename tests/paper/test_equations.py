"""The slips of the paper's equations: each is shown to be one, and stops being shown when the printed form is right."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name)

from scratch_dl.faults.modules import sigmoid_gradient_at_upstream
from scratch_dl.paper import equations


@pytest.fixture(scope="module")
def found():
    """Slips by equation."""
    return {slip.equation: slip for slip in equations.slips()}


def test_each_slip_is_shown(found):
    """What is printed fails by far, and what is meant holds to the last bits (IV: to the paper's own deviation)."""
    assert list(found) == ["(4)", "(5)", "(6)", "(10)", "IV"]
    for slip in found.values():
        assert slip.shown, slip
        assert slip.error_printed > 0.1, slip
        assert slip.error_mended < (4e-6 if slip.equation == "IV" else 1e-12), slip


def test_the_printed_sizes_are_all_two_too_small(found):
    """Equations (4) and (5) are wrong for every geometry, not for odd ones alone."""
    assert found["(4)"].error_printed == found["(5)"].error_printed == 1
    assert found["(4)"].error_mended == found["(5)"].error_mended == 0


def test_the_slips_are_the_same_every_time(found):
    """Seeded from within: no global state is read or changed."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with torch.no_grad():
        assert {slip.equation: slip for slip in equations.slips()} == found
    assert torch.equal(torch.get_rng_state(), before)


def test_equation_6_is_wrong_for_each_value_of_the_free_index():
    """And with m summed the seven loops are PyTorch's convolution."""
    x, w, g = equations._tensors()
    truth = F.conv2d(x, w, None, equations._STRIDE, equations._PADDING, equations._DILATION)
    assert g.shape == truth.shape
    for m in range(w.shape[3]):
        assert equations._relative(equations._seven_loops(x, w, g, (m, m)), truth) > 0.1, m
    torch.testing.assert_close(equations._seven_loops(x, w, g, (0, 1)), truth)


def test_without_dilation_the_printed_equation_10_is_right(monkeypatch):
    """The division by D is the whole slip: with D = 1 nothing is lost by rounding down, and none is shown."""
    x, w, _ = equations._tensors()
    monkeypatch.setattr(equations, "_DILATION", (1, 1))
    shape = F.conv2d(x, w, None, equations._STRIDE, equations._PADDING).shape
    g = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    monkeypatch.setattr(equations, "_tensors", lambda: (x, w, g))
    slip = equations._input_gradient()
    assert slip.error_printed < 1e-12
    assert not slip.shown


@pytest.mark.parametrize("function", [equations._forward, equations._input_gradient], ids=["equation-6", "equation-10"])
def test_a_mended_form_that_fails_is_not_shown(function, monkeypatch):
    """A slip counts only if what is said to be meant is right."""
    for name in ("_seven_loops", "_equation_10"):
        real = getattr(equations, name)

        def wrong(*arguments, real=real, **options):
            return real(*arguments, **options) * 1.001

        monkeypatch.setattr(equations, name, wrong)
    assert not function().shown


def test_the_papers_sigmoid_by_formula():
    """sigma'(0) = 1/4, sigma'(ln 3) = 3/16, whatever the input was."""
    grad_output = torch.tensor([0.0, 3.0, 1 / 3], dtype=torch.float64)
    grad_output[1:] = grad_output[1:].log()
    expected = torch.tensor([1 / 4, 3 / 16, 3 / 16], dtype=torch.float64)
    torch.testing.assert_close(sigmoid_gradient_at_upstream(grad_output), expected)


def test_every_note_says_what_is_printed_and_what_is_meant():
    """No two alike, and none empty."""
    assert len({note.printed for note in equations.NOTES}) == len(equations.NOTES)
    for note in equations.NOTES:
        assert note.place, note
        assert note.printed, note
        assert note.mended, note
