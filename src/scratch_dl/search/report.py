"""A study as a report: Markdown, one HTML file with everything in it, the trials as CSV, and the pictures."""

import csv
import html
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scratch_dl.search.causes import Group, explained, groups, label
from scratch_dl.search.importances import EVALUATORS, QUESTIONS
from scratch_dl.search.outcomes import COMPLETE, REFUSED, Results, Row
from scratch_dl.search.plots import draw, slug
from scratch_dl.search.terminal import number, psnr_on_test, ranked, settings, short_names, value_cells
from scratch_dl.terminal.text_table import TextTable

if TYPE_CHECKING:
    import optuna

MARKDOWN, HTML, CSV = "report.md", "report.html", "trials.csv"
_TITLES = {
    "history": "History",
    "parallel": "Settings of each trial, side by side",
    "slice": "Each setting alone",
    "pareto": "Pareto front",
    **{f"importance_{key}": f"Importance by {name}" for key, name in EVALUATORS.items()},
}
_SHOWN = 10
_MARKUP = re.compile(r"[*<]|\](?=\()|(?<![^\W_])_+|_+(?![^\W_])")  # an underscore inside a word means nothing
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 13px; margin: 0.8em 0; }
th, td { padding: 3px 9px; border-bottom: 1px solid #ddd; vertical-align: top; max-width: 40em; }
th { border-bottom: 2px solid #999; text-align: left; }
pre { background: #f5f5f5; padding: 0.7em; white-space: pre-wrap; overflow-wrap: anywhere; }
code { font-size: 13px; background: #f5f5f5; }
img { max-width: 100%; }
h2 { border-bottom: 1px solid #ddd; margin-top: 1.8em; }
"""


def write(study: "optuna.Study", results: Results, folder: Path) -> list[Path]:
    """Write report.md, report.html, trials.csv and the pictures, over those of an earlier report.

    Args:
        study: Optuna's, for the pictures.
        results: of the same study.
        folder: is made if it is not there.

    Returns:
        The files, the reports first. report.html has the pictures in it and needs no other file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = draw(study, results, folder)
    (folder / MARKDOWN).write_text(_markdown(results, pictures, links=True), encoding="utf-8")
    (folder / HTML).write_text(_html(results, pictures), encoding="utf-8")
    _csv(results, folder / CSV)
    return [folder / name for name in (MARKDOWN, HTML, CSV)] + [
        path for path in pictures.values() if isinstance(path, Path)
    ]


def description(results: Results) -> str:
    """A study in short, as Markdown: the best, the counts by cause, the ten best trials with links to their runs."""
    parts = [f"**{results.study}**: {_aims(results)}; {_counted(results)}"]
    if results.best:
        parts.append(f"{_which(results)} {_numbers(results, links=True)}")
    found = groups(results)
    if found:
        parts.append("\n".join(f"- {len(group.rows)} ({group.share:.0%}) {_plain(group.label)}{_common(group)}"
                               for group in found))  # fmt: skip
    rows = ranked(results)[:_SHOWN]
    if rows:
        cells = [(_linked(row, links=True), f"`{settings(row.params)}`", *value_cells(results, row)) for row in rows]
        head = ("trial", "settings", *map(str, results.objectives))
        by = f"by {results.objectives[0]}" if len(results.objectives) > 1 else "each point once"
        parts.append(TextTable("The best trials", by, 2, head, cells).markdown())
    return "\n\n".join(parts) + "\n"


def _markdown(results: Results, pictures: Mapping[str, Path | str], links: bool) -> str:
    parts = [
        f"# Study {results.study}",
        "\n".join([f"- objective: {_aims(results)}", f"- trials: {_counted(results)}",
                   f"- sampler: {results.sampler}", f"- pruner: {results.pruner}", f"- seed: {results.seed}",
                   f"- storage: `{results.storage}`"]),
        TextTable("What was searched", "in Hydra's grammar", 2, ("setting", "values"),
                  [(f"`{key}`", f"`{values}`") for key, values in results.space.items()]).markdown(),
        *_best(results, links),
        "## Why trials ended as they did",
        *_why(results),
        *_states(results),
        *_trials(results, links),
        "## Pictures",
        *_shown(results, pictures),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _best(results: Results, links: bool) -> Iterator[str]:
    if not results.best:
        yield "## The best trial"
        yield "No trial is complete."
        return
    several = len(results.objectives) > 1
    yield "## The Pareto front" if several else "## The best trial"
    for row in [] if several else [results.row(best) for best in results.best]:
        outcome = row.outcome
        assert outcome is not None
        yield f"Trial {_linked(row, links)}: {results.objectives[0]} **{value_cells(results, row)[0]}**"
        yield "\n".join([
            f"- settings: {', '.join(f'`{key}={value}`' for key, value in row.params.items()) or 'as configured'}",
            f"- diagnosis: {_plain(label(row))}",
            f"- verification: {_plain(outcome.verification) or 'none'}",
            f"- {outcome.parameters:,} parameters, {outcome.epochs} epochs, {outcome.seconds:.0f} s",
        ])  # fmt: skip
    if several:
        rows = [results.row(best) for best in results.best]
        yield _table(results, "None of them is better in every objective than another", "complete trials", rows, links)
    for what, command in results.retrain.items():
        yield f"Trial {results.best[0]} again, {what}:"
        yield f"```\n{command}\n```"
    if found := psnr_on_test(results):
        cells = [(name, f"{value:.2f}") for name, value in found.items()]
        legend = "PSNR in dB; of all trials the winner alone has seen them, once"
        yield TextTable("Test photographs", legend, 1, ("method", "PSNR"), cells).markdown()


def _why(results: Results) -> Iterator[str]:
    found = groups(results)
    if not found:
        yield "Nothing has come of any trial yet."
        return
    cells = [(_plain(group.label), group.size, f"{group.share:.0%}",
              "" if group.best is None else number(group.best)) for group in found]  # fmt: skip
    legend = f"shares of those that ended; the best by {results.objectives[0]}"
    yield TextTable("Trials by cause", legend, 1, ("cause", "trials", "share", "best"), cells).markdown()
    for group in found:
        lines = [*(f"- in common: {_plain(line)}" for line in group.common)]
        if group.example:
            lines.append(f"- for example, {_plain(group.example)}")
        if lines:
            yield f"**{_plain(group.label)}**"
            yield "\n".join(lines)


def _states(results: Results) -> Iterator[str]:
    counts = Counter(row.state for row in results.rows)
    cells = [(state, str(count)) for state, count in counts.most_common()]
    yield TextTable("Trials by state", f"{results.n_trials} were asked for", 1, ("state", "trials"), cells).markdown()


def _trials(results: Results, links: bool) -> Iterator[str]:
    rows = [row for row in results.rows if row.state != REFUSED]
    refused = len(results.rows) - len(rows)
    yield "## All trials"
    if rows:
        legend = f"{refused} refused ones left out; they are in {CSV}" if refused else f"also in {CSV}"
        yield _table(results, "Trials by number", legend, rows, links)


def _table(results: Results, title: str, legend: str, rows: Sequence[Row], links: bool) -> str:
    keys = _keys(rows)
    names = short_names(keys)
    head = (
        "trial",
        "state",
        "what came of it",
        *map(str, results.objectives),
        *(names[key] for key in keys),
        "epochs",
        "s",
    )
    cells = []
    for row in rows:
        drawn = [_value(row.params[key]) if key in row.params else "" for key in keys]
        ran = ("", "") if row.outcome is None else (str(row.outcome.epochs or ""), f"{row.outcome.seconds:.0f}")
        cells.append((_linked(row, links), row.state, _plain(_came(row)), *value_cells(results, row), *drawn, *ran))
    return TextTable(title, legend, 3, head, cells).markdown()


def _came(row: Row) -> str:
    """Why it ended as it did, and of what is not complete the reason."""
    if row.outcome is None:
        return ""
    said = explained(row.outcome) if row.state != COMPLETE else ""
    parts = [text for text in (label(row) if label(row) != row.state else "", said) if text]
    if row.outcome.copied_from is not None:
        parts.append(f"copied from trial {row.outcome.copied_from}, the same point")
    if row.requeued_as is not None:
        parts.append(f"trained again as trial {row.requeued_as}")
    return "; ".join(parts)


def _shown(results: Results, pictures: Mapping[str, Path | str]) -> Iterator[str]:
    several = len(results.objectives) > 1
    yield "\n".join(f"- {question}" for question in QUESTIONS.values())
    for name, picture in pictures.items():
        kind = next(kind for kind in _TITLES if name == kind or name.startswith(f"{kind}_"))
        whose = next((str(one) for one in results.objectives if several and name == f"{kind}_{slug(one)}"), "")
        yield f"### {_TITLES[kind]}{f' for {whose}' if whose else ''}"
        yield f"![{_TITLES[kind]}]({picture.name})" if isinstance(picture, Path) else f"Not drawn: {_plain(picture)}."


def _html(results: Results, pictures: Mapping[str, Path | str]) -> str:
    """The report on its own: its links lead nowhere outside of MLflow, so that it has none."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(_markdown(results, pictures, links=False))
    for picture in pictures.values():
        if isinstance(picture, Path):
            data = b64encode(picture.read_bytes()).decode()
            body = body.replace(f'src="{picture.name}"', f'src="data:image/png;base64,{data}"')
    title = html.escape(f"Study {results.study}")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def _csv(results: Results, path: Path) -> None:
    """Every trial, refused ones among them, with all that is known of it."""
    keys = _keys(results.rows)
    told = ("cause", "output_class", "verification", "verdict", "cure", "reason", "epochs", "seconds", "parameters",
            "copied_from", "run_id", "folder")  # fmt: skip
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["number", "state", *map(str, results.objectives), *keys, "label", *told, "requeued_as"])
        for row in results.rows:
            values = row.outcome.values if row.outcome is not None else None
            writer.writerow([row.number, row.state, *(values or [""] * len(results.objectives)),
                             *(row.params.get(key, "") for key in keys), label(row),
                             *(getattr(row.outcome, name, "") for name in told), row.requeued_as])  # fmt: skip


def _keys(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.params))


def _aims(results: Results) -> str:
    return ", ".join(f"{objective.direction} {objective}" for objective in results.objectives)


def _counted(results: Results) -> str:
    counts = Counter(row.state for row in results.rows)
    return ", ".join([f"{results.n_trials} asked for", *(f"{count} {state}" for state, count in counts.most_common())])


def _which(results: Results) -> str:
    if len(results.objectives) > 1:
        return f"Pareto front of {len(results.best)}: trials"
    return f"{results.objectives[0]} **{value_cells(results, results.row(results.best[0]))[0]}**: trial"


def _numbers(results: Results, links: bool) -> str:
    return ", ".join(_linked(results.row(best), links) for best in results.best)


def _linked(row: Row, links: bool) -> str:
    page = _page(row) if links else ""
    return f"[{row.number}]({page})" if page else str(row.number)


def _page(row: Row) -> str:
    """MLflow's page of a trial's run; "" without one."""
    return "" if row.outcome is None else Results.page(row.outcome)


def _common(group: Group) -> str:
    return f": {_plain(group.common[0])}" if group.common else ""


def _plain(text: str) -> str:
    """A message as Markdown that shows it: its words in backquotes stay code, nothing else has a meaning."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        parts = ["\\`".join(parts)]
    parts[::2] = [_MARKUP.sub(lambda found: "".join(f"\\{sign}" for sign in found[0]), part) for part in parts[::2]]
    return "`".join(parts)


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _plain(str(value))
