"""The modules of the paper's Table III at its size, (100, 3, 10, 10): a forward, and a forward and backward."""

from scratch_dl import nn
from scratch_dl.benchmarks.outcome import Comparison, Outcome, compared
from scratch_dl.benchmarks.settings import Settings
from scratch_dl.paper.module_timing import compete, contests
from scratch_dl.paper.subjects import SUBJECTS, Subject

_TABLE_III = ("relu", "sigmoid", "mse", "conv2d", "upsampling_nearest", "upsampling_transposed")
_KERNEL_3 = Subject(
    "upsampling_transposed_3",
    "Upsampling transp. 3",
    lambda g: nn.Upsampling(3, 8, 3, mode="transposed", generator=g),
    None,
)


def measure(settings: Settings) -> Outcome:
    """Time every module and its twin."""
    generator, calls = settings.generator(), 1 if settings.smoke else 10
    subjects = [*(subject for subject in SUBJECTS if subject.name in _TABLE_III), _KERNEL_3]
    pairs = [contest for subject in subjects for contest in contests(subject, generator)]
    rows = [
        Comparison(f"modules/{row.name}/{row.part}", row.label, row.part, row.ours, row.pytorch, row.ratio)
        for row in sorted(compete(pairs, settings.rounds, calls), key=lambda row: row.part, reverse=True)
    ]
    legend = f"(100, 3, 10, 10), {settings.rounds} rounds of {calls} calls; full: forward and backward"
    return compared("modules", "Modules of Table III", legend, "\u00b5s", settings.threads, rows, second="pass")
