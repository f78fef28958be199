"""Hydra's grammar of sweeps is read as distributions; what is drawn of them is what Hydra then reads."""

import itertools
import math

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from scratch_dl.config.composing import compose_config
from scratch_dl.search.space import read_space
from scratch_dl.search.space_check import check_keys, check_losses, with_real_numbers
from scratch_dl.search.trial_result import Objective
from scratch_dl.system.errors import ConfigError

QUICK = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
SGD_OR_ADAM = {"optimizer": "choice(sgd,adam)"}
BY_OPTIMIZER = {
    "optimizer.momentum": {"optimizer=sgd": "interval(0.0,0.99)"},
    "optimizer.lr": {"optimizer=sgd": "tag(log,interval(0.02,20.0))", "optimizer=adam": "tag(log,interval(1e-4,0.03))"},
}


def one(text):
    """The parameter that a distribution describes."""
    (parameter,) = read_space({"k": text}, {}, []).parameters
    return parameter


def parsed(override):
    return OverridesParser.create().parse_override(override).value()


def setting(**values):
    """Of a configuration."""
    known = {key.replace("__", "."): value for key, value in values.items()}
    return known.get


def distributions(space):
    """Optuna's own, by names in the study."""
    trial = optuna.create_study().ask()
    space.draw(trial, setting())
    return trial.distributions


def exactly(values):
    return [(type(value), value) for value in values]


@pytest.fixture(scope="module")
def base():
    return compose_config("train", ["search=custom"])


# Choices


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("choice(2,3,4)", [2, 3, 4]),
        ("choice(0.5,1e-3)", [0.5, 0.001]),
        ("choice(true,false)", [True, False]),
        ("choice(same,valid)", ["same", "valid"]),
        ("choice('a b','1')", ["a b", "1"]),
        ("choice(1,'1')", [1, "1"]),
        ('choice("it\'s")', ["it's"]),
        ("choice([8,16],[16,32])", ["[8,16]", "[16,32]"]),
        ("choice(same,1,0.5)", ["same", 1, 0.5]),
        ("choice(3)", [3]),
        ("1,2", [1, 2]),
        ("null,0.5", [None, 0.5]),
        ("[null,1],[2]", ["[null,1]", "[2]"]),
        ("int(choice(1.5,2.5))", [1, 2]),
        ("str(choice(1,2))", ["1", "2"]),
        ("bool(choice(0,1))", [False, True]),
    ],
)
def test_choices_keep_their_values_and_types_and_hydra_gets_them_again(text, values):
    parameter = one(text)
    assert exactly(parameter.values()) == exactly(values)
    for value in values:
        wanted = parsed(f"k={value}") if str(value).startswith("[") else value
        assert exactly([parsed(parameter.override(value))]) == exactly([wanted])


def test_a_drawn_choice_is_one_of_optunas_categories():
    (parameter,) = read_space({"k": "null,true,2,0.5,word"}, {}, []).parameters
    values = [None, True, 2, 0.5, "word"]
    for value in values:
        assert exactly([parameter.suggest(optuna.trial.FixedTrial({"k": value}))]) == exactly([value])
    (distribution,) = distributions(read_space({"k": "null,true,2,0.5,word"}, {}, [])).values()
    assert distribution == optuna.distributions.CategoricalDistribution(values)


# Ranges


@pytest.mark.parametrize(
    "text",
    [
        "range(5)", "range(1,5)", "range(1,6,2)", "range(1,5,2)", "range(5,1,-1)", "range(6,1,-2)", "range(-3,3)",
        "range(1,2)", "int(range(1,5))", "float(range(1,5))", "range(start=1,stop=7,step=3)",
        "range(0.0,1.0,0.25)", "range(0,1,0.1)", "range(1,5,1.5)", "range(1.0,0.0,-0.25)", "range(2,0.5,-0.5)",
        "range(0,0.3,0.1)", "range(-1.0,1.0,0.5)", "range(0.1,0.95,0.3)",
        "range(1,3.5)", "range(0,0.5)",  # numbers with a point, to Hydra
    ],
)  # fmt: skip
def test_a_range_has_hydras_own_values_of_its_own_types(text):
    wanted = sorted(OverridesParser.create().parse_override(f"k={text}").sweep_iterator(), key=float)
    values = one(text).values()
    assert [type(value) for value in values] == [type(parsed(f"k={value}")) for value in wanted]
    assert values == pytest.approx([float(value) for value in wanted], abs=1e-12)


@pytest.mark.parametrize(
    ("text", "low", "high", "step"),
    [("range(1,6,2)", 1, 5, 2), ("range(5,1,-1)", 2, 5, 1), ("range(1.0,0.0,-0.25)", 0.25, 1.0, 0.25)],
)
def test_a_range_is_drawn_between_its_ends_in_its_steps(text, low, high, step):
    space = read_space({"k": text}, {}, [])
    kind = optuna.distributions.IntDistribution if isinstance(low, int) else optuna.distributions.FloatDistribution
    assert distributions(space) == {"k": kind(low, high, step=step)}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = set()
    for _ in range(60):
        trial = study.ask()
        drawn |= set(space.draw(trial, setting()).values())
        assert trial.distributions == distributions(space)
    assert drawn == set(space.parameters[0].values())


# Intervals


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("interval(1,5)", (1, 5, False)),
        ("interval(-5, +5)", (-5, 5, False)),
        ("interval(start=1,end=5)", (1, 5, False)),
        ("tag(log,interval(1,64))", (1, 64, True)),
        ("int(interval(1.5,5.5))", (1, 5, False)),
        ("int(tag(log,interval(1,9)))", (1, 9, True)),
        ("interval(3,3)", (3, 3, False)),
        ("interval(1_000,2_000)", (1000, 2000, False)),
        ("float(interval(1,5))", (1.0, 5.0, False)),
        ("tag(log,float(interval(1,5)))", (1.0, 5.0, True)),
        ("interval(1.0,5)", (1.0, 5.0, False)),
        ("interval(1,5e0)", (1.0, 5.0, False)),
        ("interval(-0.5,0.5)", (-0.5, 0.5, False)),
        ("tag(log,interval(0.02,20))", (0.02, 20.0, True)),
        ("tag(interval(0.0,1.0))", (0.0, 1.0, False)),
    ],
)
def test_an_interval_is_of_integers_if_its_bounds_are(text, expected):
    low, high, log = expected
    parameter = one(text)
    assert exactly([parameter.low, parameter.high]) == exactly([low, high])
    kind = optuna.distributions.IntDistribution if isinstance(low, int) else optuna.distributions.FloatDistribution
    assert distributions(read_space({"k": text}, {}, [])) == {"k": kind(low, high, log=log)}
    drawn = parameter.suggest(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask())
    assert type(drawn) is type(low)
    assert low <= drawn <= high


def test_integer_bounds_give_real_numbers_where_the_setting_is_one():
    def compose(overrides):
        return compose_config("train", ["search=custom", *overrides])

    text = "interval(1,10)"
    params = {
        "optimizer.lr": text,
        "trainer.epochs": text,
        "optimizer.momentum": f"int({text})",
    }
    conditions = {"optimizer.eps": {"optimizer=adam": "interval(0,1)"}}
    space = with_real_numbers(read_space(params, conditions, []), compose([]), compose)
    assert space.describe() == {
        "optimizer.lr": "interval(1.0,10.0)",
        "trainer.epochs": text,
        "optimizer.momentum": text,
        "optimizer.eps[optimizer=adam]": "interval(0.0,1.0)",
    }


# What cannot be read


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("choice(1,2", [r"k=choice\(1,2 ", "cannot be read", r"choice\(2,3,4\)"]),
        ("choice()", [r"k=choice\(\)", "cannot be read"]),
        ("choice(null,1)", [r"k=choice\(null,1\)", "cannot be read"]),
        ("sort(3,1,2)", ["k: a search draws in its own order", r"but got sort\(3,1,2\)"]),
        ("shuffle(range(1,5))", ["k: a search draws in its own order, so leave shuffle out"]),
        ("tag(log,shuffle(1,2))", ["so leave shuffle out"]),
        ("str(interval(1,2))", [r"k=str\(interval\(1,2\)\)", "cannot be read", "cast"]),
        ("interval(1)", [r"k=interval\(1\)", "cannot be read"]),
        ("intervall(1,2)", [r"k=intervall\(1,2\)", "cannot be read"]),
        ("glob(*)", [r"k must be a group with choices like glob\(\*\), but there are none"]),
        ("choice(1,1)", ["k must have choices that differ", "got 1 twice"]),
        ("choice(a,'a')", ["k must have choices that differ", "got 'a' twice"]),
        ("tag(log,choice(1,2))", ["k: choices have no logarithm", r"tag\(log,...\) is for intervals"]),
        ("tag(log,range(1,5))", ["k: tag", "a range has steps"]),
        ("tag(exp,interval(1,5))", ["k may have the tag log, but got exp"]),
        ("tag(exp,choice(1,5))", ["k may have the tag log, but got exp"]),
        ("interval(5,1)", ["k must have an interval with low <= high", r"got interval\(5,1\)"]),
        ("tag(log,interval(0,1))", ["k must have an interval with 0 < low <= high", r"got tag\(log,interval"]),
        ("tag(log,interval(-1.0,1))", ["k must have an interval with 0 < low <= high"]),
        ("interval(0,inf)", ["k must have an interval with", "finite", r"got interval\(0,inf\)"]),
        ("interval(nan,1)", ["k must have an interval with", r"got interval\(nan,1\)"]),
        ("range(1,1)", ["k must have a range with something in it", r"got range\(1,1\)"]),
        ("range(5,1)", ["k must have a range with something in it"]),
        ("range(1,5,-1)", ["k must have a range with something in it"]),
        ("range(1,5,0)", ["k must have a range with something in it", r"got range\(1,5,0\)"]),
    ],
)
@pytest.mark.parametrize("where", ["params", "arguments", "conditions"])
def test_what_cannot_be_drawn_is_refused_with_key_rule_and_value(text, words, where):
    given = {"params": {"k": text}} if where == "params" else {}
    given |= {"conditions": {"k": {"optimizer=sgd": text}}} if where == "conditions" else {}
    with pytest.raises(ConfigError) as refused:
        read_space(given.get("params", {}), given.get("conditions", {}), [f"k={text}"] if where == "arguments" else [])
    for word in words:
        assert refused.match(word)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("params", "conditions", "arguments", "words"),
    [
        ({}, {}, [], "a search needs something to search: give a key choice"),
        ({"optimizer.lr": 1.0}, {}, ["seed=3"], "a search needs something to search"),
        ({"k": "choice(1,2)"}, {}, ["k=1"], "a search needs something to search"),
        ({}, {"k": "interval(0,1)"}, [], r"k must be like \{optimizer=sgd: .*\}, but got 'interval\(0,1\)'"),
        ({}, {"k": None}, [], r"conditions\.k must be like \{optimizer=sgd: .*\}, but got None"),
        ({}, {"k": {"sgd": "interval(0,1)"}}, [], r"k must have conditions like optimizer=sgd, but got sgd"),
        ({}, {"k": {"optimizer=sgd": 0.9}}, [], r"conditions\.k: optimizer=sgd must have choice.*, but got 0\.9"),
        ({}, {"k": {"optimizer=sgd": "word"}}, [], r"conditions\.k: optimizer=sgd must have .*, but got 'word'"),
        ({"k": "choice(1,2)"}, {"k": {"optimizer=sgd": "choice(1,2)"}}, [],
         "k must be drawn always or on conditions, but stands in params and in conditions"),
        ({}, {}, ["k=1,2", "k=3,4"], "k must be given once, but stands in the command line 2 times"),
        ({}, {"k": {"optimizer=sgd": "choice(1,2)", "optimizer='sgd'": "choice(3,4)"}}, [],
         r"k.* must be given one distribution, but got two"),
    ],
)  # fmt: skip
def test_a_space_that_says_nothing_or_two_things_is_refused(params, conditions, arguments, words):
    with pytest.raises(ConfigError, match=words):
        read_space(params, conditions, arguments)


@pytest.mark.parametrize("other", ["optimizer=sgd,adam", "optimizer='sgd' u=3", "u=3"])
def test_conditions_that_can_hold_at_once_are_two_distributions_for_one_key(other):
    conditions = {"k": {"optimizer=sgd": "choice(1,2)", other: "choice(3,4)"}}
    with pytest.raises(ConfigError, match=r"k must .*one distribution, but got two where optimizer=sgd and"):
        read_space({}, conditions, [])


def test_a_number_is_the_same_condition_however_it_is_written():
    with pytest.raises(ConfigError, match=r"got two where u=3 and u=3\.0"):
        read_space({}, {"k": {"u=3": "choice(1,2)", "u=3.0": "choice(3,4)"}}, [])


def test_a_point_with_a_setting_that_is_not_drawn_there_does_not_fit():
    space = read_space({"u": "choice(3,4)"}, {"k": {"u=3": "choice(1,2)", "u=4": "choice(3,4)"}}, [])
    assert space.misfit({"u": 3, "k[u=3]": 1}) is None
    assert space.misfit({"k[u=4]": 3}) is None  # what the point leaves open is drawn
    assert space.misfit({"u": 3, "k[u=4]": 3}) == "k[u=4] is not drawn where u=3"


def test_only_the_largest_branch_of_a_setting_counts_for_the_size_of_a_space(monkeypatch):
    space = read_space({"u": "choice(3,4)"}, {"k": {"u=3": "choice(1,2,3)", "u=4": "choice(1,2)"}}, [])
    for most, expected in ((6, True), (5, False)):
        monkeypatch.setattr("scratch_dl.search.space.MOST_POINTS", most)
        assert space.is_enumerable == expected


def test_all_of_several_conditions_must_hold():
    conditions = {"k": {"u=3,[5,3] v=nearest": "choice(1,2)", "u=3 v=transposed": "choice(3,4)"}}
    space = read_space({"u": "choice(3,4,[5,3])", "v": "choice(nearest,transposed)"}, conditions, [])
    values = {"k[u=3,[5,3] v=nearest]": 1, "k[u=3 v=transposed]": 3}
    for u, v, expected in (
        (3, "nearest", ["k=1"]),
        ("[5,3]", "nearest", ["k=1"]),
        (3, "transposed", ["k=3"]),
        ("[5,3]", "transposed", []),
        (4, "nearest", []),
    ):
        assert [text for text in drawn(space, {**values, "u": u, "v": v}) if text.startswith("k=")] == expected
    assert len(list(space.grid(setting()))) == 2 + 2 + 2 + 1 + 1 + 1


def test_a_key_that_the_configuration_has_not_is_refused_with_the_nearest_one(base):
    for params, conditions, words in [
        ({"model.kernelsize": "choice(3,4)"}, {}, r"model\.kernelsize is not a setting here; did you mean 'model.kern"),
        ({"model.channels.3": "choice(3,4)"}, {}, r"model\.channels\.3 is not a setting here"),
        ({"zzzzzzzz": "choice(3,4)"}, {}, "zzzzzzzz is not a setting here, so it cannot be searched"),
        ({"seed": "1,2"}, {"optimizer.lr": {"optimiser=sgd": "interval(0,1)"}}, "optimiser is not .* mean 'optimizer'"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            check_keys(read_space(params, conditions, []), base)
    params = {"model.channels.0": "8,16", "optimizer": "sgd,adam", "trainer.clip_norm": "null,1.0", "+model.new": "1,2"}
    check_keys(read_space(params, {**BY_OPTIMIZER, "optimizer.eps": {"optimizer=adam": "1e-8,1e-6"}}, []), base)


def test_a_loss_is_no_objective_where_the_loss_is_searched():
    """Values under different losses, or eps, are numbers of different kinds; where no loss is searched they are one."""
    loss, psnr = Objective("val/loss", "best", "minimize"), Objective("val/psnr_db", "best", "maximize")
    for params in ({"loss": "choice(mse,l1)"}, {"loss.eps": "interval(1e-4,1e-1)"}):
        space = read_space(params, {}, [])
        with pytest.raises(ConfigError, match=r"must not be a loss where loss[.\w]* is searched.*'best val/loss'"):
            check_losses(space, (psnr, loss))
        check_losses(space, (psnr,))
    check_losses(read_space({"optimizer.lr": "interval(0.1,1.0)"}, {}, []), (loss,))


def test_a_metric_cannot_be_searched(base):
    with pytest.raises(ConfigError, match=r"metrics\.ssim cannot be searched, as it is not of the training itself"):
        check_keys(read_space({"metrics.ssim": "choice(1,2)"}, {}, []), base)


# The command line wins


@pytest.mark.parametrize(
    ("argument", "left", "fixed"),
    [
        ("model.kernel_size=3", ["model.channels.0", "model.channels.1"], ["model.kernel_size=3"]),
        ("model.channels=[8,8,8]", ["model.kernel_size"], ["model.channels=[8,8,8]"]),
        ("model.channels.1=8", ["model.kernel_size", "model.channels.0"], ["model.channels.1=8"]),
        ("model=unet", ["model.kernel_size", "model.channels.0", "model.channels.1"], ["model=unet"]),
        ("model.kernel=3", ["model.kernel_size", "model.channels.0", "model.channels.1"], ["model.kernel=3"]),
        ("~model.kernel_size", ["model.channels.0", "model.channels.1"], ["~model.kernel_size"]),
        ("model.kernel_size=range(5,7)", ["model.channels.0", "model.channels.1", "model.kernel_size"], []),
        ("model.channels=[1],[2]", ["model.kernel_size", "model.channels"], []),
    ],
)
def test_what_the_command_line_says_of_a_key_is_all_that_is_said_of_it(argument, left, fixed):
    params = {"model.kernel_size": "choice(3,4)", "model.channels.0": "8,16", "model.channels.1": "8,16"}
    space = read_space(params, {}, [argument])
    assert [parameter.key for parameter in space.parameters] == left
    assert list(space.fixed) == fixed
    if "range" in argument:
        assert space.parameters[-1].values() == [5, 6]


def test_the_items_of_a_list_that_the_command_line_gives_replace_its_conditions():
    conditions = {"model.padding": {"model.kernel_size=3": "choice([0,1],[1,0])"}, **BY_OPTIMIZER}
    space = read_space(SGD_OR_ADAM, conditions, ["model.padding.0=choice(0,1)"])
    names = [parameter.name for parameter in space.parameters]
    assert "model.padding.0" in names
    assert not any(name.startswith("model.padding[") for name in names)
    assert "optimizer.lr[optimizer=sgd]" in names


def test_the_command_line_wins_over_conditions_too():
    for argument, left in [
        ("optimizer.lr=1.0", ["optimizer", "optimizer.momentum[optimizer=sgd]"]),
        ("optimizer.momentum=0.5,0.9", ["optimizer", "optimizer.momentum", "optimizer.lr[optimizer=sgd]",
                                        "optimizer.lr[optimizer=adam]"]),
        ("optimizer=adam", ["optimizer.momentum[optimizer=sgd]", "optimizer.lr[optimizer=sgd]",
                            "optimizer.lr[optimizer=adam]"]),
    ]:  # fmt: skip
        assert [one.name for one in read_space(SGD_OR_ADAM, BY_OPTIMIZER, [argument]).parameters] == left


@pytest.mark.parametrize(
    ("params", "arguments"),
    [
        ({"model.channels": "choice([16,32,16],[24,32,24])"}, ["model.channels.0=8"]),
        ({"model.channels": [16, 32, 16], "seed": "1,2"}, ["model.channels.0=8"]),
        ({"model.channels.0": "16,32"}, ["model.channels=[8,32,16]", "seed=1,2"]),
        ({"+model.channels.0": "16,32"}, ["model.channels.0=8", "seed=1,2"]),
    ],
)
def test_an_item_that_the_command_line_fixes_is_fixed_in_every_trial(params, arguments):
    try:
        space = read_space(params, {}, arguments)
    except ConfigError as refused:
        assert "model.channels" in str(refused)  # noqa: PT017 - to refuse it is as good as to obey
        return
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    overrides = [
        *space.fixed,
        *(parameter.override(value) for parameter, value in space.draw(trial, setting()).items()),
    ]
    assert compose_config("train", overrides).model.channels[0] == 8


def test_a_plain_value_in_params_stays_with_its_type():
    params = {"a": 3, "b": True, "c": None, "d": "word", "e": [8, "x y"], "f": 0.5, "g": "1,2"}
    space = read_space(OmegaConf.create(params), {}, [])
    assert [parameter.key for parameter in space.parameters] == ["g"]
    values = {text.partition("=")[0]: parsed(text) for text in space.fixed}
    assert exactly(values.values()) == exactly(value for value in params.values() if value != "1,2")


# Conditions


def drawn(space, values, **configured):
    """Draw with everything that may be drawn at hand; the overrides."""
    point = space.draw(optuna.trial.FixedTrial(values), setting(**configured))
    return [parameter.override(value) for parameter, value in point.items()]


ALL = {
    "optimizer.momentum[optimizer=sgd]": 0.5,
    "optimizer.lr[optimizer=sgd]": 2.0,
    "optimizer.lr[optimizer=adam]": 1e-3,
}


def test_momentum_is_drawn_for_sgd_only_and_the_rate_by_optimizer():
    space = read_space(SGD_OR_ADAM, BY_OPTIMIZER, [])
    assert drawn(space, {**ALL, "optimizer": "sgd"}) == ["optimizer=sgd", "optimizer.momentum=0.5", "optimizer.lr=2.0"]
    assert drawn(space, {**ALL, "optimizer": "adam"}) == ["optimizer=adam", "optimizer.lr=0.001"]


def test_a_condition_on_what_is_not_drawn_looks_at_the_configuration():
    space = read_space({}, BY_OPTIMIZER, [])
    assert drawn(space, ALL, optimizer="sgd") == ["optimizer.momentum=0.5", "optimizer.lr=2.0"]
    assert drawn(space, ALL, optimizer="adam") == ["optimizer.lr=0.001"]
    assert drawn(space, ALL, optimizer="own") == []


@pytest.mark.parametrize(
    ("condition", "own", "holds"),
    [
        ("u=nearest,transposed", "transposed", True),
        ("u=nearest,transposed", "bilinear", False),
        ("u=true", True, True),
        ("u=true", False, False),
        ("u=null", None, True),
        ("u=null", "none", False),
        ("u=null,0.5", 0.5, True),
        ("u=3", 3, True),
        ("u=0", 0.0, True),
        ("u=1e-3", 0.001, True),
        ("u=[8,16]", [8, 16], True),
        ("u=[8,16]", [16, 8], False),
        ("u='a b'", "a b", True),
    ],
)
def test_a_condition_holds_where_the_setting_has_one_of_its_values(condition, own, holds):
    space = read_space({}, {"k": {condition: "choice(1,2)"}}, [])
    (name,) = (parameter.name for parameter in space.parameters)
    assert drawn(space, {name: 2}, u=own) == (["k=2"] if holds else [])


@pytest.mark.parametrize("value", ["null", "true", "0.5", "word", "'a b'", "[1,2]"])
def test_a_condition_holds_where_its_value_is_drawn(value):
    space = read_space({"u": f"{value},other"}, {"k": {f"u={value}": "1,2"}}, [])
    first = space.parameters[0]
    name = space.parameters[1].name
    for number, expected in ((0, 1), (1, 0)):
        assert len(drawn(space, {"u": list(first.choices)[number], name: 1})) == 1 + expected


CHAIN = {
    "optimizer.momentum": {"optimizer=sgd": "choice(0.0,0.9)"},
    "optimizer.nesterov": {"optimizer.momentum=0.9": "choice(true,false)"},
}
CHAINED = {"optimizer.momentum[optimizer=sgd]": 0.9, "optimizer.nesterov[optimizer.momentum=0.9]": True}


@pytest.mark.parametrize("turned", [False, True], ids=["in-order", "turned-round"])
def test_a_chain_of_conditions_is_followed_whatever_their_order(turned):
    space = read_space(SGD_OR_ADAM, dict(reversed(CHAIN.items())) if turned else CHAIN, [])
    own = {"optimizer": "sgd", "optimizer__momentum": 0.9}  # which is not the one that is drawn
    full = drawn(space, {**CHAINED, "optimizer": "sgd"}, **own)
    assert sorted(full) == ["optimizer.momentum=0.9", "optimizer.nesterov=true", "optimizer=sgd"]
    off = {**CHAINED, "optimizer.momentum[optimizer=sgd]": 0.0}
    assert sorted(drawn(space, {**off, "optimizer": "sgd"}, **own)) == ["optimizer.momentum=0.0", "optimizer=sgd"]


def test_a_chain_ends_where_its_middle_is_not_drawn():
    space = read_space(SGD_OR_ADAM, CHAIN, [])
    # The configuration's own momentum is that of SGD; Adam has none.
    given = {**CHAINED, "optimizer": "adam"}
    assert drawn(space, given, optimizer="sgd", optimizer__momentum=0.9) == ["optimizer=adam"]


def test_conditions_in_a_ring_are_refused():
    with pytest.raises(ConfigError, match=r"look at one another: a\[b=1\], b\[a=1\]"):
        read_space({"c": "1,2"}, {"a": {"b=1": "1,2"}, "b": {"a=1": "1,2"}}, [])


# The grid


def test_a_grid_is_the_product_in_order():
    space = read_space({"a": "choice(x,y)", "b": "range(1,4)", "c": "true,false"}, {}, [])
    points = [tuple(point.values()) for point in space.grid(setting())]
    assert points == [(a, b, c) for a in ("x", "y") for b in (1, 2, 3) for c in (True, False)]


def test_a_grid_branches_at_conditions():
    conditions = {"momentum": {"optimizer=sgd": "0.0,0.9"}, "nesterov": {"momentum=0.9": "true,false"}}
    space = read_space(SGD_OR_ADAM, conditions, [])
    sgd, momentum, nesterov = "optimizer", "momentum[optimizer=sgd]", "nesterov[momentum=0.9]"
    assert list(space.grid(setting())) == [
        {sgd: "sgd", momentum: 0.0},
        {sgd: "sgd", momentum: 0.9, nesterov: True},
        {sgd: "sgd", momentum: 0.9, nesterov: False},
        {sgd: "adam"},
    ]


def test_every_point_of_a_grid_can_be_drawn_and_lies_inside_of_its_distributions():
    space = read_space({"a": "range(0,1,0.1)", "b": "range(0.1,0.8,0.3)", "c": "int(interval(1,3))"}, {}, [])
    points = list(space.grid(setting()))
    assert len(points) == 10 * 3 * 3
    kinds = distributions(space)
    for point in points:
        for name, value in point.items():
            assert kinds[name]._contains(kinds[name].to_internal_repr(value)), (name, value)


def test_a_grid_needs_an_end_of_values():
    read_space({"a": "1,2", "b": "interval(1,5)"}, {}, []).check_finite()
    for params, conditions in (({"a": "interval(0.0,1.0)"}, {}), ({"b": "1,2"}, {"a": {"b=1": "interval(0,0.5)"}})):
        with pytest.raises(ConfigError, match=r"sampler=grid takes choices and ranges, but a is interval\(0\.0,"):
            read_space(params, conditions, []).check_finite()


# There and back


def back(parameter, value):
    again = parsed(parameter.override(value))
    assert type(again) is type(value)
    assert again == value


@QUICK
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
       | st.text("\\'\"$,=[]{}() \t#~+:%&a1", max_size=8),
       st.sampled_from(list(Quote)))  # fmt: skip
def test_every_text_comes_back_from_hydra_as_it_was(text, quote):
    argument = f"k={QuotedString(text, quote).with_quotes()},[{QuotedString(text, quote).with_quotes()}]"
    parameter = read_space({}, {}, [argument]).parameters[0]
    assert next(iter(parameter.choices)) == text
    back(parameter, text)
    assert parsed(parameter.override(list(parameter.choices)[1])) == [text]


@QUICK
@given(st.lists(st.none() | st.booleans() | st.integers(-99, 99) | st.floats(-9, 9).map(lambda one: one + 0.5)
                | st.sampled_from(["a", "1", "null", "true", "a b", "it's", "x,y"]),
                min_size=2, max_size=5,
                unique_by=lambda one: one if one is None or isinstance(one, str) else float(one)),
       st.randoms())  # fmt: skip
def test_every_choice_of_mixed_values_is_drawn_and_given_to_hydra_as_it_is(values, random):
    def text(value):
        if isinstance(value, str):
            return QuotedString(value, Quote.single).with_quotes()
        return "null" if value is None else str(value)

    space = read_space({}, {}, ["k=" + ",".join(map(text, values))])
    chosen = random.choice(values)
    ((parameter, value),) = space.draw(optuna.trial.FixedTrial({"k": chosen}), setting()).items()
    assert exactly([value]) == exactly([chosen])
    back(parameter, value)


# The configuration's own point


def test_the_baseline_is_the_configurations_own_point_by_names_of_the_study():
    params = {
        "optimizer": "choice(adam,sgd)",
        "k": "2,3,4",
        "p": "choice(0,same)",
        "c": "choice([8],[16,24])",
        "n": "0.5,null",
    }
    params |= {"i": "interval(1,9)", "f": "tag(log,interval(0.02,20.0))", "r": "range(0,1,0.1)"}
    space = read_space(params, BY_OPTIMIZER, [])
    own = setting(optimizer="sgd", k=4, p="same", c=[16, 24], n=None, i=7, f=1.0, r=0.3,
                  optimizer__momentum=0.9, optimizer__lr=1.0)  # fmt: skip
    point, outside = space.baseline(own)
    names = {"optimizer.momentum[optimizer=sgd]": 0.9, "optimizer.lr[optimizer=sgd]": 1.0}
    wanted = {"optimizer": "sgd", "k": 4, "p": "same", "c": "[16,24]", "n": None, "i": 7, "f": 1.0, "r": 0.3, **names}
    assert point.pop("r") == pytest.approx(wanted.pop("r"))
    assert point == wanted
    assert [type(value) for value in point.values()] == [type(value) for value in wanted.values()]
    assert outside == []


@pytest.mark.parametrize(
    ("text", "own", "nearest"),
    [
        ("choice(2,3)", 4, 2),
        ("choice(same,0)", [1, 1], "same"),
        ("interval(1,5)", 9, 5),
        ("interval(1,5)", 2.4, 2),
        ("interval(1,5)", None, 1),
        ("interval(0.5,5.0)", 0.1, 0.5),
        ("tag(log,interval(0.5,5.0))", "word", 0.5),
        ("range(1,8,3)", 3, 4),
        ("range(1,8,3)", 99, 7),
        ("range(0.0,1.0,0.25)", 0.3, 0.25),
        ("interval(1,5)", True, 1),
    ],
)
def test_what_lies_outside_of_the_space_is_moved_into_it_and_said(text, own, nearest):
    space = read_space({"k": text}, {}, [])
    point, outside = space.baseline(setting(k=own))
    assert exactly(point.values()) == exactly([nearest])
    assert len(outside) == 1
    assert outside[0].startswith(f"k={nearest}, as {own} is not in ")
    (distribution,) = distributions(space).values()
    assert distribution._contains(distribution.to_internal_repr(nearest))


@pytest.mark.parametrize("own", [round(0.1 * n, 1) for n in range(10)])
def test_a_setting_on_a_floating_range_is_inside_of_it(own):
    space = read_space({"k": "range(0,1,0.1)"}, {}, [])
    point, outside = space.baseline(setting(k=own))
    assert point["k"] == pytest.approx(own)
    assert outside == []
    (distribution,) = distributions(space).values()
    assert distribution._contains(point["k"])
    assert point["k"] in space.parameters[0].values()


def test_the_baseline_of_the_shipped_searches_is_drawn_without_a_word():
    for search in ("geometry", "optimisation", "joint"):
        config = compose_config("train", [f"search={search}"])
        space = read_space(config.hydra.sweeper.params, config.hydra.sweeper.conditions, [f"search={search}"])
        check_keys(space, config)
        choices = config.hydra.runtime.choices

        def own(key, config=config, choices=choices):
            return choices[key] if key in choices else OmegaConf.select(config, key)

        point, outside = space.baseline(own)
        assert outside == []
        assert space.draw(optuna.trial.FixedTrial(point), own)


def output_size(size, kernels, paddings, mode):
    """The size that the paper's network makes of `size`, by arithmetic."""
    for place, (kernel, padding) in enumerate(zip(kernels, paddings, strict=True)):
        if place < 2:
            size = (size + 2 * ((kernel - 1) // 2 if padding == "same" else padding) - kernel) // 2 + 1
        elif padding == "same":
            size *= 2
        elif mode == "nearest":
            size = 2 * size + 2 * padding - kernel + 1
        else:
            size = 2 * (size - 1) + kernel - 2 * padding
    return size


def test_the_shipped_geometries_are_all_that_fit_and_no_others():
    config = compose_config("train", ["search=geometry"])
    space = read_space(config.hydra.sweeper.params, config.hydra.sweeper.conditions, [])
    paddings = [parameter for parameter in space.parameters if parameter.key == "model.padding"]
    assert len(paddings) == 14
    for parameter in paddings:
        (kernel,), (mode,) = (condition.values for condition in parameter.conditions)
        sizes = [int(word) for word in kernel.strip("[]").split(",")]
        kernels = sizes * 4 if len(sizes) == 1 else sizes
        listed = [[word if word == "same" else int(word) for word in text.strip("[]").split(",")]
                  for text in parameter.choices]  # fmt: skip
        assert all(output_size(32, kernels, padding, mode) == 32 for padding in listed)
        fitting = {
            tuple(output_size(32, kernels[:layers], padding[:layers], mode) for layers in range(1, 5))
            for padding in itertools.product(("same", 0, 1, 2), repeat=4)
            if output_size(32, kernels, padding, mode) == 32
        }  # fmt: skip
        # Paddings that come to the same have the same sizes after each layer.
        assert len(fitting) == len(listed) == len({tuple(padding) for padding in listed}), parameter.name


# The digest


def test_the_digest_is_the_same_for_the_same_distributions_however_they_are_written():
    plain = read_space({"a": "choice(1,2)", "b": "interval(0.0,1.0)"}, {"c": {"a=1": "range(1,5)"}}, [])
    params = {"a": " choice( 1 , 2 )", "b": "float(interval(0,1))", "d": 3}
    same = read_space(params, {"c": {"a=1": "range(4,0,-1)"}}, ["seed=3", "search=custom"])
    assert (same.describe(), same.digest) == (plain.describe(), plain.digest)
    assert len(same.digest) == 12
    for other in ({"a": "choice(1,'2')"}, {"b": "interval(0,1)"}, {"b": "interval(0.0,1.5)"}, {"d": "1,2"}):
        assert read_space({**params, **other}, {"c": {"a=1": "range(1,5)"}}, []).digest != plain.digest
    assert read_space(params, {"c": {"a=2": "range(1,5)"}}, []).digest != plain.digest


def test_numbers_of_a_space_are_finite():
    """What is drawn can be told to a storage, which has no infinity."""
    for text in ("interval(0.0,1e308)", "tag(log,interval(1e-300,1e300))"):
        assert math.isfinite(one(text).suggest(optuna.create_study(sampler=optuna.samplers.RandomSampler(0)).ask()))
