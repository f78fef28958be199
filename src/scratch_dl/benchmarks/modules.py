"""The modules of the paper's Table III at its size, (100, 3, 10, 10): a forward, and a forward and backward."""

from scratch_dl import nn
from scratch_dl.benchmarks.part_result import Comparison, ComparisonTable, PartResult
from scratch_dl.benchmarks.settings import BenchSettings
from scratch_dl.paper.module_timing import time_pairs, timed_pairs
from scratch_dl.paper.table_modules import TABLE_MODULES, TableModule

_TABLE_III = ("relu", "sigmoid", "mse", "conv2d", "upsampling_nearest", "upsampling_transposed")
_KERNEL_3 = TableModule(
    "upsampling_transposed_3",
    "Upsampling transp. 3",
    lambda g: nn.Upsampling(3, 8, 3, mode="transposed", generator=g),
    None,
)


def measure(settings: BenchSettings) -> PartResult:
    """Time every module and its twin."""
    generator, calls = settings.generator(), 1 if settings.smoke else 10
    subjects = [*(subject for subject in TABLE_MODULES if subject.name in _TABLE_III), _KERNEL_3]
    pairs = [pair for subject in subjects for pair in timed_pairs(subject, generator)]
    rows = [
        Comparison(f"modules/{row.name}/{row.part}", row.label, row.part, row.ours, row.pytorch, row.ratio)
        for row in sorted(time_pairs(pairs, settings.rounds, calls), key=lambda row: row.part, reverse=True)
    ]
    legend = f"(100, 3, 10, 10), {settings.rounds} rounds of {calls} calls; full: forward and backward"
    table = ComparisonTable("modules", "Modules of Table III", legend, "\u00b5s", second="pass")
    return table.result(settings.threads, rows)
