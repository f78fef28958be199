"""How trials are written: in a line while the search runs, and in the tables of terminal, report and CSV."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from scratch_dl.search.failure_groups import cause_label, group_by_cause, reason_text
from scratch_dl.search.trial_result import Objective, State, StudySummary, TrialResult, TrialRow
from scratch_dl.terminal.console import WIDTH

MAX_BEST = 5
MAX_FRONT = 12
MAX_OUTCOME = 44
"""Characters of a line's words about what came of a trial, so that the line fits 80 columns with three settings."""
RESULT_COLUMNS = (
    *("cause", "output_class", "verification", "verdict", "cure", "reason", "epochs", "seconds", "parameters"),
    *("run_id", "folder"),
)


def columns(row: TrialRow, objectives: Sequence[Objective], keys: Iterable[str]) -> dict[str, Any]:
    """Return all that is known about a trial, by the names of columns; a missing value is "".

    Args:
        row: the trial.
        objectives: of its values.
        keys: the drawn settings to list; this trial may lack some of them.
    """
    values = row.values or ("",) * len(objectives)
    result = row.result or TrialResult("")
    return {
        "number": row.number,
        "state": row.state,
        **dict(zip(map(str, objectives), values, strict=True)),
        **{key: row.params.get(key, "") for key in keys},
        "label": cause_label(row),
        **{name: getattr(result, name) if row.result else "" for name in RESULT_COLUMNS},
        "requeued_as": row.requeued_as,
    }


def drawn_keys(rows: Iterable[TrialRow]) -> list[str]:
    """Return the keys of all settings that were drawn in any of the trials."""
    return list(dict.fromkeys(key for row in rows for key in row.params))


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return for each key its last part, with the parts before it if another key ends alike or if it is an index."""
    keys = list(keys)

    def is_ambiguous(ending: str, key: str) -> bool:
        return any(other != key and f".{other}".endswith(f".{ending}") for other in keys)

    names = {}
    for key in keys:
        parts = key.split(".")
        least = next((n for n in range(1, len(parts) + 1) if not parts[-n].isdigit()), len(parts))
        endings = [".".join(parts[-n:]) for n in range(least, len(parts) + 1)]
        names[key] = next((ending for ending in endings if not is_ambiguous(ending, key)), key)
    return names


def format_params(params: Mapping[str, Any]) -> str:
    """Write the drawn settings, each by the shortest name that no other setting has."""
    texts = {
        key: f"{value:.3g}" if isinstance(value, float) else str(value).replace(" ", "")
        for key, value in params.items()
    }
    return " ".join(f"{name}={texts[key]}" for key, name in short_names(params).items())


def format_value(value: float) -> str:
    """Write a value of an objective: a whole number as it is, any other with four significant digits."""
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:#.4g}".rstrip(".")


def format_values(row: TrialRow, objectives: Sequence[Objective]) -> tuple[str, ...]:
    """Write the values of a trial, one text per objective; empty texts if the trial has none."""
    return tuple(map(format_value, row.values)) or ("",) * len(objectives)


def describe_objectives(objectives: Sequence[Objective]) -> str:
    """Return, for example, "maximize best val/psnr_db"."""
    return ", ".join(f"{objective.direction} {objective}" for objective in objectives)


def trial_line(
    row: TrialRow, done: int, n_trials: int, objectives: Sequence[Objective], best: float | None = None
) -> str:
    """Write a trial in one line, such as ` 9 of 30 trained #17 complete 27.85 (best 28.04) healthy: lr=1.2`.

    The words about what came of it are cut to MAX_OUTCOME characters. The drawn settings stand last and are not cut,
    so that a line with many settings is longer than 80 columns.

    Args:
        row: the trial.
        done: how many trials have counted so far, including this one.
        n_trials: how many are asked for.
        objectives: of its values.
        best: the best value of the first objective so far, including this trial's; None if there is none, or if there
            are several objectives.
    """
    width = len(str(n_trials))
    values = " ".join(map(format_value, row.values))
    words = [f"{done:>{width}} of {n_trials} trained", f"{f'#{row.number}':>{width + 1}}"]
    words += [f"{row.state:<8}", f"{values:>{5 if len(objectives) == 1 else 0}}"]
    if best is not None and len(objectives) == 1:
        words.append(f"(best {format_value(best)})")
    words.append(_short_outcome(row))
    line, params = " ".join(word for word in words if word).rstrip(), format_params(row.params)
    return f"{line}: {params}" if params else line


def _short_outcome(row: TrialRow) -> str:
    """Say what came of a trial in at most MAX_OUTCOME characters."""
    if row.result is None:
        return ""
    text = cause_label(row)
    if row.state == State.REFUSED:
        text = text.removesuffix(f" {State.REFUSED}")
    elif row.state == State.PRUNED:
        text = row.result.reason.partition(":")[0].removeprefix(f"{State.PRUNED} ")
    elif text == row.state or text.startswith("error of "):
        text = reason_text(row.result) or text
    return text if len(text) <= MAX_OUTCOME else f"{text[: MAX_OUTCOME - 3].rstrip()}..."


def print_summary(summary: StudySummary, report: Path | None, console: Console | None = None) -> None:
    """Print the end of a study: the best trials, the counts by cause, and the commands that train the best one again.

    Args:
        summary: of the study.
        report: the path of the report; None without one.
        console: where to print. The tables fit 80 columns; the commands are longer and are printed whole, to be copied.
    """
    console = console or Console(highlight=False)
    parts: list[RenderableType] = [*_best_table(summary), Text()] if summary.ranked() else []
    console.print(Group(*parts, *_cause_table(summary), Text()), width=min(WIDTH, console.width))
    lines: list[str] = []
    if psnr := summary.test_psnr():
        lines.append(f"test PSNR, dB: {', '.join(f'{name} {value:.2f}' for name, value in psnr.items())}")
    for purpose, command in summary.retrain.items():
        lines += [f"trial {summary.best[0]} again, {purpose}:", f"  {command}"]
    if report is not None:
        lines.append(f"report: {report}")
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _best_table(summary: StudySummary) -> tuple[Text, Table]:
    """The best trials, or the Pareto front."""
    rows, several = summary.ranked(), len(summary.objectives) > 1
    complete = sum(row.state == State.COMPLETE for row in summary.rows)
    if several:
        rows = [row for row in rows if row.number in summary.best][:MAX_FRONT]
        title = f"Pareto front, {len(summary.best)} of {complete} complete trials"
        title += f", of which {len(rows)} are shown" if len(rows) < len(summary.best) else ""
    else:
        rows, title = rows[:MAX_BEST], f"the best of {complete} complete trials"
    names = [objective.name for objective in summary.objectives] if several else ["value"]
    cells = [(f"{row.number}", *format_values(row, summary.objectives), format_params(row.params)) for row in rows]
    return _table(f"{title} ({describe_objectives(summary.objectives)})", ("trial", *names, "settings"), cells)


def _cause_table(summary: StudySummary) -> tuple[Text, Table]:
    cells = []
    for group in group_by_cause(summary):
        best = "" if group.best is None else format_value(group.best)
        text = "\n".join([group.label, *(f"  {line}" for line in group.common[:1])])
        cells.append((f"{len(group.rows)}", f"{group.share:.0%}", best, text))
    title = "what came of the trials, and what those of one cause have in common"
    return _table(title, ("trials", "share", "best", "cause"), cells)


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> tuple[Text, Table]:
    """A table whose columns are right-aligned numbers, but for the last, which is text that may be folded."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for place, name in enumerate(head, 1):
        last = place == len(head)
        table.add_column(Text(name), justify="left" if last else "right", no_wrap=not last, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return Text(title, style="bold"), table
