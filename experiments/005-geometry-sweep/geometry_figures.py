"""The study's two figures."""

import random

from geometry_bm3d import denoise_with_bm3d
from geometry_plan import KERNELS, MODES, build_setup, describe_kernel

from _study import decibel
from scratch_dl.data import metrics
from scratch_dl.evaluation import baselines, scoring
from scratch_dl.training import checkpoint

WAYS_DRAWN = ("random", "tpe", "gp", "tpe as it was, copies counted")
BANDS = ("random", "tpe")  # those whose quartiles are drawn, too
FIRST_DRAWN = 3  # trial; up to it nothing has been learned
NETWORKS = {"paper": "the paper's network", "unet": "unet"}


def draw_trials(results):
    """Draw the last PSNR of each trial over its kernel size, coloured by mode: healthy on the left, F1 on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (name, title) in zip(panels, (("healthy", "without the fault"), ("fault", "with F1")), strict=True):
        _draw_points(axes, results[name]["trials"])
        healthy_levels = results["healthy"]["levels"]
        levels = {key: healthy_levels.get(key) for key in ("noisy", "blur")} | {"black": results[name]["black_db"]}
        for (key, level), style in zip(levels.items(), ("--", ":", "-."), strict=True):
            if level is not None:
                axes.axhline(level, linestyle=style, linewidth=1, color="0.4")
                axes.text(len(KERNELS) + 0.55, level, f"{key} {level:.1f}", ha="right", va="bottom", fontsize=8)
        axes.set_xticks(range(len(KERNELS)), [describe_kernel(kernel) for kernel in KERNELS], fontsize=8)
        axes.set(xlabel="kernel size", title=title, xlim=(-0.5, len(KERNELS) + 0.6))
        axes.grid(axis="y", alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 0.15))
    panels[0].set_ylabel("PSNR on the validation crops at a trial's end, dB")
    return figure


def _draw_points(axes, trials):
    """Draw the trained trials: those that are complete filled, the others hollow."""
    for place, (mode, marker) in enumerate(zip(MODES, "os", strict=True)):
        for complete in (True, False):
            points = [
                trial
                for trial in trials
                if trial["mode"] == mode
                and trial["last_psnr_db"] is not None
                and (trial["state"] == "complete") == complete
            ]
            # The trial's number is the seed, so that the picture is the same every time.
            jitter = [random.Random(trial["number"]).uniform(-0.12, 0.12) for trial in points]
            x = [KERNELS.index(trial["kernel"]) + (place - 0.5) * 0.36 for trial in points]
            axes.plot(
                [left + shift for left, shift in zip(x, jitter, strict=True)],
                [trial["last_psnr_db"] for trial in points],
                marker,
                color=f"C{place}",
                markersize=5,
                alpha=0.8,
                fillstyle="full" if complete else "none",
                label=f"{mode}{'' if complete else ', not complete'}" if points else None,
            )


def draw_samplers(searches):
    """Draw the median of the best values over the number of trainings, for some ways to search; two with quartiles."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    for name, found in searches.items():
        if name not in WAYS_DRAWN:
            continue
        low, middle, high = zip(*found["quartiles"][FIRST_DRAWN - 1 :], strict=True)
        trials = range(FIRST_DRAWN, FIRST_DRAWN + len(middle))
        (line,) = axes.plot(trials, middle, label=name)
        if name in BANDS:
            axes.fill_between(trials, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel="trials", ylabel="best PSNR on the validation crops, dB")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def draw_photograph(trainings, directory):
    """Draw the first test photograph and a detail of it: noisy, by the two networks, by BM3D, and clean.

    Args:
        trainings: model -> its training.
        directory: tracking.dir, which has the cache of BM3D's outputs.
    """
    from matplotlib.figure import Figure

    photograph, outputs = _denoise(trainings, directory)
    pictures = {"noisy": photograph.noisy, **outputs, "clean": photograph.clean}
    height, width = photograph.clean.shape[1:]
    top, left, size = height // 2, width * 3 // 8, height * 3 // 8
    figure = Figure(figsize=(13, 13 / len(pictures) * (height / width + 1) + 0.5), dpi=110, layout="constrained")
    panels = figure.subplots(2, len(pictures), height_ratios=(height / width, 1))
    for place, (name, picture) in enumerate(pictures.items()):
        title = name
        if name != "clean":
            scored = picture if name == "noisy" else picture.clamp(0, 1)  # as in all tables
            title = f"{name}\n{decibel(metrics.psnr_db(scored[None], photograph.clean[None]))} dB"
        pixels = picture.clamp(0, 1).permute(1, 2, 0).numpy()
        panels[0, place].imshow(pixels, interpolation="nearest")
        panels[0, place].set_title(title, fontsize=10)
        panels[1, place].imshow(pixels[top : top + size, left : left + size], interpolation="nearest")
        for axes in panels[:, place]:
            axes.set_axis_off()
    return figure


def _denoise(trainings, directory):
    """Return the first test photograph, and name -> output of the networks and of the best other method at hand."""
    outputs, setup, photograph = {}, None, None
    for model, training in trainings.items():
        setup = build_setup(training.overrides)
        photograph = setup.data.photographs("test")[0]
        path = training.folder / "checkpoints" / checkpoint.BEST
        setup.network.load_state_dict(checkpoint.load(path)["network"])
        outputs[NETWORKS[model]] = scoring.denoise(setup.network, photograph.noisy[None])[0]
    if results := denoise_with_bm3d([photograph], setup.data.noise, directory / "cache"):
        outputs["BM3D"] = results[0][1]
    else:
        outputs["non-local means"] = baselines.denoise("nlm", photograph.noisy)
    return photograph, outputs
