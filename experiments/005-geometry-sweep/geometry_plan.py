"""What is searched and trained: the space, the recipes, and how a geometry is described."""

import json

from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config

STUDY = "005-geometry-sweep"
F1 = "sigmoid_gradient_at_upstream"
SEEDS = (0, 1, 2)
KERNELS = ("2", "3", "4", "5", "6", "[6,4,4,6]", "[5,3,3,5]")
MODES = ("nearest", "transposed")
RECIPE = (
    "experiment=paper_sgd",
    "optimizer=adam",
    "optimizer.lr=0.002",
    "schedule=cosine",
    "model.init=xavier",
)
SPACE = (
    "model.channels=[32,64,32]",
    f"model.kernel_size=choice({','.join(KERNELS)})",
    "model.channels.0=16,32,64",
    "model.channels.1=32,64,128",
    "model.channels.2=16,32,64",
)
# The reduced space, all of which is trained: the search's with two widths for each layer, and without two kernels
TABLE_SPACE = (
    "model.kernel_size=choice(2,3,4,5,[5,3,3,5])",
    "model.channels.0=16,32",
    "model.channels.1=32,64",
    "model.channels.2=16,32",
)
# What a search was before: four settings, most of whose values fit no kernel size together
FLAT_PADDING = tuple(f"model.padding.{place}=choice(same,0,1,2)" for place in range(4))
TRIAL_EPOCHS = 8  # as conf/search/geometry.yaml has it
# search -> its own overrides, the number of trials, settings of hydra.sweeper
SEARCHES = {
    "healthy": ((), 80, ()),
    "fault": ((f"fault={F1}",), 40, ("hydra.sweeper.pruner=none",)),
}
MODELS = ("paper", "unet")
FINALS = [(model, noise) for noise in ("gaussian", "pixelation") for model in MODELS]
LONG_EPOCHS = 100  # about 30 minutes of one core
SPLITS = {"test": "test photographs", "validation": "validation photograph"}


def search_overrides(name, smoke):
    """Return what stands behind `python -m scratch_dl.train -m`, without the settings of Hydra and of tracking."""
    small = (
        "data.crops_per_epoch=320",
        "trainer.epochs=1",
        "data.validation_crops=8",
        "data.downsample=4",
        "verification=off",
    )
    return ["search=geometry", *RECIPE, *SPACE, *SEARCHES[name][0], *(small if smoke else ())]


def final_overrides(model, noise, smoke):
    """Return the overrides of a final, without its seed."""
    small = (
        "data.crops_per_epoch=16",
        "trainer.epochs=2",
        "data.validation_crops=8",
        "data.downsample=4",
        "verification=off",
        f"model.channels={'[8,8,8]' if model == 'paper' else 4}",
    )
    return (f"experiment=best_{model}", f"noise={noise}", "trainer.test=true", *(small if smoke else ()))


def build_setup(overrides):
    """Return what a training with these overrides is built of: network, data, optimizer and so on."""
    return build(compose_config("train", list(overrides)))


def geometry_of(params):
    """Return kernel size, mode, channels and paddings of a trial; a padding that equals "same" is called that."""
    kernel, mode = str(params["model.kernel_size"]).replace(" ", ""), params["model.upsampling"]
    sizes = json.loads(kernel) if kernel.startswith("[") else [int(kernel)] * 4
    words = params["model.padding"].strip("[]").split(",") if "model.padding" in params else ()
    paddings = [word if word == "same" else int(word) for word in words]
    paddings = paddings or [params[f"model.padding.{place}"] for place in range(4)]
    return {
        "kernel": kernel,
        "mode": mode,
        "channels": [int(params[f"model.channels.{place}"]) for place in range(3)],
        "padding": [
            "same" if padding in ("same", _same_padding(place, size, mode)) else padding
            for place, (size, padding) in enumerate(zip(sizes, paddings, strict=True))
        ],
    }


def geometry_overrides(geometry):
    """Return the overrides that make a geometry."""
    return (
        f"model.kernel_size={geometry['kernel']}",
        f"model.upsampling={geometry['mode']}",
        f"model.channels=[{','.join(map(str, geometry['channels']))}]",
        f"model.padding=[{','.join(map(str, geometry['padding']))}]",
    )


def describe(geometry):
    """Return kernel, padding and channels as short texts."""
    padding = "same" if _has_same_padding(geometry) else " ".join(map(str, geometry["padding"]))
    return describe_kernel(geometry["kernel"]), padding, "-".join(map(str, geometry["channels"]))


def describe_kernel(kernel):
    """Return "5 3 3 5" of "[5,3,3,5]"."""
    return kernel.strip("[]").replace(",", " ")


def settings_of(geometry):
    """Return the settings by which good geometries are told from others."""
    return {
        "kernel_size": describe_kernel(geometry["kernel"]),
        "upsampling": geometry["mode"],
        **{f"channels.{place}": number for place, number in enumerate(geometry["channels"])},
        "padding": "same" if _has_same_padding(geometry) else "by numbers",
    }


def _has_same_padding(geometry):
    return set(geometry["padding"]) == {"same"}


def _same_padding(place, kernel, mode):
    """Return the number that "same" stands for in conv1, conv2, up1 or up2; None where no number does."""
    if place < 2:
        return (kernel - 1) // 2
    if mode == "nearest":
        return (kernel - 1) // 2 if kernel % 2 else None
    return (kernel - 2) // 2 if kernel % 2 == 0 else None
