"""Crops are real windows of the pictures: the gather's index arithmetic against slicing."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from scratch_dl.data import DataError, Pixelation

SIZES = [pytest.param(8, id="square"), pytest.param((6, 9), id="oblong"), pytest.param((20, 20), id="whole-height")]
SHARES = {"validation_share": 0.3, "test_share": 0.3}


@pytest.fixture
def folder(tmp_path):
    """Five pictures of different sizes, no two pixels alike, so that a crop's place shows in its values."""
    rng = np.random.default_rng(0)
    for i in range(5):
        pixels = rng.integers(0, 256, (41 + 3 * i, 52 - 2 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return tmp_path


def _windows(clean, h, w):
    """Every h x w window of (3, H, W), one a row."""
    return clean.unfold(1, h, 1).unfold(2, w, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3 * h * w)


@pytest.mark.parametrize("size", SIZES)
def test_validation_crops_are_windows_of_the_validation_pictures(build, folder, size):
    data = build("folder", path=str(folder), crop_size=size, validation_crops=30, **SHARES)
    windows = torch.cat([_windows(picture.clean, *data.crop_size) for picture in data.photographs("validation")])
    for crop in data.validation[1]:
        assert (windows == crop.flatten()).all(dim=1).any()


@pytest.mark.parametrize("size", SIZES)
def test_training_crops_are_windows_in_all_eight_positions_and_six_orders_of_the_channels(build, folder, size):
    data = build("folder", path=str(folder), crop_size=size, target="clean", **SHARES)
    h, w = data.crop_size
    everything = [data._shrink(pixels)[0].permute(2, 0, 1) for pixels in data._pictures("train").values()]
    seen = set()
    views = [
        (flip, turn, order)
        for flip in ((), (1,), (2,), (1, 2))
        for turn in (False, True)
        for order in itertools.permutations(range(3))
    ]
    known = {
        (flip, turn, order): torch.cat(
            [_windows((p.transpose(1, 2) if turn else p).flip(flip)[list(order)], h, w) for p in everything]
        )
        for flip, turn, order in views
    }
    for crop in data.batch(0, 400, seed=0)[1]:
        found = {view for view, windows in known.items() if (windows == crop.flatten()).all(dim=1).any()}
        assert found, "the crop is no window of a training picture"
        seen |= found
    assert seen == set(views)


def test_without_augmentation_crops_lie_as_in_the_picture(build, folder):
    data = build("folder", path=str(folder), crop_size=8, target="clean", augment=False, **SHARES)
    windows = torch.cat([_windows(data._shrink(p)[0].permute(2, 0, 1), 8, 8) for p in data._pictures("train").values()])
    assert all((windows == crop.flatten()).all(dim=1).any() for crop in data.batch(0, 30, seed=0)[1])


def test_downsampling_is_the_mean_of_each_square_and_crops_the_rest(build, folder):
    data = build("folder", path=str(folder), crop_size=8, downsample=3, **SHARES)
    photograph = data.photographs("validation")[0]
    pixels = np.asarray(Image.open(folder / photograph.name), dtype=np.float64) / 255
    height, width = pixels.shape[0] // 3, pixels.shape[1] // 3
    assert photograph.clean.shape == (3, height, width)
    row, column = height - 1, width - 1
    expected = pixels[3 * row : 3 * row + 3, 3 * column : 3 * column + 3].mean(axis=(0, 1))
    torch.testing.assert_close(photograph.clean[:, row, column].double(), torch.from_numpy(expected), atol=1e-6, rtol=0)


def test_pixelation_takes_original_pixels_of_the_right_square(build, folder):
    data = build("folder", Pixelation(), path=str(folder), crop_size=8, **SHARES)
    for name, noisy, _ in data.photographs("validation"):
        pixels = torch.from_numpy(np.asarray(Image.open(folder / name), dtype=np.float32) / 255).permute(2, 0, 1)
        near = [pixels[:, i::2, j::2][:, : noisy.shape[1], : noisy.shape[2]] for i in (0, 1) for j in (0, 1)]
        assert torch.stack([(noisy == square).all(dim=0) for square in near]).any(dim=0).all()
    input, target = data.batch(0, 16, seed=0)
    originals = {
        order: {
            tuple(pixel)
            for image in data._pictures("train").values()
            for pixel in image[..., list(order)].reshape(-1, 3).tolist()
        }
        for order in itertools.permutations(range(3))
    }
    for pair in zip(input, target, strict=True):  # the two of a pair have their channels exchanged alike
        drawn = (torch.stack(pair) * 255).round().long().permute(0, 2, 3, 1).reshape(-1, 3).tolist()
        assert any({tuple(pixel) for pixel in drawn} <= known for known in originals.values())


def test_every_picture_smaller_than_the_crop_is_named_when_the_data_set_is_made(build, folder):
    with pytest.raises(DataError, match=r"crop_size must fit .* 23x23 does not fit into .*\.png \(\d+x\d+\), .*\.png"):
        build("folder", path=str(folder), crop_size=23, **SHARES)


def test_the_sizes_of_the_photographs_are_known_before_they_are_read(build, folder):
    data = build("folder", path=str(folder), crop_size=8, downsample=3, **SHARES)
    for split in ("validation", "test"):
        sizes = data.photograph_sizes(split)
        assert sizes == {name: tuple(clean.shape[1:]) for name, _, clean in data.photographs(split)}
