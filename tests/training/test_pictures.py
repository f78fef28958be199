"""The composite picture and the curves."""

import itertools

import numpy as np
import torch

from scratch_dl.training import pictures
from scratch_dl.training.pictures import composite, curves


def test_the_composite_has_a_column_each_and_the_error_in_grey():
    noisy, output, clean = (torch.full((2, 3, 32, 40), value) for value in (-0.5, 0.6, 0.5))
    output[:, 0] = 0.8
    picture = composite(noisy, output, clean, scale=2)
    assert picture.dtype == np.uint8
    assert picture.shape == (22 + 2 * (64 + 18 + 6), 5 * (80 + 6) - 6, 3)
    columns = [picture[30, column * 86 + 1].tolist() for column in range(5)]
    # The mean of |error| over the channels is (0.3 + 0.1 + 0.1) / 3; it is drawn four times as bright.
    assert columns == [[0] * 3, [0] * 3, [204, 153, 153], [128] * 3, [170] * 3]


def test_each_picture_has_its_psnr_below(monkeypatch):
    written = []
    monkeypatch.setattr(pictures, "_write", lambda *arguments: written.append(arguments[3]))
    clean = torch.full((1, 3, 32, 32), 0.5)
    simple = torch.full_like(clean, 0.51)
    composite(clean + 0.1, torch.full_like(clean, 1.2), clean, scale=1, simple=simple)
    # The output counts as 1, as it is seen; white is the error 1 / 4.
    assert [text for text in written if text and text not in pictures.COLUMNS] == [
        "20.00 dB", "40.00 dB", "6.02 dB", "white is 0.25"
    ]  # fmt: skip


def test_curves_have_a_line_a_series_and_a_level():
    figure = curves({"network": [(0, 11.0), (10, 20.0)], "empty": []}, "dB", {"blur": 15.0}, title="paper")
    axes = figure.axes[0]
    assert len(axes.lines) == 3
    assert axes.get_xlabel() == "optimizer step"
    assert axes.get_title() == "paper"
    assert [text.get_text() for text in axes.texts] == ["blur 15"]


def test_levels_that_lie_close_together_are_labelled_one_below_the_other():
    levels = {"noisy": 20.0, "blur": 27.3, "tv": 28.61, "nlm": 28.6}
    axes = curves({"network": [(0, 11.0), (10, 28.62)]}, "dB", levels).axes[0]
    places = [
        text.get_position()[1] for text in sorted(axes.texts, key=lambda text: -levels[text.get_text().split()[0]])
    ]
    assert all(above - below > 0.049 for above, below in itertools.pairwise(places))
    # No line lies on the frame, and no two look the same.
    low, high = axes.get_ylim()
    assert all(low < line.get_ydata()[0] < high for line in axes.lines)
    assert len({(line.get_color(), str(line.get_linestyle())) for line in axes.lines}) == 5


def test_losses_of_zero_are_drawn_without_a_warning():
    """They have no logarithm."""
    figure = curves({"training": [(1, 0.0), (2, 0.0)], "validation": []}, "mean squared error", log_scale=True)
    assert figure.axes[0].get_yscale() == "linear"
