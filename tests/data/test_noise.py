"""Each noise has the mean and spread that its docstring states."""

import math

import pytest
import torch

from scratch_dl.data import Gaussian, Pixelation, Poisson, Recorded, SaltPepper

GREY, SHAPE = 0.25, (8, 3, 48, 40)
MOMENTS = [
    pytest.param(Gaussian(std=0.1), GREY, 0.1, id="gaussian"),
    pytest.param(Poisson(peak=30), GREY, math.sqrt(GREY / 30), id="poisson"),
    # 0.8 x grey + 0.1 x 1, and E[x^2] = 0.8 grey^2 + 0.1
    pytest.param(SaltPepper(probability=0.2), 0.3, math.sqrt(0.8 * GREY**2 + 0.1 - 0.09), id="salt-pepper-is-biased"),
]
REFUSED = [
    pytest.param(Gaussian, {"std": 0}, "std must be .*> 0", id="std-0"),
    pytest.param(Gaussian, {"std": math.nan}, "std must be a finite", id="std-nan"),
    pytest.param(Poisson, {"peak": -1}, "peak must be .*> 0", id="peak-negative"),
    pytest.param(SaltPepper, {"probability": 1.5}, "probability must be .*<= 1", id="probability-above-1"),
    pytest.param(SaltPepper, {"probability": 0}, "probability must be .*> 0", id="probability-0"),
]


@pytest.mark.parametrize(("noise", "mean", "std"), MOMENTS)
def test_mean_and_spread_are_as_stated(noise, mean, std, generator):
    noisy = noise(torch.full(SHAPE, GREY), None, generator)
    assert noisy.mean().item() == pytest.approx(mean, abs=0.005)
    assert noisy.std().item() == pytest.approx(std, rel=0.03)


def test_noise_is_not_clipped(generator):
    noisy = Gaussian(std=0.1)(torch.ones(SHAPE), None, generator)
    assert noisy.max() > 1.2, noisy.max()


def test_pixelation_takes_all_three_channels_from_one_original_pixel(generator):
    subpixels = torch.rand(4, 4, 3, 6, 7, generator=generator)
    noisy = Pixelation()(subpixels.mean(dim=1), subpixels, generator)
    assert (noisy[:, None] == subpixels).all(dim=2).any(dim=1).all()


def test_pixelation_has_mean_zero_and_draws_each_original_pixel_as_often(generator):
    subpixels = torch.arange(4.0).view(1, 4, 1, 1, 1).expand(1, 4, 3, 200, 200)
    noisy = Pixelation()(subpixels.mean(dim=1), subpixels, generator)
    shares = noisy[0, 0].flatten().long().bincount() / 200**2
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.015, rtol=0)


@pytest.mark.parametrize("noise", [Gaussian(std=0.1), Poisson(peak=30), SaltPepper(probability=0.2), Pixelation()])
def test_a_seed_fixes_the_draw_and_the_clean_images_stay(noise):
    subpixels = torch.rand(2, 4, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    clean = subpixels.mean(dim=1)
    before = clean.clone()
    first, again, other = (noise(clean, subpixels, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(clean, before)


@pytest.mark.parametrize(("kind", "arguments", "message"), REFUSED)
def test_a_strength_out_of_range_is_refused(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


def test_recorded_adds_nothing_and_says_so(generator):
    with pytest.raises(ValueError, match="noise=recorded"):
        Recorded()(torch.zeros(1, 3, 4, 4), None, generator)
