"""The curves of several runs on one axis."""

from collections.abc import Sequence
from io import BytesIO

from scratch_dl.comparison.runs import ComparedRun
from scratch_dl.training.losses import loss_label

PSNR, LOSS = "val/psnr_db", "val/loss"
# Of Okabe and Ito (2008), whose colours colour-blind people can tell apart; without yellow, which is faint on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("-", "--", "-.", ":", (0, (6, 2)))
_FEW = 10


def curve_titles(runs: Sequence[ComparedRun]) -> dict[str, str]:
    """Return the metrics of which curves are drawn, and what each shows; the losses of the runs may differ."""
    losses = dict.fromkeys(loss_label(run.config["loss"]) for run in runs)
    loss = f"{next(iter(losses))} on the validation crops"
    if len(losses) > 1:
        loss = f"each run's own loss on the validation crops ({', '.join(losses)}: not comparable)"
    return {PSNR: "PSNR on the validation crops, dB", LOSS: loss}


def draw_curves(runs: Sequence[ComparedRun], key: str) -> bytes | None:
    """Return a metric of every run over the optimizer's step as PNG; None if no run has it."""
    from matplotlib.figure import Figure

    if not any(run.history.get(key) for run in runs):
        return None
    figure = Figure(figsize=(8, 4.4 + 0.22 * len(runs)), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    lowest = 0.0
    for number, run in enumerate(runs):
        points = run.history.get(key, [])
        steps, values = zip(*points, strict=True) if points else ((), ())
        lowest = min([lowest if number else 1.0, *values])
        # Neither 7 colours nor 5 styles divide the other, so that 35 runs differ in the pair, and neighbours in both.
        axes.plot(
            steps,
            values,
            label=run.label,
            color=_COLOURS[number % len(_COLOURS)],
            linestyle=_STYLES[number % len(_STYLES)],
            linewidth=1.8,
            marker="o" if len(points) < _FEW else None,
            markersize=4,
        )
    if key.endswith("loss") and lowest > 0:
        axes.set_yscale("log")
    axes.set(xlabel="optimizer step", ylabel="loss" if key == LOSS else "PSNR, dB")
    axes.margins(y=0.08)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower left", ncols=1, fontsize=9, handlelength=4, frameon=False)
    with BytesIO() as file:
        figure.savefig(file, format="png")
        return file.getvalue()
