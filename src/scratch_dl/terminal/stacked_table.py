"""A table that stays readable when the terminal is narrow: columns then share a place, one above the other."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from rich import box
from rich.table import Table
from rich.text import Text

Row = Mapping[str, str]
_LEAST = 8  # characters to which a place can shrink
_SIGNS = re.compile(r"(?<=[_=,/])|(?<=-)(?=\D)|(?=\()")  # where a word can be folded; 1e-05 is not


@dataclass(frozen=True)
class Place:
    """Columns that stand beside each other if there is room, and one above the other if there is not.

    Attributes:
        columns: their names.
        folds: whether its texts are folded if there is no room for them.
        is_number: whether it is right-aligned, and its name is folded to the width of the values.
    """

    columns: tuple[str, ...]
    folds: bool = False
    is_number: bool = False


def stacked_table(places: Sequence[Place], rows: Sequence[Row], width: int) -> Table:
    """Return a table; a column without any text is left out.

    Args:
        places: of the columns, from left to right.
        rows: the texts by the name of their column; a missing text is empty.
        width: of the table, in characters.
    """
    present = {name for row in rows for name, text in row.items() if text}
    used = [replace(place, columns=tuple(name for name in place.columns if name in present)) for place in places]
    stacked = [place for place in used if place.columns]
    beside = [replace(place, columns=(name,)) for place in stacked for name in place.columns]
    fits = sum(_natural(place, rows) for place in beside) + len(beside) - 1 <= width
    chosen = beside if fits else stacked
    widths = _widths(chosen, rows, width - len(chosen) + 1)
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for place, size in zip(chosen, widths, strict=True):
        head = "\n".join(fold(name, size) for name in place.columns)
        table.add_column(Text(head), justify="right" if place.is_number else "left", width=size, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(place, row, size)) for place, size in zip(chosen, widths, strict=True)))
    return table


@lru_cache(maxsize=10_000)
def fold(text: str, width: int) -> str:
    """Return a text in lines of at most `width` characters, which end between words, or else at a sign in a word.

    A piece of a word without such a sign stays whole, however long it is.
    """
    lines = [""]
    for word in re.findall(r"\S+\s*", text):
        pieces = [word] if len(word.rstrip()) <= width else _SIGNS.split(word)
        for piece in pieces:
            if lines[-1] and len((lines[-1] + piece).rstrip()) > width:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def _cell(place: Place, row: Row, width: int) -> str:
    return "\n".join(fold(row.get(name, ""), width) for name in place.columns).rstrip("\n")


def _natural(place: Place, rows: Sequence[Row]) -> int:
    """Return the width at which nothing in a place is folded but the name of a column of numbers."""
    head = _head(place) if place.is_number else max(map(len, place.columns))
    return max(head, *(len(row.get(name, "")) for row in rows for name in place.columns))


def _head(place: Place) -> int:
    """Return the least width of the names of a place's columns."""
    return max(len(piece) for name in place.columns for piece in fold(name, 1).split("\n"))


def _widths(places: Sequence[Place], rows: Sequence[Row], room: int) -> list[int]:
    """Return widths that fit into the room, if they can, and with which the table has few lines."""
    widths = [_natural(place, rows) for place in places]

    def lines_without(shrunk: int) -> tuple[int, int]:
        """Return the table's number of lines if a place is narrower by one, and, for ties, its width, negated."""
        tried = [size - (place == shrunk) for place, size in enumerate(widths)]
        return sum(max(map(_lines, places, [row] * len(places), tried)) for row in rows), -widths[shrunk]

    while sum(widths) > room:
        foldable = [n for n, place in enumerate(places) if place.folds and widths[n] > max(_LEAST, _head(place))]
        if not foldable:
            break
        widths[min(foldable, key=lines_without)] -= 1
    return widths


def _lines(place: Place, row: Row, width: int) -> int:
    """Return how many lines a cell has; a piece that is too long goes on in the next line."""
    return sum(max(1, -(-len(line) // width)) for line in _cell(place, row, width).split("\n"))
