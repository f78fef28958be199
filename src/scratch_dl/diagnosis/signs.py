"""From the signals of a run to signs: by the rules, and by which parameters have a wrong gradient."""

from collections.abc import Iterator, Mapping, Sequence

from scratch_dl.diagnosis.rules import RULES, Rule
from scratch_dl.diagnosis.verdict import DOUBTFUL, Sign
from scratch_dl.verification.report import NETWORK

History = Mapping[str, Sequence[tuple[int, float]]]
"""Signal -> its (step, value) in the order of the steps."""

SLOPE_TOLERANCE = 1e-3
NO_GRADIENT = 1e12
"""Stands for the slope if the loss depends on a parameter whose gradient is exactly 0."""
ROOM_OF_A_LONG_STEP = 4.0
THROWN = ("dead_units", "output_collapsed", "saturated", "vanishing_gradient")
"""Causes that are explained by a learning rate that is too large for the very first step."""


def read_signs(history: History, rules: Sequence[Rule] = RULES) -> list[Sign]:
    """Return every sign in the signals, each at the step that completes its rule.

    Args:
        history: signals by name, without MLflow's prefix, in the order of the modules.
        rules: those that hold in the training, in the order of RULES.
    """
    signs = list(_located(history))
    for rule in rules:
        order = 1 + RULES.index(rule)
        alarms = []
        for name, points in history.items():
            module, _, signal = name.rpartition("/")
            if signal == rule.signal and (first := rule.first(points)) is not None:
                alarms.append((first[0], module or NETWORK, first[1]))
        for step, module, value in sorted(alarms, key=lambda alarm: alarm[0]):  # stable: the first module of a step
            evidence = rule.evidence.format(value=value)
            signs.append(Sign(rule.name, rule.cause, module, rule.direction, step, evidence, rule.rank, order))
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
    """Yield where a mistake is, by which parameters have a wrong gradient; directional derivatives need no reference.

    If a gradient is wrong and those of all parameters behind it are right, a module between the two spoiled it.
    """
    slopes = [
        (name.removesuffix("/slope"), points[0][1]) for name, points in history.items() if name.endswith("/slope")
    ]
    parameters = [(name.rpartition("."), value) for name, value in slopes if name != "loss"]
    modules = list(dict.fromkeys(module for (module, _, _), _ in parameters))
    wrong = {
        module: {key: value for (m, _, key), value in parameters if m == module and is_off(value)} for module in modules
    }
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
        cause = "conv_bias_gradient_on_class" if bias and value == NO_GRADIENT else "gradient_wrong"
        direction = "grad_bias" if bias else "grad_weight"
        yield Sign("slope_of_parameter", cause, last, direction, 0, _slope_text(last, key, value), order=31)
        return
    behind = _behind(last, modules, history)
    key, value = next(iter(wrong[last].items()))
    yield Sign(
        "slope_of_parameter",
        "gradient_wrong",
        behind,
        "grad_input",
        0,
        f"{_slope_text(last, key, value)}; behind {behind} the gradients are right",
        order=31,
    )


def _behind(last: str, modules: Sequence[str], history: History) -> str:
    """Return the module that spoiled the gradient of `last`: the next one with parameters, or else the last one."""
    position = modules.index(last)
    if position + 1 < len(modules):
        return modules[position + 1]
    every = [name.removesuffix("/grad_norm") for name in history if name.endswith("/grad_norm")]
    return every[-1] if every else last


def _slope_text(module: str, key: str, value: float) -> str:
    if value == NO_GRADIENT:
        return f"the loss depends on {module}.{key}, whose gradient is exactly 0"
    return f"along {module}.{key}'s gradient the loss changes {value:.4g} times as fast as the gradient says"


def is_off(slope: float) -> bool:
    """Return whether a slope differs from 1, the slope of a right gradient."""
    return abs(slope - 1) > SLOPE_TOLERANCE
