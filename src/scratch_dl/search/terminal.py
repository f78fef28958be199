"""What a person reads of a study in a terminal: a line a trial, and in the end the best ones and why others fell."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from scratch_dl.search.causes import explained, groups, label
from scratch_dl.search.outcomes import COMPLETE, PRUNED, REFUSED, Objective, Results, Row
from scratch_dl.terminal.console import WIDTH

_BEST = 5
_FRONT = 12
_SAID = 44


def trial_line(row: Row, done: int, n_trials: int, objectives: Sequence[Objective], best: float | None = None) -> str:
    """One line on a trial: ` 9/30 #17 complete 27.85 (best 28.04) healthy, better than blur: kernel_size=4 lr=1.2`.

    What is said of it is cut to be short; what was drawn stands last and is not cut, so that a line of many settings
    has more than 80 columns.

    Args:
        row: the trial.
        done: how many trials have counted so far, this one among them.
        n_trials: how many are asked for.
        objectives: of its values.
        best: the best value of the first objective so far, this one among them; None if there is none, and with
            several objectives.
    """
    outcome = row.outcome
    values = " ".join(number(value) for value in outcome.values) if outcome is not None and outcome.values else ""
    words = [f"{done:>{len(str(n_trials))}}/{n_trials}", f"{f'#{row.number}':>{len(str(n_trials)) + 1}}"]
    words += [f"{row.state:<8}", f"{values:>{5 if len(objectives) == 1 else 0}}"]
    if best is not None and len(objectives) == 1:
        words.append(f"(best {number(best)})")
    words.append(_said(row))
    said, drawn = " ".join(word for word in words if word).rstrip(), settings(row.params)
    return f"{said}: {drawn}" if drawn else said


def show(results: Results, report: Path | None, console: Console | None = None) -> None:
    """Print the end of a study: the best trials, the counts by cause, the commands that train the best one again.

    Args:
        results: of the study.
        report: where it lies; None without one.
        console: 80 columns are enough; the commands are longer, and are printed as they are, to be copied.
    """
    console = console or Console(highlight=False)
    console.print(end(results), width=min(WIDTH, console.width))
    for line in _commands(results, report):
        console.print(Text(line), soft_wrap=True)


def end(results: Results) -> Group:
    """The best trials, or the Pareto front, and the counts by cause, within 80 columns."""
    parts: list[RenderableType] = [*_best(results), Text()] if ranked(results) else []
    return Group(*parts, *_causes(results), Text())


def settings(params: Mapping[str, Any]) -> str:
    """What was drawn, each setting by the shortest name that no other one has."""
    names = short_names(params)
    return " ".join(f"{names[key]}={_value(value)}" for key, value in params.items())


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Key -> its last part; with those before it if another key ends alike, or if it is an index."""
    keys = list(keys)
    found = {}
    for key in keys:
        parts = key.split(".")
        least = next((n for n in range(1, len(parts) + 1) if not parts[-n].isdigit()), len(parts))
        ends = [".".join(parts[-n:]) for n in range(least, len(parts) + 1)]
        found[key] = next((end for end in ends if not _ambiguous(end, key, keys)), key)
    return found


def number(value: float) -> str:
    """A value of an objective: whole numbers as they are, others with four digits."""
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:#.4g}".rstrip(".")


def ranked(results: Results) -> list[Row]:
    """The complete trials, the best of the first objective first, each point once."""
    rows = [row for row in results.rows if row.state == COMPLETE and row.outcome is not None and row.outcome.values
            and row.outcome.copied_from is None]  # fmt: skip
    sign = -1 if results.objectives[0].direction == "maximize" else 1

    def place(row: Row) -> tuple[float, int]:
        assert row.outcome is not None
        assert row.outcome.values is not None
        return sign * row.outcome.values[0], row.number

    return sorted(rows, key=place)


def psnr_on_test(results: Results) -> dict[str, float]:
    """The winner's PSNR (dB) on the test photographs, and the baselines', by their names."""
    found = {}
    for name, value in results.test.items():
        metric = name.rpartition("/")[2]
        if metric.endswith("psnr_db"):
            found[metric.removesuffix("psnr_db").rstrip("_") or "the winner"] = value
    return found


def value_cells(results: Results, row: Row) -> tuple[str, ...]:
    """One text an objective, empty without a value."""
    if row.outcome is None or not row.outcome.values:
        return ("",) * len(results.objectives)
    return tuple(number(value) for value in row.outcome.values)


def _ambiguous(end: str, key: str, keys: Sequence[str]) -> bool:
    return any(other != key and (other == end or other.endswith(f".{end}")) for other in keys)


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace(" ", "")


def _said(row: Row) -> str:
    """What came of it, in a few words."""
    outcome = row.outcome
    if outcome is None:
        return ""
    said = label(row)
    if row.state == REFUSED:
        said = said.removesuffix(f" {REFUSED}")
    elif row.state == PRUNED:
        said = outcome.reason.partition(":")[0].removeprefix(f"{PRUNED} ")
    elif said == row.state or said.startswith("error of "):
        said = explained(outcome) or said
    if outcome.copied_from is not None:
        said = f"as #{outcome.copied_from}, {said}"
    return said if len(said) <= _SAID else f"{said[: _SAID - 3].rstrip()}..."


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> tuple[Text, Table]:
    """Numbers, and a last column of texts that is folded."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for place, name in enumerate(head, 1):
        last = place == len(head)
        table.add_column(Text(name), justify="left" if last else "right", no_wrap=not last, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return Text(title, style="bold"), table


def _best(results: Results) -> tuple[Text, Table]:
    rows = ranked(results)
    several = len(results.objectives) > 1
    rows = [row for row in rows if row.number in results.best][:_FRONT] if several else rows[:_BEST]
    names = [objective.name for objective in results.objectives] if several else ["value"]
    cells = [(f"{row.number}", *value_cells(results, row), settings(row.params)) for row in rows]
    aims = ", ".join(f"{objective.direction} {objective}" for objective in results.objectives)
    complete = sum(row.state == COMPLETE for row in results.rows)
    which = f"the best of {complete} complete trials"
    if several:
        which = f"Pareto front, {len(results.best)} of {complete} complete trials"
        which += f", of which {len(rows)} are shown" if len(rows) < len(results.best) else ""
    return _table(f"{which} ({aims})", ("trial", *names, "settings"), cells)


def _causes(results: Results) -> tuple[Text, Table]:
    rows = []
    for group in groups(results):
        best = "" if group.best is None else number(group.best)
        said = "\n".join([group.label, *(f"  {line}" for line in group.common[:1])])
        rows.append((group.size, f"{group.share:.0%}", best, said))
    return _table(
        "what came of the trials, and what those of one cause have in common",
        ("trials", "share", "best", "cause"),
        rows,
    )


def _commands(results: Results, report: Path | None) -> list[str]:
    lines: list[str] = []
    if found := psnr_on_test(results):
        lines.append(f"test PSNR, dB: {', '.join(f'{name} {value:.2f}' for name, value in found.items())}")
    for what, command in results.retrain.items():
        whose = f"trial {results.best[0]}" if results.best else "the best trial"
        lines += [f"{whose} again, {what}:", f"  {command}"]
    if report is not None:
        lines.append(f"report: {report}")
    return lines
