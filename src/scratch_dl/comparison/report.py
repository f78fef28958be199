"""The comparison of runs as a page, as Markdown, as LaTeX, and on a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from scratch_dl.comparison.curves import curve_titles, draw_curves
from scratch_dl.comparison.differences import other_pictures, settings_table, sources_table, verdicts_table
from scratch_dl.comparison.latex import latex_table
from scratch_dl.comparison.pictures import Networks, draw_pictures
from scratch_dl.comparison.runs import ComparedRun
from scratch_dl.comparison.scores import scores_table
from scratch_dl.terminal.console import WIDTH
from scratch_dl.terminal.html_page import html_page, plain_text
from scratch_dl.terminal.text_table import TextTable

FORMATS = ("html", "markdown", "latex")
_RUNS_ACROSS = 5  # columns of runs beside one another on a terminal


@dataclass(frozen=True)
class Comparison:
    """Runs, and the one to which the others' scores are compared."""

    runs: Sequence[ComparedRun]
    baseline: ComparedRun

    def tables(self) -> tuple[TextTable, ...]:
        """Return scores, settings, verdicts, sources; the second and the last are empty if nothing differs."""
        return (
            scores_table(self.runs, self.baseline),
            settings_table(self.runs),
            verdicts_table(self.runs),
            sources_table(self.runs),
        )

    def page(self, networks: Networks) -> str:
        """Return everything as one HTML file that needs no other file."""
        title = f"Comparison of {len(self.runs)} runs"
        files: dict[str, bytes] = {}
        body = [f"# {title}", *self._body(networks, files)]
        return html_page(title, "\n\n".join(body) + "\n", files)

    def _body(self, networks: Networks, files: dict[str, bytes]) -> Iterator[str]:
        scores, settings, verdicts, sources = self.tables()
        yield "\n".join(
            f"- **{run.mark}** {plain_text(run.name)}, run {run.run_id}"
            f"{', the baseline' if run is self.baseline else ''}"
            for run in self.runs
        )
        if note := other_pictures(self.runs):
            yield plain_text(note)
        yield from ("## Scores", scores.markdown(plain=True))
        yield from ("## Settings", settings.markdown(plain=True) if settings.rows else "No setting differs.")
        yield "## Curves"
        yield from _shown({name: draw_curves(self.runs, key) for key, name in curve_titles(self.runs).items()}, files)
        yield "## Pictures"
        pictures = draw_pictures(networks, self.runs[0])
        yield from map(plain_text, networks.notes)
        yield from _shown(pictures, files)
        yield from ("## Verdicts", verdicts.markdown(plain=True))
        yield "## Code, environment and data"
        yield sources.markdown(plain=True) if sources.rows else "Nothing that was recorded differs."

    def markdown(self) -> str:
        """Return scores and settings as Markdown."""
        return "\n\n".join(table.markdown(plain=True) for table in self.tables()[:2] if table.rows) + "\n"

    def latex(self) -> str:
        """Return scores and settings as LaTeX, which needs no package."""
        return "\n\n".join(latex_table(table) for table in self.tables()[:2] if table.rows) + "\n"

    def show(self) -> None:
        """Print all tables, at most WIDTH columns wide."""
        from rich.console import Console

        screen = Console(highlight=False, width=WIDTH)
        scores, settings, verdicts, sources = self.tables()
        shown = [scores, *_narrow(settings), verdicts, *_narrow(sources)]
        for table in shown:
            if table.rows:
                screen.print(table.rich(wrap=True))
        if note := other_pictures(self.runs):
            screen.print(note, markup=False)


def _narrow(table: TextTable) -> Iterator[TextTable]:
    """Yield a table with a column for each run in parts that a terminal has room for."""
    for start in range(1, len(table.head), _RUNS_ACROSS):
        columns = [0, *range(start, min(start + _RUNS_ACROSS, len(table.head)))]
        head, *rows = (tuple(row[column] for column in columns) for row in (table.head, *table.rows))
        yield replace(table, head=head, rows=rows)


def _shown(pictures: Mapping[str, bytes | None], files: dict[str, bytes]) -> Iterator[str]:
    """Yield each picture under its title, and add its file to `files`."""
    for title, content in pictures.items():
        if content is not None:
            name = f"picture-{len(files)}.png"
            files[name] = content
            yield f"**{plain_text(title)}**"
            yield f"![{plain_text(title)}]({name})"
