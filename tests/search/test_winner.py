"""The printed command composes what the trial had, word for word; at full length, all but how long it trains."""

import shlex
from functools import lru_cache

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from scratch_dl.config.composing import compose_config
from scratch_dl.config.overrides import override_value
from scratch_dl.config.plain import flat, plain
from scratch_dl.search.winner import FULL, SAME, retrain_commands

LENGTH = ("trainer.epochs", "trainer.max_minutes", "trainer.patience", "data.crops_per_epoch")


@lru_cache
def composed(overrides):
    return compose_config("train", overrides)


def compose(overrides):
    """By Hydra, what it has made before not again."""
    return composed(tuple(overrides))


def given_overrides(command, prefix=()):
    """What stands behind the program's name, as a shell reads it."""
    words = shlex.split(command)
    start = ["python", "-m", "scratch_dl.train", *prefix]
    assert words[: len(start)] == start
    return words[len(start) :]


def trained(config):
    """The settings of a training, with none of those that do not change its weights."""
    return {
        key: value for key, value in flat(plain(config)).items()
        if not key.startswith(("tracking.", "verification.", "diagnosis.", "resume."))
        and key not in ("trainer.test", "trainer.pictures")
    }  # fmt: skip


TRIALS = {
    "as-it-stands": [],
    "numbers": ["optimizer=sgd", "optimizer.lr=0.020417", "optimizer.momentum=1e-05", "trainer.batch_size=16",
                "seed=7"],
    "adam": ["search=optimisation", "optimizer=adam", "optimizer.lr=0.00031", "model.init=he"],
    "adams-betas": ["optimizer=adam", "optimizer.betas=[0.5,0.99]", "optimizer.eps=1e-12"],
    "drawn-items": ["search=geometry", "model.channels.0=8", "model.channels.2=48", "model.padding.1=1",
                    "model.padding.3=same", "model.upsampling=nearest", "model.kernel_size=5"],
    "other-loss": ["loss=charbonnier", "loss.eps=0.01"],
    "own-metric": ["+metrics.pooled._target_=scratch_dl.data.metrics.psnr_pooled_db"],
    "other-model": ["model=unet", "model.kernel_size=5"],
    "own-modules": ["model=sequential", "model.modules.conv1.out_channels=16", "model.modules.conv2.in_channels=16"],
    "null-and-booleans": ["optimizer=sgd", "trainer.clip_norm=1.0", "model.bias=false", "optimizer.nesterov=true",
                          "trainer.patience=3"],
    "photographs": ["data.train=[astronaut]", "data.test=[coffee,'a b']", "data.augment=false", "data.downsample=2"],
    "quotes": ["data=folder", "data.path='/a b/it\\'s, [here]=1'"],
    "quoted-words": ["data.train=['007','null',astronaut]", r"data.test=['C:\pictures\a','']"],
    "added": ["+model.extra=3", "+optimizer.dict={a: 1, b: [x, 2.0]}", "allowed_targets=[my_layers.]"],
    "added-in-depth": ["model=sequential", "+model.modules.last={_target_: scratch_dl.nn.Sigmoid}"],
    "removed": ["optimizer=sgd", "~optimizer.nesterov"],
    "removed-group-item": ["model=sequential", "~model.modules.sigmoid"],
    "preset": ["experiment=unet_adam", "optimizer.lr=0.001"],
    "preset-and-group": ["experiment=small_and_fast", "optimizer=adam", "schedule=constant"],
    "debug": ["debug=overfit", "trainer.batch_size=4", "noise=salt_pepper"],
    "length": ["data.crops_per_epoch=80", "trainer.max_minutes=2.5", "trainer.epochs=3", "dtype=float64",
               "fault=init_tiny"],
}  # fmt: skip


@pytest.fixture(params=TRIALS, scope="module")
def trial(request):
    """A trial's configuration and its commands."""
    given = TRIALS[request.param]
    search = [] if any(word.startswith("search=") for word in given) else ["search=custom"]
    config = compose([*search, *given])
    return config, retrain_commands(config, compose)


def test_the_command_at_the_trials_length_composes_its_settings(trial):
    config, made = trial
    again = compose(given_overrides(made[SAME]))
    assert trained(again) == trained(config)
    assert trained(again) == trained(config)
    types = [[type(value) for _, value in sorted(trained(one).items())] for one in (again, config)]
    assert types[0] == types[1]


def test_the_command_at_full_length_has_the_configurations_own_length(trial):
    config, made = trial
    words = given_overrides(made[FULL])
    again, wanted = trained(compose(words)), trained(config)
    groups = [word for word in words if "." not in word.partition("=")[0] and not word.startswith(("+", "~", "seed="))]
    default = compose([word for word in groups if word.partition("=")[0] in config.hydra.runtime.choices])
    own = {key: OmegaConf.select(default, key) for key in LENGTH if key in again}
    assert {key: again[key] for key in own} == own
    assert {key: value for key, value in again.items() if key not in LENGTH} == {
        key: value for key, value in wanted.items() if key not in LENGTH
    }
    assert again["trainer.epochs"] == 24
    assert set(made) == {FULL, SAME}


def test_nothing_is_spelled_out_that_the_configuration_says_itself():
    made = retrain_commands(compose(["search=custom", "optimizer=adam", "optimizer.lr=0.001"]), compose)
    assert given_overrides(made[FULL]) == ["optimizer=adam", "optimizer.lr=0.001"]
    assert given_overrides(made[SAME]) == ["optimizer=adam", "optimizer.lr=0.001", "trainer.epochs=8"]


def test_hydras_own_flags_stand_first():
    made = retrain_commands(compose(["search=custom"]), compose, ["--config-dir", "/a b"])
    assert given_overrides(made[SAME], ["--config-dir", "/a b"]) == ["trainer.epochs=8"]


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=10) | st.text(
    "\\'\"$,=[]{}() \n#~+:%&a1", max_size=8
)
LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False)
    | TEXTS | st.sampled_from(["null", "TRUE", "1e5", "0x1", "inf", "nan", "1_000", "a.b", "a:1", "${seed}", "-", "/a"])
)  # fmt: skip


def typed(value):
    return [typed(one) for one in value] if isinstance(value, list) else (type(value), value)


@settings(deadline=None, max_examples=150)
@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=5))
def test_every_value_is_written_as_hydra_reads_it(value):
    (word,) = shlex.split(shlex.join([f"k={override_value(value)}"]))
    assert typed(OverridesParser.create().parse_override(word).value()) == typed(value)


@pytest.mark.parametrize("value", [{"a": 1, "b": ["x y", None]}, {"a": {"b": True}}, {}, []])
def test_mappings_are_written_as_hydra_reads_them(value):
    assert OverridesParser.create().parse_override(f"k={override_value(value)}").value() == value


def test_the_command_is_one_line_that_a_shell_reads_back():
    config = compose(["search=custom", "data.train=['it\\'s $HOME `here`; a']"])
    command = retrain_commands(config, compose)[SAME]
    assert "\n" not in command
    assert compose(given_overrides(command)).data.train == ["it's $HOME `here`; a"]


def test_a_metric_that_the_trial_left_out_is_left_out_again():
    words = given_overrides(retrain_commands(compose(["search=custom", "metrics.ssim=null"]), compose)[FULL])
    assert words == ["~metrics.ssim"]
    assert list(compose(words).metrics) == ["psnr_db"]
