"""A table as LaTeX: nothing in a cell is a command."""

from scratch_dl.comparison.latex import latex_table, latex_text
from scratch_dl.terminal.text_table import TextTable


def test_every_special_character_is_text():
    assert latex_text("_ % & # $ { } ~ ^ \\") == (
        r"\_ \% \& \# \$ \{ \} \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )


def test_a_negative_difference_has_a_minus_and_a_hyphen_stays():
    assert latex_text("27.01±0.05\n(-0.12)") == r"27.01$\pm$0.05 ($-$0.12)"
    assert latex_text("no-bias 1e-3") == "no-bias 1e-3"


def test_the_table_needs_no_package():
    table = TextTable("T", "l", 1, ("run", "dB"), [("a_b", "1"), ("c", "2")])
    assert latex_table(table).splitlines() == [
        "% T: l", r"\begin{tabular}{lr}", r"\hline", r"run & dB \\", r"\hline", r"a\_b & 1 \\", r"c & 2 \\", r"\hline",
        r"\end{tabular}",
    ]  # fmt: skip
