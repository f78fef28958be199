"""Image files of every kind come out as (H, W, 3), and every bad one is named."""

import numpy as np
import pytest
from PIL import Image

from scratch_dl.data import DataError
from scratch_dl.data.files import read, read_all

RED = np.full((4, 5, 3), (200, 10, 30), dtype=np.uint8)


def _palette(path):
    Image.fromarray(RED).quantize(8).save(path)


def _alpha(path):
    alpha = np.zeros((4, 5, 1), dtype=np.uint8)
    alpha[:, 3:] = 255
    Image.fromarray(np.concatenate([RED, alpha], axis=2)).save(path)


def test_grey_becomes_three_equal_channels(tmp_path):
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read(tmp_path / "grey.png"), np.repeat(grey[:, :, None], 3, axis=2))


def test_sixteen_bit_grey_keeps_its_bits(tmp_path):
    grey = (np.arange(20, dtype=np.uint16) * 3000).reshape(4, 5)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    pixels = read(tmp_path / "deep.png")
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels[:, :, 1], grey)


def test_a_palette_becomes_its_colours(tmp_path):
    _palette(tmp_path / "palette.png")
    assert np.array_equal(read(tmp_path / "palette.png"), RED)


def test_what_is_transparent_shows_white(tmp_path):
    _alpha(tmp_path / "alpha.png")
    pixels = read(tmp_path / "alpha.png")
    assert (pixels[:, :3] == 255).all()
    assert np.array_equal(pixels[:, 3:], RED[:, 3:])


def test_every_bad_file_is_named_at_once(tmp_path):
    Image.fromarray(RED).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    bad = {"empty.png": b"", "text.jpg": b"no image", "cut.png": whole[: len(whole) * 6 // 10]}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="4 of 5 pictures") as refusal:
        read_all({name: tmp_path / name for name in ("good.png", "missing.png", *bad)})
    message = str(refusal.value)
    assert all(name in message for name in ("missing.png", *bad)), message
    assert "good.png" not in message
    assert "\n" not in message


def test_floating_point_images_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 5), dtype=np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match="floating-point"):
        read(tmp_path / "float.tif")
