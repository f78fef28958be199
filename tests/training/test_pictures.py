"""The composite picture and the curves."""

import numpy as np
import torch

from scratch_dl.training.pictures import composite, curves


def test_the_composite_has_noisy_output_clean_and_error_side_by_side():
    noisy, output, clean = (torch.full((2, 3, 5, 7), value) for value in (-0.5, 0.6, 0.5))
    picture = composite(noisy, output, clean, scale=3)
    assert picture.dtype == np.uint8
    assert picture.shape == (22 + 2 * (15 + 6), 4 * (21 + 6) - 6, 3)
    columns = [picture[22, column * 27 + 1].tolist() for column in range(4)]
    assert columns == [[0] * 3, [153] * 3, [128] * 3, [102] * 3]


def test_curves_have_a_line_a_series_and_a_level():
    figure = curves({"network": [(0, 11.0), (10, 20.0)], "empty": []}, "dB", {"blur": 15.0})
    axes = figure.axes[0]
    assert len(axes.lines) == 3
    assert axes.get_xlabel() == "optimizer step"


def test_losses_of_zero_are_drawn_without_a_warning():
    """They have no logarithm."""
    figure = curves({"training": [(1, 0.0), (2, 0.0)], "validation": []}, "mean squared error", log_scale=True)
    assert figure.axes[0].get_yscale() == "linear"
