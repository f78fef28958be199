"""Every rule on both sides of its threshold, where a wrong slope is put, and what a sign comes to."""

import math
from dataclasses import replace

import pytest

from scratch_dl.diagnosis import RULES, Sign, conclude, read_signs
from scratch_dl.diagnosis.causes import CAUSES, HEALTHY, UNKNOWN
from scratch_dl.diagnosis.rules import left_out, rules_for
from scratch_dl.diagnosis.signs import ROOM_OF_A_LONG_STEP, SLOPE_TOLERANCE, THROWN
from scratch_dl.diagnosis.verdict import CERTAIN, DOUBTFUL
from scratch_dl.faults import FAULTS

DIRECTIONS = {"forward", "grad_input", "grad_weight", "grad_bias", "contract", "init", "settings"}
EVERY = 400


def sides(rule):
    """The last value that is in order, and the first that is not, of each of its thresholds."""
    if rule.below is not None:
        yield rule.below, math.nextafter(rule.below, -math.inf)
    if rule.above is not None:
        yield rule.above, math.nextafter(rule.above, math.inf)


BOTH_SIDES = [pytest.param(rule, *values, id=rule.name) for rule in RULES for values in sides(rule)]


def steps(rule, count):
    """Watched steps from the first at which the rule is asked."""
    return [rule.since + EVERY * number for number in range(count)]


def of(rule, history):
    """The rule's own signs."""
    return [sign for sign in read_signs(history) if sign.rule == rule.name]


@pytest.mark.parametrize(("rule", "inside", "outside"), BOTH_SIDES)
def test_a_rule_is_silent_at_its_threshold_and_speaks_just_beyond_it(rule, inside, outside):
    """With its cause, the module before the signal's name, its direction, its rank, the step and the value."""
    row = steps(rule, rule.times)
    assert of(rule, {f"a.b/{rule.signal}": [(step, inside) for step in row]}) == []
    (sign,) = of(rule, {f"a.b/{rule.signal}": [(step, outside) for step in row]})
    assert (sign.cause, sign.module, sign.direction) == (rule.cause, "a.b", rule.direction)
    assert (sign.rank, sign.step) == (rule.rank, row[-1])
    assert sign.evidence == rule.evidence.format(value=outside)
    (whole,) = of(rule, {rule.signal: [(step, outside) for step in row]})
    assert whole.module == "network"


@pytest.mark.parametrize(("rule", "inside", "outside"), BOTH_SIDES)
def test_a_rule_waits_for_its_first_step_and_for_a_whole_row(rule, inside, outside):
    """One step less is no sign, nor a row with a value in order within it, nor what came before the first step."""
    name, row = f"a/{rule.signal}", steps(rule, 2 * rule.times - 1)
    assert of(rule, {name: [(step, outside) for step in row[: rule.times - 1]]}) == []
    broken = [(step, inside if number == rule.times - 1 else outside) for number, step in enumerate(row)]
    assert of(rule, {name: broken}) == []
    early = [(rule.since - rule.times + number, outside) for number in range(rule.times)]
    assert of(rule, {name: early}) == [] or rule.since == 0
    later = [(row[0], inside), *((step + 1, outside) for step in row)]
    assert [sign.step for sign in of(rule, {name: later})] == [row[rule.times - 1] + 1]


@pytest.mark.parametrize(("rule", "_inside", "outside"), BOTH_SIDES)
def test_progress_clears_a_doubtful_rule_and_no_certain_one(rule, _inside, outside):
    """Progress is a network that has become better than its noisy input."""
    signs = of(rule, {f"a/{rule.signal}": [(step, outside) for step in steps(rule, rule.times)]})
    assert conclude(signs, progress=False).cause == rule.cause
    cleared = conclude(signs, progress=True).cause
    assert cleared == (HEALTHY if rule.rank == DOUBTFUL else rule.cause)


def test_rules_have_names_of_their_own_a_source_and_a_threshold():
    """Rules are data."""
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert rule.source.strip(), rule.name
        assert rule.below is not None or rule.above is not None, rule.name
        assert rule.direction in DIRECTIONS, rule.name
        assert rule.rank in (CERTAIN, DOUBTFUL), rule.name
        assert rule.times >= 1, rule.name
        assert rule.evidence.format(value=0.5).strip(), rule.name


def test_every_cause_of_a_rule_is_one_of_the_causes():
    """Also what a rule's cause becomes."""
    assert {rule.cause for rule in RULES} <= set(CAUSES)
    assert set(THROWN) <= {rule.cause for rule in RULES}


def test_every_cause_says_what_is_wrong_and_what_mends_it():
    """In a line each; of a healthy run there is nothing to mend."""
    assert set(FAULTS) <= set(CAUSES)
    for name, cause in CAUSES.items():
        assert cause.what.strip(), name
        assert "\n" not in cause.what + cause.cure, name
        assert bool(cause.cure.strip()) == (name != HEALTHY), name


@pytest.mark.parametrize("name", sorted({rule.signal for rule in RULES}))
def test_a_healthy_value_of_every_signal_is_no_sign(name):
    """Those that were seen in a healthy run at lr 5: no rule trips over any of them."""
    healthy = {"level": 1.1, "unread": 0.0, "gain": 0.6, "lost": 0.0, "weight_left_over": 0.0, "bias_left_over": 0.0,
               "at_upstream": 0.9, "undivided": 3.0, "error_sign": 1.0, "blocked": 0.0, "leaks": 0.0,
               "room": 8.0, "dead": 0.4, "saturated": 0.0, "grad_ratio": 0.5, "update_ratio": 0.3,
               "output_class": 7.0}  # fmt: skip
    assert read_signs({f"a/{name}": [(step, healthy[name]) for step in (0, 1, 2, 400, 800, 1200)]}) == []


# A learning rate that is too large for the first step ---------------------------------------------------------------


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.cause in THROWN], ids=lambda rule: rule.name)
@pytest.mark.parametrize("short", [True, False], ids=["short-room", "room"])
def test_where_the_first_step_is_too_long_the_learning_rate_explains_what_it_has_thrown(rule, short):
    """On both sides of how far one can go before the loss rises."""
    outside = next(sides(rule))[1]
    room = math.nextafter(ROOM_OF_A_LONG_STEP, -math.inf) if short else ROOM_OF_A_LONG_STEP
    history = {"optimizer/room": [(0, room)], f"a/{rule.signal}": [(s, outside) for s in steps(rule, rule.times)]}
    (sign,) = of(rule, history)
    if short:
        assert (sign.cause, sign.module, sign.direction) == ("learning_rate_too_large", "optimizer", "settings")
        assert "(a)" in sign.evidence
    else:
        assert (sign.cause, sign.module) == (rule.cause, "a")
    assert (sign.rank, sign.step) == (DOUBTFUL, steps(rule, rule.times)[-1])


def test_a_short_room_alone_is_no_sign():
    """It is what a working learning rate at its upper end looks like."""
    assert read_signs({"optimizer/room": [(0, 0.5)]}) == []


# Where a wrong slope is put -----------------------------------------------------------------------------------------

MODULES = ("conv1", "conv2", "up1", "up2")
EACH = [f"{module}.{key}" for module in MODULES for key in ("weight", "bias")]
BOTH = {module: [f"{module}.weight", f"{module}.bias"] for module in MODULES}
# (parameters whose slope is off, the module and direction that are named)
SLOPES = [
    pytest.param(["conv2.bias"], ("conv2", "grad_bias"), id="a-bias"),
    pytest.param(["up2.bias"], ("up2", "grad_bias"), id="the-last-bias"),
    pytest.param(["conv1.bias"], ("conv1", "grad_bias"), id="the-first-bias"),
    pytest.param(["conv1.bias", "conv2.bias"], ("conv2", "grad_bias"), id="two-biases"),
    pytest.param(["conv1.weight"], ("conv1", "grad_weight"), id="the-first-weight"),
    pytest.param(["up1.weight"], ("up1", "grad_weight"), id="a-weight"),
    pytest.param(BOTH["up1"], ("up1", "grad_weight"), id="both-of-one-module-and-none-before"),
    pytest.param(BOTH["conv1"], ("conv2", "grad_input"), id="before-conv2"),
    pytest.param(BOTH["conv1"] + BOTH["conv2"], ("up1", "grad_input"), id="before-up1"),
    pytest.param(BOTH["conv1"] + BOTH["conv2"] + BOTH["up1"], ("up2", "grad_input"), id="before-up2"),
    pytest.param(BOTH["conv1"] + BOTH["up1"], ("up1", "grad_weight"), id="both-of-two-and-right-between"),
    pytest.param(EACH, ("sigmoid", "grad_input"), id="everything-so-the-last-module"),
    pytest.param(["loss"], ("loss", "grad_input"), id="the-loss"),
    pytest.param(["loss", *EACH], ("loss", "grad_input"), id="the-loss-explains-everything"),
]


def slopes(wrong, value):
    """Signals of a network of which these parameters' slopes are `value`."""
    watched = [*MODULES, "sigmoid"]
    return {
        **{f"{name}/slope": [(0, value if name in wrong else 1.0)] for name in ["loss", *EACH]},
        **{f"{module}/grad_norm": [(0, 1.0)] for module in watched},
    }


@pytest.mark.parametrize(("wrong", "place"), SLOPES)
@pytest.mark.parametrize("value", [0.25, 16.0, -1.0, 0.0])
def test_a_wrong_slope_is_put_where_the_gradient_was_spoiled(wrong, place, value):
    """Whatever its size and sign, before the first step, as a certain sign."""
    (sign,) = read_signs(slopes(wrong, value))
    assert (sign.module, sign.direction) == place
    assert (sign.cause, sign.step, sign.rank) == ("gradient_wrong", 0, CERTAIN)
    assert f"{value:.4g} times as fast" in sign.evidence


@pytest.mark.parametrize("wrong", [["conv2.bias"], EACH, ["loss"]], ids=["bias", "everything", "loss"])
@pytest.mark.parametrize("direction", [1, -1], ids=["more", "less"])
def test_a_slope_counts_as_wrong_just_beyond_its_tolerance(wrong, direction):
    """On both sides of 1."""
    assert read_signs(slopes(wrong, 1 + direction * SLOPE_TOLERANCE * 0.999)) == []
    assert len(read_signs(slopes(wrong, 1 + direction * SLOPE_TOLERANCE * 1.001))) == 1


def test_a_network_without_biases_is_located_by_its_weights():
    """One weight, or all up to a module."""
    weights = {f"{module}.weight/slope": [(0, 1.0)] for module in MODULES}
    (sign,) = read_signs(weights | {"conv2.weight/slope": [(0, 2.0)]})
    assert (sign.module, sign.direction) == ("conv2", "grad_weight")
    (sign,) = read_signs(weights | {f"{module}.weight/slope": [(0, 2.0)] for module in ("conv1", "conv2")})
    assert (sign.module, sign.direction) == ("up1", "grad_input")


def test_no_slope_and_right_slopes_are_no_sign():
    """As of a network that takes no float64, and of a healthy one."""
    assert read_signs({}) == []
    assert read_signs(slopes([], 1.0)) == []


# What the signs come to ---------------------------------------------------------------------------------------------


def sign(**settings):
    defaults = {"rule": "r", "cause": "gradient_wrong", "module": "m", "direction": "grad_input", "step": 0,
                "evidence": "e"}  # fmt: skip
    return Sign(**(defaults | settings))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(sign(step=50), sign(step=0, rank=DOUBTFUL), id="certain-before-doubtful"),
        pytest.param(sign(step=1, order=9), sign(step=2, order=1), id="in-time"),
        pytest.param(sign(order=1), sign(order=2), id="in-order"),
        pytest.param(
            sign(rank=DOUBTFUL, step=5, order=9), sign(rank=DOUBTFUL, step=10, order=1), id="doubtful-in-time"
        ),
    ],
)
def test_the_verdict_is_the_first_sign_by_rank_then_time_then_order(first, second):
    """Whichever was seen first; the other one is said beside it."""
    second = replace(second, cause="dead_units", module="other")
    for signs in ([first, second], [second, first]):
        verdict = conclude(signs, progress=False, output_class="half")
        assert (verdict.cause, verdict.module, verdict.step) == (first.cause, first.module, first.step)
        assert verdict.also == [second]
        assert verdict.output_class == "half"
        assert (verdict.what, verdict.cure) == CAUSES[first.cause]


def test_of_equal_signs_the_one_that_was_said_first_stands():
    """The order of the modules is theirs."""
    assert conclude([sign(module="a"), sign(module="b")], progress=False).module == "a"


def test_a_rule_names_the_first_module_of_the_first_step():
    """Modules in the order of their signals, as a network's are."""
    history = {"a/unread": [(0, 0.75)], "b/unread": [(0, 0.5)], "c/lost": [(1, 0.5)]}
    signs = read_signs(history)
    assert [(s.module, s.step) for s in signs] == [("a", 0), ("b", 0), ("c", 1)]
    assert conclude(signs, progress=False).module == "a"


def test_nothing_that_counts_is_a_healthy_verdict():
    """With the output's class all the same."""
    for signs in ([], [sign(rank=DOUBTFUL)]):
        verdict = conclude(signs, progress=True, output_class="input")
        assert verdict.healthy
        assert (verdict.line, verdict.output_class, verdict.also) == (HEALTHY, "input", [])
    assert not conclude([sign(rank=DOUBTFUL)], progress=False).healthy
    assert UNKNOWN != HEALTHY


def test_a_verdict_is_one_line_and_plain_values():
    """With module, direction and step in words."""
    verdict = conclude([sign(step=7), sign(step=9)], progress=False)
    assert verdict.line == "gradient_wrong: m grad_input, from step 7"
    assert conclude([sign()], progress=False).line == "gradient_wrong: m grad_input, before the first step"
    assert verdict.to_json()["also"][0]["step"] == 9


MADE_FOR_THE_SQUARED_ERROR = ("loss_undivided", "error_sign", "learning_rate_low")


@pytest.mark.parametrize(
    ("target", "silent"),
    [
        ("scratch_dl.nn.MSELoss", ()),
        ("scratch_dl.nn.L1Loss", ("loss_undivided", "learning_rate_low")),
        ("scratch_dl.nn.CharbonnierLoss", ("loss_undivided", "learning_rate_low")),
        ("my_losses.MSELoss", MADE_FOR_THE_SQUARED_ERROR),
    ],
)
def test_rules_that_do_not_hold_under_a_loss_are_silent_and_named(target, silent):
    """Each speaks under the squared error at the same numbers; every other rule speaks under every loss."""
    loss = {"_target_": target}
    for rule in RULES:
        _, outside = next(sides(rule))
        history = {f"a/{rule.signal}": [(step, outside) for step in steps(rule, rule.times)]}
        assert [sign.rule for sign in read_signs(history)].count(rule.name) == 1
        spoken = [sign.rule for sign in read_signs(history, rules_for(loss))]
        assert spoken.count(rule.name) == (rule.name not in silent), rule.name
    name = target.rpartition(".")[2]
    words = f"{', '.join(silent)}: rules that do not hold under {name}" if silent else ""
    assert left_out(loss) == words
    assert left_out(None) == ""


def test_a_left_out_rule_does_not_change_which_sign_comes_first():
    history = {"a/dead": [(500, 1.0), (900, 1.0)], "a/level": [(0, 9.0)]}
    every = read_signs(history)
    assert read_signs(history, rules_for({"_target_": "my_losses.Own"})) == every
