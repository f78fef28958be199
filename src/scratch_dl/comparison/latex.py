"""Tables as LaTeX."""

import re

from scratch_dl.terminal.text_table import TextTable

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{letter: f"\\{letter}" for letter in "_%&#${}"},
}


def latex_text(text: str) -> str:
    """Return a text in which LaTeX sees nothing but text; a hyphen before a number in brackets becomes a minus."""
    escaped = "".join(_ESCAPES.get(letter, letter) for letter in text.replace("\n", " "))
    return re.sub(r"(?<=\()-(?=\d)", "$-$", escaped)


def latex_table(table: TextTable) -> str:
    """Return a table as a `tabular` that needs no package; its title and legend are comments above it."""
    columns = "".join("l" if place < table.texts else "r" for place in range(len(table.head)))
    rows = [" & ".join(map(latex_text, row)) + r" \\" for row in table.rows]
    return "\n".join(
        [
            f"% {table.title}: {table.legend}".replace("\n", " "),
            rf"\begin{{tabular}}{{{columns}}}",
            r"\hline",
            " & ".join(map(latex_text, table.head)) + r" \\",
            r"\hline",
            *rows,
            r"\hline",
            r"\end{tabular}",
        ]
    )
