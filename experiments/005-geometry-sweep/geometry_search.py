"""The two searches: by the real command, without the fault and with it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from geometry_plan import SEARCHES, STUDY, geometry_of, search_overrides, settings_of

from scratch_dl import tracking
from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config
from scratch_dl.data import metrics
from scratch_dl.evaluation.baselines import BASELINES
from scratch_dl.search.failure_groups import cause_label, common_settings, group_by_cause
from scratch_dl.search.importances import EVALUATORS, importances
from scratch_dl.search.settings import read_settings
from scratch_dl.search.space import read_space
from scratch_dl.search.storage import quiet
from scratch_dl.search.study import Study
from scratch_dl.search.trial_result import StudySummary, best_trials
from scratch_dl.training.result import read_summary

BLACK_TOLERANCE_DB = 0.05  # an output is black if its PSNR is a black output's within this
STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)  # exit statuses of a command that a signal stopped


def run_searches(options, directory):
    """Return the results of both searches."""
    return {name: _run_search(name, options, directory) for name in SEARCHES}


def ranked(trials):
    """Return the complete trials, the best first."""
    own = [trial for trial in trials if trial["state"] == "complete"]
    return sorted(own, key=lambda trial: (-trial["value"], trial["number"]))


def _run_search(name, options, directory):
    began = time.monotonic()
    study, summary = _search(name, options, directory)
    clean = build(study.base).data.validation[1]
    black_db = metrics.psnr_db(torch.zeros_like(clean), clean)
    ended = [row for row in summary.rows if row.result is not None and row.result.state != "repeated"]
    trials = [_trial_row(row, black_db) for row in ended]
    result = {
        "n_trials": summary.n_trials,
        "sampler": summary.sampler,
        "pruner": summary.pruner,
        "black_db": black_db,
        "trials": trials,
        "common": [(group.label, list(group.common)) for group in group_by_cause(summary)],
        "levels": _baseline_levels(ended),
        "training_s": round(sum(trial["seconds"] for trial in trials)),
        "this_call_s": round(time.monotonic() - began),
    }
    if name == "healthy":
        with quiet():
            shares = {key: importances(study.optuna, key, 0, summary.objectives[0]) for key in EVALUATORS}
        # A text says why there are none.
        result["importances"] = {
            EVALUATORS[key]: value if isinstance(value, str) else dict(value.shares) for key, value in shares.items()
        }
        best, others = _split_best_quarter(trials)
        result["good"] = list(common_settings([settings_of(t) for t in best], [settings_of(t) for t in others]))
    return result


def _search(name, options, directory):
    """Run the command until the study has its trials; return Optuna's study and its summary."""
    overrides = search_overrides(name, options.smoke)
    _, n_trials, sweeper_settings = SEARCHES[name]
    settings = [
        f"hydra.sweeper.study_name=005-{name}",
        f"hydra.sweeper.workers={options.workers}",
        f"hydra.sweeper.n_trials={2 if options.smoke else n_trials}",
        *sweeper_settings,
        f"tracking.dir='{directory}'",
        f"tracking.experiment={STUDY}",
    ]
    status = _wait(subprocess.Popen([sys.executable, "-m", "scratch_dl.train", "-m", *overrides, *settings]))
    if status in STOPPED:
        raise KeyboardInterrupt
    study, summary = _read_study(overrides, settings)
    # A search without a complete trial ends with an error, and is a result all the same.
    if status and (missing := study.missing()):
        raise SystemExit(f"the search {name} ended with status {status}, and {missing} trials are missing")
    return study, summary


def _wait(process):
    """Return the exit status of a command. SIGTERM is passed on to it; it gets a Ctrl-C from the terminal itself."""
    previous = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def _read_study(overrides, settings):
    """Return the study as Optuna has stored it, and its summary."""

    def compose(words):
        return compose_config("train", [*settings, *words])

    config = compose(["search=geometry"])
    space = read_space(config.hydra.sweeper.params, config.hydra.sweeper.conditions, overrides)
    sweeper = read_settings(config.hydra, config.tracking.dir)
    study = Study(sweeper, space, Path(config.tracking.dir).absolute(), compose(list(space.fixed)), compose)
    study.open()
    rows = study.rows()
    return study, StudySummary(
        study=sweeper.study_name,
        storage="",
        space=space.describe(),
        objectives=sweeper.objectives,
        n_trials=study.n_trials,
        sampler=str(sweeper.sampler),
        pruner=str(sweeper.pruner),
        seed=sweeper.seed,
        rows=rows,
        best=best_trials(rows, sweeper.objectives),
        retrain={},
        test={},
    )


def _trial_row(row, black_db):
    """Return everything that the tables and the figure need of a trial that has a result."""
    result = row.result
    last_psnr_db, is_black = None, False
    if result.run_id:
        psnr = tracking.Journal(Path(result.folder)).history().get("val/psnr_db", [])
        last_psnr_db = psnr[-1][1] if psnr else None
        is_near = last_psnr_db is not None and abs(last_psnr_db - black_db) <= BLACK_TOLERANCE_DB
        is_black = result.output_class == "zeros" or is_near
    return {
        "number": row.number,
        "state": row.state,
        "came": cause_label(row),
        "value": result.values[0] if result.values else None,
        "output_class": result.output_class,
        "cause": result.cause,
        "parameters": result.parameters,
        "epochs": result.epochs,
        "seconds": result.seconds,
        "run_id": result.run_id,
        "last_psnr_db": last_psnr_db,
        "black": is_black,
        **geometry_of(row.params),
    }


def _baseline_levels(rows):
    """Return the PSNR of the baselines on the validation crops, dB."""
    for row in rows:
        scores = read_summary(Path(row.result.folder)).get("scores", {}) if row.result.run_id else {}
        if "baseline/noisy_psnr_db" in scores:
            return {name: scores[f"baseline/{name}_psnr_db"] for name in BASELINES}
    return {}


def _split_best_quarter(trials):
    """Return the best quarter of the trained geometries, and the others, the pruned ones among them."""
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    order = [*ranked(trials), *pruned]
    cut = max(1, round(len(order) / 4))
    return order[:cut], order[cut:]
