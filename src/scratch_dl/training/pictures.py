"""Pictures of a run: images side by side, and curves."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("noisy", "output", "clean", "error x4")
_GAP, _HEADER, _WHITE = 6, 22, 255


def composite(noisy: Tensor, output: Tensor, clean: Tensor, scale: int) -> NDArray[np.uint8]:
    """Return rows of noisy | output | clean | |error| x 4, one row per image.

    Args:
        noisy: (n, 3, h, w), like the others.
        output: of the network.
        clean: the target.
        scale: how many times each pixel is repeated.

    Returns:
        uint8 of shape (height, width, 3).
    """
    from PIL import Image, ImageDraw

    columns = [noisy, output, clean, (output - clean).abs() * 4]
    n, _, h, w = clean.shape
    h, w = h * scale, w * scale
    canvas = np.full((_HEADER + n * (h + _GAP), 4 * (w + _GAP) - _GAP, 3), _WHITE, np.uint8)
    for column, images in enumerate(columns):
        pixels = images.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        for row, picture in enumerate(pixels.repeat(scale, axis=1).repeat(scale, axis=2)):
            top, left = _HEADER + row * (h + _GAP), column * (w + _GAP)
            canvas[top : top + h, left : left + w] = picture
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for column, name in enumerate(COLUMNS):
        draw.text((column * (w + _GAP) + w / 2, _HEADER / 2), name, fill=(0, 0, 0), anchor="mm", font_size=14)
    return np.asarray(image)


def curves(
    series: Mapping[str, Sequence[tuple[int, float]]],
    ylabel: str,
    levels: Mapping[str, float] | None = None,
    log_scale: bool = False,
) -> "Figure":
    """Return a figure with curves over the optimizer's step, and horizontal lines for the baselines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for name, points in series.items():
        steps, values = zip(*points, strict=True) if points else ((), ())
        many = len(points) > 200
        axes.plot(steps, values, label=name, linewidth=0.6 if many else 1.8, alpha=0.6 if many else 1)
    for position, (name, level) in enumerate((levels or {}).items()):
        axes.axhline(
            level, linestyle="--", linewidth=1, color=f"C{len(series) + position}", label=f"{name} {level:.2f}"
        )
    if log_scale and any(value > 0 for points in series.values() for _, value in points):
        axes.set_yscale("log")
    axes.set(xlabel="optimizer step", ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
