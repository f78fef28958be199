"""A table of runs and the like: in one line each if there is room, else folded, but never with a number cut."""

import io

import pytest
from rich.console import Console

from scratch_dl.terminal.stacked_table import Place, fold, stacked_table

PLACES = [Place(("id",)), Place(("name",), folds=True), Place(("model", "noise"), folds=True),
          Place(("train/loss",), is_number=True)]  # fmt: skip
ROWS = [
    {"id": "973b3352", "name": "a long name of several words", "model": "paper", "noise": "Gaussian(std=0.098)",
     "train/loss": "0.0012346"},
    {"id": "c44eb67b", "name": "b", "model": "unet", "noise": "Poisson(peak=30)"},
]  # fmt: skip


def printed(rows, width):
    console = Console(width=width, file=io.StringIO())
    console.print(stacked_table(PLACES, rows, width))
    return console.file.getvalue()


def test_with_enough_room_a_row_is_a_line():
    head, _, first, second = printed(ROWS, 80).splitlines()[1:]
    assert head.split() == ["id", "name", "model", "noise", "loss"]
    assert first.split()[-3:] == ["paper", "Gaussian(std=0.098)", "0.0012346"]
    assert second.split() == ["c44eb67b", "b", "unet", "Poisson(peak=30)"]


@pytest.mark.parametrize("width", range(44, 70))
def test_with_less_columns_stand_one_above_the_other_and_nothing_is_lost(width):
    text = printed(ROWS, width)
    assert max(map(len, text.splitlines())) <= width, text
    for whole in ("973b3352", "c44eb67b", "0.0012346", "paper", "0.098)", "peak=", "30)"):
        assert whole in text, text
    columns = text.splitlines()
    assert next(n for n, line in enumerate(columns) if "model" in line) < next(
        n for n, line in enumerate(columns) if "noise" in line
    )


def test_a_column_without_any_text_is_left_out():
    assert "noise" not in printed([{**row, "noise": ""} for row in ROWS], 50)
    assert "model" not in printed([{"id": "973b3352", "name": "n"}], 50)


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("paper fast epochs=3", 10, ["paper fast", "epochs=3"]),
        ("sigmoid_gradient_at_upstream", 12, ["sigmoid_", "gradient_at_", "upstream"]),
        ("Gaussian(std=0.098)", 11, ["Gaussian", "(std=0.098)"]),
        ("lr=1e-05", 6, ["lr=", "1e-05"]),
        ("paper-photos", 8, ["paper-", "photos"]),
        ("unbreakable", 4, ["unbreakable"]),
        ("", 4, [""]),
    ],
)
def test_a_text_is_folded_between_words_or_at_a_sign_in_a_word(text, width, lines):
    assert fold(text, width).split("\n") == lines
