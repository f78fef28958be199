"""The paper's Tables I to III by its own protocol, with the error of PyTorch's own float32 beside each cell.

A run draws fresh inputs, targets and weights. Inputs are (100, 3, 10, 10) from U(0, 1), targets N(0, 1): of the usual
choices the one under which the paper's faulty Sigmoid gives the figure it prints. The ReLU's inputs are from
U(-1/2, 1/2), since its mask does nothing to positive numbers. L is the mean squared error of the module's output.
The paper says neither what |Delta| averages (taken for the mean over all elements) nor its channels and kernels, which
`TABLE_MODULES` has.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Group
from rich.text import Text

from scratch_dl.paper.cells import SYMBOLS, ZERO, Cell, cell_of, compare_passes
from scratch_dl.paper.equations import NOTES, Slip, slips
from scratch_dl.paper.module_timing import Spread, Timing, time_pairs, timed_pairs
from scratch_dl.paper.table_modules import TABLE_MODULES, TableModule
from scratch_dl.system.checks import integer
from scratch_dl.system.timing import Progress
from scratch_dl.terminal.text_table import TextTable

if TYPE_CHECKING:
    from scratch_dl.tracking import Run


@dataclass(frozen=True)
class Tables:
    """All that was measured, and from what."""

    runs: int
    rounds: int
    calls: int
    seed: int
    threads: int
    torch_version: str
    cells: tuple[Cell, ...]
    timings: tuple[Timing, ...]
    slips: tuple[Slip, ...]

    @property
    def passed(self) -> bool:
        """Whether every healthy cell is as exact as float32 allows, and every slip is shown to be one."""
        return all(cell.passed for cell in self.cells if cell.healthy) and all(slip.shown for slip in self.slips)

    def to_json(self) -> dict[str, Any]:
        """Everything, as numbers, texts, lists and dicts."""
        plain: dict[str, Any] = {"passed": self.passed}
        for field in dataclasses.fields(self):
            plain[field.name] = getattr(self, field.name)
        plain["cells"] = [
            {key: value._asdict() if isinstance(value, Spread) else value for key, value in vars(cell).items()}
            | {"passed": cell.passed}
            for cell in self.cells
        ]
        plain["timings"] = [dataclasses.asdict(timing) for timing in self.timings]
        plain["slips"] = [dataclasses.asdict(slip) for slip in self.slips]
        return plain

    def metrics(self) -> dict[str, float]:
        """Names for MLflow: mean differences and errors, median times in microseconds, median ratios."""
        found = {"tables/passed": float(self.passed)}
        for cell in self.cells:
            name = f"tables/{cell.name}/{cell.quantity}"
            found[f"{name}_abs_diff"] = cell.difference.mean
            found[f"{name}_rel_err"] = cell.ours_error.mean
            found[f"{name}_pytorch_rel_err"] = cell.pytorch_error.mean
        for row in self.timings:
            name = f"tables/{row.name}/{'full_' if row.part == 'full' else ''}"
            found[f"{name}time_us"] = row.ours.median
            found[f"{name}pytorch_time_us"] = row.pytorch.median
            found[f"{name}time_ratio"] = row.ratio.median
        return found

    def markdown(self) -> str:
        """Tables, slips and notes as GitHub's Markdown."""
        return "\n\n".join(grid.markdown() for grid in [*self._grids(), _NOTES]) + "\n"

    def rich(self) -> Group:
        """Tables and slips for a terminal of 80 columns, and the verdict."""
        healthy = [cell for cell in self.cells if cell.healthy]
        ours, pytorch = (max(getattr(cell, side).worst for cell in healthy) for side in ("ours_error", "pytorch_error"))
        failed = [f"{cell.label} {SYMBOLS[cell.quantity]}" for cell in healthy if not cell.passed]
        verdict = (
            f"NOT as exact as PyTorch: {', '.join(failed)}"
            if failed
            else (f"as exact as PyTorch: the largest error of any run is {ours:.1e}, PyTorch's {pytorch:.1e}")
        )
        return Group(*(grid.rich() for grid in self._grids()), Text(verdict))

    def record(self, run: "Run") -> None:
        """Put them into an MLflow run: settings, every cell as a metric, and the tables as artifacts."""
        run.params({f"tables.{name}": getattr(self, name) for name in ("runs", "rounds", "calls", "threads")})
        run.tags({"verification": "passed" if self.passed else "failed"})
        run.metrics(self.metrics(), 0)
        run.text(self.markdown(), "verification/tables.md")
        run.text(json.dumps(self.to_json(), indent=1), "verification/tables.json")

    def _grids(self) -> list[TextTable]:
        cells = ("module", "", "|\u0394|\npaper", "|\u0394|\nours", "error\nours", "error\nPyTorch")
        times = (
            "module",
            "\u00b5s, paper\nours",
            "\u00b5s, paper\nPyTorch",
            "\u00b5s\nours",
            "\u00b5s\nPyTorch",
            "ours / PyTorch\n(quartiles)",
        )
        slips = ("", "printed", "mended", "error\nprinted", "error\nmended")
        runs = f"|\u0394|: mean absolute difference, {self.runs:,} runs; error: relative, against float64"
        clock = f"medians of {self.rounds:,} rounds of {self.calls:,} calls, threads: {self.threads}"
        first, second = ([_cell_row(cell) for cell in self.cells if cell.table == table] for table in ("I", "II"))
        forward, full = ([row.row() for row in self.timings if row.part == part] for part in ("forward", "full"))
        return [
            TextTable("Table I: forward", runs, 2, cells, first),
            TextTable("Table II: backward", runs, 2, cells, second),
            TextTable("Table III: time per forward", clock, 1, times, forward),
            TextTable(
                "Time per forward and backward, not in the paper",
                clock,
                1,
                (times[0], *times[3:]),
                [(row[0], *row[3:]) for row in full],
            ),
            TextTable(
                "Printed equations",
                "error: relative, against float64; of (4) and (5) the share of wrong sizes",
                3,
                slips,
                [slip.row() for slip in self.slips],
            ),
        ]


def measure(
    runs: int = 100, rounds: int = 30, calls: int = 10, seed: int = 0, progress: Progress | None = None
) -> Tables:
    """Fill the tables; the paper has 10,000 runs, and 1000 rounds of 1000 calls.

    No global random state is touched, and torch's threads are as they are.

    Args:
        runs: fresh draws behind each cell of Tables I and II.
        rounds: values behind each time of Table III.
        calls: calls per round, of which a value is the mean.
        seed: of inputs, targets and weights.
        progress: told "runs" or "timing", how much of it is done and how much there is.

    Raises:
        ValueError: if `runs`, `rounds` or `calls` is below 1.
    """
    integer("runs", runs, minimum=1)
    generator = torch.Generator().manual_seed(seed)
    found: dict[tuple[TableModule, str], list[tuple[float, ...]]] = {}
    for run in range(runs):
        for subject in TABLE_MODULES:
            for quantity, figures in compare_passes(subject, generator):
                found.setdefault((subject, quantity), []).append(figures)
        if progress:
            progress("runs", run + 1, runs)
    cells = sorted((cell_of(*key, values) for key, values in found.items()), key=lambda cell: cell.table)
    pairs = [pair for subject in TABLE_MODULES for pair in timed_pairs(subject, generator)]
    timings = time_pairs(pairs, rounds, calls, progress)
    return Tables(
        runs,
        rounds,
        calls,
        seed,
        torch.get_num_threads(),
        str(torch.__version__),
        tuple(cells),
        timings,
        tuple(slips()),
    )


_NOTES = TextTable(
    "Slips without a figure",
    "in the paper's order",
    3,
    ("where", "printed", "meant"),
    [dataclasses.astuple(note) for note in NOTES],
)


def _cell_row(cell: Cell) -> tuple[str, ...]:
    paper = "-" if cell.paper is None else "0.00" if cell.paper == ZERO else _figure(*cell.paper)
    errors = _short(cell.ours_error.mean), _short(cell.pytorch_error.mean)
    return cell.label, SYMBOLS[cell.quantity], paper, _figure(cell.difference.mean, cell.difference.std), *errors


def _short(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def _figure(mean: float, std: float) -> str:
    """Mean and deviation with one power of ten; from 0.01 to 1 without, with as many digits as the deviation allows."""
    if not (mean > 0 and math.isfinite(mean)):
        return f"{mean:g}"
    if 0.01 <= mean < 1:
        digits = min(7, max(2, math.ceil(-math.log10(std)))) if std > 0 else 2
        return f"{mean:.{digits}f}\u00b1{std:.{digits}f}"
    power = math.floor(math.log10(mean))
    return f"({mean / 10.0**power:.2f}\u00b1{std / 10.0**power:.2f})e{power:+03d}"
