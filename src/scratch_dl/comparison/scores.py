"""The scores of runs, their differences to a baseline, and the mean over runs that differ only in their seed."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scratch_dl.comparison.differences import SEED, own_settings
from scratch_dl.comparison.runs import ComparedRun
from scratch_dl.config.metrics import own_names
from scratch_dl.terminal.text_table import TextTable

VALIDATION = "val/psnr_db"


class Metric(NamedTuple):
    """A column: its key, its head, and how many digits it has."""

    key: str
    head: str
    digits: int


METRICS = (
    Metric("val/best_psnr_db", "val crops", 2),
    Metric("val_whole/psnr_db", "val whole", 2),
    Metric("test/psnr_db", "test", 2),
    Metric("test/ssim", "SSIM", 3),
    Metric("training_s", "s", 1),
    Metric("epochs", "epochs", 0),
    Metric("parameters", "parameters", 0),
)
TEST, WHOLE = "test", "val_whole"
LEGEND = (
    "PSNR in dB: the best on the validation crops, then of that checkpoint on whole photographs for validation and "
    "test; SSIM{own} of the test photographs; training time in s; in brackets the difference to {baseline}"
)


def columns(runs: Sequence[ComparedRun]) -> tuple[Metric, ...]:
    """Return METRICS and the runs' own ones, of the test photographs, or of those for validation if no run has any."""
    own = dict.fromkeys(name for run in runs for name in own_names(run.config.get("metrics", {})))
    logged = {key for run in runs for key, points in run.history.items() if points}
    found = {name: TEST if f"{TEST}/{name}" in logged else WHOLE for name in own}
    heads = {name: name if prefix == TEST else f"{name} (val)" for name, prefix in found.items()}
    place = [metric.key for metric in METRICS].index("test/ssim") + 1
    more = (Metric(f"{prefix}/{name}", heads[name], 4) for name, prefix in found.items())
    return (*METRICS[:place], *more, *METRICS[place:])


def scores(run: ComparedRun, metrics: Sequence[Metric] = METRICS) -> dict[str, float]:
    """Return the values of the metrics that a run has; of a run that has not ended, those that are known so far."""
    last = {key: points[-1][1] for key, points in run.history.items() if points}
    values = {metric.key: last[metric.key] for metric in metrics if metric.key in last}
    if validations := run.history.get(VALIDATION):
        values.setdefault("val/best_psnr_db", max(value for _, value in validations))
        values["epochs"] = len(validations) - 1  # the first one is before the training
    elapsed = run.summary.get("progress", {}).get("training_s")
    if isinstance(elapsed, float):
        values.setdefault("training_s", elapsed)
    if run.parameters is not None:
        values["parameters"] = run.parameters
    return values


def seed_groups(runs: Sequence[ComparedRun]) -> list[list[ComparedRun]]:
    """Return the finished runs that differ only in their seed, in groups of two or more."""
    groups: dict[str, list[ComparedRun]] = {}
    for run in runs:
        settings = own_settings(run)
        settings.pop(SEED, None)
        if run.status == "FINISHED":
            groups.setdefault(repr(sorted(settings.items())), []).append(run)
    return [group for group in groups.values() if len({run.config.get(SEED) for run in group}) > 1]


def scores_table(runs: Sequence[ComparedRun], baseline: ComparedRun) -> TextTable:
    """Return a row for each run, then one for each group of seeds; a column that no run has is left out."""
    every = columns(runs)
    values = {run.mark: scores(run, every) for run in runs}
    base = values[baseline.mark]
    shown = [metric for metric in every if any(metric.key in each for each in values.values())]
    rows = []
    for run in runs:
        own = values[run.mark]
        cells = [
            _cell(metric, [own[metric.key]] if metric.key in own else [], base.get(metric.key), run is baseline)
            for metric in shown
        ]
        rows.append((run.label, *cells))
    for group in seed_groups(runs):
        label = f"{', '.join(run.mark for run in group)}: mean ± standard deviation, n={len(group)}"
        known = {m.key: [values[run.mark][m.key] for run in group if m.key in values[run.mark]] for m in shown}
        rows.append((label, *(_cell(m, known[m.key], base.get(m.key), False, len(group)) for m in shown)))
    head = ("run", *(metric.head for metric in shown))
    others = "".join(f", {metric.head}" for metric in shown if metric not in METRICS)
    return TextTable("Scores", LEGEND.format(baseline=baseline.mark, own=others), 1, head, rows)


def _cell(metric: Metric, values: Sequence[float], base: float | None, is_base: bool, expected: int = 1) -> str:
    """Return the mean of the values, with the standard deviation if there are several, and the difference to `base`."""
    if not values:
        return ""
    mean = statistics.fmean(values)
    text = f"{mean:,.{metric.digits}f}"
    if len(values) > 1 and len(set(values)) > 1:
        text += f"±{statistics.stdev(values):.{metric.digits}f}"
    if len(values) < expected:
        text += f" n={len(values)}"
    if is_base or base is None or (mean == base and not metric.digits):
        return text
    difference = f"{mean - base:+,.{metric.digits}f}"
    return f"{text}\n({difference if difference.strip('+-0.') else difference.replace('-', '+')})"
