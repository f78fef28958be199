"""Two points are one training if modules, initial weights and settings are the same, however those are written."""

import copy

import pytest
import yaml
from omegaconf import OmegaConf

from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config
from scratch_dl.search.identity import point_identity

GROUPS = ("model", "loss", "optimizer", "schedule", "noise", "verification", "diagnosis")


@pytest.fixture(scope="module")
def of():
    """Overrides -> the identity; composed by Hydra where a group is chosen, and else from what it made once."""
    plain = compose_config("train", ["search=custom"])
    known = {}

    def found(*overrides):
        if overrides not in known:
            pairs = [override.split("=", 1) for override in overrides]
            if any(key in GROUPS for key, _ in pairs):
                config = compose_config("train", ["search=custom", *overrides])
            else:
                config = copy.deepcopy(plain)
                for key, value in pairs:
                    OmegaConf.update(config, key, yaml.safe_load(value))
            known[overrides] = point_identity(build(config))
        return known[overrides]

    return found


KERNEL_4 = ["model.kernel_size=4"]
KERNEL_3 = ["model.kernel_size=3", "model.upsampling=nearest"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([*KERNEL_3, "model.padding=same"], [*KERNEL_3, "model.padding=1"]),
        ([*KERNEL_3, "model.padding=1"], [*KERNEL_3, "model.padding=[same,1,same,1]"]),
        ([*KERNEL_4, "model.padding=same"], [*KERNEL_4, "model.padding=1"]),  # transposed
        ([*KERNEL_4, "model.padding=same"], [*KERNEL_4, "model.padding=[1,same,1,1]"]),
        (KERNEL_4, ["model.kernel_size=[4,4,4,4]"]),
        ([], ["optimizer=adam_short_memory"]),
        ([], ["loss=mse"]),
        ([], ["metrics.ssim=null"]),
    ],
)
def test_the_same_training_written_otherwise_is_the_same_point(of, one, other):
    assert of(*one) == of(*other)


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "model.init=he",
        "model.channels=[24,32,16]",
        "model.channels.1=16",
        "model.kernel_size=2",
        "model.upsampling=nearest",
        "model.bias=false",
        "model=unet",
        "optimizer.lr=0.5",
        "optimizer=adam",
        "loss=l1",
        "loss=charbonnier",
        "schedule=ramp_down",
        "trainer.batch_size=16",
        "trainer.epochs=9",
        "trainer.clip_norm=1.0",
        "data.crops_per_epoch=80",
        "data.seed=1",
        "noise=poisson",
        "dtype=float64",
        "fault=init_tiny",
    ],
)
def test_whatever_changes_the_training_is_another_point(of, override):
    assert of(override) != of()


def test_the_upsampling_is_told_apart_where_its_weights_are_alike(of):
    modes = [of(*KERNEL_3[:1], f"model.upsampling={mode}") for mode in ("nearest", "transposed")]
    assert modes[0] != modes[1]


@pytest.mark.parametrize(
    "override",
    [
        "tracking.detail=full",
        "tracking.experiment=other",
        "tracking.run_name=mine",
        "tracking.dir=elsewhere",
        "verification=off",
        "verification=full",
        "verification.lockstep_steps=1",
        "diagnosis=off",
        "diagnosis.every=3",
        "hydra.sweeper.trial=3",
        "trainer.pictures=2",
        "threads=3",
    ],
)
def test_what_changes_nothing_but_rounding_and_records_is_no_matter(of, override):
    assert of(override) == of()


def test_it_is_found_again_without_touching_the_network():
    setup = build(compose_config("train", []))
    before = [parameter.value.clone() for parameter in setup.network.parameters()]
    assert point_identity(setup) == point_identity(setup)
    assert all((one == other.value).all() for one, other in zip(before, setup.network.parameters(), strict=True))
