"""Measure modules, steps, convolutions, memory, growth, prediction and the training loop beside PyTorch's.

python experiments/002-speed/run.py [--smoke] [--rounds N] [--seed N] [--backend NAME] [--parts NAME ...]

As `python -m scratch_dl.bench`: prints the tables, writes results.json and figure.png beside this file and the tables
into README.md, and records an MLflow run in mlruns/ of the current directory. --smoke: tiny sizes, nothing written.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from rich.console import Console

from scratch_dl.benchmarks import figure, suite

HERE = Path(__file__).parent
BEGIN, END = "<!-- tables: written by run.py -->", "<!-- end of tables -->"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, nothing written")
    parser.add_argument("--rounds", type=int, default=30, help="values behind every median")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="auto", help="of the hand-written kernels: native, reference or auto")
    parser.add_argument("--parts", nargs="+", choices=list(suite.MEASURES), default=list(suite.MEASURES))
    return parser.parse_args()


def write(results):
    """results.json, figure.png, and the part of README.md between the two comments."""
    (HERE / "results.json").write_text(json.dumps(results.to_json(), indent=1) + "\n", encoding="utf-8")
    figure.draw(results.outcomes).savefig(HERE / "figure.png")
    readme = HERE / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    picture = "![ratios, shares and growth](figure.png)"
    readme.write_text(f"{before}{BEGIN}\n\n{results.markdown()}\n{picture}\n\n{END}{after}", encoding="utf-8")


def record(results):
    """An MLflow run of the experiment 002-speed, in mlruns/."""
    from scratch_dl import tracking

    store = tracking.open_store("mlruns", None)
    folder = Path(store.directory) / "hydra" / time.strftime("%Y-%m-%d") / f"{time.strftime('%H-%M-%S')}-{os.getpid()}"
    run = tracking.Run.create(store, folder, HERE.name, "speed", {})
    status = "FAILED"
    try:
        results.record(run)
        status = "FINISHED"
    finally:
        run.finish(status)
    return run.run_id


def main():
    options = arguments()
    threads, console = [1] if options.smoke else [1, None], Console(highlight=False)
    results = suite.measure(
        options.parts, options.rounds, options.seed, options.backend, threads, options.smoke, console
    )  # fmt: skip
    if not options.smoke:
        console.print(results.summary.rich())
        write(results)
        print(f"recorded {record(results)}; look: python -m scratch_dl.ui")
    return 0


if __name__ == "__main__":
    sys.exit(main())
