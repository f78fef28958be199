"""Which trainings the study has."""

from _trainings import Point

F1 = "sigmoid_gradient_at_upstream"
# name -> what it is in words, and its overrides
GEOMETRIES = {
    **{
        f"{mode[0]}{kernel}": (f"{mode}, kernel {kernel}", f"model.upsampling={mode}", f"model.kernel_size={kernel}")
        for mode in ("nearest", "transposed")
        for kernel in (2, 3, 4, 5)
    },
    "n3-narrow": (
        "nearest, kernel 3, 8-16-8",
        "model.upsampling=nearest",
        "model.kernel_size=3",
        "model.channels=[8,16,8]",
    ),
    "t4-wide": (
        "transposed, kernel 4, 32-64-32",
        "model.upsampling=transposed",
        "model.kernel_size=4",
        "model.channels=[32,64,32]",
    ),
    "n3-padded": (
        "nearest, kernel 3, paddings 0 0 2 1",
        "model.upsampling=nearest",
        "model.kernel_size=3",
        "model.padding=[0,0,2,1]",
    ),
    "t4-padded": (
        "transposed, kernels 4 4 6 4, paddings 0 0 0 1",
        "model.upsampling=transposed",
        "model.kernel_size=[4,4,6,4]",
        "model.padding=[0,0,0,1]",
    ),
}
RATES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 5.0)
MOMENTUM_RATES = (0.5, 1.0)
MAIN_GEOMETRIES = ("n3", "t4")  # trained with other optimizers, mistakes and seeds as well
SEEDS = (0, 1, 2)
# Learning rate -> the most steps of a training with the fault, and the steps between two validations. At a rate ten
# times smaller the output needs about ten times as many steps to become black.
FAULTY_STEPS = {1e-7: (12000, 1200), 1e-6: (2400, 5), 1e-5: (300, 5), 1e-4: (60, 1)}
FAULTY_STEPS_AT_OTHER_RATES = (20, 1)
OTHER_FAULTS = ("init_tiny", "learning_rate_too_small", "relu_forgets_input", "sigmoid_gradient_wrong_form")
BATCH = 8
HEALTHY_EPOCHS, EPOCH_STEPS = 8, 300


def plan(smoke):
    """Return the points of all trainings, the faulty and short ones first."""
    return _small_plan() if smoke else [*_faulty_points(), *_healthy_points()]


def point_name(group, geometry, rate, momentum=0.0, seed=0):
    """Return the name of a point, which says everything that distinguishes it but the optimizer."""
    with_momentum = f"-m{momentum:g}" if momentum else ""
    return f"{group}-{geometry}-lr{rate:g}{with_momentum}" + (f"-seed{seed}" if seed else "")


def geometry_of(name):
    """Return the geometry of the point of this name."""
    longest_first = sorted(GEOMETRIES, key=len, reverse=True)  # since n3-narrow begins with n3
    return next(geometry for geometry in longest_first if f"-{geometry}-lr" in name)


def healthy_point(group, geometry, rate, *more, epochs=HEALTHY_EPOCHS, every=EPOCH_STEPS, **settings):
    """Return the point of a training without F1, validated every so many steps."""
    return _point(group, geometry, rate, *more, steps=(epochs * every, every), **settings)


def _faulty_point(group, geometry, rate, *more, momentum=0.0, steps=None):
    steps = steps or FAULTY_STEPS.get(rate, FAULTY_STEPS_AT_OTHER_RATES)
    return _point(group, geometry, rate, f"fault={F1}", "schedule=constant", *more, steps=steps, momentum=momentum)


def _point(group, geometry, rate, *more, steps, momentum=0.0, seed=0, verify=False):
    """Return one training; `steps` are all its steps, and those between two validations."""
    total, every = steps
    overrides = (
        "experiment=paper_sgd",
        "model.channels=[16,32,16]",
        *GEOMETRIES[geometry][1:],  # its own channels come after the common ones, and the last word counts
        *more,
        f"optimizer.lr={rate!r}",
        *(() if "optimizer=adam" in more else (f"optimizer.momentum={momentum}",)),
        f"seed={seed}",
        f"trainer.batch_size={BATCH}",
        f"data.crops_per_epoch={BATCH * every}",
        f"trainer.epochs={total // every}",
        "trainer.test=false",
        f"verification={'quick' if verify else 'off'}",
        "tracking.detail=trial",
    )
    return Point(point_name(group, geometry, rate, momentum, seed), overrides)


def _small_plan():
    grid = [(geometry, rate) for geometry in MAIN_GEOMETRIES for rate in (1e-4, 1.0)]
    small = "data.validation_crops=8"
    return [_faulty_point("faulty", g, r, small) for g, r in grid] + [
        healthy_point("healthy", g, r, small, epochs=1, every=10) for g, r in grid
    ]


def _faulty_points():
    """Return the grid with F1, and for two geometries other optimizers and other mistakes."""
    points = [_faulty_point("faulty", g, r) for g in GEOMETRIES for r in RATES]
    for g in MAIN_GEOMETRIES:
        points += [_faulty_point("faulty", g, 1e-7)]
        points += [_faulty_point("faulty", g, r, momentum=0.9) for r in (1e-4, 1.0)]
        points += [_faulty_point("faulty-adam", g, r, "optimizer=adam", steps=(600, 20)) for r in (1e-4, 1e-3, 1e-2)]
        points += [healthy_point(f"other-{fault}", g, 1.0, f"fault={fault}") for fault in OTHER_FAULTS]
    return points


def _healthy_points():
    """Return the grid without a fault, and for two geometries other seeds."""
    points = []
    for g in GEOMETRIES:
        points += [healthy_point("healthy", g, r, verify=r == 1.0) for r in RATES]
        points += [healthy_point("healthy", g, r, momentum=0.9) for r in MOMENTUM_RATES]
    for g in MAIN_GEOMETRIES:
        for seed in SEEDS[1:]:
            points += [healthy_point("healthy", g, r, seed=seed) for r in (0.1, 1.0, 5.0)]
            points += [healthy_point("healthy", g, r, momentum=0.9, seed=seed) for r in MOMENTUM_RATES]
    return points
