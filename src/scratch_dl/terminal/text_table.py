"""A table of texts, for a terminal or for Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from scratch_dl.terminal.html_page import plain_text


@dataclass(frozen=True)
class TextTable:
    """Rows under a head, and a title with a legend; the first `texts` columns are left-aligned, the others right."""

    title: str
    legend: str
    texts: int
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self, plain: bool = False) -> str:
        """Return the table in GitHub's Markdown.

        Args:
            plain: whether the cells are text, in which nothing is markup, rather than Markdown.
        """
        rule = ["---" if place < self.texts else "---:" for place in range(len(self.head))]
        rows = [self.head, *self.rows]
        if plain:
            rows = [tuple(plain_text(text).replace("\\|", "|") for text in row) for row in rows]
        rows.insert(1, tuple(rule))
        lines = [[text.replace("\n", " ").replace("|", "\\|") for text in row] for row in rows]
        return "\n".join([f"**{self.title}** ({self.legend})", "", *(f"| {' | '.join(line)} |" for line in lines)])

    def rich(self, wrap: bool = False) -> Group:
        """Return the table for a terminal, with an empty line after it.

        Args:
            wrap: whether the cells of the text columns are broken into lines if the terminal is narrow.
        """
        table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
        for place, name in enumerate(self.head):
            is_text = place < self.texts
            table.add_column(
                Text(name), justify="left" if is_text else "right", no_wrap=not (wrap and is_text), overflow="fold"
            )
        for row in self.rows:
            table.add_row(*map(Text, row))
        return Group(Text(self.title, style="bold"), Text(self.legend), table, Text())
