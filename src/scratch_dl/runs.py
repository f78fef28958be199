"""`python -m scratch_dl.runs [experiment=NAME] [sort=val/psnr_db] [format=csv]`: the trainings of a store, best first.

Evaluations, verifications and studies are not listed, and the trials of searches only by `trials=true`.
"""

import contextlib
import csv
import math
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from scratch_dl.cli.command import Command
from scratch_dl.config.build import tracking_settings
from scratch_dl.config.overrides import expand as expand_paths
from scratch_dl.config.overrides import override_value, unquoted
from scratch_dl.config.plain import plain
from scratch_dl.config.targets import check_keys, config_errors
from scratch_dl.system.checks import boolean, choice, nearest, text
from scratch_dl.system.errors import ConfigError

PSNR, AGE, NAME = "val/psnr_db", "age", "name"
FORMATS = ("table", "csv")
SHORT = 8  # characters of an id in the table
_HEADS = {PSNR: "PSNR, dB"}  # of the columns of metrics, where it is not the metric's name
_TEXTS = {"sort": "sort", "experiment": "tracking.experiment"}  # what is typed -> the setting; any text may follow


def _run(_config: DictConfig, _folder: Path, settings: dict[str, Any]) -> None:
    """Print the trainings of a store.

    Raises:
        TrackingError: if no network was trained there, or the store cannot be used.
        ConfigError: if there is no store, or they cannot be sorted as asked for.
    """
    from scratch_dl.tracking import TrackingError, selection
    from scratch_dl.tracking.store import open_existing_store

    where = settings["tracking"]
    with contextlib.redirect_stdout(sys.stderr):  # which may have a notice, and stdout is read by programs
        store = open_existing_store(where)
    found = selection.trainings(store, where["experiment"])
    listed = [run for run in found if settings["trials"] or not selection.is_trial(run)]
    trials = len(found) - len(listed)
    if not listed:
        place = f"tracking.uri={store.shown}" if where["experiment"] is None else f"experiment={where['experiment']!r}"
        raise TrackingError(
            f"{place} has only trials of searches ({trials}); trials=true lists them"
            if trials
            else f"no network was trained in {place}; train one: python -m scratch_dl.train"
        )
    metrics = [PSNR] if settings["sort"] in (PSNR, AGE, NAME) else [PSNR, settings["sort"]]
    facts = [_facts(run, metrics) for run in ordered(listed, settings["sort"])]
    if settings["format"] == "csv":
        writer = csv.DictWriter(sys.stdout, list(facts[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**each, "start": _iso(each["start"])} for each in facts)
        return
    _print_table(facts, metrics)
    if trials:
        print(f"not listed: trials of searches ({trials}); trials=true lists them, too")


def ordered(runs: Sequence[Any], sort: str) -> list[Any]:
    """Return runs, which come with the last one first, by the value of a metric (the best first), by NAME or by AGE.

    Runs without the metric come last.

    Raises:
        ConfigError: if no run has the metric; the message names the most similar one.
    """
    from scratch_dl.tracking.names import less_is_better

    if sort == AGE:
        return list(runs)
    if sort == NAME:
        return sorted(runs, key=lambda run: (run.info.run_name or "").lower())
    known = {metric for run in runs for metric in run.data.metrics}
    if sort not in known and sort != PSNR:
        choices = [NAME, AGE, *sorted(known)]
        few = [each for each in choices if not each.startswith(("watch/", "verify/"))]
        hint = nearest(sort, choices) or f"; there are: {', '.join(few)}"
        raise ConfigError(f"sort must be name, age or a metric of a listed run, but got {sort!r}{hint}")
    sign = 1 if less_is_better(sort) else -1

    def place(run: Any) -> tuple[bool, float]:
        value = float(run.data.metrics.get(sort, math.nan))
        return (True, 0.0) if math.isnan(value) else (False, sign * value)

    return sorted(runs, key=place)


def _facts(run: Any, metrics: Sequence[str]) -> dict[str, Any]:
    """Return what is listed of a run, by the name of its column in CSV; None if a metric is not known."""
    from scratch_dl.tracking import selection

    tags = run.data.tags
    return {
        "id": run.info.run_id,
        NAME: run.info.run_name or "",
        "model": tags.get("model", ""),
        "noise": tags.get("noise", ""),
        "fault": selection.fault_of(run),
        "epochs": run.data.params.get(selection.EPOCHS, ""),
        **{metric: run.data.metrics.get(metric) for metric in metrics},
        "verification": tags.get("verification", ""),
        "diagnosis": tags.get("diagnosis", ""),
        "status": run.info.status,
        "start": run.info.start_time,
    }


def _print_table(facts: Sequence[dict[str, Any]], metrics: Sequence[str]) -> None:
    from rich.console import Console

    from scratch_dl.terminal.console import WIDTH
    from scratch_dl.terminal.stacked_table import Place, stacked_table

    places = [
        Place(("id",)),
        Place((NAME,), folds=True),
        Place(("model", "noise", "fault"), folds=True),
        Place(("epochs",), is_number=True),
        *(Place((_HEADS.get(metric, metric),), is_number=True) for metric in metrics),
        Place(("verification", "diagnosis"), folds=True),
        Place(("status", AGE)),
    ]
    now = time.time()
    rows = [
        {
            **{column: value for column, value in each.items() if isinstance(value, str)},
            **{_HEADS.get(metric, metric): _number(metric, each[metric]) for metric in metrics},
            "id": each["id"][:SHORT],
            AGE: age(now - each["start"] / 1000),
        }
        for each in facts
    ]
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    console.print(stacked_table(places, rows, console.width))


def _number(metric: str, value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if metric == PSNR else f"{value:.5g}"


def age(seconds: float) -> str:
    """Return a duration in its largest unit: "40 s", "3 min", "2 h" or "5 d"."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _iso(start_ms: int) -> str:
    return datetime.fromtimestamp(start_ms / 1000, UTC).isoformat(timespec="seconds")


def expand(arguments: Sequence[str]) -> list[str]:
    """Expand the arguments as for any command; the names of an experiment and of a metric are quoted.

    `experiment` is the setting `tracking.experiment`, because Hydra would look for a preset of this name.
    """
    expanded = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key in _TEXTS:
            argument = f"{_TEXTS[key]}={override_value(unquoted(value))}"
        expanded.append(argument)
    return expand_paths(expanded)


def _check(config: DictConfig) -> dict[str, Any]:
    """Return the settings, checked."""
    settings = plain(config)
    check_keys("", settings, ["sort", "format", "trials", "tracking"])
    with config_errors("", settings):
        text("sort", settings["sort"])
        choice("format", settings["format"], FORMATS)
        boolean("trials", settings["trials"])
    where = settings["tracking"]
    experiment = "any" if where["experiment"] is None else where["experiment"]
    tracking_settings({"tracking": {**where, "experiment": experiment}})
    return settings


def main() -> None:
    """Entry point of the command."""
    Command("runs", _check, _run, expand).main()


if __name__ == "__main__":
    main()
