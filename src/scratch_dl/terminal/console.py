"""Output during and at the end of a run: a progress bar on a terminal, plain lines otherwise."""

import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

WIDTH = 80


class Reporter:
    """Shows steps and epochs; a context manager, so that the progress bar is removed whatever happens."""

    def __init__(self, total_steps: int, epochs: int, start: int = 0) -> None:
        self.console = Console(highlight=False)
        self.epochs = epochs
        self._losses = 0.0
        self._steps = 0
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True)
            self._task = self._bar.add_task("training", total=total_steps, completed=start)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, line: str) -> None:
        """Print one line without formatting."""
        self.console.print(Text(line), soft_wrap=True)

    def step(self, step: int, loss: float) -> None:
        """Show a finished step."""
        self._losses += loss
        self._steps += 1
        if self._bar:
            self._bar.update(self._task, completed=step)

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Print the scores of an epoch's validation."""
        loss = f"loss {self._losses / self._steps:.5f}" if self._steps else "untrained   "
        line = (
            f"epoch {epoch:>{len(str(self.epochs))}}/{self.epochs}  {loss}  val psnr {values['val/psnr_db']:.2f} dB  "
            f"gain {values['val/gain_db']:+.2f} dB  ssim {values['val/ssim']:.3f}"
        )
        self._losses, self._steps = 0.0, 0
        if self._bar:
            self._bar.update(self._task, description=f"epoch {epoch}/{self.epochs} {values['val/psnr_db']:.2f} dB")
        self.say(line)


def score_table(rows: Mapping[str, Mapping[str, float]], columns: Sequence[str]) -> Table:
    """Return a table of PSNRs in dB: a row per set of pictures, a column per method; unknown cells are empty."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("PSNR, dB")
    for column in columns:
        table.add_column(column, justify="right")
    for name, values in rows.items():
        cells = [values.get(column, math.nan) for column in columns]
        table.add_row(name, *("" if math.isnan(cell) else f"{cell:.2f}" for cell in cells))
    return table


def panel(title: str, table: Table | None, lines: Sequence[str]) -> Panel:
    """Return the panel at the end of a run, WIDTH columns wide; a longer line is broken at any character."""
    texts = [Text(line, overflow="fold") for line in lines]
    return Panel(Group(*([table] if table else []), *texts), title=title, width=WIDTH, title_align="left")
