"""The study's tables and its figure."""

from collections import Counter

import numpy as np
from fault_plan import MODES

from scratch_dl import faults
from scratch_dl.terminal.text_table import TextTable


def rates_table(rates):
    head = (
        "what is used",
        "runs",
        "detected",
        "module\nright",
        "direction\nright",
        "cause\nright",
        "code faults, all\nright before step 1",
        "latest\nstep",
    )
    shares = (
        "detected",
        "module_right",
        "direction_right",
        "cause_right",
        "code_faults_named_before_the_first_step",
    )
    lines = [
        (
            mode,
            str(rates[mode]["runs"]),
            *("" if rates[mode][key] is None else f"{rates[mode][key]:.1%}" for key in shares),
            str(rates[mode]["latest_step"]),
        )
        for mode in MODES
    ]
    return TextTable("Rates", "shares of the trainings with a fault", 1, head, lines)


def causes_table(rows):
    lines = []
    for fault in dict.fromkeys(row["fault"] for row in rows):
        cells = [_label(fault)]
        for mode in MODES:
            runs = [row for row in rows if row["fault"] == fault and row["mode"] == mode]
            causes = Counter(row["cause"] for row in runs).most_common()
            right = sum(row["module_right"] for row in runs)
            cells.append(f"{_counts(dict(causes))}; module {right} of {len(runs)}")
        lines.append(tuple(cells))
    legend = "causes named, and how often the module was right"
    return TextTable("What was named (runs)", legend, 1 + len(MODES), ("fault", *MODES), lines)


def healthy_table(rows):
    head = (
        "training",
        "runs",
        "end above the\nnoisy input",
        "alarms\nin these",
        "alarms had they\nended at step 200",
        "doubts\noverruled",
        "verdicts on the others",
    )
    lines = []
    for optimizer in dict.fromkeys(row["optimizer"] for row in rows):
        runs = [row for row in rows if row["optimizer"] == optimizer]
        good = [row for row in runs if row["converged"]]
        alarms, early = (
            Counter(row[key] for row in good if row[key] != "healthy") for key in ("cause", "cause_at_step_200")
        )
        others = Counter(row["cause"] for row in runs if not row["converged"])
        doubts = sum(bool(row["overruled"]) for row in good)
        lines.append(
            (
                optimizer,
                str(len(runs)),
                str(len(good)),
                _counts(alarms) or "0",
                _counts(early) or "0",
                str(doubts),
                _counts(others),
            )
        )
    return TextTable("Without a fault", "numbers of runs", len(head), head, lines)


def draw_confusion(rows):
    """Draw faults over causes, a panel for each mode, with the number of runs in each cell."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["fault"] for row in rows))
    causes = [*names, *sorted({row["cause"] for row in rows} - set(names))]
    causes = [cause for cause in causes if any(row["cause"] == cause for row in rows)]
    figure = Figure(figsize=(17, 8.5), dpi=100, layout="constrained")
    for position, (axes, mode) in enumerate(zip(figure.subplots(1, len(MODES), sharey=True), MODES, strict=True)):
        table = np.zeros((len(names), len(causes)))
        for row in rows:
            if row["mode"] == mode:
                table[names.index(row["fault"]), causes.index(row["cause"])] += 1
        shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
        for (i, j), count in np.ndenumerate(table):
            if count:
                axes.text(j, i, f"{count:.0f}", ha="center", va="center", fontsize=7)
        axes.set_xticks(range(len(causes)), causes, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), [_label(name) for name in names], fontsize=7)
        axes.set(title=f"{mode} ({int(table.sum())} runs)", xlabel="cause named")
        if not position:
            axes.set_ylabel("fault put in")
    return figure


def _label(fault):
    return f"{faults.FAULTS[fault].number} {fault}"


def _counts(counter):
    return ", ".join(f"{cause} {count}" for cause, count in counter.items())
