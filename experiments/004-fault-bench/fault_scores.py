"""What the diagnosis said of each training, and how often it was right."""

import statistics
from functools import cache

from fault_plan import GEOMETRIES, MODES, PRESET, SEEDS, STEPS

from _trainings import REFUSED
from scratch_dl import faults
from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config
from scratch_dl.diagnosis import explain

CODE_FAULTS = [name for name, fault in faults.FAULTS.items() if fault.direction not in ("init", "settings")]
# fault -> the causes that mean the same: only the effect can be seen, which other mistakes may have as well
SAME_CAUSES = {
    "init_tiny": {"init_too_small"},
    "init_without_fan_in": {"init_too_large"},
    "kernel_one_stride_two": {"pixels_never_read"},
    "upsampling_gradient_never_cleared": {"gradient_never_cleared"},
}
NO_DIAGNOSIS = {"cause": "none", "module": "", "direction": "", "step": -1}


def score_faulty(points, trainings):
    """Return a row for each faulty training that could be made: what was named, and whether it is right."""
    rows = []
    for point, (fault, geometry, seed, mode) in points.items():
        training = trainings[point.name]
        if training.status == REFUSED:  # the fault changes nothing in this network
            continue
        verdict = training.diagnosis or NO_DIAGNOSIS
        cause = verdict["cause"]
        rows.append(
            {
                "fault": fault,
                "geometry": geometry,
                "seed": seed,
                "mode": mode,
                "cause": cause,
                "module": verdict["module"],
                "direction": verdict["direction"],
                "step": verdict["step"],
                "detected": cause not in ("healthy", "unknown", "none"),
                "direction_right": verdict["direction"] == faults.FAULTS[fault].direction,
                "module_right": verdict["module"] in _places(fault, geometry),
                "cause_right": cause == fault or cause in SAME_CAUSES.get(fault, ()),
                "run_id": training.run_id,
            }
        )
    return rows


def score_healthy(points, trainings):
    """Return a row for each training without a fault, and whether it ended above its noisy input."""
    rows = []
    for point, (geometry, settings, seed) in points.items():
        training = trainings[point.name]
        history, scores, verdict = training.history, training.scores, training.diagnosis
        start = {key: [point for point in points if point[0] <= STEPS] for key, points in history.items()}
        early, late = (explain(training.folder, metrics, None) for metrics in (start, history))
        gain = scores.get("val/last_psnr_db", float("-inf")) - scores.get("baseline/noisy_psnr_db", 0.0)
        rows.append(
            {
                "geometry": geometry,
                "optimizer": settings,
                "seed": seed,
                "converged": gain > 0,
                "gain_db": round(gain, 2) if gain > float("-inf") else None,
                "cause": verdict.get("cause", "none"),
                "cause_at_step_200": early.cause,
                "overruled": sorted({sign.cause for sign in late.overruled}),
                "module": verdict.get("module", ""),
                "output_class": training.summary.get("output_class"),
                "run_id": training.run_id,
            }
        )
    return rows


def compute_rates(faulty, healthy):
    """Return the rates by mode, and under "healthy" the number of false alarms."""
    rates = {mode: _rates_of([row for row in faulty if row["mode"] == mode]) for mode in MODES}
    converged = [row for row in healthy if row["converged"]]
    rates["healthy"] = {
        "runs": len(healthy),
        "converged": len(converged),
        "false_alarms": sum(row["cause"] != "healthy" for row in converged),
        "alarms_at_step_200": sum(row["cause_at_step_200"] not in ("healthy", "too_short") for row in converged),
        "with_overruled_doubts": sum(bool(row["overruled"]) for row in converged),
    }
    return rates


def _rates_of(rows):
    shares = {
        key: _share([row[key] for row in rows])
        for key in ("detected", "module_right", "direction_right", "cause_right")
    }
    before_first_step = [
        row["module_right"] and row["cause_right"] and row["step"] == 0 for row in rows if row["fault"] in CODE_FAULTS
    ]
    steps = [row["step"] for row in rows if row["detected"]]
    return {
        "runs": len(rows),
        **shares,
        "code_faults_named_before_the_first_step": _share(before_first_step),
        "median_step": statistics.median(steps) if steps else None,
        "latest_step": max(steps, default=None),
    }


def _share(truths):
    return sum(truths) / len(truths) if truths else None


@cache
def _places(fault, geometry):
    """Return the names of the modules that have the fault."""
    entry = faults.FAULTS[fault]
    overrides = [PRESET, *GEOMETRIES[geometry], *SEEDS[0]]
    names = entry.put_into_network(build(compose_config("train", overrides)).network)
    if fault == "stale_gradient_reference":
        return {*names, "optimizer"}
    return set(names) or ({"data"} if entry.data else {"optimizer"} if entry.optimizer else {"loss"})
