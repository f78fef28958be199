"""What is printed: plain lines elsewhere than on a terminal, a panel of 80 columns at the end."""

import io

import pytest
from rich.console import Console

from scratch_dl.terminal.console import Reporter, panel, score_table

VALUES = {"val/psnr_db": 21.5, "val/gain_db": 1.25, "val/ssim": 0.7}


def test_without_a_terminal_an_epoch_is_one_plain_line(capsys):
    with Reporter(20, 10) as reporter:
        reporter.step(1, 0.5)
        reporter.step(2, 0.3)
        reporter.epoch(1, VALUES)
    assert capsys.readouterr().out == ("epoch  1/10  loss 0.40000  val psnr 21.50 dB  gain +1.25 dB  ssim 0.700\n")


def test_the_line_of_an_epoch_fits_80_columns(capsys):
    with Reporter(1000, 1000) as reporter:
        reporter.step(1, 0.5)
        reporter.epoch(1000, VALUES)
    assert len(capsys.readouterr().out.rstrip()) <= 80


def test_a_score_that_is_not_known_is_left_empty():
    console = Console(width=80, file=io.StringIO())
    console.print(panel("title", score_table({"crops": {"noisy": 20.123}}, ("noisy", "best")), ["a line"]))
    text = console.file.getvalue()
    assert "20.12" in text
    assert "nan" not in text
    assert max(map(len, text.splitlines())) == 80


@pytest.mark.parametrize("length", [10, 200])
def test_long_lines_are_folded_inside_the_panel(length, capsys):
    Console(width=80).print(panel("title", None, ["x" * length]))
    assert {len(line) for line in capsys.readouterr().out.splitlines()} == {80}
