"""Fill the paper's Tables I to III with this package's modules, and show the slips in its equations.

python experiments/001-paper-tables/run.py [--smoke] [--runs N] [--rounds N] [--calls N] [--seed N] [--threads N]

Prints the tables, writes results.json beside this file and the tables into README.md, and records an MLflow run in
mlruns/ of the current directory. --smoke: few runs, nothing written.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import torch
from rich.console import Console

from scratch_dl.paper.tables import measure
from scratch_dl.system import provenance

HERE = Path(__file__).parent
BEGIN, END = "<!-- tables: written by run.py -->", "<!-- end of tables -->"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="few runs, nothing written")
    parser.add_argument("--runs", type=int, default=10_000, help="draws behind Tables I and II (paper: 10,000)")
    parser.add_argument("--rounds", type=int, default=1000, help="values behind each time (paper: 1000)")
    parser.add_argument("--calls", type=int, default=10, help="calls behind each value (paper: 1000, which takes 12 h)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    options = parser.parse_args()
    if options.smoke:
        options.runs, options.rounds, options.calls = 2, 2, 1
    return options


def progress(stage, done, total):
    if done % max(1, total // 10) == 0:
        print(f"{stage} {done:,}/{total:,}", file=sys.stderr)


def write(tables, machine, elapsed_s):
    """results.json, and the part of README.md between the two comments."""
    results = {"machine": machine, "elapsed_s": round(elapsed_s), **tables.to_json()}
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    readme = HERE / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    told = (
        f"On {machine['cpu']}, torch {tables.torch_version}, {tables.threads} thread(s), seed {tables.seed}, in "
        f"{elapsed_s / 60:.0f} minutes:"
    )
    readme.write_text(f"{before}{BEGIN}\n\n{told}\n\n{tables.markdown()}\n{END}{after}", encoding="utf-8")


def record(tables, machine):
    """An MLflow run of the experiment 001-paper-tables, in mlruns/."""
    from scratch_dl import tracking

    store = tracking.open_store("mlruns", None)
    folder = Path(store.directory) / "hydra" / time.strftime("%Y-%m-%d") / f"{time.strftime('%H-%M-%S')}-{os.getpid()}"
    run = tracking.Run.create(store, folder, HERE.name, "tables", {"passed": str(tables.passed)})
    status = "FAILED"
    try:
        run.params({"seed": tables.seed, "torch": tables.torch_version, "cpu": machine["cpu"]})
        tables.record(run)
        status = "FINISHED"
    finally:
        run.finish(status)
    return run.run_id


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    tables = measure(options.runs, options.rounds, options.calls, options.seed, progress)
    elapsed_s = time.perf_counter() - start
    Console(highlight=False).print(tables.rich())
    if not options.smoke:
        environment = provenance.environment()
        machine = {name: environment[name] for name in ("cpu", "usable_cores", "python", "platform")}
        write(tables, machine, elapsed_s)
        print(f"recorded {record(tables, machine)}; look: python -m scratch_dl.ui")
    return 0 if tables.passed else 1


if __name__ == "__main__":
    sys.exit(main())
