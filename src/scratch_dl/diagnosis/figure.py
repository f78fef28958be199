"""A figure of every module's signals over the watched steps, with the verdict's module and step marked."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scratch_dl.diagnosis.signs import History
from scratch_dl.diagnosis.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = (
    ("activation_std", "log10 of the output's standard deviation", "viridis"),
    ("grad_norm", "log10 of the gradient's norm at the output", "magma"),
)
_MARK = "#00b4d8"
_ZERO, _NOT_FINITE = "#dddddd", "#777777"
_LABELS = 12


def draw(history: History, verdict: Verdict) -> "Figure | None":
    """Return a figure of modules x steps, the first module on top; None if nothing was watched."""
    from matplotlib.figure import Figure

    modules = [name.removesuffix("/grad_norm") for name in history if name.endswith("/grad_norm")]
    steps = sorted({step for module in modules for step, _ in history[f"{module}/grad_norm"]})
    if not modules or not steps:
        return None
    height = 1.6 + 0.26 * len(modules)
    figure = Figure(figsize=(9.5, 2 * height), dpi=110, layout="constrained")
    figure.suptitle(verdict.line, fontsize=11)
    for axes, (signal, label, colours) in zip(figure.subplots(2, 1), PANELS, strict=True):
        _panel(axes, _table(history, modules, steps, signal), label, colours)
        axes.set_yticks(range(len(modules)), modules, fontsize=8)
        shown = range(0, len(steps), max(1, math.ceil(len(steps) / _LABELS)))
        axes.set_xticks(shown, [str(steps[position]) for position in shown], fontsize=8)
        axes.set(xlabel="optimizer step (the watched ones, not to scale)")
        _mark(axes, modules, steps, verdict)
    _explain(figure, verdict)
    return figure


def _table(history: History, modules: Sequence[str], steps: Sequence[int], signal: str) -> "np.ndarray":
    table = np.full((len(modules), len(steps)), np.nan)
    for row, module in enumerate(modules):
        for step, value in history.get(f"{module}/{signal}", ()):
            if step in steps:
                table[row, steps.index(step)] = (
                    -math.inf if value == 0 else math.log10(value) if value > 0 else math.nan
                )
    return table


def _panel(axes: "Axes", table: "np.ndarray", label: str, colours: str) -> None:
    import matplotlib

    colour_map = matplotlib.colormaps[colours].with_extremes(bad=_NOT_FINITE, under=_ZERO)
    finite = table[np.isfinite(table)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    shown = np.where(np.isneginf(table), low - 1, np.where(np.isfinite(table), table, np.nan))
    image = axes.imshow(shown, aspect="auto", cmap=colour_map, interpolation="nearest", vmin=low, vmax=high)
    axes.figure.colorbar(image, ax=axes, label=label)


def _explain(figure: "Figure", verdict: Verdict) -> None:
    """Say below the panels what the greys and the frame mean."""
    from matplotlib.patches import Patch

    keys = [Patch(color=_ZERO, label="exactly 0"), Patch(color=_NOT_FINITE, label="NaN, infinite or not watched")]
    if verdict.finds_fault:
        keys.append(Patch(fill=False, edgecolor=_MARK, linewidth=2.5, label="where and since when it is wrong"))
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), fontsize=8, frameon=False)


def _mark(axes: "Axes", modules: Sequence[str], steps: Sequence[int], verdict: Verdict) -> None:
    from matplotlib.patches import Rectangle

    if not verdict.finds_fault:
        return
    column = sum(step < verdict.step for step in steps)
    if verdict.module in modules:
        row = modules.index(verdict.module)
        corner, size = (column - 0.5, row - 0.5), (len(steps) - column, 1)
    else:
        corner, size = (column - 0.5, -0.5), (len(steps) - column, len(modules))
    axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=_MARK, linewidth=2.5, clip_on=False))
