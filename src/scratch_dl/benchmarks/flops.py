"""GFLOP/s of each convolution's passes, beside the largest that this process gets out of the machine."""

import torch

from scratch_dl import kernels
from scratch_dl.benchmarks.convolutions import LARGE, PAPER, PASSES, SMALL
from scratch_dl.benchmarks.outcome import Comparison, Outcome, number, told
from scratch_dl.benchmarks.settings import Settings
from scratch_dl.system.timing import Quartiles, Side, interleave
from scratch_dl.terminal.text_table import TextTable
from scratch_dl.verification.counterparts import check_equal

_SIDE, _SMALL_SIDE = 2048, 64


def measure(settings: Settings) -> Outcome:
    """Time every pass by hand and by PyTorch in channels_last, and a large matrix product among them."""
    generator = settings.generator()
    convolutions = SMALL if settings.smoke else (*PAPER, *LARGE)
    side = _SMALL_SIDE if settings.smoke else _SIDE
    left, right = torch.randn(2, side, side, generator=generator)
    groups, names = [[Side(lambda: torch.mm(left, right))]], []
    for convolution in convolutions:
        tensors = convolution.tensors(generator)
        by_hand, rival = convolution.own(*tensors), convolution.pytorch(*tensors)
        for name in PASSES:
            check_equal(f"{convolution.label}, {name}", (by_hand[name](), []), (rival[name](), []))
            groups.append([Side(by_hand[name]), Side(rival[name])])
            names.append((convolution, name))
    ((products,), *times) = interleave(groups, settings.rounds, 1)
    # The best round: whoever is held up shows no peak.
    peaks = {"mm": 2 * side**3 / min(products) / 1e3}
    if (own_peak := kernels.peak_gflops(settings.threads)) is not None:
        peaks["fma"] = own_peak
    rates = [
        convolution.needed_flops / Quartiles.of(values).median / 1e3
        for (convolution, _), sides in zip(names, times, strict=True)
        for values in sides
    ]
    peaks["conv"] = max(rates)  # a matrix product is not always the fastest thing that there is
    peak = max(peaks.values())
    figures = {f"flops/peak_{name}": value for name, value in peaks.items()}
    rows, records, comparisons = [], [], []
    for (convolution, name), (mine, theirs) in zip(names, times, strict=True):
        key = f"flops/{convolution.name}/{name}"
        one = Comparison.of(key, f"{convolution.label}, {name}", "channels_last", mine, theirs)
        needed = convolution.needed_flops
        achieved, pytorch = (needed / quartiles.median / 1e3 for quartiles in (one.own, one.theirs))
        share = achieved / peak
        figures |= {f"{key}_gflops": achieved, f"{key}_pytorch_gflops": pytorch, f"{key}_peak_share": share}
        head = (convolution.label, number(needed / 1e6), _more(convolution.plain_flops / needed))
        first = head if name == PASSES[0] else ("", "", "")
        rows.append((*first, name, number(achieved), number(pytorch), f"{share:.0%}", told(f"{key}_peak_share", share)))
        records.append({
            "name": key, "label": one.label, "plain_flops": convolution.plain_flops, "needed_flops": needed,
            "gflops": achieved, "pytorch_gflops": pytorch, "peak_share": share, "pytorch_peak_share": pytorch / peak,
            "own_us": vars(one.own), "pytorch_us": vars(one.theirs), "ratio": vars(one.ratio),
        })  # fmt: skip
        comparisons.append(one)
    records.append({"name": "flops/peak", "gflops": peaks, "mm_side": side})
    told_peaks = ", ".join(f"{name} {value:.0f}" for name, value in peaks.items())
    legend = f"{settings.rounds} rounds; GFLOP/s of the needed operations; peak: {told_peaks}"
    columns = ("", "MFLOP\nneeded", "plain", "pass", "own", "PyTorch", "of\npeak", "goal")
    table = TextTable("Convolutions", legend, 1, columns, rows)
    return Outcome("flops", settings.threads, figures, table, records, comparisons)


def _more(factor: float) -> str:
    """How many times as many operations the plain definition has."""
    return f"x{factor:.2f}" if factor > 1 else ""
