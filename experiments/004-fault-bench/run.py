"""Put every fault into networks of several geometries, train, and score the diagnosis; and do so with healthy networks.

python experiments/004-fault-bench/run.py [--smoke] [--workers N] [--directory FOLDER]

Every training is an MLflow run of the experiment 004-fault-bench in mlruns/ of the current directory; a study that was
interrupted goes on by the same command. Writes results.json and confusion.png beside this file, and README.md's tables.
--smoke: a few trainings in a temporary folder, nothing written.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from scratch_dl import faults
from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config
from scratch_dl.diagnosis import explain
from scratch_dl.system import provenance

sys.path.insert(0, str(Path(__file__).parents[1]))
from _trainings import Point, train_all

HERE = Path(__file__).parent
BEGIN, END = "<!-- tables: written by run.py -->", "<!-- end of tables -->"
GEOMETRIES = {
    "k4 transposed": ["model.kernel_size=4", "model.upsampling=transposed", "model.channels=[16,32,16]"],
    "k2 transposed": ["model.kernel_size=2", "model.upsampling=transposed", "model.channels=[16,32,16]"],
    "k3 nearest": ["model.kernel_size=3", "model.upsampling=nearest", "model.channels=[16,32,16]"],
    "k5 nearest": ["model.kernel_size=5", "model.upsampling=nearest", "model.channels=[8,16,8]"],
    "unet": ["model=unet", "model.channels=8"],
}
MODES = {
    "oracle": ["verification=quick"],
    "no oracle": ["verification=quick", "verification.oracle=false"],
    "signals": ["verification=off"],
}
SEEDS = {0: ["optimizer.lr=0.5"], 1: ["optimizer=adam"]}
HEALTHY = {
    "SGD 0.1": ["optimizer.lr=0.1", "optimizer.momentum=0"],
    "SGD 1": ["optimizer.lr=1", "optimizer.momentum=0"],
    "SGD 5": ["optimizer.lr=5", "optimizer.momentum=0"],
    "SGD 10": ["optimizer.lr=10", "optimizer.momentum=0"],
    "momentum 0.5": ["optimizer.lr=0.5"],
    "momentum 1": ["optimizer.lr=1"],
    "Adam 0.0003": ["optimizer=adam", "optimizer.lr=0.0003"],
    "Adam 0.002": ["optimizer=adam"],
}
USUAL = HEALTHY["momentum 0.5"]
UNUSUAL = {
    "he init": [*USUAL, "model.init=he"],
    "xavier init": [*USUAL, "model.init=xavier"],
    "Poisson noise": [*USUAL, "noise=poisson"],
    "salt and pepper": [*USUAL, "noise=salt_pepper"],
    "pixelation": [*USUAL, "noise=pixelation"],
    "float64": [*USUAL, "dtype=float64"],
    "no bias": [*USUAL, "model.bias=false"],
    "clipped": [*USUAL, "trainer.clip_norm=0.1"],
    "Nesterov": [*USUAL, "optimizer.nesterov=true"],
}
UNUSUAL_GEOMETRIES = ("k4 transposed", "k3 nearest", "unet")
HEALTHY_SEEDS = {0: "oracle", 1: "no oracle"}
COMMON = ["schedule=constant", "tracking.detail=trial", "trainer.test=false", "data.validation_crops=32"]
STEPS, HEALTHY_EPOCHS = 200, 10  # of 8 crops; of 300 steps
CODE_FAULTS = [name for name, fault in faults.FAULTS.items() if fault.direction not in ("init", "settings")]
# A cause that is the fault in other words: what is seen is the effect, which other mistakes may have as well.
IN_OTHER_WORDS = {
    "init_tiny": {"init_too_small"},
    "init_without_fan_in": {"init_too_large"},
    "kernel_one_stride_two": {"pixels_never_read"},
    "upsampling_gradient_never_cleared": {"gradient_never_cleared"},
}


def points(smoke):
    """The faulty trainings, (name -> what it is), and the healthy ones."""
    few = {"sigmoid_gradient_at_upstream", "init_tiny"} if smoke else faults.FAULTS
    geometries = {"k3 nearest": GEOMETRIES["k3 nearest"]} if smoke else GEOMETRIES
    seeds = {0: SEEDS[0]} if smoke else SEEDS
    length = ["trainer.epochs=1", f"data.crops_per_epoch={8 * (20 if smoke else STEPS)}"]
    faulty = {
        Point(
            _name(fault, geometry, seed, mode),
            (*model, *optimizer, f"seed={seed}", *how, f"fault={fault}", *length, *COMMON),
        ): (fault, geometry, seed, mode)
        for fault in few
        for geometry, model in geometries.items()
        for seed, optimizer in seeds.items()
        for mode, how in MODES.items()
    }
    optimizers = {"momentum 0.5": HEALTHY["momentum 0.5"]} if smoke else HEALTHY
    length = ["trainer.epochs=1", "data.crops_per_epoch=160"] if smoke else [f"trainer.epochs={HEALTHY_EPOCHS}"]
    healthy = {
        Point(
            _name("healthy", geometry, seed, optimizer),
            (*model, *HEALTHY[optimizer], f"seed={seed}", *MODES[mode], *length, *COMMON),
        ): (geometry, optimizer, seed)
        for geometry, model in geometries.items()
        for optimizer in optimizers
        for seed, mode in HEALTHY_SEEDS.items()
    }
    healthy |= {
        Point(
            _name("healthy", geometry, 0, what),
            (*GEOMETRIES[geometry], *how, "seed=0", *MODES["no oracle"], *length, *COMMON),
        ): (geometry, what, 0)
        for what, how in ({} if smoke else UNUSUAL).items()
        for geometry in UNUSUAL_GEOMETRIES
    }
    return faulty, healthy


def _name(*parts):
    return "-".join(map(str, parts)).replace(" ", "_")


def places(fault, geometry):
    """The names of the modules that have the fault."""
    found = faults.FAULTS[fault]
    overrides = [*GEOMETRIES[geometry], *SEEDS[0]]
    names = found.put_into_network(build(compose_config("train", overrides)).network)
    if fault == "stale_gradient_reference":
        return {*names, "optimizer"}
    return set(names) or ({"data"} if found.data else {"optimizer"} if found.optimizer else {"loss"})


def score(faulty, outcomes):
    """A row for each faulty training that could be made: what was named, and whether it is right."""
    rows = []
    for point, (fault, geometry, seed, mode) in faulty.items():
        outcome = outcomes[point.name]
        if outcome.status == "REFUSED":  # the fault changes nothing there
            continue
        verdict = (outcome.summary or {}).get("diagnosis") or {
            "cause": "none",
            "module": "",
            "direction": "",
            "step": -1,
        }
        cause = verdict["cause"]
        rows.append({
            "fault": fault, "geometry": geometry, "seed": seed, "mode": mode, "cause": cause,
            "module": verdict["module"], "direction": verdict["direction"], "step": verdict["step"],
            "detected": cause not in ("healthy", "unknown", "none"),
            "direction_right": verdict["direction"] == faults.FAULTS[fault].direction,
            "module_right": verdict["module"] in places(fault, geometry),
            "cause_right": cause == fault or cause in IN_OTHER_WORDS.get(fault, ()),
            "run_id": outcome.run_id,
        })  # fmt: skip
    return rows


def of_healthy(healthy, outcomes):
    """A row for each training without a fault, and whether it ended above its noisy input."""
    rows = []
    for point, (geometry, optimizer, seed) in healthy.items():
        summary = outcomes[point.name].summary or {}
        scores, verdict = summary.get("scores", {}), summary.get("diagnosis") or {}
        outcome = outcomes[point.name]
        history = outcome.history
        first = {key: [point for point in points if point[0] <= STEPS] for key, points in history.items()}
        early, late = (explain(outcome.folder, some, None) for some in (first, history))
        gain = scores.get("val/last_psnr_db", float("-inf")) - scores.get("baseline/noisy_psnr_db", 0.0)
        rows.append({
            "geometry": geometry, "optimizer": optimizer, "seed": seed, "converged": gain > 0,
            "gain_db": round(gain, 2) if gain > -1e9 else None, "cause": verdict.get("cause", "none"),
            "cause_at_step_200": early.cause, "overruled": sorted({sign.cause for sign in late.overruled}),
            "module": verdict.get("module", ""), "output_class": summary.get("output_class"),
            "run_id": outcomes[point.name].run_id,
        })  # fmt: skip
    return rows


def rates(rows, healthy):
    """Rates by mode, and of false alarms."""
    found = {}
    for mode in MODES:
        some = [row for row in rows if row["mode"] == mode]
        code = [row for row in some if row["fault"] in CODE_FAULTS]
        steps = [row["step"] for row in some if row["detected"]]
        found[mode] = {
            "runs": len(some),
            "detected": share(some, "detected"),
            "module_right": share(some, "module_right"),
            "direction_right": share(some, "direction_right"),
            "cause_right": share(some, "cause_right"),
            "code_faults_named_before_the_first_step": share(
                [{"named": row["module_right"] and row["cause_right"] and row["step"] == 0} for row in code], "named"
            ),
            "median_step": statistics.median(steps) if steps else None,
            "latest_step": max(steps, default=None),
        }
    converged = [row for row in healthy if row["converged"]]
    alarms = [row for row in converged if row["cause"] != "healthy"]
    found["healthy"] = {"runs": len(healthy), "converged": len(converged), "false_alarms": len(alarms),
                        "alarms_at_step_200": sum(row["cause_at_step_200"] != "healthy" for row in converged),
                        "with_overruled_doubts": sum(bool(row["overruled"]) for row in converged)}  # fmt: skip
    return found


def share(rows, key):
    """The share of rows in which `key` holds."""
    return sum(row[key] for row in rows) / len(rows) if rows else None


def tables(rows, healthy, found):
    """Headers and lines of the tables."""

    def percent(value):
        return "" if value is None else f"{value:.1%}"

    yield "Rates", ["what is used", "runs", "detected", "module right", "direction right", "cause right",
                    "code faults, all right before step 1", "latest step"], [
        [mode, str(r["runs"]), percent(r["detected"]), percent(r["module_right"]), percent(r["direction_right"]),
         percent(r["cause_right"]),
         percent(r["code_faults_named_before_the_first_step"]), str(r["latest_step"])]
        for mode, r in found.items() if mode in MODES
    ]  # fmt: skip
    lines = []
    for fault in dict.fromkeys(row["fault"] for row in rows):
        cells = [f"{faults.FAULTS[fault].number} {fault}"]
        for mode in MODES:
            some = [row for row in rows if row["fault"] == fault and row["mode"] == mode]
            named = Counter(row["cause"] for row in some).most_common()
            right = sum(row["module_right"] for row in some)
            cells.append(", ".join(f"{cause} {n}" for cause, n in named) + f"; module {right} of {len(some)}")
        lines.append(cells)
    yield "What was named (runs)", ["fault", *MODES], lines
    lines = []
    for optimizer in dict.fromkeys(row["optimizer"] for row in healthy):
        some = [row for row in healthy if row["optimizer"] == optimizer]
        good = [row for row in some if row["converged"]]
        false = Counter(row["cause"] for row in good if row["cause"] != "healthy")
        early = Counter(row["cause_at_step_200"] for row in good if row["cause_at_step_200"] != "healthy")
        others = Counter(row["cause"] for row in some if not row["converged"])
        lines.append([optimizer, str(len(some)), str(len(good)), ", ".join(f"{c} {n}" for c, n in false.items()) or "0",
                      ", ".join(f"{c} {n}" for c, n in early.items()) or "0",
                      str(sum(bool(row["overruled"]) for row in good)),
                      ", ".join(f"{c} {n}" for c, n in others.items())])  # fmt: skip
    yield (
        "Without a fault",
        [
            "training",
            "runs",
            "end above the noisy input",
            "alarms in these",
            "alarms had they ended at step 200",
            "doubts overruled",
            "verdicts on the others",
        ],
        lines,
    )


def markdown(parts):
    """The tables as Markdown."""
    lines = []
    for title, head, body in parts:
        lines += [f"**{title}**", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(cells) + " |" for cells in body] + [""]
    return "\n".join(lines)


def confusion(rows, path):
    """Faults x causes, a panel a mode; the number of runs in each cell."""
    import numpy as np
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["fault"] for row in rows))
    causes = [*names, *sorted({row["cause"] for row in rows} - set(names))]
    causes = [cause for cause in causes if any(row["cause"] == cause for row in rows)]
    figure = Figure(figsize=(17, 8.5), dpi=100, layout="constrained")
    for position, (axes, mode) in enumerate(zip(figure.subplots(1, len(MODES), sharey=True), MODES, strict=True)):
        table = np.zeros((len(names), len(causes)))
        for row in rows:
            if row["mode"] == mode:
                table[names.index(row["fault"]), causes.index(row["cause"])] += 1
        shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
        for (i, j), count in np.ndenumerate(table):
            if count:
                axes.text(j, i, f"{count:.0f}", ha="center", va="center", fontsize=7)
        axes.set_xticks(range(len(causes)), causes, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), [f"{faults.FAULTS[n].number} {n}" for n in names], fontsize=7)
        axes.set(title=f"{mode} ({int(table.sum())} runs)", xlabel="cause named")
        if not position:
            axes.set_ylabel("fault put in")
    figure.savefig(path)


def record(found, text, directory):
    """The scores as an MLflow run of their own, beside the trainings."""
    from scratch_dl import tracking

    store = tracking.open_store(str(directory), None)
    folder = Path(store.directory) / "hydra" / time.strftime("%Y-%m-%d") / f"{time.strftime('%H-%M-%S')}-score"
    run = tracking.Run.create(store, folder, HERE.name, "score", {})
    metrics = {f"score/{mode.replace(' ', '_')}/{key}": float(value) for mode, some in found.items()
               for key, value in some.items() if value is not None}  # fmt: skip
    run.metrics(metrics, 0)
    run.text(text, "tables.md")
    run.finish("FINISHED")


def study(options, directory):
    """Train, score and print; the rows of both kinds, the rates, the tables, the trainings' seconds."""
    faulty, healthy = points(options.smoke)
    outcomes = train_all(HERE.name, [*faulty, *healthy], options.workers, directory)
    rows, rows_healthy = score(faulty, outcomes), of_healthy(healthy, outcomes)
    found = rates(rows, rows_healthy)
    parts = list(tables(rows, rows_healthy, found))
    console = Console(highlight=False)
    for title, head, body in [parts[0], parts[2]]:
        table = Table(*head, title=title, box=None, title_justify="left", pad_edge=False)
        for cells in body:
            table.add_row(*cells)
        console.print(table)
    console.print(found["healthy"])
    return rows, rows_healthy, found, parts, sum(outcome.seconds for outcome in outcomes.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a few trainings, nothing written")
    parser.add_argument("--workers", type=int, default=2, help="processes, each of one thread")
    parser.add_argument("--directory", type=Path, default=Path("mlruns"), help="tracking.dir")
    options = parser.parse_args()
    if options.smoke:
        with tempfile.TemporaryDirectory() as folder:
            rows, *_ = study(options, Path(folder) / "mlruns")
        return int(not all(row["detected"] for row in rows))
    rows, rows_healthy, found, parts, seconds = study(options, options.directory)
    content = {"training_s": round(seconds), "environment": provenance.environment(),
               "rates": found, "faulty": rows, "healthy": rows_healthy}  # fmt: skip
    (HERE / "results.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    confusion(rows, HERE / "confusion.png")
    readme = HERE / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    text = markdown(parts)
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n![what was named](confusion.png)\n\n{END}{after}", encoding="utf-8")
    record(found, text, options.directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
