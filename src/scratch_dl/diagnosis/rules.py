"""The rules: which signal beyond which threshold is a sign of which cause, each with its source.

No rule has an absolute threshold on activations or gradients: 2 (y - t) sigma' / N is about 1e-6 in a healthy run, and
a learning rate of 5 works here. A DOUBTFUL rule counts only if the network makes no progress. A rule that was made for
some losses is left out under every other one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scratch_dl.config.plain import brief
from scratch_dl.diagnosis.verdict import CERTAIN, DOUBTFUL


@dataclass(frozen=True)
class Rule:
    """An alarm at a value below `below` or above `above`.

    Attributes:
        name: of the rule.
        signal: the last part of the signal's name; the module is the part before it.
        cause: one of CAUSES.
        direction: the direction in which the module is wrong.
        source: where the rule comes from.
        evidence: a sentence with the value as {value}.
        times: how many watched steps in a row must alarm.
        lasting: whether the sign is withdrawn if the last value no longer alarms.
        since: the first step at which the rule applies.
        rank: CERTAIN or DOUBTFUL.
        losses: the only losses under which the rule holds; empty for all.
    """

    name: str
    signal: str
    cause: str
    direction: str
    source: str
    evidence: str
    below: float | None = None
    above: float | None = None
    times: int = 1
    lasting: bool = False
    since: int = 0
    rank: int = CERTAIN
    losses: tuple[str, ...] = ()

    def alarms(self, value: float) -> bool:
        """Return whether the value is beyond the threshold."""
        return (self.below is not None and value < self.below) or (self.above is not None and value > self.above)

    def first(self, points: Sequence[tuple[int, float]]) -> tuple[int, float] | None:
        """Return (step, value) of the first alarm that completes `times` watched steps in a row, or None."""
        if self.lasting and points and not self.alarms(points[-1][1]):
            return None
        row = 0
        for step, value in points:
            row = row + 1 if step >= self.since and self.alarms(value) else 0
            if row >= self.times:
                return step, value
        return None


VARIANCE = "variance kept through layers: He et al. 2015, arXiv 1502.01852"
SUMS = "a gradient is the sum since the last zero_grad"
SQUARED = ("scratch_dl.nn.MSELoss",)
TOWARDS_TARGET = (*SQUARED, "scratch_dl.nn.L1Loss", "scratch_dl.nn.CharbonnierLoss")
"""The losses whose gradient has the error's sign at each number."""
OWN = "measured on this project's own networks; `experiments/004-fault-bench`"

RULES = (
    Rule(
        "data_level_high",
        "level",
        "data_scaled_wrong",
        "settings",
        "images in [0, 1] and their noise",
        "the images' mean is {value:.3g}, where 1 is white",
        above=8.0,
    ),
    Rule(
        "data_level_low",
        "level",
        "data_divided_twice",
        "settings",
        "images in [0, 1] and their noise",
        "the images' mean is {value:.3g}, where 1 is white",
        below=0.003,
        rank=DOUBTFUL,
    ),
    Rule(
        "pixels_unread",
        "unread",
        "pixels_never_read",
        "settings",
        "a kernel narrower than the stride",
        "{value:.0%} of its input's pixels change nothing in its output",
        above=0.0,
    ),
    Rule(
        "gain_low",
        "gain",
        "init_too_small",
        "init",
        VARIANCE,
        "its output is {value:.2g} times as large as its input, bias apart",
        below=0.02,
        rank=DOUBTFUL,
    ),
    Rule(
        "gain_high",
        "gain",
        "init_too_large",
        "init",
        VARIANCE,
        "its output is {value:.2g} times as large as its input, bias apart",
        above=5.0,
        rank=DOUBTFUL,
    ),
    Rule(
        "parameters_lost",
        "lost",
        "stale_gradient_reference",
        "contract",
        "what an optimizer moves",
        "after a backward {value:.0%} of the network's parameters are not those that the optimizer holds",
        above=0.0,
    ),
    Rule(
        "weight_left_over",
        "weight_left_over",
        "gradient_never_cleared",
        "contract",
        SUMS,
        "after zero_grad the weight's gradient still has the norm {value:.2g}",
        above=0.0,
    ),
    Rule(
        "bias_left_over",
        "bias_left_over",
        "conv_bias_never_cleared",
        "contract",
        SUMS,
        "after zero_grad the bias's gradient still has the norm {value:.2g}",
        above=0.0,
    ),
    Rule(
        "at_upstream",
        "at_upstream",
        "sigmoid_gradient_at_upstream",
        "grad_input",
        "experiments/001-paper-tables: what Table II's 0.249991 is",
        "what it hands back is sigma' at the incoming gradient, to {value:.1g} of 0.25",
        below=1e-3,
    ),
    Rule(
        "loss_undivided",
        "undivided",
        "mse_gradient_not_divided",
        "grad_input",
        "directional derivative",
        "the loss changes as its gradient says once that is divided by the batch (to {value:.1g})",
        below=1e-2,
        losses=SQUARED,
    ),
    Rule(
        "error_sign",
        "error_sign",
        "gradient_ignores_error",
        "grad_input",
        "dL/dlogit has the sign of the error y - t",
        "of its gradients {value:.0%} have the sign of (output - target)",
        below=0.9,
        losses=TOWARDS_TARGET,
    ),
    Rule(
        "relu_blocked",
        "blocked",
        "relu_forgets_input",
        "grad_input",
        "a ReLU's derivative is 1 where it is on",
        "of the units that are on {value:.0%} hand back a gradient of exactly 0",
        above=0.99,
    ),
    Rule(
        "relu_leaks",
        "leaks",
        "relu_mask_from_gradient",
        "grad_input",
        "a ReLU's derivative is 0 where it is off",
        "{value:.0%} of the units are off and let a gradient through",
        above=0.0,
    ),
    Rule(
        "learning_rate_low",
        "room",
        "learning_rate_too_small",
        "settings",
        "line search; " + OWN,
        "the loss goes on falling for {value:.0f} of the optimizer's first steps",
        above=400.0,
        rank=DOUBTFUL,
        losses=SQUARED,
    ),
    Rule(
        "relu_dead",
        "dead",
        "dead_units",
        "forward",
        "SageMaker Debugger, 50 % there",
        "{value:.0%} of its channels are 0 for every image",
        above=0.9,
        times=2,
        lasting=True,
        since=5,
        rank=DOUBTFUL,
    ),
    Rule(
        "sigmoid_saturated",
        "saturated",
        "saturated",
        "forward",
        "SageMaker Debugger",
        "{value:.0%} of its inputs are below -23 or above 17",
        above=0.9,
        times=2,
        lasting=True,
        rank=DOUBTFUL,
    ),
    Rule(
        "gradient_vanishes",
        "grad_ratio",
        "vanishing_gradient",
        "grad_input",
        "AUTOTRAINER, 1e-3 there",
        "the gradient at the first module is {value:.1g} times that at the last",
        below=1e-5,
        times=3,
        rank=DOUBTFUL,
    ),
    Rule(
        "gradient_explodes",
        "grad_ratio",
        "exploding_gradient",
        "grad_input",
        "AUTOTRAINER",
        "the gradient at the first module is {value:.3g} times that at the last",
        above=70.0,
        times=3,
        rank=DOUBTFUL,
    ),
    Rule(
        "update_large",
        "update_ratio",
        "learning_rate_too_large",
        "settings",
        "SageMaker Debugger",
        "one step changes its parameters by {value:.3g} times their norm",
        above=10.0,
        times=2,
        rank=DOUBTFUL,
    ),
    Rule(
        "update_small",
        "update_ratio",
        "learning_rate_too_small",
        "settings",
        "SageMaker Debugger",
        "one step changes its parameters by {value:.1g} times their norm",
        below=1e-8,
        times=3,
        rank=DOUBTFUL,
    ),
    Rule(
        "output_flat",
        "output_class",
        "output_collapsed",
        "forward",
        "the classes of a collapsed output",
        "the output is flat instead of an image (class {value:.0f} of 7)",
        below=4.5,
        times=2,
        lasting=True,
        since=500,
        rank=DOUBTFUL,
    ),
)


def rules_for(loss: Mapping[str, Any] | None) -> tuple[Rule, ...]:
    """Return the rules that hold under a loss, given the settings of its group; all of them for None."""
    return tuple(rule for rule in RULES if loss is None or not rule.losses or loss["_target_"] in rule.losses)


def left_out(loss: Mapping[str, Any] | None) -> str:
    """Return in a sentence which rules do not hold under a loss; "" if all do."""
    kept = rules_for(loss)
    names = [rule.name for rule in RULES if rule not in kept]
    return f"{', '.join(names)}: rules that do not hold under {brief(loss)}" if loss and names else ""
