"""The study's tables."""

import statistics

from collapse_plan import MOMENTUM_RATES, SEEDS, geometry_of, point_name
from collapse_readings import READINGS

from _study import decibel
from scratch_dl.terminal.text_table import TextTable


def all_tables(differences, readings, own, rows, shown):
    """Return all tables.

    Args:
        differences: those of F1, for every kind of draw.
        readings: reading -> its differences for inputs U(0, 1) and N(0, 1).
        own: (reading, geometry) -> result of `train_with_reading`.
        rows: of the trainings, by name.
        shown: the geometries and the rates of the grid.
    """
    geometries, rates = shown
    columns = _healthy_columns(geometries, rates, rows)
    tables = [
        difference_table(differences),
        collapse_table(geometries, rates, rows),
        other_optimizers_table(rates, rows),
        readings_table(readings),
        other_mistakes_table(own, rows),
        psnr_table(geometries, columns, rows),
        seeds_table(geometries, columns, rows),
    ]
    return [table for table in tables if table.rows]


def difference_table(differences):
    return TextTable(
        "Table II's Sigmoid, by F1",
        "mean and deviation over draws; the paper prints 0.249991±0.000001",
        2,
        ("inputs", "targets", "mean |Δ|", "fits"),
        [(d.inputs, d.targets, f"{d.mean:.7f}±{d.std:.7f}", "yes" if d.fits else "no") for d in differences],
    )


def collapse_table(geometries, rates, rows):
    return TextTable(
        "With F1: after how many updates the output is black | the loss no number",
        "plain SGD; -: never, in the steps given",
        1,
        ("geometry", *rate_heads(rates)),
        [(g, *(_collapse(rows.get(point_name("faulty", g, rate))) for rate in rates)) for g in geometries],
    )


def other_optimizers_table(rates, rows):
    others = [
        row
        for name, row in rows.items()
        if name.startswith("faulty") and (row["lr"] not in rates or row["momentum"] or row["optimizer"] != "sgd")
    ]
    return TextTable(
        "With F1: other optimizers, and a rate smaller still",
        "as above",
        2,
        ("geometry", "optimizer", "rate", "updates\ndone", "black\nafter", "no number\nafter"),
        [
            (
                geometry_of(row["name"]),
                f"momentum {row['momentum']:g}" if row["momentum"] else row["optimizer"],
                f"{row['lr']:g}",
                str(row["updates"]),
                _count(row["black_after"]),
                _count(row["nan_after"]),
            )
            for row in others
        ],
    )


def readings_table(readings):
    return TextTable(
        "Other readings of 0.249991",
        "mean |Δ|, targets N(0, 1)",
        2,
        ("reading", "dL/dX", "inputs\nU(0, 1)", "inputs\nN(0, 1)", "fits"),
        [
            (
                name,
                READINGS[name][2],
                *(f"{d.mean:.7f}" if d.mean > 0.01 else f"{d.mean:.1e}" for d in pair),
                "yes" if any(d.fits for d in pair) else "no",
            )
            for name, pair in readings.items()
        ],
    )


def other_mistakes_table(own, rows):
    trained = [
        (
            row["fault"],
            geometry_of(row["name"]),
            str(row["updates"]),
            f"{row['output_mean'][-1][1]:.3f}" if row["output_mean"] else "-",
            row["output_class"] or "?",
            _best_psnr(row),
        )
        for name, row in rows.items()
        if name.startswith("other-")
    ]
    in_own_loop = [(name, g, str(updates), f"{mean:.3f}", "-", "-") for (name, g), (updates, mean) in own.items()]
    return TextTable(
        "What other mistakes make of the output",
        "rate 1, momentum 0",
        2,
        ("mistake", "geometry", "updates", "mean\noutput", "class", "best\ndB"),
        trained + in_own_loop,
    )


def psnr_table(geometries, columns, rows):
    some = next((row for row in rows.values() if row["blur_psnr_db"]), {})
    noisy, blur = (decibel(some.get(key), 1) for key in ("noisy_psnr_db", "blur_psnr_db"))
    return TextTable(
        "Without the fault: best PSNR in dB by learning rate",
        f"noisy input {noisy}, blur {blur}; m: momentum 0.9",
        1,
        ("geometry", *(head for head, _, _ in columns)),
        [
            (g, *(_best_psnr(rows.get(point_name("healthy", g, rate, momentum))) for _, rate, momentum in columns))
            for g in geometries
        ],
    )


def seeds_table(geometries, columns, rows):
    cells = []
    for g in geometries:
        for head, rate, momentum in columns:
            runs = [rows.get(point_name("healthy", g, rate, momentum, seed)) for seed in SEEDS]
            if runs[-1]:
                values = [row["best_psnr_db"] for row in runs if row and row["best_psnr_db"] is not None]
                cells.append((g, head, *(f"{f(values):.2f}" for f in (statistics.mean, min, max))))
    return TextTable(
        "The same with three seeds", "best PSNR in dB", 2, ("geometry", "rate", "mean", "lowest", "highest"), cells
    )


def rate_heads(rates):
    """Return learning rates as the heads of columns."""
    return tuple(f"{rate:g}".replace("0.001", "1e-3").replace("0.0001", "1e-4").replace("e-0", "e-") for rate in rates)


def _healthy_columns(geometries, rates, rows):
    """Return the head, rate and momentum of every column that the healthy grid has."""
    columns = [
        *((head, rate, 0.0) for head, rate in zip(rate_heads(rates), rates, strict=True)),
        *((f"m {rate:g}", rate, 0.9) for rate in MOMENTUM_RATES),
    ]
    return [
        (head, rate, momentum)
        for head, rate, momentum in columns
        if any(point_name("healthy", g, rate, momentum) in rows for g in geometries)
    ]


def _collapse(row):
    """Return 'n|m': black after n updates, the loss NaN or infinite after m."""
    if row is None:
        return "-"
    black = _count(row["black_after"])
    return f"{black}|{row['nan_after']}" if row["nan_after"] is not None else black


def _best_psnr(row):
    return decibel(row and row["best_psnr_db"], 1)


def _count(value):
    return "-" if value is None else str(value)
