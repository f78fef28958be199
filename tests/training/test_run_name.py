"""The name of a run says in what it differs from the default training."""

import pytest
from PIL import Image

from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config
from scratch_dl.system.errors import ConfigError
from scratch_dl.training.run_name import LENGTH, run_name

FAULT = "fault=sigmoid_gradient_at_upstream"
LONG = ("model.channels=[24,32,24]", "noise.std=0.05", "schedule=ramp_down", "optimizer=sgd", "data.target=clean",
        "data.crop_size=48", "trainer.batch_size=50", "trainer.clip_norm=1.5")  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        pytest.param([], "paper", id="default"),
        pytest.param(["optimizer.lr=0.004", "seed=0", "trainer.test=true"], "paper", id="given-as-it-is-by-default"),
        pytest.param(["threads=1", "tracking.detail=trial", "verification=off"], "paper", id="not-of-the-training"),
        pytest.param(["trainer.epochs=5", "seed=1", "model=unet", "noise=pixelation", "optimizer=sgd",
                      "optimizer.lr=0.0123456"], "unet pixelation sgd lr=0.0123 epochs=5 seed=1", id="telling-first"),
        pytest.param(["optimizer=adam", "seed=2"], "paper adam seed=2", id="another-choice-of-the-same-class"),
        pytest.param(["model=unet", FAULT], f"{FAULT} unet", id="a-fault-above-all"),
        pytest.param(["experiment=best_unet"], "unet best_unet", id="a-preset-stands-for-its-settings"),
        pytest.param(["experiment=best_unet", "optimizer=sgd", "trainer.epochs=3"], "unet best_unet sgd epochs=3",
                     id="and-what-differs-from-it"),
        pytest.param(["debug=fast", "trainer.epochs=9"], "paper fast epochs=9", id="debug"),
        pytest.param(["data=folder", "data.path=some/photos/"], "paper folder path=photos", id="end-of-a-path"),
        pytest.param(["loss=charbonnier", "loss.eps=0.01", "seed=2"], "paper charbonnier eps=0.01 seed=2", id="loss"),
        pytest.param(["loss=mse", "metrics.ssim=null"], "paper", id="a-metric-is-not-of-the-training"),
        pytest.param(LONG, "paper channels=[24,32,24] std=0.05 sgd ramp_down target=clean crop_size=48 +2",
                     id="too-long"),
    ],
)  # fmt: skip
def test_a_name_has_what_differs_with_the_most_telling_first(overrides, name, tmp_path, monkeypatch):
    (tmp_path / "some" / "photos").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(tmp_path / "some" / "photos" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    overrides = list(overrides)
    assert run_name(build(compose_config("train", overrides)), overrides) == name
    assert len(name) <= LENGTH


def test_a_name_never_exceeds_its_length_and_has_settings_that_only_this_run_has():
    setup = build(compose_config("train", []))
    setup.config["model"]["own"] = 3
    assert run_name(setup, []) == "paper own=3"
    setup.config["model"]["own"] = "x" * 100
    assert run_name(setup, ["seed=1"]) == "paper +1"
    setup.config["model"]["_target_"] = "my." + "X" * 100
    assert run_name(setup, []) == "X" * LENGTH


def test_a_preset_that_cannot_be_composed_without_the_rest_costs_the_name_only(monkeypatch):
    def refuse(*_, **__):
        raise ConfigError("data.path must be given")

    setup = build(compose_config("train", []))
    monkeypatch.setattr("scratch_dl.training.run_name._settings", refuse)
    assert run_name(setup, []) == "paper"
