"""Why the paper's network prints zeros: reproduce it, exclude the other readings, and train the same grid without it.

python experiments/003-nonconvergence/run.py [--smoke] [--workers N] [--directory mlruns]

Every training is an MLflow run of the experiment 003-nonconvergence. Prints the tables, writes results.json, the two
figures and the tables of README.md beside this file. Stopped, it goes on where it was when called again. --smoke: a few
short trainings in a temporary folder, nothing written.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name)
from rich.console import Console

from scratch_dl import nn
from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config
from scratch_dl.data import metrics
from scratch_dl.faults import modules as faulty
from scratch_dl.system import provenance
from scratch_dl.terminal.text_table import TextTable

sys.path.insert(0, str(Path(__file__).parents[1]))
from _trainings import Point, TrainingRow, train_all

HERE = Path(__file__).parent
BEGIN, END = "<!-- tables: written by run.py -->", "<!-- end of tables -->"
F1 = "sigmoid_gradient_at_upstream"
PRINTED, PRINTED_STD = 0.249991, 0.000001
SHAPE = (100, 3, 10, 10)

GEOMETRIES = {
    **{f"{mode[0]}{k}": (f"{mode}, kernel {k}", f"model.upsampling={mode}", f"model.kernel_size={k}")
       for mode in ("nearest", "transposed") for k in (2, 3, 4, 5)},
    "n3-narrow": ("nearest, kernel 3, 8-16-8", "model.upsampling=nearest", "model.kernel_size=3",
                  "model.channels=[8,16,8]"),
    "t4-wide": ("transposed, kernel 4, 32-64-32", "model.upsampling=transposed", "model.kernel_size=4",
                "model.channels=[32,64,32]"),
    "n3-padded": ("nearest, kernel 3, paddings 0 0 2 1", "model.upsampling=nearest", "model.kernel_size=3",
                  "model.padding=[0,0,2,1]"),
    "t4-padded": ("transposed, kernels 4 4 6 4, paddings 0 0 0 1", "model.upsampling=transposed",
                  "model.kernel_size=[4,4,6,4]", "model.padding=[0,0,0,1]"),
}  # fmt: skip
RATES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 5.0)
MOMENTUM_RATES = (0.5, 1.0)
TWO = ("n3", "t4")
SEEDS = (0, 1, 2)
# Of a faulty run: at most so many steps, and so many from one validation to the next. A rate ten times smaller takes
# about ten times as long to the zeros.
FAULTY_STEPS = {1e-7: (12000, 1200), 1e-6: (2400, 5), 1e-5: (300, 5), 1e-4: (60, 1)}
FAULTY_STEPS_ELSE = (20, 1)
OTHERS = ("init_tiny", "learning_rate_too_small", "relu_forgets_input", "sigmoid_gradient_wrong_form")
BATCH = 8
HEALTHY_EPOCHS, EPOCH_STEPS = 8, 300
# The loss of a black output within this: the output's mean is then below about 0.0003.
BLACK = 1e-3


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a few short trainings, nothing written")
    parser.add_argument("--workers", type=int, default=2, help="processes that train, of one thread each")
    parser.add_argument("--directory", type=Path, default=Path("mlruns"), help="tracking.dir of the runs")
    return parser.parse_args()


# --- which trainings -------------------------------------------------------------------------------------------------


def point(group, geometry, rate, *more, steps, every, momentum=0.0, seed=0, verify=False):
    """One training; its name says group, geometry, rate, momentum or optimizer, and seed."""
    name = f"{group}-{geometry}-lr{rate:g}" + (f"-m{momentum:g}" if momentum else "") + (f"-seed{seed}" if seed else "")
    adam = "optimizer=adam" in more
    # A geometry's own channels come after the common ones, and the last word counts.
    return Point(name, (
        "model.channels=[16,32,16]", *GEOMETRIES[geometry][1:], *more, f"optimizer.lr={rate!r}",
        *(() if adam else (f"optimizer.momentum={momentum}",)), f"seed={seed}", f"trainer.batch_size={BATCH}",
        f"data.crops_per_epoch={BATCH * every}", f"trainer.epochs={steps // every}", "trainer.test=false",
        f"verification={'quick' if verify else 'off'}", "tracking.detail=trial",
    ))  # fmt: skip


def faulty_point(group, geometry, rate, *more, momentum=0.0, limits=None):
    steps, every = limits or FAULTY_STEPS.get(rate, FAULTY_STEPS_ELSE)
    return point(group, geometry, rate, f"fault={F1}", "schedule=constant", *more, steps=steps, every=every,
                 momentum=momentum)  # fmt: skip


def healthy_point(group, geometry, rate, *more, epochs=HEALTHY_EPOCHS, every=EPOCH_STEPS, **settings):
    return point(group, geometry, rate, *more, steps=epochs * every, every=every, **settings)


def plan(smoke):
    """Every training, the faulty and short ones first."""
    if smoke:
        some = [(geometry, rate) for geometry in TWO for rate in (1e-4, 1.0)]
        small = "data.validation_crops=8"
        return [faulty_point("faulty", g, r, small) for g, r in some] + [
            healthy_point("healthy", g, r, small, epochs=1, every=10) for g, r in some
        ]
    found = [faulty_point("faulty", g, r) for g in GEOMETRIES for r in RATES]
    for g in TWO:
        found += [faulty_point("faulty", g, 1e-7)]
        found += [faulty_point("faulty", g, r, momentum=0.9) for r in (1e-4, 1.0)]
        found += [faulty_point("faulty-adam", g, r, "optimizer=adam", limits=(600, 20)) for r in (1e-4, 1e-3, 1e-2)]
        found += [healthy_point(f"other-{fault}", g, 1.0, f"fault={fault}") for fault in OTHERS]
    for g in GEOMETRIES:
        found += [healthy_point("healthy", g, r, verify=r == 1.0) for r in RATES]
        found += [healthy_point("healthy", g, r, momentum=0.9) for r in MOMENTUM_RATES]
    for g in TWO:
        for seed in SEEDS[1:]:
            found += [healthy_point("healthy", g, r, seed=seed) for r in (0.1, 1.0, 5.0)]
            found += [healthy_point("healthy", g, r, momentum=0.9, seed=seed) for r in MOMENTUM_RATES]
    return found


# --- Table II's figure -----------------------------------------------------------------------------------------------

DRAWS = {"U(0, 1)": torch.rand, "N(0, 1)": torch.randn, "zeros": lambda shape, generator: torch.zeros(shape)}  # noqa: ARG005


class Forgotten(nn.Sigmoid):
    """dL/dX = s (1 - s) at s = sigmoid(X): the incoming gradient is forgotten."""

    def backward(self, grad_output):  # noqa: ARG002
        (output,) = self._take()
        return output * (1 - output)


class Twice(nn.Sigmoid):
    """dL/dX = sigma'(sigmoid(X)): sigma' of what is a sigmoid already, the incoming gradient forgotten."""

    def backward(self, grad_output):  # noqa: ARG002
        (output,) = self._take()
        s = torch.sigmoid(output)
        return s * (1 - s)


class TwiceTimes(nn.Sigmoid):
    """dL/dX = G sigma'(sigmoid(X)): as Twice, with the incoming gradient."""

    def backward(self, grad_output):
        (output,) = self._take()
        s = torch.sigmoid(output)
        return grad_output * s * (1 - s)


class OtherFormula(nn.Sigmoid):
    """Right, with the sigmoid as e^X / (1 + e^X) for every X: what the paper suspects."""

    def forward(self, input):
        super().forward(input)
        self._kept = input.exp() / (1 + input.exp())
        return self._kept

    def backward(self, grad_output):
        self._take()
        return grad_output * self._kept * (1 - self._kept)


# name -> the module, by how much the loss's gradient is larger than that of a mean over all elements, what is meant
READINGS = {
    "right": (nn.Sigmoid, 1, "G sigma'(X)"),
    "F1": (faulty.SigmoidAtUpstream, 1, "sigma'(G)"),
    "F1, pixels summed": (faulty.SigmoidAtUpstream, 300, "sigma'(300 G)"),
    "upstream forgotten": (Forgotten, 1, "sigma'(X)"),
    "sigma' twice": (Twice, 1, "sigma'(sigma(X))"),
    "sigma' twice, times G": (TwiceTimes, 1, "G sigma'(sigma(X))"),
    "wrong form": (faulty.SigmoidWrongForm, 1, "G sigma(X)"),
    "the other formula": (OtherFormula, 1, "right, e^X / (1 + e^X)"),
}


@dataclass(frozen=True)
class Digits:
    """Mean and deviation over draws of the mean |dL/dX ours - PyTorch|, both float32."""

    reading: str
    inputs: str
    targets: str
    mean: float
    std: float

    @property
    def fits(self):
        """Whether the printed figure lies within its own deviation and this one's."""
        return abs(self.mean - PRINTED) <= PRINTED_STD + self.std


def table_two(reading, inputs, targets, draws):
    kind, factor, _ = READINGS[reading]
    generator, values = torch.Generator().manual_seed(0), []
    for _ in range(draws):
        input = DRAWS[inputs](SHAPE, generator=generator)
        target = DRAWS[targets](SHAPE, generator=generator)
        with torch.enable_grad():
            leaf = input.clone().requires_grad_()
            output = torch.sigmoid(leaf)
            output.retain_grad()
            (F.mse_loss(output, target) * factor).backward()
        module = kind()
        with torch.no_grad():
            module(input)
            ours = module.backward(output.grad)
        values.append(float((ours.double() - leaf.grad.double()).abs().mean()))
    return Digits(reading, inputs, targets, statistics.mean(values), statistics.pstdev(values))


def trained_with(reading, geometry, rate, steps):
    """(updates, mean output) with a Sigmoid that no named fault has, at the last finite output of `steps` updates.

    In a loop of its own, no MLflow run.
    """
    setup = build(compose_config("train", list(healthy_point("own", geometry, rate).overrides)))
    setup.network.sigmoid.__class__ = READINGS[reading][0]
    found = 0, math.nan
    with torch.no_grad():
        for step in range(steps + 1):
            input, target = setup.data.batch(step, BATCH, setup.seed)
            setup.optimizer.zero_grad()
            output = setup.network(input)
            if not math.isfinite(float(setup.loss(output, target))):
                break
            found = step, float(output.mean())
            setup.network.backward(setup.loss.backward())
            setup.optimizer.step()
    return found


# --- what a training came to -----------------------------------------------------------------------------------------


class Reader:
    """Reads outcomes; knows the loss of a black output at every step, which is a function of seed and step alone."""

    def __init__(self):
        config = list(healthy_point("own", "n3", 1.0).overrides)
        self.data = build(compose_config("train", config)).data
        self.squares = {}
        clean = self.data.validation[1]
        self.black_psnr_db = metrics.psnr_db(torch.zeros_like(clean), clean)

    def black_loss(self, step, seed):
        if (step, seed) not in self.squares:
            self.squares[step, seed] = float(self.data.batch(step, BATCH, seed)[1].square().mean())
        return self.squares[step, seed]

    def row(self, outcome: TrainingRow):
        """Everything the tables and figures need of a run. Steps count updates: the output after so many of them."""
        given = dict(word.split("=", 1) for word in outcome.overrides)
        history, summary = outcome.history, outcome.summary
        scores, progress = summary.get("scores", {}), summary.get("progress", {})
        psnr = dict(history.get("val/psnr_db", []))
        classes = history.get("watch/output_class", [])
        diagnosis = summary.get("diagnosis") or {}
        nan = outcome.status == "FAILED" and "train/loss became" in str(outcome.reason)
        return {
            "name": outcome.name, "run_id": outcome.run_id, "status": outcome.status,
            "reason": str(outcome.reason).partition(";")[0] if outcome.reason else None,
            "verification": summary.get("verification"), "fault": given.get("fault"),
            "optimizer": given.get("optimizer", "sgd"), "momentum": float(given.get("optimizer.momentum", 0)),
            "lr": float(given["optimizer.lr"]), "seed": int(given["seed"]), "updates": progress.get("step", 0) - nan,
            "black_after": self.black_after(history.get("train/loss", []), int(given["seed"])),
            "nan_after": progress["step"] - 1 if nan else None,
            "best_psnr_db": progress.get("best_psnr_db"), "last_psnr_db": psnr[max(psnr)] if psnr else None,
            "noisy_psnr_db": scores.get("baseline/noisy_psnr_db"), "blur_psnr_db": scores.get("baseline/blur_psnr_db"),
            "output_class": summary.get("output_class"), "finite_classes": sorted({int(value) for _, value in classes}),
            "cause": diagnosis.get("cause"), "module": diagnosis.get("module"), "cause_step": diagnosis.get("step"),
            "output_mean": history.get("watch/output_mean", []), "seconds": outcome.seconds,
        }  # fmt: skip

    def black_after(self, losses, seed):
        """Updates after which the loss is a black output's, and remains so as long as it is finite; or None."""
        first = None
        for step, loss in reversed(losses):
            black = self.black_loss(step - 1, seed)
            if abs(loss - black) > BLACK * black:
                break
            first = step - 1
        return first


# --- tables ----------------------------------------------------------------------------------------------------------


def name_of(group, geometry, rate, momentum=0.0, seed=0):
    return point(group, geometry, rate, steps=1, every=1, momentum=momentum, seed=seed).name


def collapse(row):
    """'n|m': black after n updates, no number after m."""
    if row is None:
        return "-"
    black = "-" if row["black_after"] is None else str(row["black_after"])
    return f"{black}|{row['nan_after']}" if row["nan_after"] is not None else black


def decibel(row, key="best_psnr_db"):
    value = row and row[key]
    return "-" if value is None or not math.isfinite(value) else f"{value:.1f}"


def rate_heads(rates):
    return tuple(f"{rate:g}".replace("0.001", "1e-3").replace("0.0001", "1e-4").replace("e-0", "e-") for rate in rates)


def tables(digits, readings, own, rows, shown):
    """All tables; `shown` are geometries and rates."""
    geometries, rates = shown
    found = [TextTable(
        "Table II's Sigmoid, by F1", "mean and deviation over draws; the paper prints 0.249991±0.000001", 2,
        ("inputs", "targets", "mean |Δ|", "fits"),
        [(d.inputs, d.targets, f"{d.mean:.7f}±{d.std:.7f}", "yes" if d.fits else "no") for d in digits],
    )]  # fmt: skip
    found.append(TextTable(
        "With F1: after how many updates the output is black | the loss no number", "plain SGD; -: never, in the steps "
        "given", 1, ("geometry", *rate_heads(rates)),
        [(g, *(collapse(rows.get(name_of("faulty", g, r))) for r in rates)) for g in geometries],
    ))  # fmt: skip
    more = [row for name, row in rows.items() if name.startswith("faulty") and
            (row["lr"] not in rates or row["momentum"] or row["optimizer"] != "sgd")]  # fmt: skip
    if more:
        found.append(TextTable(
            "With F1: other optimizers, and a rate smaller still", "as above", 2,
            ("geometry", "optimizer", "rate", "updates\ndone", "black\nafter", "no number\nafter"),
            [(geometry_of(row["name"]), f"momentum {row['momentum']:g}" if row["momentum"] else row["optimizer"],
              f"{row['lr']:g}", str(row["updates"]), dash(row["black_after"]), dash(row["nan_after"])) for row in more],
        ))  # fmt: skip
    found.append(TextTable(
        "Other readings of 0.249991", "mean |Δ|, targets N(0, 1)", 2,
        ("reading", "dL/dX", "inputs\nU(0, 1)", "inputs\nN(0, 1)", "fits"),
        [(name, READINGS[name][2], *(short(one.mean) for one in pair), "yes" if any(d.fits for d in pair) else "no")
         for name, pair in readings.items()],
    ))  # fmt: skip
    trained = [(row["fault"], geometry_of(row["name"]), str(row["updates"]), last_mean(row), row["output_class"] or "?",
                decibel(row)) for name, row in rows.items() if name.startswith("other-")]  # fmt: skip
    trained += [(name, g, str(steps), f"{mean:.3f}", "-", "-") for (name, g), (steps, mean) in own.items()]
    found.append(TextTable(
        "What other mistakes make of the output", "rate 1, momentum 0", 2,
        ("mistake", "geometry", "updates", "mean\noutput", "class", "best\ndB"), trained,
    ))  # fmt: skip
    columns = [(head, r, 0.0) for head, r in zip(rate_heads(rates), rates, strict=True)] + [
        (f"m {r:g}", r, 0.9) for r in MOMENTUM_RATES
    ]
    columns = [c for c in columns if any(name_of("healthy", g, c[1], c[2]) in rows for g in geometries)]
    base = next((row for row in rows.values() if row["blur_psnr_db"]), None)
    levels = f"noisy input {decibel(base, 'noisy_psnr_db')}, blur {decibel(base, 'blur_psnr_db')}"
    found.append(TextTable(
        "Without the fault: best PSNR in dB by learning rate", f"{levels}; m: momentum 0.9", 1,
        ("geometry", *(head for head, _, _ in columns)),
        [(g, *(decibel(rows.get(name_of("healthy", g, r, m))) for _, r, m in columns)) for g in geometries],
    ))  # fmt: skip
    seeds = [
        (g, head, *spread([rows.get(name_of("healthy", g, r, m, seed)) for seed in SEEDS]))
        for g in geometries
        for head, r, m in columns
        if name_of("healthy", g, r, m, SEEDS[-1]) in rows
    ]
    if seeds:
        found.append(TextTable(
            "The same with three seeds", "best PSNR in dB", 2,
            ("geometry", "rate", "mean", "lowest", "highest"), seeds,
        ))  # fmt: skip
    return found


def geometry_of(name):
    return next(g for g in sorted(GEOMETRIES, key=len, reverse=True) if f"-{g}-lr" in name)


def dash(value):
    return "-" if value is None else str(value)


def short(value):
    return f"{value:.7f}" if value > 0.01 else f"{value:.1e}"


def last_mean(row):
    return f"{row['output_mean'][-1][1]:.3f}" if row["output_mean"] else "-"


def spread(some):
    values = [row["best_psnr_db"] for row in some if row and row["best_psnr_db"] is not None]
    return tuple(f"{value:.2f}" for value in (statistics.mean(values), min(values), max(values)))


def counts(rows):
    """What the runs of the two grids came to, in sentences."""
    wrong = [row for name, row in rows.items() if name.startswith("faulty")]
    right = [row for name, row in rows.items() if name.startswith("healthy")]
    black = [row for row in wrong if row["black_after"] is not None]
    nan = [row for row in black if row["nan_after"] is not None]
    at_once = [row for row in wrong if row["black_after"] is None and row["nan_after"] is not None]
    named = [row for row in wrong if row["cause"] == F1 and row["module"] == "sigmoid"]
    verified = [row for row in right if row["verification"] == "passed"]
    over_noisy, over_blur = (
        [row for row in right if row["best_psnr_db"] > row[key]] for key in ("noisy_psnr_db", "blur_psnr_db")
    )
    ended = len(wrong) - len(black) - len(at_once)
    with_fault = (
        f"With F1 the output is black in {len(black)} of {len(wrong)} runs, of which {len(nan)} overflow afterwards; "
        f"{len(at_once)} overflow before it is seen black; {ended} end otherwise."
    )
    diagnosis = (
        f"The diagnosis, without verification, names the cause and the module in {len(named)} of the {len(wrong)}."
    )
    without = (
        f"Without F1 the output is black in {sum(row['black_after'] is not None for row in right)} of {len(right)} "
        f"runs, {sum(row['nan_after'] is not None for row in right)} overflow, {len(over_noisy)} get better than "
        f"the noisy input and {len(over_blur)} better than its blur; verification passed in {len(verified)} of the "
        f"{sum(row['verification'] != 'off' for row in right)} runs that have it."
    )
    return [with_fault, diagnosis, without]


# --- figures ---------------------------------------------------------------------------------------------------------


def draw_outputs(rows, geometries, rates):
    """Mean output over updates, a line a run: faulty at the left, healthy at the right, coloured by the rate."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    shades = matplotlib.colormaps["plasma"]
    colours = [shades(0.9 * place / max(1, len(rates) - 1)) for place in range(len(rates))]
    for axes, group, title in zip(panels, ("faulty", "healthy"), ("with the fault F1", "without it"), strict=True):
        for place, rate in enumerate(rates):
            for g in geometries:
                if (row := rows.get(name_of(group, g, rate))) is None:
                    continue
                points = [(step, value) for step, value in row["output_mean"]
                          if row["black_after"] is None or step < row["black_after"]]  # fmt: skip
                if (black := row["black_after"]) is not None:
                    points.append((black, 0.0))
                axes.plot(*zip(*points, strict=True), color=colours[place], linewidth=0.8, alpha=0.7)
                if row["nan_after"] is not None:
                    axes.plot(row["nan_after"], 0.0 if black is not None else points[-1][1], "x", color=colours[place],
                              markersize=5)  # fmt: skip
            axes.plot([], [], color=colours[place], label=rate_heads([rate])[0])
        axes.set_xscale("symlog", linthresh=1)
        axes.set(xlabel="updates by the optimizer", title=title, xlim=(0, None))
        marks = [mark for mark in (0, 1, 10, 100, 1000) if mark <= max(1, axes.get_xlim()[1])]
        axes.set_xticks(marks, [str(mark) for mark in marks])
        axes.grid(alpha=0.3)
    panels[0].set_ylim(-0.03, None)
    panels[0].set_ylabel("mean output of the network (0: black, 1: white)")
    panels[1].legend(title="learning rate", fontsize=8, title_fontsize=8, ncols=2, loc="lower right")
    panels[0].plot([], [], "x", color="0.3", label="the loss is no number")
    panels[0].legend(handles=panels[0].get_lines()[-1:], fontsize=8, loc="upper right")
    return figure


def draw_psnr(rows, geometries, rates):
    """PSNR over geometry and rate: faulty at the left, healthy at the right, on one scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.4 + 0.32 * len(geometries)), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    groups = (("faulty", "last_psnr_db", "with the fault F1, the last output that is finite"),
              ("healthy", "best_psnr_db", "without it, the best output"))  # fmt: skip
    tables = [[[(rows.get(name_of(group, g, rate)) or {}).get(key) for rate in rates] for g in geometries]
              for group, key, _ in groups]  # fmt: skip
    known = [value for table in tables for line in table for value in line if value is not None]
    low, high = min(known), max(known)
    for axes, (_, _, title), table in zip(panels, groups, tables, strict=True):
        picture = axes.imshow([[math.nan if v is None else v for v in line] for line in table], cmap="cividis",
                              vmin=low, vmax=high, aspect="auto")  # fmt: skip
        for y, line in enumerate(table):
            for x, value in enumerate(line):
                if value is not None:
                    dark = (value - low) / max(high - low, 1e-9) < 0.5
                    axes.text(x, y, f"{value:.1f}", ha="center", va="center", fontsize=7,
                              color="white" if dark else "black")  # fmt: skip
        axes.set_xticks(range(len(rates)), rate_heads(rates), fontsize=8)
        axes.set_yticks(range(len(geometries)), [GEOMETRIES[g][0] for g in geometries], fontsize=7)
        axes.set(xlabel="learning rate of plain SGD")
        axes.set_title(title, fontsize=9)
    figure.colorbar(picture, ax=panels, label="PSNR on the validation crops, dB", fraction=0.03)
    return figure


# --- the whole -------------------------------------------------------------------------------------------------------


def write(grids, said, head, results, figures):
    """results.json, the figures, and the part of README.md between the two comments."""
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    pictures = []
    for name, (figure, title) in figures.items():
        figure.savefig(HERE / f"{name}.png")
        pictures.append(f"![{title}]({name}.png)")
    body = "\n\n".join([head, *said, *(grid.markdown() for grid in grids), *pictures])
    readme = HERE / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}", encoding="utf-8")


def study(options, directory):
    smoke, began = options.smoke, time.monotonic()
    torch.set_num_threads(1)
    draws, steps = (10, 3) if smoke else (200, 20)
    digits = [table_two("F1", i, t, draws) for i in ("U(0, 1)", "N(0, 1)") for t in DRAWS]
    readings = {name: [table_two(name, i, "N(0, 1)", draws) for i in ("U(0, 1)", "N(0, 1)")] for name in READINGS}
    own = {(name, g): trained_with(name, g, 1.0, steps)
           for name in ("upstream forgotten", "sigma' twice", "sigma' twice, times G") for g in TWO}  # fmt: skip
    outcomes = train_all(HERE.name, plan(smoke), options.workers, directory)
    reader = Reader()
    rows = {name: reader.row(outcome) for name, outcome in outcomes.items()}
    shown = (TWO, (1e-4, 1.0)) if smoke else (tuple(GEOMETRIES), RATES)
    grids, said = tables(digits, readings, own, rows, shown), counts(rows)
    console = Console(highlight=False)
    for grid in grids:
        console.print(grid.rich())
    for sentence in said:
        console.print(sentence)
    figures = {
        "outputs": (draw_outputs(rows, *shown), "mean output over updates, with and without the fault"),
        "psnr": (draw_psnr(rows, *shown), "PSNR over geometry and learning rate, with and without the fault"),
    }
    if smoke:
        for name, (figure, _) in figures.items():
            figure.savefig(directory / f"{name}.png")
        return
    machine = {key: provenance.environment()[key] for key in ("cpu", "usable_cores", "python", "platform")}
    busy_s = sum(row["seconds"] for row in rows.values())
    head = (f"On {machine['cpu']}, {machine['usable_cores']} cores, torch {torch.__version__}: {len(rows)} trainings, "
            f"{busy_s / 60:.0f} minutes of one core; a black output has {reader.black_psnr_db:.1f} dB.")  # fmt: skip
    every = [*digits, *(one for pair in readings.values() for one in pair)]
    results = {
        "machine": machine, "black_psnr_db": reader.black_psnr_db, "training_s": round(busy_s),
        "digits": [vars(one) | {"fits": one.fits} for one in every],
        "own_loop": [{"reading": n, "geometry": g, "updates": s, "output_mean": m} for (n, g), (s, m) in own.items()],
        "counts": said, "runs": list(rows.values()),
    }  # fmt: skip
    write(grids, said, head, results, figures)
    print(f"done in {(time.monotonic() - began) / 60:.1f} minutes; look: python -m scratch_dl.ui")


def main():
    options = arguments()
    try:
        if options.smoke:
            with tempfile.TemporaryDirectory() as folder:
                study(options, Path(folder))
        else:
            study(options, options.directory)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
