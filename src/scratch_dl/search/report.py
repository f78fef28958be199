"""The report of a study: Markdown, one self-contained HTML file, the trials as CSV, and the pictures."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from scratch_dl.search.failure_groups import cause_label, group_by_cause, reason_text
from scratch_dl.search.importances import EVALUATORS, QUESTIONS
from scratch_dl.search.tables import (
    columns,
    describe_objectives,
    drawn_keys,
    format_params,
    format_value,
    format_values,
    short_names,
)
from scratch_dl.search.trial_result import State, StudySummary, TrialRow
from scratch_dl.terminal.html_page import html_page
from scratch_dl.terminal.text_table import TextTable

MARKDOWN, HTML, CSV = "report.md", "report.html", "trials.csv"
MAX_DESCRIBED = 10
_TITLES = {
    "history": "History",
    "parallel": "Settings of each trial, side by side",
    "slice": "Each setting alone, with pruned, failed and refused trials",
    "pareto": "Pareto front",
    **{f"importance_{key}": f"Importance by {name}" for key, name in EVALUATORS.items()},
}
_MARKUP = re.compile(r"[*<]|\](?=\()|(?<![^\W_])_+|_+(?![^\W_])")  # an underscore inside a word is not markup


def write_report(study: optuna.Study, summary: StudySummary, folder: Path) -> list[Path]:
    """Write report.md, report.html, trials.csv and the pictures, over those of an earlier report.

    Args:
        study: Optuna's study, for the pictures.
        summary: of the same study.
        folder: is created if it does not exist.

    Returns:
        The files, the reports first. report.html contains the pictures and needs no other file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    from scratch_dl.search import plots  # which imports pyplot; that takes a second, and a search needs it once

    pictures = plots.write_plots(study, summary, folder)
    (folder / MARKDOWN).write_text(_markdown(summary, pictures, links=True), encoding="utf-8")
    (folder / HTML).write_text(_html(summary, pictures), encoding="utf-8")
    keys = drawn_keys(summary.rows)
    with (folder / CSV).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns(TrialRow(0, "", {}, None), summary.objectives, keys), lineterminator="\n")
        writer.writeheader()
        writer.writerows(columns(row, summary.objectives, keys) for row in summary.rows)
    paths = [path for path in pictures.values() if isinstance(path, Path)]
    return [folder / MARKDOWN, folder / HTML, folder / CSV, *paths]


def description(summary: StudySummary) -> str:
    """Return a study in short, as Markdown: the best trial, the counts by cause, the ten best trials with links."""
    parts = [f"**{summary.study}**: {describe_objectives(summary.objectives)}; {_counts(summary)}"]
    if summary.best:
        first = summary.row(summary.best[0])
        title = f"Pareto front of {len(summary.best)}: trials"
        if len(summary.objectives) == 1:
            title = f"{summary.objectives[0]} **{format_values(first, summary.objectives)[0]}**: trial"
        parts.append(f"{title} {', '.join(_number(summary.row(number), links=True) for number in summary.best)}")
    if groups := group_by_cause(summary):
        lines = []
        for group in groups:
            common = f": {_escaped(group.common[0])}" if group.common else ""
            lines.append(f"- {len(group.rows)} ({group.share:.0%}) {_escaped(group.label)}{common}")
        parts.append("\n".join(lines))
    if rows := summary.ranked()[:MAX_DESCRIBED]:
        cells = [
            (_number(row, links=True), f"`{format_params(row.params)}`", *format_values(row, summary.objectives))
            for row in rows
        ]
        head = ("trial", "settings", *map(str, summary.objectives))
        parts.append(TextTable("The best trials", f"by {summary.objectives[0]}", 2, head, cells).markdown())
    return "\n\n".join(parts) + "\n"


def _markdown(summary: StudySummary, pictures: Mapping[str, Path | str], links: bool) -> str:
    states = Counter(row.state for row in summary.rows).most_common()
    legend = f"{summary.n_trials} were asked for"
    facts = {
        "objective": describe_objectives(summary.objectives),
        "trials": _counts(summary),
        "sampler": summary.sampler,
        "pruner": summary.pruner,
        "seed": summary.seed,
        "storage": f"`{summary.storage}`",
    }
    space = [(f"`{key}`", f"`{values}`") for key, values in summary.space.items()]
    parts = [
        f"# Study {summary.study}",
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        TextTable("What was searched", "in Hydra's grammar", 2, ("setting", "values"), space).markdown(),
        *_best_section(summary, links),
        *_cause_section(summary),
        TextTable("Trials by state", legend, 1, ("state", "trials"), [(s, str(n)) for s, n in states]).markdown(),
        *_pictures_section(summary, pictures),
        *_trials_section(summary, links),
    ]
    return "\n\n".join(parts) + "\n"


def _best_section(summary: StudySummary, links: bool) -> Iterator[str]:
    rows = [summary.row(number) for number in summary.best]
    yield "## The best trial" if len(summary.objectives) == 1 or not rows else "## The Pareto front"
    if not rows:
        yield "No trial is complete."
        return
    if len(summary.objectives) > 1:
        title = "None of them is better in every objective than another"
        yield _trial_table(summary, title, "complete trials", rows, links)
    else:
        row, result = rows[0], rows[0].result
        assert result is not None
        value = format_values(row, summary.objectives)[0]
        yield f"Trial {_number(row, links)}: {summary.objectives[0]} **{value}**"
        params = ", ".join(f"`{key}={value}`" for key, value in row.params.items())
        yield "\n".join(
            [
                f"- settings: {params or 'as configured'}",
                f"- diagnosis: {_escaped(cause_label(row))}",
                f"- verification: {_escaped(result.verification) or 'none'}",
                f"- {result.parameters:,} parameters, {result.epochs} epochs, {result.seconds:.0f} s",
            ]
        )
    for purpose, command in summary.retrain.items():
        yield f"Trial {summary.best[0]} again, {purpose}:"
        yield f"```\n{command}\n```"
    if psnr := summary.test_psnr():
        cells = [(name, f"{value:.2f}") for name, value in psnr.items()]
        legend = "PSNR in dB; the winner is the only trial that was evaluated on them, once"
        yield TextTable("Test photographs", legend, 1, ("method", "PSNR"), cells).markdown()


def _cause_section(summary: StudySummary) -> Iterator[str]:
    yield "## Why trials ended as they did"
    groups = group_by_cause(summary)
    if not groups:
        yield "No trial has ended yet."
        return
    cells = []
    for group in groups:
        best = "" if group.best is None else format_value(group.best)
        cells.append((_escaped(group.label), f"{len(group.rows)}", f"{group.share:.0%}", best))
    legend = f"shares of those that ended; the best by {summary.objectives[0]}"
    yield TextTable("Trials by cause", legend, 1, ("cause", "trials", "share", "best"), cells).markdown()
    for group in groups:
        lines = [f"- in common: {_escaped(line)}" for line in group.common]
        lines += [f"- for example, {_escaped(group.example)}"] if group.example else []
        if lines:
            yield f"**{_escaped(group.label)}**"
            yield "\n".join(lines)


def _trials_section(summary: StudySummary, links: bool) -> Iterator[str]:
    rows = [row for row in summary.rows if row.state != State.REFUSED]
    refused = len(summary.rows) - len(rows)
    yield "## All trials"
    if rows:
        legend = f"{refused} refused ones left out; they are in {CSV}" if refused else f"also in {CSV}"
        yield _trial_table(summary, "Trials by number", legend, rows, links)


def _trial_table(summary: StudySummary, title: str, legend: str, rows: Sequence[TrialRow], links: bool) -> str:
    keys = drawn_keys(rows)
    names = [short_names(keys)[key] for key in keys]
    head = ("trial", "state", "what came of it", *map(str, summary.objectives), *names, "epochs", "s")
    cells = []
    for row in rows:
        all_columns = columns(row, summary.objectives, keys)
        params = [_formatted(all_columns[key]) for key in keys]
        length = ("", "") if row.result is None else (str(row.result.epochs or ""), f"{row.result.seconds:.0f}")
        values = format_values(row, summary.objectives)
        cells.append((_number(row, links), row.state, _escaped(_outcome(row)), *values, *params, *length))
    return TextTable(title, legend, 3, head, cells).markdown()


def _pictures_section(summary: StudySummary, pictures: Mapping[str, Path | str]) -> Iterator[str]:
    yield "## Pictures"
    yield "\n".join(f"- {question}" for question in QUESTIONS.values())
    for name, picture in pictures.items():
        kind = next(kind for kind in _TITLES if name == kind or name.startswith(f"{kind}_"))
        objective = next((str(each) for each in summary.objectives if name == f"{kind}_{each.slug}"), "")
        yield f"### {_TITLES[kind]}{f' for {objective}' if objective else ''}"
        yield f"![{_TITLES[kind]}]({picture.name})" if isinstance(picture, Path) else f"Not drawn: {_escaped(picture)}."


def _html(summary: StudySummary, pictures: Mapping[str, Path | str]) -> str:
    """Return the report as one file. It has no links, because they would lead nowhere outside MLflow."""
    files = {picture.name: picture for picture in pictures.values() if isinstance(picture, Path)}
    return html_page(f"Study {summary.study}", _markdown(summary, pictures, links=False), files)


def _outcome(row: TrialRow) -> str:
    """Say why a trial ended as it did and, if it is not complete, give the reason."""
    if row.result is None:
        return ""
    label = cause_label(row)
    parts = [label if label != row.state else "", reason_text(row.result) if row.state != State.COMPLETE else ""]
    if row.requeued_as is not None:
        parts.append(f"trained again as trial {row.requeued_as}")
    return "; ".join(part for part in parts if part)


def _counts(summary: StudySummary) -> str:
    counts = Counter(row.state for row in summary.rows)
    return ", ".join([f"{summary.n_trials} asked for", *(f"{count} {state}" for state, count in counts.most_common())])


def _number(row: TrialRow, links: bool) -> str:
    """A trial's number, as a link to MLflow's page of its run if it has one."""
    page = row.result.page if links and row.result else ""
    return f"[{row.number}]({page})" if page else str(row.number)


def _escaped(text: str) -> str:
    """Escape a message for Markdown: words in backquotes stay code, nothing else is taken as markup."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        parts = ["\\`".join(parts)]
    parts[::2] = [_MARKUP.sub(lambda match: "".join(f"\\{sign}" for sign in match[0]), part) for part in parts[::2]]
    return "`".join(parts)


def _formatted(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _escaped(str(value))
