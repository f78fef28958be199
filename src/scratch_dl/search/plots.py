"""The pictures of a study: Optuna's own, and one that shows the trials that Optuna's leave out.

Optuna's pictures show complete trials only, and only those settings that all of them have. `slice` is drawn here: it
shows every trial, refused, failed and pruned ones included, over every setting, conditional ones included.
"""

import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import optuna
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.importance import BaseImportanceEvaluator
from optuna.visualization.matplotlib import (
    plot_optimization_history,
    plot_parallel_coordinate,
    plot_param_importances,
    plot_pareto_front,
)

from scratch_dl.search.importances import EVALUATORS, Importances, complete_trials, importances, study_of, too_few
from scratch_dl.search.trial_result import Objective, State, StudySummary, TrialRow

_STATES: dict[str, tuple[str, str]] = {  # marker and colour
    State.COMPLETE: ("o", "#3b6ea8"),
    State.PRUNED: ("v", "#e08a1e"),
    State.FAILED: ("x", "#c0392b"),
    State.KILLED: ("P", "#7f3fbf"),
    State.REFUSED: ("|", "#9a9a9a"),
}
_SCALE_SHARE = 0.75
"""The share of the trials, the best ones, that decides about the scale: collapsed trials lie so far off that on a scale
with them all others would look the same."""
_PANELS_PER_LINE = 3
_LONGEST_TICK = 18


def write_plots(study: optuna.Study, summary: StudySummary, folder: Path) -> dict[str, Path | str]:
    """Write the pictures of a study as PNG files.

    Args:
        study: Optuna's study; its trials know the distributions of their parameters.
        summary: of the same study.
        folder: must exist.

    Returns:
        The name of each picture, which is its file's name without .png -> the file, or why it cannot be drawn. With
        several objectives each has pictures of its own (`history_best-val-psnr_db`); `pareto` compares the first
        objective with each other one.
    """
    pictures: dict[str, Path | str] = {}

    def write(name: str, plot: Callable[[], Figure | str]) -> None:
        with _optuna_figures():
            figure = plot()
            path = folder / f"{name}.png"
            if isinstance(figure, str):
                path.unlink(missing_ok=True)  # left by an earlier report in the same folder
                pictures[name] = figure
                return
            figure.savefig(path, dpi=110, bbox_inches="tight")
            pictures[name] = path

    several = len(summary.objectives) > 1
    for place, objective in enumerate(summary.objectives):
        plots: dict[str, Callable[[], Figure | str]] = {
            "history": lambda: _history(study, place, objective, several),  # noqa: B023 (called at once)
            "parallel": lambda: _parallel(study, summary, place),  # noqa: B023
            "slice": lambda: _slice(study, summary, place),  # noqa: B023
            **{f"importance_{key}": lambda key=key: _importance(study, key, place, objective) for key in EVALUATORS},  # type: ignore[misc] # noqa: B023
        }
        for kind, plot in plots.items():
            write(f"{kind}_{objective.slug}" if several else kind, plot)
    for place, other in enumerate(summary.objectives[1:], 1):
        name = "pareto" if len(summary.objectives) == 2 else f"pareto_{other.slug}"
        write(name, lambda: _pareto(study, summary, place))  # noqa: B023
    return pictures


@contextmanager
def _optuna_figures() -> Iterator[None]:
    """Let Optuna draw with pyplot, and leave nothing of it behind: no figure, no style, no warning."""
    matplotlib.use("agg")  # files only; a window system need not exist
    before = pyplot.get_fignums()
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Optuna calls its pictures by matplotlib and its evaluators experimental; the pinned version has them.
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            yield
        finally:
            for number in set(pyplot.get_fignums()) - set(before):
                pyplot.close(number)


def _titled(axes: Axes, width: float, height: float, title: str) -> Figure:
    """Give Optuna's picture its size in inches and its title."""
    axes.set_title("", loc="left")  # where Optuna has the title of its importances
    axes.set_title(title, fontsize=11)
    figure: Figure = axes.get_figure()  # type: ignore[assignment]
    figure.set_size_inches(width, height)
    return figure


def _history(study: optuna.Study, place: int, objective: Objective, several: bool) -> Figure | str:
    if not complete_trials(study):
        return "no trial is complete"
    target = (lambda trial: trial.values[place]) if several else None
    axes = plot_optimization_history(study, target=target, target_name=str(objective))
    axes.locator_params(axis="x", integer=True)
    return _titled(axes, 8, 4.2, f"History of {objective} ({objective.direction})")


def _parallel(study: optuna.Study, summary: StudySummary, place: int) -> Figure | str:
    """The settings that every complete trial has; Optuna would leave out the trials that lack one. The best is dark."""
    objective = summary.objectives[place]
    trials = complete_trials(study)
    if reason := too_few(trials):
        return reason
    names = [
        name
        for name in trials[0].params
        if all(name in trial.params for trial in trials) and len({repr(trial.params[name]) for trial in trials}) > 1
    ]
    if not names:
        return "no setting was drawn in every complete trial with more than one value"
    axes = plot_parallel_coordinate(study, names, target=lambda trial: trial.values[place], target_name=str(objective))
    lines = axes.collections[0]
    lines.set_cmap("Blues" if objective.direction == "maximize" else "Blues_r")
    lines.set_clim(*_scale(summary, place))
    return _titled(axes, max(9.0, 1.6 * len(names) + 3), 5.2, f"Settings of the {len(trials)} complete trials")


def _pareto(study: optuna.Study, summary: StudySummary, place: int) -> Figure | str:
    """The first objective over the one at `place`; the trials of the front have their numbers beside them."""
    if reason := too_few(complete_trials(study)):
        return reason
    first, other = summary.objectives[0], summary.objectives[place]
    axes = plot_pareto_front(
        study,
        targets=lambda trial: (trial.values[place], trial.values[0]),
        target_names=[f"{other} ({other.direction})", f"{first} ({first.direction})"],
    )
    for row in map(summary.row, summary.best):
        point = (row.values[place], row.values[0])
        axes.annotate(str(row.number), point, (4, 4), textcoords="offset points", fontsize=8)
    return _titled(axes, 7, 4.6, f"Pareto front: {len(summary.best)} trials, by their numbers")


def _slice(study: optuna.Study, summary: StudySummary, place: int) -> Figure | str:
    """A panel per setting, with the values over it; trials without a value, or far worse, are on the lower edge."""
    if reason := too_few([row for row in summary.rows if row.state == State.COMPLETE]):
        return reason
    objective = summary.objectives[place]
    drawn: dict[str, dict[int, Any]] = {}
    kinds: dict[str, BaseDistribution] = {}
    for trial in study.get_trials(deepcopy=False):
        for name, value in trial.params.items():
            drawn.setdefault(name, {})[trial.number] = value
            kinds[name] = trial.distributions[name]
    names = [name for name, values in drawn.items() if len(set(map(repr, values.values()))) > 1]
    if not names:
        return "no setting was drawn with more than one value"
    low, high = _scale(summary, place)
    margin = high - low or 1.0
    values = {
        row.number: row.values[place]
        for row in summary.rows
        if len(row.values) > place and low - margin <= row.values[place] <= high + margin
    }
    columns = min(_PANELS_PER_LINE, len(names))
    lines = math.ceil(len(names) / columns)
    figure = Figure(figsize=(3.4 * columns + 0.6, 2.7 * lines + 0.8), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    states = [state for state in _STATES if any(row.state == state for row in summary.rows)]
    low, high = min(values.values()), max(values.values())
    edge = 0.1 + 0.05 * len(states)  # the share of the height below the values
    panels.flat[0].set_ylim(low - edge * (high - low or 1) / (1 - edge), high + 0.07 * (high - low or 1))
    for panel, name in zip(panels.flat, names, strict=False):
        places = _positions(panel, name, kinds[name], drawn[name])
        for level, state in enumerate(states):
            rows = [row for row in summary.rows if row.state == state and row.number in places]
            _scatter_state(panel, level, state, rows, places, values)
        key, _, when = name.partition("[")
        panel.set_xlabel("\n".join([key, *when.removesuffix("]").split(" ")]).strip(), fontsize=8.5)
        panel.tick_params(axis="y", labelsize=8)
        panel.grid(alpha=0.3)
        if panel.get_subplotspec().is_first_col():
            panel.set_ylabel(str(objective), fontsize=8.5)
    for panel in panels.flat[len(names) :]:
        panel.set_visible(False)
    handles = dict(zip(*reversed(panels.flat[0].get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.suptitle(
        f"{objective} over each setting; on the lower edge, trials without a value or far worse", fontsize=10
    )
    return figure


def _scale(summary: StudySummary, place: int) -> tuple[float, float]:
    """The smallest and the largest value of the better complete trials."""
    complete = [row.values[place] for row in summary.rows if row.state == State.COMPLETE]
    ordered = sorted(complete, reverse=summary.objectives[place].direction == "maximize")
    better = ordered[: max(2, math.ceil(_SCALE_SHARE * len(ordered)))]
    return min(better), max(better)


def _positions(panel: Axes, name: str, kind: BaseDistribution, values: Mapping[int, Any]) -> dict[int, float]:
    """Prepare a panel's horizontal axis for a setting, and return where each trial stands on it.

    Choices and integers are shared by many trials, which stand a little beside each other.
    """
    spread = 0.0
    if isinstance(kind, CategoricalDistribution):
        choices = list(kind.choices)
        if all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in choices):
            choices.sort(key=float)  # type: ignore[arg-type]
        texts = [
            text if len(text) <= _LONGEST_TICK else f"{text[: _LONGEST_TICK - 3]}..." for text in map(str, choices)
        ]
        crowded = sum(map(len, texts)) > 26
        panel.set_xticks(range(len(choices)), texts, rotation=25 if crowded else 0, ha="right" if crowded else "center")
        panel.set_xlim(-0.5, len(choices) - 0.5)
        values, spread = {number: choices.index(value) for number, value in values.items()}, 0.2
    elif getattr(kind, "log", False):
        low, high = min(values.values()), max(values.values())
        panel.set_xscale("log")
        panel.set_xlim(low * (low / high) ** 0.05, high * (high / low) ** 0.05)
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=7))
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
    else:
        low, high = min(values.values()), max(values.values())
        if isinstance(kind, IntDistribution):
            panel.locator_params(axis="x", integer=True)
            spread = 0.2 * kind.step
        panel.set_xlim(low - 0.05 * (high - low) - spread, high + 0.05 * (high - low) + spread)
    panel.tick_params(axis="x", labelsize=7.5)
    # The name and the number as the seed: the same picture every time, and another jitter in the next panel.
    return {n: value + spread * random.Random(f"{name} {n}").uniform(-1, 1) for n, value in values.items()}


def _scatter_state(
    panel: Axes,
    level: int,
    state: str,
    rows: Sequence[TrialRow],
    places: Mapping[int, float],
    values: Mapping[int, float],
) -> None:
    """Draw the trials of one state: at their values, or on the lower edge, at a height of the state's own."""
    marker, colour = _STATES[state]
    style: dict[str, Any] = {"s": 18, "marker": marker, "color": colour, "linewidths": 1, "alpha": 0.8, "zorder": 3}
    inside = [row.number for row in rows if row.number in values]
    edge = [row.number for row in rows if row.number not in values]
    panel.scatter([places[n] for n in inside], [values[n] for n in inside], label=state, **style)
    heights = [0.03 + 0.05 * level] * len(edge)
    panel.scatter([places[n] for n in edge], heights, transform=panel.get_xaxis_transform(), **style)


class _KnownImportances(BaseImportanceEvaluator):
    """Gives Optuna's picture, which takes an evaluator, the shares that have been computed already."""

    def __init__(self, importances: Importances) -> None:
        self.importances = importances

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return the shares, whatever the trials."""
        return dict(self.importances.shares)


def _importance(study: optuna.Study, evaluator: str, place: int, objective: Objective) -> Figure | str:
    """The importances as bars."""
    result = importances(study, evaluator, place, objective)
    if isinstance(result, str):
        return result
    axes = plot_param_importances(
        study_of(complete_trials(study)),
        _KnownImportances(result),
        target=lambda trial: trial.values[place],
        target_name=str(objective),
    )
    axes.set(xlabel=result.note, xlim=(0, 1.15 * max(result.shares.values())))
    if legend := axes.get_legend():
        legend.remove()
    return _titled(axes, 7.5, 1.8 + 0.34 * len(result.shares), f"{EVALUATORS[evaluator]}: importance for {objective}")
