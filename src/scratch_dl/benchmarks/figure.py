"""One picture of what was measured: ratios, shares of the peak, growth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scratch_dl.benchmarks.outcome import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INCH_PER_ROW = 0.2
_MARKS = (0.2, 0.5, 1, 2, 5)


def draw(outcomes: Sequence[Outcome]) -> "Figure":
    """A panel an outcome that has something to draw; own / PyTorch as medians with quartiles, 1 as a line."""
    from matplotlib.figure import Figure

    panels = [outcome for outcome in outcomes if outcome.comparisons or outcome.part == "scaling"]
    heights = [max(2.2, 1.0 + _INCH_PER_ROW * len(outcome.comparisons)) for outcome in panels] or [1.0]
    figure = Figure(figsize=(9, sum(heights)), dpi=110, layout="constrained")
    grid = figure.add_gridspec(len(heights), 3, height_ratios=heights)
    for place, outcome in enumerate(panels):
        if outcome.part == "scaling":
            for column, record in enumerate(outcome.records):
                _growth(figure.add_subplot(grid[place, column]), record["axis"], record["points"])
        else:
            _ratios(figure.add_subplot(grid[place, :]), outcome)
    return figure


def _ratios(axes: "Axes", outcome: Outcome) -> None:
    ratios = [one.ratio for one in outcome.comparisons]
    medians = [ratio.median for ratio in ratios]
    reach = [[r.median - r.low for r in ratios], [r.high - r.median for r in ratios]]
    places = range(len(ratios), 0, -1)
    axes.errorbar(medians, places, xerr=reach, fmt="o", markersize=4, capsize=2)
    axes.axvline(1.0, linestyle="--", linewidth=1, color="C1")
    axes.set_yticks(list(places), [f"{one.label}, {one.rival}" for one in outcome.comparisons], fontsize=7)
    axes.set(xscale="log", title=f"{outcome.table.title}: own / PyTorch, {outcome.threads} thread(s); left is better")
    axes.title.set_fontsize(9)
    # The same marks everywhere, as plain numbers, and no fewer than from the first to the last of them.
    axes.set_xlim(
        min(_MARKS[0], *(ratio.low for ratio in ratios)) / 1.1, max(_MARKS[-1], *(r.high for r in ratios)) * 1.1
    )
    axes.set_xticks(_MARKS, [f"{mark:g}" for mark in _MARKS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def _growth(axes: "Axes", name: str, points: Sequence[dict[str, float]]) -> None:
    for side, style in (("own", "o-"), ("pytorch", "s--")):
        axes.plot([point["at"] for point in points], [point[f"{side}_time"] for point in points], style,
                  markersize=4, label=side)  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel=name, ylabel="ms a step")
    axes.set_xticks([point["at"] for point in points], [f"{point['at']:g}" for point in points], fontsize=7)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
