"""What is printed: plain lines elsewhere than on a terminal, a panel of 80 columns at the end."""

import io
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from scratch_dl.terminal.console import Reporter, panel, progress, score_table

VALUES = {"val/psnr_db": 21.5, "val/gain_db": 1.25, "val/ssim": 0.7}


def test_without_a_terminal_an_epoch_is_one_plain_line(capsys):
    with Reporter(20, 10) as reporter:
        reporter.step(1, 0.5)
        reporter.step(2, 0.3)
        reporter.epoch(1, VALUES)
    assert capsys.readouterr().out == "epoch  1/10  loss 0.40000  val psnr 21.50 dB (+1.25)  ssim 0.700  0 s left\n"


@pytest.mark.parametrize(
    ("start", "step", "seconds", "left"),
    [
        pytest.param(0, 10, 5.0, "  45 s left", id="seconds"),
        pytest.param(0, 1, 5.0, "  8 min left", id="minutes"),
        pytest.param(50, 60, 5.0, "  20 s left", id="a-resumed-run-counts-its-own-steps"),
        pytest.param(0, 100, 5.0, "", id="none"),
        pytest.param(20, 20, 5.0, "", id="not-known-yet"),
    ],
)
def test_the_time_left_is_that_of_the_steps_left_at_the_pace_so_far(start, step, seconds, left, monkeypatch, capsys):
    clock = iter([0.0, seconds])
    monkeypatch.setattr("scratch_dl.terminal.console.time.monotonic", lambda: next(clock))
    reporter = Reporter(100, 10, start)
    if step > start:
        reporter.step(step, 0.5)
    reporter.epoch(1, VALUES)
    assert capsys.readouterr().out.rstrip("\n").partition("ssim 0.700")[2] == left


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


def test_on_a_narrow_screen_no_number_is_cut():
    columns = ("noisy", "blur", "tv", "nlm", "first", "best", "last")
    names = ("validation crops", "validation photographs", "test photographs")
    rows = {name: {column: 20 + i + j / 10 for j, column in enumerate(columns)} for i, name in enumerate(names)}
    console = Console(width=40, file=io.StringIO())
    console.print(panel("title", score_table(rows, columns, 40), ["a line"], 40))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) == 40
    for values in rows.values():
        assert all(f"{value:.2f}" in text for value in values.values()), text


@pytest.mark.parametrize("length", [10, 200])
def test_long_lines_are_folded_inside_the_panel(length, capsys):
    Console(width=80).print(panel("title", None, ["x" * length]))
    assert {len(line) for line in capsys.readouterr().out.splitlines()} == {80}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("terminal", "seconds", "beside_a_bar", "shown"),
    [
        pytest.param(True, 2.0, False, True, id="long"),
        pytest.param(True, 0.1, False, False, id="soon-done"),
        pytest.param(False, 2.0, False, False, id="no-terminal"),
        pytest.param(True, 2.0, True, False, id="beside-the-bar-of-a-training"),
    ],
)
def test_progress_is_shown_on_a_terminal_after_a_second(terminal, seconds, beside_a_bar, shown, monkeypatch):
    clock = iter([0.0, *[seconds] * 10])
    monkeypatch.setattr("scratch_dl.terminal.console.time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr("sys.stderr", Terminal() if terminal else io.StringIO())
    monkeypatch.setattr(Reporter, "is_shown", beside_a_bar)
    monkeypatch.setenv("TERM", "xterm")
    with progress("reading pictures", 3) as advance:
        for _ in range(3):
            advance()
    said = sys.stderr.getvalue()
    assert ("reading pictures" in said) is shown, said
    assert said.endswith("\x1b[2K") if shown else not said  # it is removed at the end


def test_progress_is_removed_when_the_work_fails(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setattr("scratch_dl.terminal.console.SOON", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(KeyboardInterrupt), progress("reading pictures", 3) as advance:  # noqa: PT012
        advance()
        raise KeyboardInterrupt
    assert sys.stderr.getvalue().endswith("\x1b[2K")
