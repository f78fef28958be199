"""The trainings after the searches: the best geometries over seeds, the finals with their twins, and the long ones."""

from importlib.metadata import version

from geometry_bm3d import score_bm3d
from geometry_plan import (
    FINALS,
    LONG_EPOCHS,
    MODELS,
    RECIPE,
    SEEDS,
    STUDY,
    TRIAL_EPOCHS,
    build_setup,
    final_overrides,
    geometry_overrides,
)
from geometry_search import ranked
from geometry_twin import train_twins

from _trainings import Point, train_all
from scratch_dl.models import count_parameters

TOP = 5  # geometries that are trained again over seeds


def train_over_seeds(options, directory, searches):
    """Train the best geometries of the healthy search for twice as long, with several seeds."""
    if searches is None:
        raise SystemExit("--parts seeds needs the results of the part sweeps, which are not in results.json")
    best = ranked(searches["healthy"]["trials"])[: 1 if options.smoke else TOP]
    seeds = SEEDS[:2] if options.smoke else SEEDS
    epochs = 1 if options.smoke else 2 * TRIAL_EPOCHS
    length = (f"trainer.epochs={epochs}",)
    if options.smoke:
        length = ("data.crops_per_epoch=16", *length, "data.validation_crops=8")
    short = ("trainer.test=false", "verification=off", "tracking.detail=trial")
    points = {
        (trial["number"], seed): Point(
            f"trial{trial['number']}-seed{seed}",
            ("model=paper", *RECIPE, *geometry_overrides(trial), *length, f"seed={seed}", *short),
        )
        for trial in best
        for seed in seeds
    }
    trainings = train_all(STUDY, points.values(), options.workers, directory)
    rows = []
    for trial in best:
        runs = [trainings[points[trial["number"], seed].name] for seed in seeds]
        rows.append(
            {
                **trial,
                "psnr_db": [run.progress.get("best_psnr_db") for run in runs],
                "causes": [run.diagnosis.get("cause") for run in runs],
                "run_ids": [run.run_id for run in runs],
            }
        )
    return {"seeds": list(seeds), "epochs": epochs, "rows": rows}


def train_finals(options, directory, known):
    """Train each model under each noise with several seeds, beside a twin; `known` has the rows of other models."""
    cases = [(model, "gaussian") for model in MODELS] if options.smoke else FINALS
    seeds = SEEDS[:1] if options.smoke else SEEDS
    points = {
        (model, noise, seed): Point(
            f"{model}-{noise}-seed{seed}", (*final_overrides(model, noise, options.smoke), f"seed={seed}")
        )
        for model, noise in cases
        if model in options.models
        for seed in seeds
    }
    trainings = _train(points.values(), options.workers, directory)
    twins = train_twins(points.values(), options.workers, directory)
    rows = [row for row in known["rows"] if row["model"] not in options.models] if known else []
    for (model, noise, seed), point in points.items():
        twin = twins[point.name]
        rows.append(
            {
                "model": model,
                "noise": noise,
                "seed": seed,
                **_own_results(trainings[point.name]),
                "twin": twin["scores"],
                "twin_best_psnr_db": twin["best_psnr_db"],
                "twin_best_step": twin["best_step"],
                "twin_s": twin["training_s"],
            }
        )
    rows.sort(key=lambda row: (cases.index((row["model"], row["noise"])), row["seed"]))
    scores = score_bm3d(dict.fromkeys(noise for _, noise in cases), options.smoke, directory)
    results = {"seeds": list(seeds), "rows": rows, "bm3d": scores}
    return results | ({"bm3d_version": version("bm3d")} if all(scores.values()) else {})


def train_long(options, directory):
    """Train each model five times as long; return the results, and each model's training."""
    length = () if options.smoke else (f"trainer.epochs={LONG_EPOCHS}",)
    points = {
        model: Point(f"{model}-long", (*final_overrides(model, "gaussian", options.smoke), *length, "seed=0"))
        for model in MODELS
    }
    by_name = _train(points.values(), options.workers, directory)
    trainings = {model: by_name[point.name] for model, point in points.items()}
    rows = [{"model": model, **_own_results(training)} for model, training in trainings.items()]
    return {"rows": rows, "bm3d": score_bm3d(["gaussian"], options.smoke, directory)}, trainings


def _train(points, workers, directory):
    """Return the trainings by name; if one did not finish, end the study."""
    trainings = train_all(STUDY, points, workers, directory)
    for training in trainings.values():
        if training.status != "FINISHED":
            raise SystemExit(f"{training.name} ended as {training.status}: {training.reason}")
    return trainings


def _own_results(training):
    progress = training.progress
    return {
        "run_id": training.run_id,
        "own": training.scores,
        "own_best_psnr_db": progress["best_psnr_db"],
        "own_best_step": progress["best_step"],
        "own_s": round(progress["training_s"], 1),
        "steps": progress["step"],
        "parameters": count_parameters(build_setup(training.overrides).network),
        "verification": training.summary.get("verification"),
    }
