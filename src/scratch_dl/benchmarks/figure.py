"""The picture of a benchmark: ratios to PyTorch, and growth, on one screen."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from scratch_dl.benchmarks.part_result import Comparison, PartResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_WIDTH, _INCH_PER_ROW = 5.2, 0.19
_MARKS = (0.1, 0.2, 0.5, 1, 2)
_STYLES = ("o", "s", "^", "D")  # of the numbers of threads


def draw(outcomes: Sequence[PartResult]) -> "Figure":
    """Draw a panel for each part that has a picture, in up to three columns of about the same height."""
    from matplotlib.figure import Figure

    drawn = [outcome for outcome in outcomes if outcome.comparisons or outcome.part == "scaling"]
    parts = [list(group) for _, group in groupby(drawn, key=lambda outcome: outcome.part)]
    columns = _columns([(_height(group), group) for group in parts]) or [[]]
    height = max(1.0, *(sum(height for height, _ in column) for column in columns))
    figure = Figure(figsize=(_WIDTH * len(columns), height), dpi=100, layout="constrained")
    for place, column in zip(figure.subfigures(1, len(columns), squeeze=False)[0], columns, strict=True):
        panels = place.subfigures(len(column), 1, height_ratios=[height for height, _ in column], squeeze=False)[:, 0]
        for panel, (_, group) in zip(panels, column, strict=True):
            _draw_part(panel, group)
    return figure


def _height(group: Sequence[PartResult]) -> float:
    """Return the height of a part's panel, in inches."""
    if group[0].part == "scaling":
        return 1.8 * len(group[0].records)
    return 0.8 + _INCH_PER_ROW * len(_shown(group[0].comparisons))


def _columns(parts: list[tuple[float, list[PartResult]]]) -> list[list[tuple[float, list[PartResult]]]]:
    """Return the parts in up to three columns, each part in the one that is the shortest so far, the highest first."""
    columns: list[list[tuple[float, list[PartResult]]]] = [[] for _ in range(min(3, len(parts)))]
    for part in sorted(parts, key=lambda part: -part[0]):
        min(columns, key=lambda column: sum(height for height, _ in column)).append(part)
    return columns


def _draw_part(panel: "SubFigure", group: Sequence[PartResult]) -> None:
    if group[0].part == "scaling":
        panel.suptitle(f"{group[0].table.title}, threads: {group[0].threads}", fontsize=9)
        records = group[0].records
        for axes, record in zip(panel.subplots(len(records), 1, squeeze=False)[:, 0], records, strict=True):
            _growth(axes, record["axis"], record["points"])
    else:
        panel.suptitle(f"{group[0].table.title}: own / PyTorch; left of 1 is better", fontsize=9)
        _ratios(panel.subplots(), group)


def _shown(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons without those that one with the better of several rivals stands for."""
    summed_up = {comparison.label for comparison in comparisons if comparison.rival == "better"}
    return [one for one in comparisons if one.label not in summed_up or not one.rival.startswith("eager")]


def _label(comparison: Comparison) -> str:
    return f"{comparison.label}, {'eager' if comparison.rival == 'better' else comparison.rival}"


def _ratios(axes: "Axes", group: Sequence[PartResult]) -> None:
    """Medians, with a bar from quartile to quartile, for each number of threads, and a line at 1."""
    low, high = float(_MARKS[0]), float(_MARKS[-1])
    labels = [_label(comparison) for comparison in _shown(group[0].comparisons)]
    for number, outcome in enumerate(group):
        ratios = [comparison.ratio for comparison in _shown(outcome.comparisons)]
        medians = [ratio.median for ratio in ratios]
        reach = [[r.median - r.low for r in ratios], [r.high - r.median for r in ratios]]
        shift = 0.15 * (2 * number - len(group) + 1)
        places = [len(ratios) - row - shift for row in range(len(ratios))]
        name = f"{outcome.threads} thread{'s' if outcome.threads > 1 else ''}"
        style = _STYLES[number % len(_STYLES)]
        axes.errorbar(medians, places, xerr=reach, fmt=style, markersize=3.5, capsize=2, label=name)
        low, high = min(low, *(ratio.low for ratio in ratios)), max(high, *(ratio.high for ratio in ratios))
    axes.axvline(1.0, linestyle="--", linewidth=1, color="black")
    axes.set_yticks(range(len(labels), 0, -1), labels, fontsize=7)
    axes.set_ylim(0.4, len(labels) + 0.6)
    # The same marks on every axis, as plain numbers, all of them within its limits.
    axes.set(xscale="log", xlim=(low / 1.1, high * 1.1))
    axes.set_xticks(_MARKS, [f"{mark:g}" for mark in _MARKS], fontsize=7)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def _growth(axes: "Axes", name: str, points: Sequence[dict[str, float]]) -> None:
    places = [point["at"] for point in points]
    for side, label, style in (("own", "own", "o-"), ("pytorch", "PyTorch", "s--")):
        axes.plot(places, [point[f"{side}_time"] for point in points], style, markersize=4, label=label)
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel(name, fontsize=8)
    axes.set_ylabel("ms per step", fontsize=8)
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.tick_params(labelsize=7)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
