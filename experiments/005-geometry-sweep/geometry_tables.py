"""Tables and sentences about the searches and the seeds."""

import math
import statistics
from collections import Counter

from geometry_plan import F1, KERNELS, MODES, SEARCHES, describe, describe_kernel
from geometry_search import ranked

from _study import decibel
from scratch_dl.terminal.text_table import TextTable

SHOWN = 10  # geometries in the table of the best


def search_tables(results):
    trials = ranked(results["healthy"]["trials"])
    tables = [
        _outcomes_table(results),
        _best_table(trials, results["healthy"]["levels"]),
        kernels_table(trials, "healthy sweep: best PSNR, dB, of how many complete trials"),
        _importances_table(results["healthy"]["importances"]),
    ]
    return [table for table in tables if table.rows]


def search_sentences(results):
    return [_control_sentence(results["fault"]), _costs_sentence(results), _common_settings_list(results["healthy"])]


def seed_tables(results):
    lines = []
    for row in _by_mean(results["rows"]):
        values = [value for value in row["psnr_db"] if value is not None]
        lowest, highest = (decibel(f(values, default=None)) for f in (min, max))
        found = decibel(row["value"])
        lines.append((f"{row['number']}", *describe(row), row["mode"], found, mean_and_std(values), lowest, highest))
    legend = "best PSNR on the validation crops, dB; ±: standard deviation"
    table = TextTable(
        f"The best {len(results['rows'])} over {len(results['seeds'])} seeds",
        f"{results['epochs']} epochs, twice a trial's; {legend}",
        5,
        ("trial", "kernel", "padding", "channels", "upsampling", "in the sweep", "mean", "lowest", "highest"),
        lines,
    )
    return [table]


def seed_sentences(results):
    """Say by how much the best geometry leads, beside the standard error; nothing if there is nothing to compare."""
    values = [row["psnr_db"] for row in _by_mean(results["rows"]) if None not in row["psnr_db"]]
    if len(values) < 2 or len(results["seeds"]) < 2:
        return []
    means = [statistics.mean(runs) for runs in values]
    pooled = math.sqrt(statistics.mean(statistics.variance(runs) for runs in values))
    error = pooled * math.sqrt(2 / len(results["seeds"]))

    def compare(lead):
        return f"{lead:.2f} dB ({'more' if lead > 2 * error else 'not more'} than twice that)"

    sentence = (
        f"Over seeds one geometry varies by {pooled:.2f} dB (pooled standard deviation), so that the difference of "
        f"two means has a standard error of {error:.2f} dB. The best leads the second by "
        f"{compare(means[0] - means[1])} and number {len(means)} by {compare(means[0] - means[-1])}."
    )
    return [sentence]


def kernels_table(trials, legend):
    """Return the best value, and of how many trials, by kernel size and upsampling."""

    def cell(kernel, mode):
        values = [trial["value"] for trial in trials if (trial["kernel"], trial["mode"]) == (kernel, mode)]
        return f"{max(values):.2f} of {len(values)}" if values else "-"

    return TextTable(
        "By kernel size and upsampling",
        legend,
        1,
        ("kernel", *MODES),
        [(describe_kernel(kernel), *(cell(kernel, mode) for mode in MODES)) for kernel in KERNELS],
    )


def mean_and_std(values):
    """Return the cell of some PSNR values; None among them, for a run that failed, is left out."""
    values = [value for value in values if value is not None]
    mean = statistics.mean(values) if values else None
    return f"{decibel(mean)}±{decibel(statistics.stdev(values) if len(values) > 1 else None)}"


def _outcomes_table(results):
    trials = {name: search["trials"] for name, search in results.items()}
    counts = {name: Counter(trial["came"] for trial in rows) for name, rows in trials.items()}
    order = sorted(counts["healthy"] | counts["fault"], key=lambda cause: (-counts["healthy"][cause], cause))
    return TextTable(
        "What came of the trials",
        "the sweep without a fault beside the control with F1",
        1,
        ("cause", "healthy", "with F1"),
        [(cause, *(f"{counts[name][cause]}" for name in SEARCHES)) for cause in order],
    )


def _best_table(trials, levels):
    legend = ", ".join(f"{name} {decibel(levels.get(name))}" for name in ("noisy", "blur"))
    return TextTable(
        "The ten best geometries",
        f"best PSNR on the validation crops, dB; {legend}",
        5,
        ("trial", "kernel", "padding", "channels", "upsampling", "parameters", "dB"),
        [
            (f"{t['number']}", *describe(t), t["mode"], f"{t['parameters']:,}", decibel(t["value"]))
            for t in trials[:SHOWN]
        ],
    )


def _importances_table(importances):
    shares = {evaluator: value for evaluator, value in importances.items() if not isinstance(value, str)}
    settings = sorted(
        {setting for value in shares.values() for setting in value},
        key=lambda setting: (-sum(value.get(setting, 0) for value in shares.values()), setting),
    )
    return TextTable(
        "How much each setting matters",
        "shares of 1, over the complete trials of the healthy sweep",
        1,
        ("setting", *shares),
        [(setting, *(f"{value.get(setting, 0):.2f}" for value in shares.values())) for setting in settings],
    )


def _control_sentence(control):
    trained = [trial for trial in control["trials"] if trial["last_psnr_db"] is not None]
    black = sum(trial["black"] for trial in trained)
    named = sum(trial["cause"] == F1 for trial in trained)
    low, high = (f((trial["last_psnr_db"] for trial in trained), default=None) for f in (min, max))
    return (
        f"The control: with F1 the output is black in {black} of {len(trained)} trials; their last PSNR is "
        f"{decibel(low)} to {decibel(high)} dB, a black output's is {decibel(control['black_db'])}. The diagnosis "
        f"names F1 in {named} of them."
    )


def _costs_sentence(results):
    trials = {name: search["trials"] for name, search in results.items()}
    refused = {name: sum(trial["state"] == "refused" for trial in rows) for name, rows in trials.items()}
    minutes = sum(search["training_s"] for search in results.values()) / 60
    return (
        f"Refused before any training: {refused['healthy']} points of the healthy sweep, {refused['fault']} of the "
        f"control. All trials together took {minutes:.0f} minutes of one core."
    )


def _common_settings_list(healthy):
    groups = [("the best quarter", healthy["good"]), *healthy["common"]]
    lines = [f"- *{label}*: {settings}" for label, common in groups for settings in common]
    lines = lines or ["- nothing that luck would not do as well"]
    return "\n".join(["What trials of one kind have in common, in the healthy sweep:", "", *lines])


def _by_mean(rows):
    """Return the geometries by their means, the best first; those that failed with a seed are last."""
    complete = [row for row in rows if None not in row["psnr_db"]]
    incomplete = [row for row in rows if None in row["psnr_db"]]
    return sorted(complete, key=lambda row: -statistics.mean(row["psnr_db"])) + incomplete
