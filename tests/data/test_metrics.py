"""PSNR and SSIM against their definitions and scikit-image."""

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from scratch_dl.data.metrics import psnr_db, psnr_per_image, psnr_pooled_db, ssim


@pytest.fixture
def pair(generator):
    """(output, clean), (5, 3, 17, 23), each image with a noise of its own strength."""
    clean = torch.rand(5, 3, 17, 23, generator=generator)
    strength = torch.tensor([0.01, 0.05, 0.1, 0.2, 0.4]).view(5, 1, 1, 1)
    return clean + strength * torch.randn(clean.shape, generator=generator), clean


def test_psnr_of_each_image_matches_scikit_image(pair):
    expected = [peak_signal_noise_ratio(b.numpy(), a.numpy(), data_range=1) for a, b in zip(*pair, strict=True)]
    assert psnr_per_image(*pair).tolist() == pytest.approx(expected, abs=1e-4)
    assert psnr_db(*pair) == pytest.approx(sum(expected) / 5, abs=1e-4)


def test_pooled_psnr_averages_the_error_first(pair):
    mse = (pair[0] - pair[1]).double().square().mean().item()
    assert psnr_pooled_db(*pair) == pytest.approx(-10 * math.log10(mse), abs=1e-4)
    assert psnr_pooled_db(*pair) < psnr_db(*pair)


def test_ssim_matches_scikit_image(pair):
    expected = [
        structural_similarity(a.numpy(), b.numpy(), data_range=1, channel_axis=0) for a, b in zip(*pair, strict=True)
    ]
    assert ssim(*pair) == pytest.approx(sum(expected) / 5, abs=1e-6)


def test_equal_pictures_score_infinity_and_one(pair):
    assert psnr_db(pair[1], pair[1]) == math.inf
    assert psnr_pooled_db(pair[1], pair[1]) == math.inf
    assert ssim(pair[1], pair[1]) == pytest.approx(1)


def test_nothing_is_clamped():
    clean = torch.ones(1, 3, 8, 8)
    assert psnr_db(clean + 0.1, clean) == pytest.approx(20, abs=1e-4)


@pytest.mark.parametrize("metric", [psnr_per_image, psnr_db, psnr_pooled_db, ssim])
def test_shapes_that_differ_are_refused_with_both(metric, pair):
    with pytest.raises(ValueError, match=r"\(1, 3, 17, 23\).*\(5, 3, 17, 23\)"):
        metric(pair[0][:1], pair[1])
