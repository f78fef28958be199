"""GFLOP/s of each convolution's passes, compared with the highest that this process reaches on this machine."""

from typing import Any, NamedTuple

import torch

from scratch_dl import kernels
from scratch_dl.benchmarks.convolutions import LARGE, PAPER, PASSES, SMALL, Convolution
from scratch_dl.benchmarks.part_result import Comparison, PartResult, format_number, goal_text
from scratch_dl.benchmarks.settings import BenchSettings
from scratch_dl.system.timing import Quartiles, Side, interleave
from scratch_dl.terminal.text_table import TextTable
from scratch_dl.verification.counterparts import check_equal

_SIDE, _SMALL_SIDE = 2048, 64


class _Pass(NamedTuple):
    """One pass of a convolution, with its microseconds by hand and by PyTorch, one value per round."""

    convolution: Convolution
    name: str
    own: list[float]
    pytorch: list[float]

    def gflops(self) -> tuple[float, float]:
        """The needed operations in GFLOP/s, by hand and by PyTorch, at the median time."""
        own, pytorch = (
            self.convolution.needed_flops / Quartiles.from_values(times).median / 1e3
            for times in (self.own, self.pytorch)
        )
        return own, pytorch

    @property
    def key(self) -> str:
        """The beginning of its figures' names."""
        return f"flops/{self.convolution.name}/{self.name}"

    def comparison(self) -> Comparison:
        """The two times compared."""
        label = f"{self.convolution.label}, {self.name}"
        return Comparison.of(self.key, label, "channels_last", self.own, self.pytorch)


def measure(settings: BenchSettings) -> PartResult:
    """Time every pass by hand and by PyTorch in channels_last, and a large matrix product among them."""
    side = _SMALL_SIDE if settings.smoke else _SIDE
    passes, products = _timed(settings, side)
    peaks = {"mm": 2 * side**3 / min(products) / 1e3}  # the best round, since a disturbed one shows no peak
    if (own_peak := kernels.peak_gflops(settings.threads)) is not None:
        peaks["fma"] = own_peak
    peaks["conv"] = max(rate for item in passes for rate in item.gflops())  # a matrix product may be slower
    peak = max(peaks.values())
    figures = {f"flops/peak_{name}": value for name, value in peaks.items()}
    for item in passes:
        own, pytorch = item.gflops()
        figures |= {f"{item.key}_gflops": own, f"{item.key}_pytorch_gflops": pytorch}
        figures[f"{item.key}_peak_share"] = own / peak
    records = [*(_record(item, peak) for item in passes), {"name": "flops/peak", "gflops": peaks, "mm_side": side}]
    peaks_text = ", ".join(f"{name} {value:.0f}" for name, value in peaks.items())
    legend = f"{settings.rounds} rounds; GFLOP/s of the needed operations; peak: {peaks_text}"
    columns = ("", "MFLOP\nneeded", "plain", "pass", "own", "PyTorch", "of\npeak", "goal")
    table = TextTable("Convolutions", legend, 1, columns, [_row(item, peak) for item in passes])
    return PartResult("flops", settings.threads, figures, table, records, [item.comparison() for item in passes])


def _timed(settings: BenchSettings, side: int) -> tuple[list[_Pass], list[float]]:
    """Every pass, and the times of a product of two square matrices of that side.

    Raises:
        UnequalError: if a pass by hand computes something else than PyTorch's.
    """
    generator = settings.generator()
    left, right = torch.randn(2, side, side, generator=generator)
    groups, names = [[Side(lambda: torch.mm(left, right))]], []
    for convolution in SMALL if settings.smoke else (*PAPER, *LARGE):
        tensors = convolution.tensors(generator)
        by_hand, rival = convolution.own(*tensors), convolution.pytorch(*tensors)
        for name in PASSES:
            check_equal(f"{convolution.label}, {name}", (by_hand[name](), []), (rival[name](), []))
            groups.append([Side(by_hand[name]), Side(rival[name])])
            names.append((convolution, name))
    ((products,), *times) = interleave(groups, settings.rounds, 1)
    passes = [_Pass(*place, own, pytorch) for place, (own, pytorch) in zip(names, times, strict=True)]
    return passes, products


def _row(item: _Pass, peak: float) -> tuple[str, ...]:
    """A row of the table; the convolution stands in the row of its first pass."""
    needed, plain = item.convolution.needed_flops, item.convolution.plain_flops
    head = (item.convolution.label, format_number(needed / 1e6), _more(plain / needed))
    own, pytorch = item.gflops()
    goal = goal_text(f"{item.key}_peak_share", own / peak)
    numbers = format_number(own), format_number(pytorch), f"{own / peak:.0%}"
    return *(head if item.name == PASSES[0] else ("", "", "")), item.name, *numbers, goal


def _record(item: _Pass, peak: float) -> dict[str, Any]:
    """Everything about a pass, for the JSON file."""
    comparison, (own, pytorch) = item.comparison(), item.gflops()
    operations = {"plain_flops": item.convolution.plain_flops, "needed_flops": item.convolution.needed_flops}
    rates = {"gflops": own, "pytorch_gflops": pytorch, "peak_share": own / peak, "pytorch_peak_share": pytorch / peak}
    times = {"own_us": vars(comparison.own), "pytorch_us": vars(comparison.theirs), "ratio": vars(comparison.ratio)}
    return {"name": item.key, "label": comparison.label, **operations, **rates, **times}


def _more(factor: float) -> str:
    """How many times as many operations the plain definition takes."""
    return f"x{factor:.2f}" if factor > 1 else ""
