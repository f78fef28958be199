"""A table of texts, for a terminal or for Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class TextTable:
    """Rows under a head, and a title with a legend; the first `texts` columns are left-aligned, the others right."""

    title: str
    legend: str
    texts: int
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self) -> str:
        """Return the table in GitHub's Markdown."""
        rule = ["---" if place < self.texts else "---:" for place in range(len(self.head))]
        lines = [[text.replace("\n", " ").replace("|", "\\|") for text in row] for row in (self.head, rule, *self.rows)]
        return "\n".join([f"**{self.title}** ({self.legend})", "", *(f"| {' | '.join(line)} |" for line in lines)])

    def rich(self) -> Group:
        """Return the table for a terminal, with an empty line after it."""
        table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
        for place, name in enumerate(self.head):
            table.add_column(Text(name), justify="left" if place < self.texts else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*map(Text, row))
        return Group(Text(self.title, style="bold"), Text(self.legend), table, Text())
