"""The rules: which signal beyond which threshold is a sign of what, each with its source.

None of them is an absolute threshold on activations or gradients: 2 (y - t) sigma' / N is about 1e-6 in a healthy run,
and a learning rate of 5 is a working one here. A rule in doubt (DOUBTFUL) speaks only of a network that makes no
progress.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from scratch_dl.diagnosis.verdict import CERTAIN, DOUBTFUL, Sign
from scratch_dl.verification.report import NETWORK

History = Mapping[str, Sequence[tuple[int, float]]]
"""Signal -> its (step, value) in the order of the steps."""

SLOPE_TOLERANCE = 1e-3
NOT_SAID = 1e12
"""The slope of a loss that depends on a parameter whose gradient is exactly 0."""
ROOM_OF_A_LONG_STEP = 4.0


@dataclass(frozen=True)
class Rule:
    """An alarm at a value below `below` or above `above`.

    Attributes:
        name: of the rule.
        signal: the last part of the signal's name; what is before it is the module.
        cause: one of CAUSES.
        direction: in which the module is wrong.
        source: where the rule comes from.
        said: the evidence, with the value as {value}.
        times: how many watched steps in a row it takes.
        lasting: whether it is withdrawn if the last value is no alarm any more.
        since: the first step at which it is asked.
        rank: CERTAIN or DOUBTFUL.
    """

    name: str
    signal: str
    cause: str
    direction: str
    source: str
    said: str
    below: float | None = None
    above: float | None = None
    times: int = 1
    lasting: bool = False
    since: int = 0
    rank: int = CERTAIN

    def alarms(self, value: float) -> bool:
        """Whether the value is beyond the threshold."""
        return (self.below is not None and value < self.below) or (self.above is not None and value > self.above)

    def first(self, points: Sequence[tuple[int, float]]) -> tuple[int, float] | None:
        """(step, value) at which it has alarmed for the first time at `times` watched steps in a row."""
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
OWN = "measured on this project's own networks; `experiments/004-fault-bench`"

RULES = (
    Rule("data_level_high", "level", "data_scaled_wrong", "settings", "images in [0, 1] and their noise",
         "the images' mean is {value:.3g}, where 1 is white", above=8.0),
    Rule("data_level_low", "level", "data_divided_twice", "settings", "images in [0, 1] and their noise",
         "the images' mean is {value:.3g}, where 1 is white", below=0.003, rank=DOUBTFUL),
    Rule("pixels_unread", "unread", "pixels_never_read", "settings", "a kernel narrower than the stride",
         "{value:.0%} of its input's pixels change nothing in its output", above=0.0),
    Rule("gain_low", "gain", "init_too_small", "init", VARIANCE,
         "its output is {value:.2g} times as large as its input, bias apart", below=0.02, rank=DOUBTFUL),
    Rule("gain_high", "gain", "init_too_large", "init", VARIANCE,
         "its output is {value:.2g} times as large as its input, bias apart", above=5.0, rank=DOUBTFUL),
    Rule("parameters_lost", "lost", "stale_gradient_reference", "contract", "what an optimizer moves",
         "after a backward {value:.0%} of the network's parameters are not those that the optimizer holds", above=0.0),
    Rule("weight_left_over", "weight_left_over", "gradient_never_cleared", "contract", SUMS,
         "after zero_grad the weight's gradient still has the norm {value:.2g}", above=0.0),
    Rule("bias_left_over", "bias_left_over", "conv_bias_never_cleared", "contract", SUMS,
         "after zero_grad the bias's gradient still has the norm {value:.2g}", above=0.0),
    Rule("at_upstream", "at_upstream", "sigmoid_gradient_at_upstream", "grad_input",
         "experiments/001-paper-tables: what Table II's 0.249991 is",
         "what it hands back is sigma' at the incoming gradient, to {value:.1g} of 0.25", below=1e-3),
    Rule("loss_undivided", "undivided", "mse_gradient_not_divided", "grad_input", "directional derivative",
         "the loss changes as its gradient says once that is divided by the batch (to {value:.1g})", below=1e-2),
    Rule("error_sign", "error_sign", "gradient_ignores_error", "grad_input",
         "dL/dlogit = 2 (y - t) y (1 - y) / N has the error's sign",
         "of its gradients {value:.0%} have the sign of (output - target)", below=0.9),
    Rule("relu_blocked", "blocked", "relu_forgets_input", "grad_input", "a ReLU's derivative is 1 where it is on",
         "of the units that are on {value:.0%} hand back a gradient of exactly 0", above=0.99),
    Rule("relu_leaks", "leaks", "relu_mask_from_gradient", "grad_input", "a ReLU's derivative is 0 where it is off",
         "{value:.0%} of the units are off and let a gradient through", above=0.0),
    Rule("learning_rate_low", "room", "learning_rate_too_small", "settings", "line search; " + OWN,
         "the loss goes on falling for {value:.0f} of the optimizer's first steps", above=400.0, rank=DOUBTFUL),
    Rule("relu_dead", "dead", "dead_units", "forward", "SageMaker Debugger, 50 % there",
         "{value:.0%} of its channels are 0 for every image", above=0.9, times=2, lasting=True, since=5, rank=DOUBTFUL),
    Rule("sigmoid_saturated", "saturated", "saturated", "forward", "SageMaker Debugger",
         "{value:.0%} of its inputs are below -23 or above 17", above=0.9, times=2, lasting=True, rank=DOUBTFUL),
    Rule("gradient_vanishes", "grad_ratio", "vanishing_gradient", "grad_input", "AUTOTRAINER, 1e-3 there",
         "the gradient at the first module is {value:.1g} times that at the last", below=1e-5, times=3, rank=DOUBTFUL),
    Rule("gradient_explodes", "grad_ratio", "exploding_gradient", "grad_input", "AUTOTRAINER",
         "the gradient at the first module is {value:.3g} times that at the last", above=70.0, times=3, rank=DOUBTFUL),
    Rule("update_large", "update_ratio", "learning_rate_too_large", "settings", "SageMaker Debugger",
         "one step changes its parameters by {value:.3g} times their norm", above=10.0, times=2, rank=DOUBTFUL),
    Rule("update_small", "update_ratio", "learning_rate_too_small", "settings", "SageMaker Debugger",
         "one step changes its parameters by {value:.1g} times their norm", below=1e-8, times=3, rank=DOUBTFUL),
    Rule("output_flat", "output_class", "output_collapsed", "forward", "the classes of a collapsed output",
         "the output is no image, but flat (class {value:.0f} of 7)", below=4.5, times=2, lasting=True,
         since=500, rank=DOUBTFUL),
)  # fmt: skip
THROWN = ("dead_units", "output_collapsed", "saturated", "vanishing_gradient")
"""Causes that a learning rate explains which is too large for the first step already."""


def read(history: History) -> list[Sign]:
    """Every sign in the signals, each at the step where its rule is sure of it.

    Args:
        history: signals by name, without MLflow's prefix; their order is that of the modules.
    """
    signs = list(_located(history))
    for order, rule in enumerate(RULES, start=1):
        found = []
        for name, points in history.items():
            module, _, signal = name.rpartition("/")
            if signal == rule.signal and (first := rule.first(points)) is not None:
                found.append((first[0], module or NETWORK, first[1]))
        for step, module, value in sorted(found, key=lambda one: one[0]):  # stable: the first module of a step
            said = rule.said.format(value=value)
            signs.append(Sign(rule.name, rule.cause, module, rule.direction, step, said, rule.rank, order))
    return [_explained(sign, history) for sign in signs]


def _explained(sign: Sign, history: History) -> Sign:
    room = history.get("optimizer/room")
    if sign.rank == DOUBTFUL and sign.cause in THROWN and room and room[0][1] < ROOM_OF_A_LONG_STEP:
        said = f"{sign.evidence} ({sign.module}); the loss rises after {room[0][1]:.2g} of the optimizer's first steps"
        return Sign(
            sign.rule, "learning_rate_too_large", "optimizer", "settings", sign.step, said, DOUBTFUL, sign.order
        )
    return sign


def _located(history: History) -> Iterator[Sign]:
    """From which parameters' gradients are wrong, where the mistake is: directional derivatives need no reference.

    A gradient that is wrong while those of all parameters behind it are right was spoiled between the two.
    """
    slopes = [
        (name.removesuffix("/slope"), points[0][1]) for name, points in history.items() if name.endswith("/slope")
    ]
    parameters = [(name.rpartition("."), value) for name, value in slopes if name != "loss"]
    modules = list(dict.fromkeys(module for (module, _, _), _ in parameters))
    wrong = {module: {key: value for (m, _, key), value in parameters if m == module and is_off(value)}
             for module in modules}  # fmt: skip
    if is_off(of_loss := dict(slopes).get("loss", 1.0)):
        said = f"along its gradient the loss changes {of_loss:.4g} times as fast as the gradient says"
        yield Sign("slope_of_loss", "gradient_wrong", "loss", "grad_input", 0, said, order=30)
        return
    last = next((module for module in reversed(modules) if wrong[module]), None)
    if last is None:
        return
    right_before = modules.index(last) > 0 and not wrong[modules[modules.index(last) - 1]]
    count = sum(1 for (module, _, _), _ in parameters if module == last)
    if right_before or 0 < len(wrong[last]) < count:
        key, value = next(iter(wrong[last].items()))
        bias = "bias" in key
        cause = "conv_bias_gradient_on_class" if bias and value == NOT_SAID else "gradient_wrong"
        direction = "grad_bias" if bias else "grad_weight"
        yield Sign("slope_of_parameter", cause, last, direction, 0, _said(last, key, value), order=31)
        return
    behind = _behind(last, modules, history)
    key, value = next(iter(wrong[last].items()))
    yield Sign("slope_of_parameter", "gradient_wrong", behind, "grad_input", 0,
               f"{_said(last, key, value)}; behind {behind} the gradients are right", order=31)  # fmt: skip


def _behind(last: str, modules: Sequence[str], history: History) -> str:
    """The module that has spoiled the gradient of `last`: the next one with parameters, or else the network's last."""
    position = modules.index(last)
    if position + 1 < len(modules):
        return modules[position + 1]
    every = [name.removesuffix("/grad_norm") for name in history if name.endswith("/grad_norm")]
    return every[-1] if every else last


def _said(module: str, key: str, value: float) -> str:
    if value == NOT_SAID:
        return f"the loss depends on {module}.{key}, whose gradient is exactly 0"
    return f"along {module}.{key}'s gradient the loss changes {value:.4g} times as fast as the gradient says"


def is_off(slope: float) -> bool:
    """Whether a slope is not the 1 that a right gradient gives."""
    return abs(slope - 1) > SLOPE_TOLERANCE
