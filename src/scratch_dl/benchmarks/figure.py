"""The picture of a benchmark: ratios to PyTorch, and growth."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from scratch_dl.benchmarks.part_result import PartResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INCH_PER_ROW = 0.2
_MARKS = (0.1, 0.2, 0.5, 1, 2)


def draw(outcomes: Sequence[PartResult]) -> "Figure":
    """Draw a row of panels for each part that has a picture, with one panel per number of threads, or per axis."""
    from matplotlib.figure import Figure

    drawn = [outcome for outcome in outcomes if outcome.comparisons or outcome.part == "scaling"]
    parts = [list(group) for _, group in groupby(drawn, key=lambda outcome: outcome.part)]
    heights = [max(2.2, 1.0 + _INCH_PER_ROW * len(group[0].comparisons)) for group in parts] or [1.0]
    figure = Figure(figsize=(10, sum(heights)), dpi=110, layout="constrained")
    rows = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for row, group in zip(rows, parts, strict=False):
        if group[0].part == "scaling":
            records = group[0].records
            row.suptitle(f"{group[0].table.title}, {group[0].threads} thread(s)", fontsize=9)
            for axes, record in zip(row.subplots(1, len(records), squeeze=False)[0], records, strict=True):
                _growth(axes, record["axis"], record["points"])
        else:
            row.suptitle(f"{group[0].table.title}: own / PyTorch; left of the line is better", fontsize=9)
            for axes, outcome in zip(row.subplots(1, len(group), squeeze=False, sharey=True)[0], group, strict=True):
                _ratios(axes, outcome)
    return figure


def _ratios(axes: "Axes", outcome: PartResult) -> None:
    """Medians, with a bar from quartile to quartile, and a line at 1."""
    ratios = [comparison.ratio for comparison in outcome.comparisons]
    medians = [ratio.median for ratio in ratios]
    reach = [[r.median - r.low for r in ratios], [r.high - r.median for r in ratios]]
    places = range(len(ratios), 0, -1)
    axes.errorbar(medians, places, xerr=reach, fmt="o", markersize=4, capsize=2)
    axes.axvline(1.0, linestyle="--", linewidth=1, color="C1")
    axes.set_yticks(
        list(places), [f"{comparison.label}, {comparison.rival}" for comparison in outcome.comparisons], fontsize=7
    )
    axes.set(xscale="log", title=f"{outcome.threads} thread(s)")
    axes.title.set_fontsize(8)
    # The same marks on every axis, as plain numbers, all of them within its limits.
    axes.set_xlim(
        min(_MARKS[0], *(ratio.low for ratio in ratios)) / 1.1, max(_MARKS[-1], *(r.high for r in ratios)) * 1.1
    )
    axes.set_xticks(_MARKS, [f"{mark:g}" for mark in _MARKS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def _growth(axes: "Axes", name: str, points: Sequence[dict[str, float]]) -> None:
    for side, style in (("own", "o-"), ("pytorch", "s--")):
        axes.plot(
            [point["at"] for point in points],
            [point[f"{side}_time"] for point in points],
            style,
            markersize=4,
            label=side,
        )
    axes.set(xscale="log", yscale="log", xlabel=name, ylabel="ms per step")
    axes.set_xticks([point["at"] for point in points], [f"{point['at']:g}" for point in points], fontsize=7)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
