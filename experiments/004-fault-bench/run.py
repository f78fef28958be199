"""Put every fault into networks of several geometries, train, and score the diagnosis; and do so with healthy networks.

python experiments/004-fault-bench/run.py [--smoke] [--workers N] [--directory FOLDER]

Every training is an MLflow run of the experiment 004-fault-bench in mlruns/ of the current directory; after a stop, the
same command continues the study. Writes results.json and confusion.png beside this file, and README.md's tables.
--smoke: a few trainings in a temporary folder, nothing written.
"""

import sys
from pathlib import Path

from scratch_dl.system import provenance

sys.path.insert(0, str(Path(__file__).parents[1]))
from fault_plan import faulty_trainings, healthy_trainings
from fault_scores import compute_rates, score_faulty, score_healthy
from fault_tables import causes_table, draw_confusion, healthy_table, rates_table

from _study import mlflow_run, parser, print_tables, run_study, write_results
from _trainings import train_all

HERE = Path(__file__).parent


def study(options, directory):
    """Train, score, print and write; with --smoke return 1 if a faulty training was not detected."""
    faulty, healthy = faulty_trainings(options.smoke), healthy_trainings(options.smoke)
    trainings = train_all(HERE.name, [*faulty, *healthy], options.workers, directory)
    faulty_rows, healthy_rows = score_faulty(faulty, trainings), score_healthy(healthy, trainings)
    rates = compute_rates(faulty_rows, healthy_rows)
    tables = [rates_table(rates), causes_table(faulty_rows), healthy_table(healthy_rows)]
    print_tables([tables[0], tables[2]])
    print(rates["healthy"])
    if options.smoke:
        return int(not all(row["detected"] for row in faulty_rows))
    results = {
        "training_s": round(sum(training.seconds for training in trainings.values())),
        "environment": provenance.environment(),
        "rates": rates,
        "faulty": faulty_rows,
        "healthy": healthy_rows,
    }
    text = markdown(tables)
    write_results(HERE, results, text, {"confusion": draw_confusion(faulty_rows)})
    with mlflow_run(HERE.name, "score", directory) as run:
        run.metrics(
            {
                f"score/{mode.replace(' ', '_')}/{key}": float(value)
                for mode, values in rates.items()
                for key, value in values.items()
                if value is not None
            },
            0,
        )
        run.text(text, "tables.md")
    return 0


def markdown(tables):
    """Return the part of README.md between the two comments."""
    return "\n\n".join([*(table.markdown() for table in tables), "![what was named](confusion.png)"])


if __name__ == "__main__":
    sys.exit(run_study(study, parser(__doc__).parse_args()))
