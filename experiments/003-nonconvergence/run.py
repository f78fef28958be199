"""Why the paper's network prints zeros: reproduce it, exclude the other readings, and train the same grid without it.

python experiments/003-nonconvergence/run.py [--smoke] [--workers N] [--directory mlruns]

Every training is an MLflow run of the experiment 003-nonconvergence. Prints the tables, writes results.json, the two
figures and the tables of README.md beside this file. After a stop, the same command continues where it was. --smoke: a
few short trainings in a temporary folder, nothing written.
"""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from collapse_figures import OUTPUTS, PSNR, draw_outputs, draw_psnr
from collapse_plan import GEOMETRIES, MAIN_GEOMETRIES, RATES, plan
from collapse_readings import DRAWS, NOT_IN_CATALOGUE, READINGS, measure_difference, train_with_reading
from collapse_rows import RowReader, count_runs
from collapse_tables import all_tables

from _study import machine, parser, print_tables, run_study, write_results
from _trainings import train_all

HERE = Path(__file__).parent
INPUTS = ("U(0, 1)", "N(0, 1)")


def study(options, directory):
    began = time.monotonic()
    torch.set_num_threads(1)
    draws, steps = (10, 3) if options.smoke else (200, 20)
    differences = [measure_difference("F1", inputs, targets, draws) for inputs in INPUTS for targets in DRAWS]
    readings = {name: [measure_difference(name, inputs, "N(0, 1)", draws) for inputs in INPUTS] for name in READINGS}
    own = {(name, g): train_with_reading(name, g, 1.0, steps) for name in NOT_IN_CATALOGUE for g in MAIN_GEOMETRIES}
    trainings = train_all(HERE.name, plan(options.smoke), options.workers, directory)
    reader = RowReader()
    rows = {name: reader.row(training) for name, training in trainings.items()}

    shown = (MAIN_GEOMETRIES, (1e-4, 1.0)) if options.smoke else (tuple(GEOMETRIES), RATES)
    tables, sentences = all_tables(differences, readings, own, rows, shown), count_runs(rows)
    print_tables(tables, sentences)
    figures = {"outputs": draw_outputs(rows, *shown), "psnr": draw_psnr(rows, *shown)}
    if options.smoke:
        for name, figure in figures.items():
            figure.savefig(directory / f"{name}.png")
        return
    every = [*differences, *(d for pair in readings.values() for d in pair)]
    results = {
        "machine": machine(),
        "black_psnr_db": reader.black_psnr_db,
        "training_s": round(sum(row["seconds"] for row in rows.values())),
        "digits": [vars(d) | {"fits": d.fits} for d in every],
        "own_loop": [{"reading": n, "geometry": g, "updates": s, "output_mean": m} for (n, g), (s, m) in own.items()],
        "counts": sentences,
        "runs": list(rows.values()),
    }
    write_results(HERE, results, markdown(results, tables, torch.__version__), figures)
    print(f"done in {(time.monotonic() - began) / 60:.1f} minutes; look: python -m scratch_dl.ui")


def markdown(results, tables, torch_version):
    """Return the part of README.md between the two comments."""
    computer, runs = results["machine"], results["runs"]
    head = (
        f"On {computer['cpu']}, {computer['usable_cores']} cores, torch {torch_version}: {len(runs)} trainings, "
        f"{sum(row['seconds'] for row in runs) / 60:.0f} minutes of one core; a black output has "
        f"{results['black_psnr_db']:.1f} dB."
    )
    pictures = [f"![{OUTPUTS}](outputs.png)", f"![{PSNR}](psnr.png)"]
    return "\n\n".join([head, *results["counts"], *(table.markdown() for table in tables), *pictures])


if __name__ == "__main__":
    sys.exit(run_study(study, parser(__doc__).parse_args()))
