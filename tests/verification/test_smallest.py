"""What a broken module's report says: the direction, the exception, and the smallest input that shows it."""

import re

import pytest
import torch

from scratch_dl import nn
from scratch_dl.faults import modules
from scratch_dl.verification import check_module


class Tanh:
    """Right, and knows nothing of this package."""

    def forward(self, x):
        self.y = x.tanh()
        return self.y

    def backward(self, g):
        return g * (1 - self.y**2)


def changed(**methods):
    return type("Changed", (Tanh,), methods)()


def raising(*_):
    raise ZeroDivisionError("first line\nsecond line")


def wrong_from(axis, length):
    """A backward that is wrong where the axis is at least so long."""

    def backward(self, g):
        return g * (1 - self.y**2) * (2 if g.shape[axis] >= length else 1)

    return changed(backward=backward)


@pytest.mark.parametrize("reference", [None, torch.tanh], ids=["algebra", "oracle"])
@pytest.mark.parametrize(
    ("axis", "length", "smallest"),
    [
        pytest.param(0, 2, [2, 1, 1, 1], id="batch"),
        pytest.param(1, 3, [1, 3, 1, 1], id="channels"),
        pytest.param(2, 5, [1, 1, 5, 1], id="height"),
        pytest.param(3, 7, [1, 1, 1, 7], id="width"),
        pytest.param(0, 1, [1, 1, 1, 1], id="everywhere"),
    ],
)
def test_the_smallest_failing_input_is_minimal(axis, length, smallest, reference):
    """Where it is known: no axis can be shorter by one."""
    report = check_module(wrong_from(axis, length), reference, inputs=(4, 3, 6, 8), draws=1)
    (failure,) = report.failures
    assert failure.direction == "grad_input"
    assert f"smallest failing input {smallest}" in failure.detail


def test_the_numbers_shown_are_right():
    """Got is what the module gives at the input and upstream gradient shown, expected what it should give."""
    module = wrong_from(0, 1)
    for reference in (None, torch.tanh):
        (failure,) = check_module(module, reference, inputs=(4, 3), draws=1).failures
        x, u, got, expected = (
            float(number)
            for number in re.search(
                r"smallest failing input \[1, 1\] with input \[(.*?)\] and upstream gradient \[(.*?)\]: "
                r"got \[(.*?)\], expected \[(.*?)\]",
                failure.detail,
            ).groups()
        )
        module.forward(torch.tensor([[x]], dtype=torch.float64))
        assert module.backward(torch.tensor([[u]], dtype=torch.float64)).item() == pytest.approx(got, rel=1e-3)
        assert expected == pytest.approx(got / 2, rel=1e-3)


def test_a_wrong_weight_gradient_is_shown_beside_the_right_one():
    """Of a module of known channels the other axes are shortened; the bias's gradient is a mean there."""
    conv = modules.ConvBiasMean(2, 3, 3)
    (failure,) = check_module(conv, inputs=(4, 2, 9, 9), draws=1).failures
    assert failure.direction == "grad_bias"
    # With one output pixel of one sample the mean is the sum: two pixels of one sample are the least.
    assert re.search(
        r"smallest failing input \[(1, 2, (3, 4|4, 3)|2, 2, 3, 3)\]: got \[.*\], expected \[", failure.detail
    )


def test_both_inputs_of_a_loss_shrink_together():
    """Their shapes have to agree."""
    (failure,) = check_module(modules.MSENotDivided(), inputs=[(4, 3), (4, 3)], draws=1).failures
    assert "smallest failing input [2, 1] and [2, 1] with input [" in failure.detail


BROKEN = [
    pytest.param({"forward": raising}, {"forward"}, "Error: first line (test_smallest.py, line", id="forward"),
    pytest.param({"backward": raising}, {"grad_input"}, "Error: first line (test_smallest.py, line", id="backward"),
    pytest.param({"zero_grad": raising}, {"contract"}, "raised ZeroDivisionError: first line", id="zero_grad"),
    pytest.param({"forward": lambda _, x: None}, {"forward"}, "returned NoneType", id="no-output"),  # noqa: ARG005
    pytest.param({"backward": lambda _, g: None}, {"grad_input"}, "returned NoneType", id="no-gradient"),  # noqa: ARG005
    pytest.param({"backward": lambda _, g: g[0]}, {"grad_input"}, "(4,) instead of (3, 4)", id="gradient-shape"),
    pytest.param({"forward": lambda _, x: (x > 0).long()}, {"forward"}, "returned torch.int64", id="integers"),
]  # fmt: skip


@pytest.mark.parametrize("reference", [None, torch.tanh], ids=["algebra", "oracle"])
@pytest.mark.parametrize(("methods", "directions", "said"), BROKEN)
def test_a_module_that_cannot_be_run_fails_and_says_why(methods, directions, said, reference):
    """A report with the direction and the reason, no exception."""
    report = check_module(changed(**methods), reference, inputs=(3, 4))
    assert {finding.direction for finding in report.failures} == directions
    assert said in report.failures[0].detail


def test_an_output_of_another_shape_than_the_references_is_a_failing_forward():
    """With both shapes; the gradients cannot be compared with the reference then, and no exception comes of it."""
    module = changed(forward=lambda _, x: x[0].tanh(), backward=lambda _, g: g)
    report = check_module(module, torch.tanh, inputs=(3, 4))
    failure = report.failures[0]
    assert (failure.direction, failure.error) == ("forward", float("inf"))
    assert "shape (4,) instead of (3, 4)" in failure.detail


def counting(self, x):
    self.count = getattr(self, "count", 0) + 1
    self.y = x * self.count
    return self.y


def in_place(self, x):
    self.y = x.tanh_()
    return self.y.clone()


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        pytest.param({"forward": counting}, "two forwards of one input", id="another-each-time"),
        pytest.param({"forward": in_place}, "forward changes its input in place", id="input-in-place"),
        pytest.param(
            {"backward": lambda self, g: g.mul_(1 - self.y**2)}, "backward changes it", id="gradient-in-place"
        ),
    ],
)
def test_what_is_against_the_contract_is_said_in_words(methods, said):
    """The rule that was broken decides, not what follows from it."""
    report = check_module(changed(**methods), inputs=(3, 4))
    assert said in report.verdicts["Changed"]["contract"].decisive.detail


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("reference", [None, torch.tanh], ids=["algebra", "oracle"])
def test_no_number_is_no_pass(where, reference):
    """It agrees with nothing, itself included; with a reference the direction is named."""
    module = changed(**{where: lambda self, x: getattr(Tanh, where)(self, x) * float("nan")})
    report = check_module(module, reference, inputs=(3, 4))
    assert not report.passed
    failed = {finding.direction for finding in report.failures}
    assert where == "backward" or reference is None or "forward" in failed
    assert where == "forward" or "grad_input" in failed


def test_a_module_without_parameters_may_have_a_backward_of_nothing_else():
    """No weight or bias column is filled."""
    report = check_module(nn.ReLU(), inputs=(3, 4), draws=1)
    assert set(report.verdicts["ReLU"]) == {"forward", "grad_input", "contract"}


def test_a_backward_that_gives_zero_where_the_output_does_not_depend_on_the_input_passes():
    """A constant has gradient 0, and no relative error of anything is taken there."""
    module = changed(forward=lambda _, x: x.new_ones(3), backward=lambda _, g: g.new_zeros(3, 4))
    assert check_module(module, inputs=(3, 4)).passed


def test_the_name_given_is_the_reports():
    """A dotted place in a network, say."""
    report = check_module(Tanh(), torch.tanh, inputs=(3,), name="half.tanh")
    assert report.verdicts.keys() == {"half.tanh"}
    assert report.kinds == {"half.tanh": "Tanh"}
