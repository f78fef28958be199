"""Measure modules, steps, convolutions, memory, growth, prediction and the training loop beside PyTorch's.

python experiments/002-speed/run.py [--smoke] [--rounds N] [--seed N] [--backend NAME] [--parts NAME ...]

Measures what `python -m scratch_dl.bench` measures, prints the tables, writes results.json and figure.png beside this
file and the tables into README.md, and records an MLflow run in mlruns/ of the current directory. --smoke: tiny sizes,
nothing written.
"""

import sys
from pathlib import Path

from rich.console import Console

from scratch_dl.benchmarks import figure, suite

sys.path.insert(0, str(Path(__file__).parents[1]))
from _study import mlflow_run, parser, write_results

HERE = Path(__file__).parent


def parse_arguments():
    arguments = parser(__doc__, workers=False)
    arguments.add_argument("--rounds", type=int, default=30, help="values for every median")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--backend", default="auto", help="of the hand-written kernels: native, reference or auto")
    arguments.add_argument("--parts", nargs="+", choices=list(suite.MEASURES), default=list(suite.MEASURES))
    return arguments.parse_args()


def main():
    options = parse_arguments()
    console = Console(highlight=False)
    results = suite.measure(
        options.parts,
        options.rounds,
        options.seed,
        options.backend,
        threads=[1] if options.smoke else [1, None],
        smoke=options.smoke,
        console=console,
    )
    if not options.smoke:
        console.print(results.summary.rich())
        text = f"{results.markdown()}\n![ratios, shares and growth](figure.png)"
        write_results(HERE, results.to_json(), text, {"figure": figure.draw(results.outcomes)})
        with mlflow_run(HERE.name, "speed") as run:
            results.record(run)
        print("look: python -m scratch_dl.ui")


if __name__ == "__main__":
    main()
