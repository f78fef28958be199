"""Every choice of every group composes and builds; every bad value is refused by its key, before anything is read."""

from pathlib import Path

import pytest
import torch

from scratch_dl import config as configuration
from scratch_dl.config import CONF, ConfigError, build, plain
from scratch_dl.frontdoor import compose_config

CHOICES = [
    f"{path.parent.name}={path.stem}"
    for path in sorted(Path(CONF).glob("*/*.yaml"))
    if path.parent.name in ("model", "optimizer", "schedule", "data", "noise", "trainer", "tracking")
]
PRESETS = [
    f"{path.parent.name}={path.stem}"
    for path in sorted(Path(CONF).glob("*/*.yaml"))
    if path.parent.name in ("experiment", "debug")
]
NEEDS = {
    "data=course": ["data.path=somewhere", "noise=recorded"],
    "data=folder": ["data.path=somewhere"],
    "noise=recorded": ["data=course", "data.path=somewhere"],
}


def built(*overrides):
    return build(compose_config("train", overrides))


@pytest.mark.parametrize("choice", [*CHOICES, *PRESETS])
def test_every_choice_of_every_group_builds_without_reading_data(choice):
    setup = built(choice, *NEEDS.get(choice, []))
    assert setup.network.output_size(setup.data.crop_size) == setup.data.crop_size
    assert len(setup.optimizer.parameters) == len(setup.network.parameters())


def test_building_leaves_the_global_random_state_alone():
    before = torch.random.get_rng_state()
    built("model=unet")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_seed_draws_the_weights():
    weights = [built(f"seed={seed}").network.parameters()[0].value for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=abc", r"optimizer\.lr must be a finite number >= 0, but got 'abc'"),
        ("optimizer.lr=-1", r"optimizer\.lr must be a finite number >= 0, but got -1"),
        ("optimizer.lr=nan", r"optimizer\.lr must be a finite number"),
        ("optimizer.lr=1e400", r"optimizer\.lr must be a finite number"),
        ("optimizer.momentum=1.5", r"optimizer\.momentum must be a finite number >= 0 and < 1, but got 1\.5"),
        ("trainer.epochs=2.5", r"trainer\.epochs must be an integer >= 1, but got 2\.5"),
        ("trainer.epochs=0", r"trainer\.epochs must be >= 1, but got 0"),
        ("trainer.batch_size=0", r"trainer\.batch_size must be >= 1, but got 0"),
        ("trainer.max_minutes=0", r"trainer\.max_minutes must be a finite number > 0, but got 0"),
        ("model.kernel_size=0", r"model\.kernel_size must be >= 1, but got 0"),
        ("model.padding=-1", r"model\.padding must be >= 0, but got -1"),
        ("model.padding=0", r"model: the output must have the input's size 32x32, but the sizes are: input 32x32, .*"),
        ("model.upsampling=nearst", r"model\.upsampling must be one of .*did you mean 'nearest'"),
        ("+model.stride=0", r"model\.stride is not a setting"),
        ("+optimizer.momentun=0.5", r"optimizer\.momentun is not a setting; did you mean 'momentum'"),
        ("+trainer.epoch=3", r"trainer\.epoch is not a setting; did you mean 'epochs'"),
        ("+sed=3", r"sed is not a setting; did you mean 'seed'"),
        ("seed=-1", r"seed must be >= 0, but got -1"),
        ("dtype=float16", r"dtype must be one of float32, float64, but got 'float16'"),
        ("device=tpu", r"device must be cpu, cuda, cuda:N or auto, but got 'tpu'"),
        ("threads=0", r"threads must be >= 1, but got 0"),
        ("tracking.detail=all", r"tracking\.detail must be one of full, trial, but got 'all'"),
        ("schedule.share=0", r"schedule\.share must be a finite number > 0"),
        ("data.target=noise2clean", r"data\.target must be one of"),
        ("data.crop_size=0", r"data\.crop_size must be >= 1"),
        ("noise.std=-0.1", r"noise\.std must be a finite number > 0"),
    ],
)
def test_a_bad_value_is_refused_by_its_key_and_rule(override, message):
    with pytest.raises(ConfigError, match=message):
        built(override)


@pytest.mark.parametrize("slot", ["model", "optimizer", "schedule", "data", "noise"])
@pytest.mark.parametrize("target", ["os.mkdir", "builtins.open", "pandas.eval", "scratch_dlx.evil"])
def test_a_target_outside_the_package_is_refused_by_name(slot, target):
    with pytest.raises(ConfigError, match=rf"{slot}\._target_ must begin with one of scratch_dl\., but got '{target}'"):
        built(f"{slot}._target_={target}")


def test_a_target_reached_through_the_packages_imports_is_refused():
    with pytest.raises(ConfigError, match=r"model\._target_ must name a callable of the package scratch_dl"):
        built("model._target_=scratch_dl.checkpoint.os.getcwd")


def test_a_nested_target_is_refused_too():
    with pytest.raises(ConfigError, match=r"model\.extra\[0\]\._target_ must begin with"):
        built("+model.extra=[{_target_: os.getcwd}]")


def test_an_allowed_prefix_lets_a_model_of_ones_own_in(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(
        "from scratch_dl.models import Denoiser\n"
        "from scratch_dl.nn import Conv2d, Sigmoid\n"
        "def tiny(width, size, generator):\n"
        "    first, last = Conv2d(3, width, 1, generator=generator), Conv2d(width, 3, 1, generator=generator)\n"
        "    return Denoiser({'first': first, 'last': last, 'sigmoid': Sigmoid()}, 1, size)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = plain(compose_config("train", ["allowed_targets=[my_models.]"]))
    setup = build({**config, "model": {"_target_": "my_models.tiny", "width": 5}})
    assert setup.network[0].weight.shape == (5, 3, 1, 1)


def test_a_model_whose_output_has_another_size_is_refused_whoever_built_it(tmp_path, monkeypatch):
    (tmp_path / "my_small_models.py").write_text(
        "from scratch_dl.nn import Conv2d, Sequential\n"
        "def half():\n"
        "    return Sequential({'conv': Conv2d(3, 3, 2, stride=2)})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = plain(compose_config("train", ["allowed_targets=[my_small_models.]"]))
    with pytest.raises(ConfigError, match=r"model: the output must have .*conv 16x16"):
        build({**config, "model": {"_target_": "my_small_models.half"}})


def test_a_gpu_is_asked_for_only_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device must be cpu here"):
        built("device=cuda")
    assert built("device=auto").device == "cpu"


def test_the_message_of_a_callable_is_prefixed_by_its_key():
    with pytest.raises(ConfigError, match=r"^optimizer\.lr must"), configuration.naming("optimizer", {"lr": 1}):
        raise ValueError("lr must be")
