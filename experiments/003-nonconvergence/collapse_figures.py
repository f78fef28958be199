"""The study's two figures."""

import math

from collapse_plan import GEOMETRIES, point_name
from collapse_tables import rate_heads

OUTPUTS = "mean output over updates, with and without the fault"
PSNR = "PSNR over geometry and learning rate, with and without the fault"


def draw_outputs(rows, geometries, rates):
    """Draw the mean output over updates, a line per run: faulty on the left, healthy on the right."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    colormap = matplotlib.colormaps["plasma"]
    colours = [colormap(0.9 * place / max(1, len(rates) - 1)) for place in range(len(rates))]
    for axes, group, title in zip(panels, ("faulty", "healthy"), ("with the fault F1", "without it"), strict=True):
        for colour, rate in zip(colours, rates, strict=True):
            for geometry in geometries:
                if row := rows.get(point_name(group, geometry, rate)):
                    _draw_output(axes, row, colour)
            axes.plot([], [], color=colour, label=rate_heads([rate])[0])
        axes.set_xscale("symlog", linthresh=1)
        axes.set(xlabel="updates by the optimizer", title=title, xlim=(0, None))
        marks = [mark for mark in (0, 1, 10, 100, 1000) if mark <= max(1, axes.get_xlim()[1])]
        axes.set_xticks(marks, [str(mark) for mark in marks])
        axes.grid(alpha=0.3)
    panels[0].set_ylim(-0.03, None)
    panels[0].set_ylabel("mean output of the network (0: black, 1: white)")
    panels[1].legend(title="learning rate", fontsize=8, title_fontsize=8, ncols=2, loc="lower right")
    panels[0].plot([], [], "x", color="0.3", label="the loss is NaN or infinite")
    panels[0].legend(handles=panels[0].get_lines()[-1:], fontsize=8, loc="upper right")
    return figure


def _draw_output(axes, row, colour):
    """Draw one run up to its first black output, with a cross where the loss is no longer finite."""
    black = row["black_after"]
    points = [(step, mean) for step, mean in row["output_mean"] if black is None or step < black]
    if black is not None:
        points.append((black, 0.0))
    axes.plot(*zip(*points, strict=True), color=colour, linewidth=0.8, alpha=0.7)
    if row["nan_after"] is not None:
        axes.plot(row["nan_after"], 0.0 if black is not None else points[-1][1], "x", color=colour, markersize=5)


def draw_psnr(rows, geometries, rates):
    """Draw PSNR over geometry and rate: faulty on the left, healthy on the right, on one scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.4 + 0.32 * len(geometries)), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = ("with the fault F1, the last output that is finite", "without it, the best output")
    tables = [
        [[(rows.get(point_name(group, g, rate)) or {}).get(key) for rate in rates] for g in geometries]
        for group, key in (("faulty", "last_psnr_db"), ("healthy", "best_psnr_db"))
    ]
    values = [value for table in tables for line in table for value in line if value is not None]
    limits = min(values), max(values)
    for axes, title, table in zip(panels, titles, tables, strict=True):
        picture = _draw_cells(axes, table, limits)
        axes.set_xticks(range(len(rates)), rate_heads(rates), fontsize=8)
        axes.set_yticks(range(len(geometries)), [GEOMETRIES[g][0] for g in geometries], fontsize=7)
        axes.set(xlabel="learning rate of plain SGD")
        axes.set_title(title, fontsize=9)
    figure.colorbar(picture, ax=panels, label="PSNR on the validation crops, dB", fraction=0.03)
    return figure


def _draw_cells(axes, table, limits):
    """Draw a table as coloured cells with their values, None as an empty one; return the picture."""
    low, high = limits
    cells = [[math.nan if value is None else value for value in line] for line in table]
    picture = axes.imshow(cells, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    for y, line in enumerate(table):
        for x, value in enumerate(line):
            if value is not None:
                colour = "white" if (value - low) / max(high - low, 1e-9) < 0.5 else "black"
                axes.text(x, y, f"{value:.1f}", ha="center", va="center", fontsize=7, color=colour)
    return picture
