"""Which trainings the study has: with every fault, and without one."""

from itertools import product
from typing import NamedTuple

from _trainings import Point
from scratch_dl import faults

PRESET = "experiment=paper_sgd"
GEOMETRIES = {
    "k4 transposed": ["model.kernel_size=4", "model.upsampling=transposed", "model.channels=[16,32,16]"],
    "k2 transposed": ["model.kernel_size=2", "model.upsampling=transposed", "model.channels=[16,32,16]"],
    "k3 nearest": ["model.kernel_size=3", "model.upsampling=nearest", "model.channels=[16,32,16]"],
    "k5 nearest": ["model.kernel_size=5", "model.upsampling=nearest", "model.channels=[8,16,8]"],
    "unet": ["model=unet", "model.channels=8", "model.kernel_size=3", "model.upsampling=nearest", "model.init=he"],
}
# kinds of evidence
MODES = {
    "oracle": ["verification=quick"],
    "no oracle": ["verification=quick", "verification.oracle=false"],
    "signals": ["verification=off"],
}
SEEDS = {0: ["optimizer.lr=0.5"], 1: ["optimizer=adam"]}
OPTIMIZERS = {
    "SGD 0.1": ["optimizer.lr=0.1", "optimizer.momentum=0"],
    "SGD 1": ["optimizer.lr=1", "optimizer.momentum=0"],
    "SGD 5": ["optimizer.lr=5", "optimizer.momentum=0"],
    "SGD 10": ["optimizer.lr=10", "optimizer.momentum=0"],
    "momentum 0.5": ["optimizer.lr=0.5"],
    "momentum 1": ["optimizer.lr=1"],
    "Adam 0.0003": ["optimizer=adam", "optimizer.lr=0.0003"],
    "Adam 0.002": ["optimizer=adam"],
}
# beside the usual optimizer
UNUSUAL = {
    "he init": ["model.init=he"],
    "xavier init": ["model.init=xavier"],
    "Poisson noise": ["noise=poisson"],
    "salt and pepper": ["noise=salt_pepper"],
    "pixelation": ["noise=pixelation"],
    "float64": ["dtype=float64"],
    "no bias": ["model.bias=false"],
    "clipped": ["trainer.clip_norm=0.1"],
    "Nesterov": ["optimizer.nesterov=true"],
}
USUAL_OPTIMIZER = "momentum 0.5"
UNUSUAL_GEOMETRIES = ("k4 transposed", "k3 nearest", "unet")
HEALTHY_SEEDS = {0: "oracle", 1: "no oracle"}
COMMON = ["schedule=constant", "tracking.detail=trial", "trainer.test=false", "data.validation_crops=32"]
STEPS, SMOKE_STEPS, BATCH = 200, 20, 8
HEALTHY_EPOCHS = 10  # of 300 steps


class FaultyTraining(NamedTuple):
    fault: str
    geometry: str
    seed: int
    mode: str


class HealthyTraining(NamedTuple):
    """A training without a fault; `settings` is a key of OPTIMIZERS or UNUSUAL."""

    geometry: str
    settings: str
    seed: int


def faulty_trainings(smoke):
    """Return point -> FaultyTraining."""
    trainings = product(
        ("sigmoid_gradient_at_upstream", "init_tiny") if smoke else faults.FAULTS,
        ("k3 nearest",) if smoke else GEOMETRIES,
        (0,) if smoke else SEEDS,
        MODES,
    )
    length = ["trainer.epochs=1", f"data.crops_per_epoch={BATCH * (SMOKE_STEPS if smoke else STEPS)}"]
    points = {}
    for fault, geometry, seed, mode in trainings:
        overrides = [*GEOMETRIES[geometry], *SEEDS[seed], f"seed={seed}", *MODES[mode], f"fault={fault}", *length]
        points[_point((fault, geometry, seed, mode), overrides)] = FaultyTraining(fault, geometry, seed, mode)
    return points


def healthy_trainings(smoke):
    """Return point -> HealthyTraining."""
    epochs = ["trainer.epochs=1", f"data.crops_per_epoch={BATCH * SMOKE_STEPS}"]
    length = epochs if smoke else [f"trainer.epochs={HEALTHY_EPOCHS}"]
    geometries, optimizers = (("k3 nearest",), (USUAL_OPTIMIZER,)) if smoke else (GEOMETRIES, OPTIMIZERS)
    points = {}
    for geometry, optimizer, seed in product(geometries, optimizers, HEALTHY_SEEDS):
        mode = MODES[HEALTHY_SEEDS[seed]]
        overrides = [*GEOMETRIES[geometry], *OPTIMIZERS[optimizer], f"seed={seed}", *mode, *length]
        points[_point(("healthy", geometry, seed, optimizer), overrides)] = HealthyTraining(geometry, optimizer, seed)
    for settings, geometry in product(() if smoke else UNUSUAL, UNUSUAL_GEOMETRIES):
        usual = OPTIMIZERS[USUAL_OPTIMIZER]
        overrides = [*GEOMETRIES[geometry], *usual, *UNUSUAL[settings], "seed=0", *MODES["no oracle"], *length]
        points[_point(("healthy", geometry, 0, settings), overrides)] = HealthyTraining(geometry, settings, 0)
    return points


def _point(name_parts, overrides):
    return Point("-".join(map(str, name_parts)).replace(" ", "_"), (PRESET, *overrides, *COMMON))
