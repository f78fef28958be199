"""The pictures of a study: its history, its trials as lines through their settings, each setting alone, importances.

Drawn here and not by Optuna, whose pictures leave out refused and failed trials, and those without a conditional one.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scratch_dl.search.axes import BAR, Axis, axis_of, blank, jittered
from scratch_dl.search.importances import EVALUATORS, importances
from scratch_dl.search.outcomes import COMPLETE, FAILED, KILLED, PRUNED, REFUSED, Objective, Results

if TYPE_CHECKING:
    import optuna
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {COMPLETE: BAR, PRUNED: "#e08a1e", FAILED: "#c0392b", KILLED: "#7f3fbf", REFUSED: "#9a9a9a"}
_MARKS = {PRUNED: "v", FAILED: "x", KILLED: "P", REFUSED: "|"}
_FAR = "complete, far worse"
_BEST = "#2a9d5c"
_COLUMNS = 3
_MAP = "viridis"


def draw(study: "optuna.Study", results: Results, folder: Path) -> dict[str, Path | str]:
    """Write the pictures of a study as PNG files.

    Args:
        study: whose trials' parameters have their distributions with them.
        results: of the same study.
        folder: is there.

    Returns:
        The name of each picture, which is its file's: the file, or why it cannot be drawn. With several objectives
        there is one of each kind but `pareto` for every objective: `history_best-val-psnr_db`.
    """
    made: dict[str, Path | str] = {}
    axes = _axes(study)
    several = len(results.objectives) > 1
    for place, objective in enumerate(results.objectives):
        ending = f"_{slug(objective)}" if several else ""
        values = {trial.number: trial.values[place] for trial in _complete(study)}
        pictures: tuple[tuple[str, Callable[[], Figure | str]], ...] = (
            ("history", lambda: _history(results, objective, place)),  # noqa: B023 (called before the next)
            ("parallel", lambda: _parallel(axes, objective, values)),  # noqa: B023
            ("slice", lambda: _slice(results, axes, objective, values)),  # noqa: B023
        )
        for name, picture in pictures:
            made[name + ending] = _drawn(picture(), folder / f"{name}{ending}.png")
        for evaluator in EVALUATORS:
            name = f"importance_{evaluator}{ending}"
            found = importances(study, evaluator, place, objective)
            figure = found if isinstance(found, str) else found.figure(objective)
            made[name] = _drawn(figure, folder / f"{name}.png")
    if several:
        made["pareto"] = _drawn(_pareto(results), folder / "pareto.png")
    return made


def slug(objective: Objective) -> str:
    """An objective as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", str(objective)).strip("-.")


def _drawn(figure: "Figure | str", path: Path) -> Path | str:
    if isinstance(figure, str):
        path.unlink(missing_ok=True)  # of an earlier report in the same folder
        return figure
    figure.savefig(path)
    return path


def _complete(study: "optuna.Study") -> list["optuna.trial.FrozenTrial"]:
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _axes(study: "optuna.Study") -> list[Axis]:
    """One for each parameter that was drawn with more than one value, in the order of the first drawn."""
    drawn: dict[str, Any] = {}
    values: dict[str, dict[int, Any]] = {}
    for trial in study.get_trials(deepcopy=False):
        for name, value in trial.params.items():
            drawn[name] = trial.distributions[name]
            values.setdefault(name, {})[trial.number] = value
    return [
        axis_of(name, drawn[name], values[name]) for name in drawn if len({repr(v) for v in values[name].values()}) > 1
    ]


def _named(objective: Objective) -> str:
    return f"{objective} ({objective.direction})"


def _few(values: Mapping[int, float]) -> str:
    return (
        f"needs two complete trials at least, but there {'is' if len(values) == 1 else 'are'} {len(values) or 'none'}"
    )


def _history(results: Results, objective: Objective, place: int) -> "Figure | str":
    complete, best, rest = _by_state(results, objective, place)
    if not complete:
        return "no trial is complete"
    figure = blank(8, 4.2)
    axes = figure.add_subplot()
    axes.scatter(*_across(complete), s=22, color=COLOURS[COMPLETE], label=COMPLETE, zorder=3)
    axes.step(*_across(best), where="post", color=_BEST, linewidth=1.8, label="best so far")
    for state, points in rest.items():
        # Trials without a value stand on the lower edge, whatever the values above.
        edge = [(number, 0.025) for number, value in points if value is None]
        inside = [(number, value) for number, value in points if value is not None]
        for shown, name, transform in (
            (edge, f"{state} (no value)", axes.get_xaxis_transform()),
            (inside, state, axes.transData),
        ):
            if shown:
                axes.scatter(*_across(shown), s=30, marker=_MARKS[state], color=COLOURS[state], label=name,
                             transform=transform, zorder=3)  # fmt: skip
    axes.margins(y=0.12)
    axes.set(xlabel="trial", ylabel=str(objective), title=f"History of {_named(objective)}")
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return figure


def _across(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _by_state(
    results: Results, objective: Objective, place: int
) -> tuple[list[tuple[int, float]], list[tuple[int, float]], dict[str, list[tuple[int, float | None]]]]:
    """(number, value) of the complete trials, the best up to each of them, and by state of the others."""
    complete: list[tuple[int, float]] = []
    best: list[tuple[int, float]] = []
    rest: dict[str, list[tuple[int, float | None]]] = {}
    for row in results.rows:
        if row.outcome is None:
            continue
        value = row.outcome.values[place] if row.outcome.values else None
        if row.state == COMPLETE and value is not None:
            complete.append((row.number, value))
            better = not best or objective.better(value, best[-1][1])
            best.append((row.number, value if better else best[-1][1]))
        elif row.state in _MARKS:
            finite = value if value is not None and math.isfinite(value) else None
            rest.setdefault(row.state, []).append((row.number, finite))
    return complete, best, {state: rest[state] for state in _MARKS if state in rest}


def _parallel(axes: Sequence[Axis], objective: Objective, values: Mapping[int, float]) -> "Figure | str":
    """A line a complete trial, broken where it does not have a setting."""
    if len(values) < 2:
        return _few(values)
    if not axes:
        return "no setting was drawn with more than one value"
    figure = blank(max(6.0, 1.35 * len(axes) + 2.2), 5.2)
    plot = figure.add_subplot()
    colour, scale = _colours(values, objective)
    order = sorted(values, key=lambda number: values[number], reverse=objective.direction == "minimize")
    for depth, number in enumerate(order):
        heights = [jittered(axis, number) for axis in axes]
        plot.plot(range(len(axes)), heights, ".-", color=colour(values[number]), linewidth=1.1, markersize=4,
                  alpha=0.75, zorder=2 + depth / 1e4)  # fmt: skip
    for position, axis in enumerate(axes):
        plot.axvline(position, color="#555555", linewidth=0.8, zorder=1)
        for height, text in axis.ticks:
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
            plot.annotate(
                text, (position, height), (4, 0), textcoords="offset points", fontsize=7.5, va="center", bbox=box
            )
    plot.set_xticks(range(len(axes)), [axis.label for axis in axes], rotation=25, ha="right", fontsize=8.5)
    plot.set(
        yticks=[],
        xlim=(-0.2, len(axes) - 0.45),
        title=f"Settings of the {len(values)} complete trials, the best on top",
    )
    plot.spines[:].set_visible(False)
    figure.colorbar(scale, ax=plot, label=_named(objective), pad=0.01,
                    extend="min" if objective.direction == "maximize" else "max")  # fmt: skip
    return figure


def _range(values: Mapping[int, float], objective: Objective) -> tuple[float, float]:
    """The least and the largest value of the better three quarters.

    Collapsed trials lie so far off that on a scale with them all others would look the same.
    """
    ordered = sorted(values.values(), reverse=objective.direction == "maximize")
    kept = ordered[: max(2, math.ceil(0.75 * len(ordered)))]
    return min(kept), max(kept)


def _colours(values: Mapping[int, float], objective: Objective) -> Any:
    """A value's colour, the best one light, and the scale for the colour bar."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    low, high = _range(values, objective)
    norm = Normalize(low, high if high > low else low + 1, clip=True)
    cmap = matplotlib.colormaps[_MAP if objective.direction == "maximize" else f"{_MAP}_r"]
    return lambda value: cmap(norm(value)), ScalarMappable(norm, cmap)


def _slice(results: Results, axes: Sequence[Axis], objective: Objective, values: Mapping[int, float]) -> "Figure | str":
    """A panel a setting: the complete trials' values over it; the other trials on its lower edge."""
    if len(values) < 2:
        return _few(values)
    if not axes:
        return "no setting was drawn with more than one value"
    columns = min(_COLUMNS, len(axes))
    lines = math.ceil(len(axes) / columns)
    figure = blank(3.3 * columns + 0.6, 2.5 * lines + 0.7)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    low, high = _range(values, objective)
    span = high - low or 1.0
    near = {number: value for number, value in values.items() if low - span <= value <= high + span}
    states = [state for state in _MARKS if any(row.state == state for row in results.rows)]
    bottom, top = min(near.values()), max(near.values())
    panels.flat[0].set_ylim(
        bottom - (0.1 + 0.07 * (len(states) + 1)) * (top - bottom or 1), top + 0.07 * (top - bottom or 1)
    )
    for panel, axis in zip(panels.flat, axes, strict=False):
        _one_slice(panel, axis, results, near, values.keys() - near.keys(), states)
        if panel.get_subplotspec().is_first_col():
            panel.set_ylabel(str(objective), fontsize=8.5)
    for panel in panels.flat[len(axes) :]:
        panel.set_visible(False)
    named: dict[str, Artist] = {}
    for panel in panels.flat:
        handles, labels = panel.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.suptitle(f"{objective} over each setting", fontsize=11)
    return figure


def _one_slice(
    panel: "Axes", axis: Axis, results: Results, near: Mapping[int, float], far: Collection[int], states: Sequence[str]
) -> None:
    numbers = [number for number in near if number in axis.places]
    panel.scatter([jittered(axis, number) for number in numbers], [near[number] for number in numbers], s=18, alpha=0.8,
                  color=COLOURS[COMPLETE], label=COMPLETE, zorder=3)  # fmt: skip
    for level, state in enumerate([_FAR, *states] if far else states):
        rows = far if state == _FAR else [row.number for row in results.rows if row.state == state]
        shown = [jittered(axis, number) for number in rows if number in axis.places]
        panel.scatter(shown, [0.03 + 0.045 * level] * len(shown), s=16, marker=_MARKS.get(state, "o"), linewidths=0.9,
                      color=COLOURS[COMPLETE if state == _FAR else state], label=state, zorder=2,
                      transform=panel.get_xaxis_transform(), alpha=0.5 if state == _FAR else 1)  # fmt: skip
    heights_of_ticks, texts = zip(*axis.ticks, strict=True)
    crowded = sum(map(len, texts)) > 26
    panel.set_xticks(
        heights_of_ticks, texts, fontsize=7.5, rotation=25 if crowded else 0, ha="right" if crowded else "center"
    )
    panel.set_xlabel(axis.label, fontsize=8.5)
    panel.set_xlim(-0.08, 1.08)
    panel.tick_params(axis="y", labelsize=8)
    panel.grid(alpha=0.3)


def _pareto(results: Results) -> "Figure | str":
    """Each pair of the first objective with another one."""
    rows = {
        row.number: row.outcome.values
        for row in results.rows
        if row.state == COMPLETE and row.outcome and row.outcome.values
    }
    if len(rows) < 2:
        return _few(dict.fromkeys(rows, 0.0))
    others = results.objectives[1:]
    figure = blank(6.2 * len(others), 4.6)
    panels = figure.subplots(1, len(others), squeeze=False).flat
    for place, (panel, other) in enumerate(zip(panels, others, strict=True), 1):
        panel.scatter([rows[number][place] for number in rows], [rows[number][0] for number in rows], s=20, alpha=0.7,
                      color=COLOURS[REFUSED], label="other complete trials")  # fmt: skip
        front = sorted((rows[number][place], rows[number][0], number) for number in results.best if number in rows)
        panel.plot(
            [x for x, _, _ in front], [y for _, y, _ in front], "o-", color=_BEST, linewidth=1, label="Pareto front"
        )
        panel.set(xlabel=_named(other), ylabel=_named(results.objectives[0]))
        for x, y, number in front:
            panel.annotate(str(number), (x, y), (4, 4), textcoords="offset points", fontsize=8)
        panel.grid(alpha=0.3)
        panel.margins(0.08)
    figure.axes[0].legend(fontsize=8)
    figure.suptitle(f"Pareto front: {len(results.best)} of {len(rows)} complete trials, by their numbers", fontsize=11)
    return figure
