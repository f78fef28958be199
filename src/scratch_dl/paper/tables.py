"""The paper's Tables I to III by its own protocol, and beside each cell the error that PyTorch itself makes in float32.

A run draws fresh inputs, targets and weights. Inputs are (100, 3, 10, 10) from U(0, 1), targets N(0, 1): of the usual
choices the one under which the paper's faulty Sigmoid gives the figure it prints. The ReLU's inputs are from
U(-1/2, 1/2), since its mask does nothing to positive numbers. L is the mean squared error of the module's output.
The paper says neither what |Delta| averages (taken for the mean over all elements) nor its channels and kernels, which
`TABLE_MODULES` has.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name)
from rich.console import Group
from rich.text import Text
from torch import Generator, Tensor

from scratch_dl import nn
from scratch_dl.faults.modules import sigmoid_gradient_at_upstream
from scratch_dl.paper.equations import NOTES, Slip, slips
from scratch_dl.paper.module_timing import Spread, Timing, time_pairs, timed_pairs
from scratch_dl.paper.table_modules import TABLE_MODULES, Figure, TableModule
from scratch_dl.system.checks import integer
from scratch_dl.system.timing import Progress
from scratch_dl.terminal.text_table import TextTable
from scratch_dl.verification.bands import limit_of

if TYPE_CHECKING:
    from scratch_dl.tracking import Run

_SYMBOLS = {"forward": "Z", "grad_input": "dL/dX", "grad_weight": "dL/dW", "grad_bias": "dL/db"}
_AT_UPSTREAM = "gradient_at_upstream"
_ZERO = (0.0, 0.0)
_SIGMOID, _UPSAMPLING = (0.249991, 0.000001), (_ZERO, (6.15e-12, 1.73e-12), (18.95e-8, 8.44e-8), _ZERO)
# Tables I and II as printed: Z, dL/dX, dL/dW, dL/db.
PAPER: dict[str, tuple[Figure | None, ...]] = {
    "relu": (_ZERO, None),
    "sigmoid": (_ZERO, _SIGMOID),
    "sigmoid_gradient_at_upstream": (None, _SIGMOID),
    "mse": (_ZERO, _ZERO),
    "conv2d": ((3.77e-7, 1.08e-7), (7.29e-10, 2.17e-10), (8.62e-8, 1.34e-8), (1.25e-8, 1.11e-8)),
    "upsampling_nearest": _UPSAMPLING,
    "upsampling_transposed": _UPSAMPLING,
    "conv_transpose2d": (None, None, None, None),
}


@dataclass(frozen=True)
class Cell:
    """One cell of Table I or II.

    Attributes:
        table: "I" or "II".
        name, label: the module's, as in `TableModule`.
        quantity: "forward", "grad_input", "grad_weight" or "grad_bias".
        paper: the paper's figure, None where it has none.
        difference: the mean absolute difference of ours from PyTorch's, both float32.
        ours_error: ||ours - f64|| / ||f64||, f64 being PyTorch's in float64 from the same float32 numbers.
        pytorch_error: the same of PyTorch's float32.
        healthy: False for the row that shows the paper's Sigmoid.
    """

    table: str
    name: str
    label: str
    quantity: str
    paper: Figure | None
    difference: Spread
    ours_error: Spread
    pytorch_error: Spread
    healthy: bool = True

    @property
    def passed(self) -> bool:
        """Whether the worst run's error is within the band, or within four times PyTorch's worst."""
        return self.ours_error.worst <= limit_of(torch.float32, self.pytorch_error.worst)


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
        failed = [f"{cell.label} {_SYMBOLS[cell.quantity]}" for cell in healthy if not cell.passed]
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
            for quantity, figures in _compare(subject, generator):
                found.setdefault((subject, quantity), []).append(figures)
        if progress:
            progress("runs", run + 1, runs)
    cells = sorted((_cell(*key, values) for key, values in found.items()), key=lambda cell: cell.table)
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


def _compare(subject: TableModule, generator: Generator) -> Iterator[tuple[str, tuple[float, ...]]]:
    """One run: of each quantity our difference from PyTorch, our error and PyTorch's."""
    own, twin = subject.pair(generator)
    input = subject.input(generator)
    with torch.no_grad():
        shape = input.shape if isinstance(own, nn.MSELoss) else twin(input).shape
    target = torch.randn(shape, generator=generator)
    ours, pytorch = _own_pass(own, input, target), _twin_pass(twin, input, target)
    truth = _twin_pass(twin.double(), input.double(), target.double())
    if subject.name == "sigmoid":
        grad_output = 2 * (pytorch["forward"] - target) / target.numel()
        ours[_AT_UPSTREAM] = sigmoid_gradient_at_upstream(grad_output)
        pytorch[_AT_UPSTREAM], truth[_AT_UPSTREAM] = pytorch["grad_input"], truth["grad_input"]
    for quantity, exact in truth.items():
        mine, theirs = ours[quantity].double(), pytorch[quantity].double()
        errors = [(value - exact).norm() / exact.norm() for value in (mine, theirs)]
        yield quantity, (float((mine - theirs).abs().mean()), float(errors[0]), float(errors[1]))


@torch.no_grad()
def _own_pass(module: nn.Module, input: Tensor, target: Tensor) -> dict[str, Tensor]:
    if isinstance(module, nn.MSELoss):
        return {"forward": module(input, target), "grad_input": module.backward()}
    loss = nn.MSELoss()
    output = module(input)
    loss(output, target)
    grad_input = module.backward(loss.backward())
    grads = {f"grad_{name}": parameter.grad for name, parameter in module.named_parameters()}
    return {"forward": output, "grad_input": grad_input, **grads}


@torch.enable_grad()
def _twin_pass(module: torch.nn.Module, input: Tensor, target: Tensor) -> dict[str, Tensor]:
    leaf = input.clone().requires_grad_()
    output = module(leaf, target) if isinstance(module, torch.nn.MSELoss) else module(leaf)
    loss = output if isinstance(module, torch.nn.MSELoss) else F.mse_loss(output, target)
    grads = torch.autograd.grad(loss, [leaf, *module.parameters()])
    return dict(zip(_SYMBOLS, [output.detach(), *grads], strict=False))


def _cell(subject: TableModule, quantity: str, values: Sequence[tuple[float, ...]]) -> Cell:
    difference, ours, pytorch = (Spread.of(column) for column in zip(*values, strict=True))
    name, label, healthy = subject.name, subject.label, quantity != _AT_UPSTREAM
    if not healthy:
        name, label, quantity = f"{name}_{quantity}", "Sigmoid, slip F1", "grad_input"
    paper = PAPER[name][list(_SYMBOLS).index(quantity)]
    return Cell(
        "I" if quantity == "forward" else "II", name, label, quantity, paper, difference, ours, pytorch, healthy
    )


_NOTES = TextTable(
    "Slips without a figure",
    "in the paper's order",
    3,
    ("where", "printed", "meant"),
    [dataclasses.astuple(note) for note in NOTES],
)


def _cell_row(cell: Cell) -> tuple[str, ...]:
    paper = "-" if cell.paper is None else "0.00" if cell.paper == _ZERO else _figure(*cell.paper)
    errors = _short(cell.ours_error.mean), _short(cell.pytorch_error.mean)
    return cell.label, _SYMBOLS[cell.quantity], paper, _figure(cell.difference.mean, cell.difference.std), *errors


def _short(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def _figure(mean: float, std: float) -> str:
    """Mean and deviation under one power of ten; plain from 0.01 to 1, with what digits the deviation lets stand."""
    if not (mean > 0 and math.isfinite(mean)):
        return f"{mean:g}"
    if 0.01 <= mean < 1:
        digits = min(7, max(2, math.ceil(-math.log10(std)))) if std > 0 else 2
        return f"{mean:.{digits}f}\u00b1{std:.{digits}f}"
    power = math.floor(math.log10(mean))
    return f"({mean / 10.0**power:.2f}\u00b1{std / 10.0**power:.2f})e{power:+03d}"
