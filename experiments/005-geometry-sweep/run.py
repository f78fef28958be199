"""The search that the paper needed: which geometry is best, with its mistake and without, and how good it gets.

python experiments/005-geometry-sweep/run.py [--smoke] [--workers N] [--directory mlruns]
                                             [--parts table,samplers,sweeps,seeds,finals,long] [--models paper,unet]

Every training of the package's own is an MLflow run of the experiment 005-geometry-sweep. Prints the tables, writes
results.json, geometries.csv, the figures and the tables of README.md beside this file; a part that is not asked for
keeps its previous results, and so do the finals of a model that is not. After a stop, the same command continues where
it was. --smoke: everything at a small size in a temporary folder, nothing written.
"""

import json
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from geometry_figures import draw_photograph, draw_samplers, draw_trials
from geometry_final_tables import final_sentences, final_tables, long_sentences, long_tables
from geometry_plan import MODELS
from geometry_sampler_tables import sampler_sentences, sampler_tables, table_sentences, table_tables
from geometry_samplers import compare_samplers
from geometry_search import run_searches
from geometry_table import read_table, train_table
from geometry_tables import search_sentences, search_tables, seed_sentences, seed_tables
from geometry_trainings import train_finals, train_long, train_over_seeds

from _study import machine, parser, print_tables, run_study, write_results
from scratch_dl import kernels

HERE = Path(__file__).parent
# part -> its tables and sentences
PARTS = {
    "table": (table_tables, table_sentences),
    "samplers": (sampler_tables, sampler_sentences),
    "sweeps": (search_tables, search_sentences),
    "seeds": (seed_tables, seed_sentences),
    "finals": (final_tables, final_sentences),
    "long": (long_tables, long_sentences),
}
# part -> the name of its picture, and what it shows
PICTURES = {
    "samplers": ("samplers", "the best value that a sampler has found, by the number of trainings"),
    "sweeps": ("trials", "PSNR of every trial by kernel size, without the fault and with it"),
    "long": (
        "photograph",
        "a test photograph: noisy, denoised by the networks that were trained longest and by BM3D, and clean",
    ),
}


def parse_arguments():
    arguments, parts, models = parser(__doc__), ",".join(PARTS), ",".join(MODELS)
    arguments.add_argument(
        "--parts", default=parts, help=f"some of {parts}; seeds needs the sweeps, samplers the table"
    )
    arguments.add_argument("--models", default=models, help=f"some of {models}: whose finals to train")
    options = arguments.parse_args()
    for option, choices in (("parts", PARTS), ("models", MODELS)):
        chosen = getattr(options, option).split(",")
        setattr(options, option, chosen)
        if unknown := set(chosen) - set(choices):
            arguments.error(f"--{option} must be some of {','.join(choices)}, but got {min(unknown)}")
    options.workers = 1 if options.smoke else options.workers
    return options


def study(options, directory):
    torch.set_num_threads(1)
    kernels.use("auto")
    began, path = time.monotonic(), HERE / "results.json"
    previous = json.loads(path.read_text(encoding="utf-8")) if path.is_file() and not options.smoke else {}
    results = {**previous, "machine": {**machine(), "torch": str(torch.__version__)}}
    for part in PARTS:
        if part in options.parts:
            results[part], figures = run_part(part, options, directory, results)
            if options.smoke:
                for name, figure in figures.items():
                    figure.savefig(directory / f"{name}.png")
            else:  # at once, because the next part takes long
                write_results(HERE, results, markdown(results), figures)
    for tables, sentences in tables_and_sentences(results).values():
        print_tables(tables, sentences)
    if not options.smoke:
        print(f"done in {(time.monotonic() - began) / 60:.1f} minutes; look: python -m scratch_dl.ui")


def run_part(part, options, directory, results):
    """Return the results of a part, and its figures by name."""
    if part == "table":
        return train_table(options, directory), {}
    if part == "samplers":
        searches = compare_samplers(options, read_table())
        return searches, {"samplers": draw_samplers(searches)}
    if part == "sweeps":
        searches = run_searches(options, directory)
        return searches, {"trials": draw_trials(searches)}
    if part == "seeds":
        return train_over_seeds(options, directory, results.get("sweeps")), {}
    if part == "finals":
        return train_finals(options, directory, results.get("finals")), {}
    long, trainings = train_long(options, directory)
    return long, {"photograph": draw_photograph(trainings, directory)}


def tables_and_sentences(results):
    """Return part -> its tables and its sentences, for every part that has results."""
    return {
        part: (tables(results[part]), sentences(results[part]))
        for part, (tables, sentences) in PARTS.items()
        if part in results
    }


def markdown(results):
    """Return the part of README.md between the two comments."""
    computer = results["machine"]
    paragraphs = [f"On {computer['cpu']}, {computer['usable_cores']} cores, torch {computer['torch']}."]
    for part, (tables, sentences) in tables_and_sentences(results).items():
        paragraphs += [*(table.markdown() for table in tables), *sentences]
        if part in PICTURES:
            name, title = PICTURES[part]
            paragraphs.append(f"![{title}]({name}.png)")
    return "\n\n".join(paragraphs)


if __name__ == "__main__":
    sys.exit(run_study(study, parse_arguments()))
