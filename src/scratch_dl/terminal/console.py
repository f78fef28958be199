"""Output during and at the end of a run: a progress bar on a terminal, plain lines otherwise."""

import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import ClassVar, Self

from rich.console import Console, Group
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

WIDTH = 80
SOON = 1.0  # seconds without a sign of progress that nobody minds
_NAMED = ("val/psnr_db", "val/psnr_pooled_db", "val/gain_db", "val/loss")  # an epoch's line has its own words for them


class Reporter:
    """Shows steps and epochs; a context manager, so that the progress bar is removed whatever happens."""

    is_shown: ClassVar[bool] = False  # whether the bar of one is on the terminal

    def __init__(self, total_steps: int, epochs: int, start: int = 0) -> None:
        self.console = Console(highlight=False)
        self.epochs = epochs
        self._total, self._start, self._step, self._began = total_steps, start, start, time.monotonic()
        self._losses = 0.0
        self._steps = 0
        self._bar: Progress | None = None
        self._task = TaskID(0)
        in_notebook = self.console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
        if self.console.is_terminal or in_notebook:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
            self._bar = Progress(
                *columns, TimeRemainingColumn(), TextColumn("left"), console=self.console, transient=True
            )
            self._task = self._bar.add_task("training", total=total_steps, completed=start)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
            Reporter.is_shown = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
            Reporter.is_shown = False

    def say(self, line: str) -> None:
        """Print one line without formatting."""
        self.console.print(Text(line), soft_wrap=True)

    def step(self, step: int, loss: float) -> None:
        """Show a finished step."""
        self._losses += loss
        self._steps += 1
        self._step = step
        if self._bar:
            self._bar.update(self._task, completed=step)

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Print the scores of an epoch's validation."""
        loss = f"loss {self._losses / self._steps:.5f}" if self._steps else "untrained   "
        others = {key.removeprefix("val/"): value for key, value in values.items() if key not in _NAMED}
        words = [f"{name} {value:.3f}" if name == "ssim" else f"{name} {value:.4g}" for name, value in others.items()]
        line = (
            f"epoch {epoch:>{len(str(self.epochs))}}/{self.epochs}  {loss}  val psnr {values['val/psnr_db']:.2f} dB "
            f"({values['val/gain_db']:+.2f}){''.join(f'  {each}' for each in words)}{self._time_left()}"
        )
        self._losses, self._steps = 0.0, 0
        if self._bar:
            self._bar.update(self._task, description=f"epoch {epoch}/{self.epochs} {values['val/psnr_db']:.2f} dB")
        self.say(line)

    def _time_left(self) -> str:
        """Return how long the rest will take at the mean pace so far; "" before the first step and after the last."""
        done, left = self._step - self._start, self._total - self._step
        if not done or not left:
            return ""
        seconds = (time.monotonic() - self._began) / done * left
        return f"  {seconds:.0f} s left" if seconds < 100 else f"  {seconds / 60:.0f} min left"


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Show on a terminal (stderr) how much of some work is done, once it has taken a second.

    Nothing is shown while the bar of a Reporter is.

    Args:
        description: of the work, in a few words.
        total: number of its steps.

    Yields:
        What is to be called after every step.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task(description, total=total)
    began = time.monotonic()

    def advance() -> None:
        bar.advance(task)
        if not bar.live.is_started and time.monotonic() - began > SOON:
            bar.start()

    try:
        yield advance if console.is_terminal and not Reporter.is_shown else lambda: None
    finally:
        if bar.live.is_started:
            bar.stop()


def score_table(rows: Mapping[str, Mapping[str, float]], columns: Sequence[str], width: int = WIDTH) -> Table:
    """Return a table of PSNRs in dB: a row per set of pictures, a column per method; unknown cells are empty.

    On a screen narrower than WIDTH, a row per method and a column per set, so that no number is cut.
    """
    cells = {(name, column): values[column] for name, values in rows.items() for column in columns if column in values}
    across, down = (columns, list(rows)) if width >= WIDTH else (list(rows), columns)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("PSNR, dB")
    for name in across:
        table.add_column(name, justify="right", overflow="fold")
    for name in down:
        keys = [(name, other) if width >= WIDTH else (other, name) for other in across]
        table.add_row(name, *(f"{cells[key]:.2f}" if key in cells else "" for key in keys))
    return table


def panel(title: str, table: Table | None, lines: Sequence[str], width: int = WIDTH) -> Panel:
    """Return the panel at the end of a run; a line that is longer than `width` is broken at any character."""
    texts = [Text(line, overflow="fold") for line in lines]
    return Panel(Group(*([table] if table else []), *texts), title=title, width=width, title_align="left")
