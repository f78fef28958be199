"""Pictures of a run: images side by side, and curves."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scratch_dl.data.metrics import psnr_per_image
from scratch_dl.evaluation import baselines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import ImageDraw

BASELINE = "tv"
"""The baseline beside the network's output: the best one on crops that takes less than a second on a photograph."""
COLUMNS = ("noisy", BASELINE, "network", "clean", "|error| of the network")
ERROR_SCALE = 4  # white in the column of errors is an error of 1 / ERROR_SCALE
# Of a palette that colour-blind people can tell apart (Okabe and Ito, 2008), each with a line style of its own.
_LEVELS = {
    "noisy": ("#D55E00", ":"),
    "blur": ("#E69F00", "-."),
    "tv": ("#009E73", "--"),
    "nlm": ("#CC79A7", (0, (6, 2))),
}
_OTHER_LEVEL = ("#555555", "--")
_LABEL_GAP = 0.05  # of the height of the axes
_SERIES = ("#0072B2", "#D55E00")
_GAP, _HEADER, _CAPTION, _WHITE = 6, 22, 18, 255


def simple_output(noisy: Tensor) -> Tensor:
    """(n, 3, h, w) -> the same: the output of BASELINE."""
    return torch.stack([baselines.denoise(BASELINE, picture) for picture in noisy.detach().float().cpu()])


def composite(
    noisy: Tensor, output: Tensor, clean: Tensor, scale: int, simple: Tensor | None = None
) -> NDArray[np.uint8]:
    """Return rows of COLUMNS, one row per image, with the PSNR of each picture under it.

    The network's output and that of the baseline are clamped to [0, 1] for the pictures and for the PSNR; the noisy
    picture's PSNR is that of the values that the network gets. The error is the mean of |output - clean| over the
    channels, in grey.

    Args:
        noisy: (n, 3, h, w), like the others.
        output: of the network.
        clean: the target.
        scale: how many times each pixel is repeated.
        simple: `simple_output(noisy)`, if it is known.

    Returns:
        uint8 of shape (height, width, 3).
    """
    noisy, output, clean = (images.detach().float().cpu() for images in (noisy, output, clean))
    output = output.clamp(0, 1)
    simple = (simple_output(noisy) if simple is None else simple).clamp(0, 1)
    error = (output - clean).abs().mean(dim=1, keepdim=True).expand_as(clean) * ERROR_SCALE
    columns = [noisy, simple, output, clean, error]
    captions = [[f"{value:.2f} dB" for value in psnr_per_image(images, clean)] for images in columns[:3]]
    captions += [[""] * len(clean), [f"white is {1 / ERROR_SCALE:g}"] * len(clean)]
    return grid(COLUMNS, columns, captions, scale)


def grid(
    heads: Sequence[str], columns: Sequence[Tensor], captions: Sequence[Sequence[str]], scale: int
) -> NDArray[np.uint8]:
    """Return columns of images side by side, each with a head, and a caption under each image.

    Args:
        heads: of the columns.
        columns: (n, 3, h, w) each, float32 on the CPU; clamped to [0, 1].
        captions: n for each column.
        scale: how many times each pixel is repeated.

    Returns:
        uint8 of shape (height, width, 3).
    """
    from PIL import Image, ImageDraw

    n, _, h, w = columns[0].shape
    h, w = h * scale, w * scale
    across, down = w + _GAP, h + _CAPTION + _GAP
    canvas = np.full((_HEADER + n * down, len(columns) * across - _GAP, 3), _WHITE, np.uint8)
    for column, images in enumerate(columns):
        pixels = images.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        for row, picture in enumerate(pixels.repeat(scale, axis=1).repeat(scale, axis=2)):
            top, left = _HEADER + row * down, column * across
            canvas[top : top + h, left : left + w] = picture
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for column, name in enumerate(heads):
        middle = column * across + w / 2
        _write(draw, middle, _HEADER / 2, name, w)
        for row, caption in enumerate(captions[column]):
            _write(draw, middle, _HEADER + row * down + h + _CAPTION / 2, caption, w)
    return np.asarray(image)


def _write(draw: "ImageDraw.ImageDraw", x: float, y: float, text: str, width: int) -> None:
    """Write a text around a point, in a font that is small enough for the width; what is still too long is cut."""
    size = 14
    while size > 8 and draw.textlength(text, font_size=size) > width:
        size -= 1
    if draw.textlength(text, font_size=size) > width:
        while text and draw.textlength(f"{text}...", font_size=size) > width:
            text = text[:-1]
        text = f"{text.rstrip()}..."
    draw.text((x, y), text, fill=(0, 0, 0), anchor="mm", font_size=size)


def _label_levels(axes: "Axes", levels: Mapping[str, float]) -> None:
    """Write the name and the value of each horizontal line beside it, right of the axes, without overlaps."""
    to_axes = axes.transData + axes.transAxes.inverted()
    places = {name: float(to_axes.transform((1, level))[1]) for name, level in levels.items()}
    highest = 2.0
    for name in sorted(places, key=lambda name: -places[name]):
        highest = min(places[name], highest - _LABEL_GAP)
        color, _ = _LEVELS.get(name, _OTHER_LEVEL)
        text = f"{name} {levels[name]:.4g}"
        axes.text(1.01, highest, text, color=color, fontsize=9, va="center", transform=axes.transAxes)


def curves(
    series: Mapping[str, Sequence[tuple[int, float]]],
    ylabel: str,
    levels: Mapping[str, float] | None = None,
    log_scale: bool = False,
    title: str = "",
) -> "Figure":
    """Return a figure with curves over the optimizer's step, and labelled horizontal lines.

    Args:
        series: name -> (step, value).
        ylabel: of the vertical axis.
        levels: name -> value of each horizontal line, for example of the baselines.
        log_scale: whether the vertical axis is logarithmic, unless no value is positive.
        title: of the figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for (name, points), color in zip(series.items(), _SERIES, strict=False):
        steps, values = zip(*points, strict=True) if points else ((), ())
        many = len(points) > 200
        axes.plot(
            steps, values, label=name, color=color, linewidth=0.6 if many else 1.8, alpha=0.6 if many else 1, zorder=3
        )
    for name, level in (levels or {}).items():
        color, style = _LEVELS.get(name, _OTHER_LEVEL)
        axes.axhline(level, linestyle=style, linewidth=1.3, color=color)
    if log_scale and any(value > 0 for points in series.values() for _, value in points):
        axes.set_yscale("log")
    axes.margins(y=0.08)  # no line lies on the frame
    _label_levels(axes, levels or {})
    axes.set(xlabel="optimizer step", ylabel=ylabel)
    if title:
        axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
