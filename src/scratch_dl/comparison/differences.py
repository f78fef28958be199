"""What differs between runs: settings, code, environment, data; and their verdicts."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from scratch_dl import tracking
from scratch_dl.comparison.runs import ComparedRun
from scratch_dl.config.plain import flat
from scratch_dl.terminal.text_table import TextTable

SEED = "seed"
# Settings that say where a run is recorded, continued, checked or measured, not what it computes.
_OTHERS = (
    *("metrics", "tracking", "resume", "verification", "diagnosis", "allowed_targets"),
    *("trainer.pictures", "trainer.test"),
)
_TARGET, _OURS = "._target_", "scratch_dl."
_UNKNOWN = "not recorded"


def own_settings(run: ComparedRun) -> dict[str, Any]:
    """Return the settings that decide what a run computes, by dotted key."""
    return {
        key: value
        for key, value in flat(run.config).items()
        if not any(key == other or key.startswith(f"{other}.") for other in _OTHERS)
    }


def settings_table(runs: Sequence[ComparedRun]) -> TextTable:
    """Return the settings that differ, in the order of the first run's; one that a run does not have is empty."""
    each = [own_settings(run) for run in runs]
    keys = dict.fromkeys(key for settings in each for key in settings)
    rows = []
    for key in keys:
        values = [_shown(key, settings[key]) if key in settings else "" for settings in each]
        if len(set(values)) > 1:
            rows.append((key.removesuffix(_TARGET), *values))
    return _by_run("Settings that differ", "empty: the run has no such setting", runs, rows)


def sources_table(runs: Sequence[ComparedRun]) -> TextTable:
    """Return what differs of code, environment and data."""
    facts: dict[str, Callable[[ComparedRun], Any]] = {
        "git commit": lambda run: run.tags.get("git.commit", "")[:12],
        "uncommitted changes": _changes,
        "scratch_dl": lambda run: run.tags.get("version"),
        "python": lambda run: run.environment.get("python"),
        "torch": lambda run: run.environment.get("packages", {}).get("torch"),
        "host": lambda run: run.environment.get("host"),
        "cpu": lambda run: run.environment.get("cpu"),
        "threads": lambda run: run.environment.get("torch_threads"),
        "kernels": lambda run: run.tags.get("kernels"),
        "data digest": lambda run: run.digest[:12],
    }
    rows = []
    for name, fact in facts.items():
        values = [str(fact(run) or _UNKNOWN) for run in runs]
        if len(set(values)) > 1:
            rows.append((name, *values))
    return _by_run("Code, environment and data that differ", "the digest is of pixels and noise", runs, rows)


def verdicts_table(runs: Sequence[ComparedRun]) -> TextTable:
    """Return how each run ended, and what its verification and its diagnosis concluded."""
    rows = []
    for run in runs:
        reason = run.summary.get("reason")
        ending = f"{run.status or 'not ended'}{f': {reason}' if reason else ''}"
        fault = run.config.get("fault") or "none"
        ending += "" if fault == "none" else f"; fault={fault}"
        verification = str(run.summary.get("verification") or run.tags.get("verification") or _UNKNOWN)
        output = str(run.summary.get("output_class") or "not seen").replace("_", " ")
        rows.append((run.label, ending, verification, _diagnosis(run), output))
    head = ("run", "ended", "verification", "diagnosis", "output")
    return TextTable("Verdicts", "of each run's own verification and diagnosis", len(head), head, rows)


def other_pictures(runs: Sequence[ComparedRun]) -> str:
    """Return a sentence if the runs have different data or noise; otherwise ""."""
    first = runs[0]
    others = [run for run in runs[1:] if _pixels(run) != _pixels(first) or run.config["noise"] != first.config["noise"]]
    if not others:
        return ""
    noise = any(run.config["noise"] != first.config["noise"] for run in others)
    data = any(_pixels(run) != _pixels(first) for run in others)
    what = " and ".join([*(["data"] if data else []), *(["noise"] if noise else [])])
    marks = ", ".join(run.mark for run in others)
    return (
        f"{marks}: different {what} from {first.mark}, so these scores are of different pictures. "
        f"The page shows every run on the pictures of {first.mark}."
    )


def _pixels(run: ComparedRun) -> dict[str, Any]:
    """Return what decides which pixels are scored; of pictures that do not ship with a package, also their digest."""
    own = {"train", "target", "crops_per_epoch", "augment"}
    settings = {key: value for key, value in run.config["data"].items() if key not in own}
    return settings if settings["_target_"] == "scratch_dl.data.Photos" else {**settings, "digest": run.digest}


def _by_run(title: str, legend: str, runs: Sequence[ComparedRun], rows: Sequence[tuple[str, ...]]) -> TextTable:
    return TextTable(title, legend, 1 + len(runs), ("", *(run.mark for run in runs)), rows)


def _shown(key: str, value: Any) -> str:
    """Return a setting's value; of our own targets only the name."""
    if isinstance(value, list):
        return f"[{', '.join(_shown(key, each) for each in value)}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text.rpartition(".")[2] if key.endswith(_TARGET) and text.startswith(_OURS) else text


def _changes(run: ComparedRun) -> str:
    """Return whether the code differed from the commit, and a digest of the difference, to see whether two agree."""
    dirty = run.tags.get("git.dirty", "")
    if dirty != "true":
        return {"false": "none"}.get(dirty, "")
    try:
        diff = (run.folder / tracking.ARTIFACTS / "git.diff").read_bytes()
    except OSError:
        return "yes"
    return f"yes, diff {hashlib.sha256(diff).hexdigest()[:8]}"


def _diagnosis(run: ComparedRun) -> str:
    from scratch_dl.diagnosis import Verdict

    if not (recorded := run.summary.get("diagnosis")):
        return "off" if run.summary else _UNKNOWN
    try:
        return Verdict.from_json(recorded).line
    except TypeError:
        return _UNKNOWN
