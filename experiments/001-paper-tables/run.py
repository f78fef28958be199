"""Fill the paper's Tables I to III with this package's modules, and show the slips in its equations.

python experiments/001-paper-tables/run.py [--smoke] [--runs N] [--rounds N] [--calls N] [--seed N] [--threads N]

Prints the tables, writes results.json beside this file and the tables into README.md, and records an MLflow run in
mlruns/ of the current directory. --smoke: few runs, nothing written.
"""

import sys
import time
from pathlib import Path

import torch
from rich.console import Console

from scratch_dl.paper.tables import measure

sys.path.insert(0, str(Path(__file__).parents[1]))
from _study import machine, mlflow_run, parser, write_results

HERE = Path(__file__).parent


def parse_arguments():
    arguments = parser(__doc__, workers=False)
    arguments.add_argument("--runs", type=int, default=10_000, help="draws for Tables I and II (paper: 10,000)")
    arguments.add_argument("--rounds", type=int, default=1000, help="values for each time (paper: 1000)")
    arguments.add_argument("--calls", type=int, default=10, help="calls for each value (paper: 1000, which takes 12 h)")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--threads", type=int, default=1, help="torch's threads")
    options = arguments.parse_args()
    if options.smoke:
        options.runs, options.rounds, options.calls = 2, 2, 1
    return options


def print_progress(stage, done, total):
    if done % max(1, total // 10) == 0:
        print(f"{stage} {done:,}/{total:,}", file=sys.stderr)


def write(tables, computer, elapsed_s):
    """Write results.json and the tables of README.md."""
    head = (
        f"On {computer['cpu']}, torch {tables.torch_version}, {tables.threads} thread(s), seed {tables.seed}, in "
        f"{elapsed_s / 60:.0f} minutes:"
    )
    results = {"machine": computer, "elapsed_s": round(elapsed_s), **tables.to_json()}
    write_results(HERE, results, f"{head}\n\n{tables.markdown()}")


def main():
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    tables = measure(options.runs, options.rounds, options.calls, options.seed, print_progress)
    elapsed_s = time.perf_counter() - start
    Console(highlight=False).print(tables.rich())
    if not options.smoke:
        computer = machine()
        write(tables, computer, elapsed_s)
        with mlflow_run(HERE.name, "tables", seed=tables.seed, torch=tables.torch_version, cpu=computer["cpu"]) as run:
            run.tags({"passed": tables.passed})
            tables.record(run)
        print("look: python -m scratch_dl.ui")
    return 0 if tables.passed else 1


if __name__ == "__main__":
    sys.exit(main())
