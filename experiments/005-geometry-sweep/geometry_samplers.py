"""Which sampler finds a good geometry first: searches of the reduced space that look each training up in the table."""

import os
import statistics
from dataclasses import dataclass, replace

import optuna
from geometry_plan import FLAT_PADDING, TRIAL_EPOCHS, geometry_of
from geometry_table import name_of, table_search
from joblib import Parallel, delayed
from optuna.trial import TrialState

from scratch_dl.search.drawing import MAX_REFUSALS, next_sampler, repeated
from scratch_dl.search.settings import Algorithm
from scratch_dl.search.storage import quiet
from scratch_dl.search.trial_result import State, TrialRow
from scratch_dl.system.processes import end_with_parent

SEARCHES, TRIALS = 50, 40
FIRST_SEED = 1000  # the smaller ones chose what is compared here
MARKS = (10, 20, 40)  # trials after which the best values are compared
PRUNED, FAILED, INFEASIBLE = "pruned", "failed", "infeasible"
MEDIAN, EARLY = Algorithm("median", {}), Algorithm("median", {"n_warmup_steps": 3})


@dataclass(frozen=True)
class Way:
    """A way to search.

    Attributes:
        sampler: with its arguments.
        refused: what Optuna is told of a point that does not fit, if such points can be drawn, because each padding is
            a setting of its own; None if only paddings that fit are drawn, as in conf/search/geometry.yaml.
        pruner: with its arguments.
        copies: whether a point that is drawn again is told again and counted, instead of being drawn anew.
    """

    sampler: Algorithm
    refused: str | None = None
    copies: bool = False
    pruner: Algorithm = MEDIAN


TPE = Algorithm("tpe", {})
# Refused points are among those of which a tenth is good.
OPTUNAS_TPE = Algorithm("tpe", {"n_startup_trials": 10, "gamma": None})
WAYS = {
    "random": Way(Algorithm("random", {})),
    "tpe": Way(TPE),
    "gp": Way(Algorithm("gp", {})),
    "nsgaii": Way(Algorithm("nsgaii", {})),
    "tpe, 10 at random first": Way(Algorithm("tpe", {"n_startup_trials": 10})),
    "tpe, pruned from epoch 3 on": Way(TPE, pruner=EARLY),
    "tpe, none pruned": Way(TPE, pruner=Algorithm("none", {})),
    "random, with points that do not fit": Way(Algorithm("random", {}), PRUNED),
    "tpe, these told as pruned": Way(TPE, PRUNED),
    "tpe, these told as infeasible": Way(TPE, INFEASIBLE),
    "tpe, these told as failed": Way(TPE, FAILED),
    "tpe as it was, copies counted": Way(OPTUNAS_TPE, PRUNED, copies=True, pruner=EARLY),
}


def compare_samplers(options, table):
    """Return name of the way -> its searches' number, quartiles of their best values by trial (dB), and mean counts."""
    ways, searches = dict(WAYS), SEARCHES
    if options.smoke:
        ways, searches = {name: WAYS[name] for name in ("random", "tpe")}, 2
    # With n_jobs=1 joblib would search in this process; `pre_dispatch` is how many search at once.
    pool = Parallel(n_jobs=max(2, options.workers), pre_dispatch=options.workers, return_as="generator")
    results = {}
    for name, way in ways.items():
        found = list(
            pool(delayed(_search)(os.getpid(), way, seed, table) for seed in range(FIRST_SEED, FIRST_SEED + searches))
        )
        curves = zip(*(row["best"] for row in found), strict=True)
        quartiles = [statistics.quantiles(values, n=4, method="inclusive") for values in curves]
        counts = {key: statistics.mean(row[key] for row in found) for key in ("refused", "repeated")}
        rounded = [[round(value, 3) for value in three] for three in quartiles]
        results[name] = {"searches": searches, "quartiles": rounded, **counts}
        print(f"samplers: {name}: {rounded[-1][1]:.2f} dB", flush=True)
    return results


def _search(parent, *arguments):
    end_with_parent(parent)
    return search(*arguments)


def search(way, seed, table):
    """Search the table once; return the best value after each trial (dB), and how many draws were no training."""
    psnr_db = {name_of(row): row["psnr_db"] for row in table}
    settings, space, setting = table_search(FLAT_PADDING if way.refused else ())
    settings = replace(settings, sampler=way.sampler, pruner=way.pruner, seed=seed)
    first, _ = space.baseline(setting)
    rows, names, best, refused_in_a_row = [], {}, [], 0
    with quiet():
        study = optuna.create_study(direction="maximize", pruner=settings.make_pruner(TRIAL_EPOCHS))
        study.enqueue_trial(first)
        while len(best) < min(TRIALS, len(psnr_db)) and refused_in_a_row < MAX_REFUSALS:
            study.sampler = next_sampler(settings, space, setting, study.get_trials(deepcopy=False), rows)
            trial = study.ask()
            point = {parameter.key: value for parameter, value in space.draw(trial, setting).items()}
            names[trial.number] = name = name_of(geometry_of(point))
            is_repeated = repeated(name, names, rows) is not None and not way.copies
            state, told = _outcome(trial, psnr_db.get(name), way, is_repeated)
            study.tell(trial, max(psnr_db[name]) if told == TrialState.COMPLETE else None, told)
            rows.append(TrialRow(trial.number, state, point, None))
            if state in (State.COMPLETE, State.PRUNED):
                best.append(study.best_value)
                refused_in_a_row = 0
            refused_in_a_row += name not in psnr_db
    repeats = sum(row.state == State.REPEATED for row in rows)
    refused = len(rows) - len(best) - repeats
    best += best[-1:] * (min(TRIALS, len(psnr_db)) - len(best))  # of a search that gave up
    return {"best": best, "repeated": repeats, "refused": refused}


def _outcome(trial, psnr_db, way, is_repeated):
    """Return the state of a trial in the study, and the one that Optuna is told."""
    if psnr_db is None:
        if way.refused == FAILED:  # which the sampler does not look at
            return State.FAILED, TrialState.FAIL
        if way.refused == INFEASIBLE:
            trial.set_constraint("fits", 1)
        return State.REFUSED, TrialState.PRUNED
    if is_repeated:
        return State.REPEATED, TrialState.FAIL
    for epoch in range(1, len(psnr_db)):
        trial.report(max(psnr_db[:epoch]), epoch)
        if trial.should_prune():
            return State.PRUNED, TrialState.PRUNED
    return State.COMPLETE, TrialState.COMPLETE
