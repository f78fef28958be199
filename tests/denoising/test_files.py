"""What comes out of a file goes into one of the same kind: depth, alpha, orientation and colour profile."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from scratch_dl.data.dataset import DataError
from scratch_dl.denoising.files import check_pictures, default_output, pictures_in, read_picture, write_picture

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (9, 14, 4), dtype=np.uint8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def palette():
    image = Image.fromarray(COLOURS[:, :, :3]).quantize(16)
    image.info["transparency"] = 3
    return image


def oriented():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


IMAGES = [
    pytest.param(Image.fromarray(COLOURS[:, :, 0]), "png", "L", id="grey"),
    pytest.param(Image.fromarray(COLOURS[:, :, 0] > 128), "png", "L", id="bilevel"),
    pytest.param(Image.fromarray(COLOURS[:, :, :2].copy(), "LA"), "png", "LA", id="grey-alpha"),
    pytest.param(Image.fromarray(COLOURS[:, :, :3]), "png", "RGB", id="colour"),
    pytest.param(Image.fromarray(COLOURS), "png", "RGBA", id="alpha"),
    pytest.param(Image.fromarray(COLOURS), "tif", "RGBA", id="alpha-tiff"),
    pytest.param(Image.fromarray(COLOURS), "webp", "RGBA", id="alpha-webp"),
    pytest.param(Image.fromarray(COLOURS[:, :, :3]), "bmp", "RGB", id="bmp"),
    pytest.param(palette(), "png", "RGBA", id="palette"),
    pytest.param(Image.fromarray(RNG.integers(0, 65536, (9, 14), dtype=np.uint16)), "png", "I;16", id="16-bit"),
    pytest.param(Image.fromarray(RNG.integers(0, 65536, (9, 14), dtype=np.uint16)), "tiff", "I;16", id="16-bit-tiff"),
]


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize(("image", "suffix", "mode"), IMAGES)
def test_unchanged_colours_come_back_unchanged(image, suffix, mode, tmp_path):
    source, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    image.save(source, **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    picture = read_picture(source, None)
    assert picture.colours.shape == (3, 9, 14)
    assert picture.colours.dtype == torch.float32
    write_picture(target, picture, picture.colours)
    with Image.open(source) as before, Image.open(target) as after:
        assert after.mode == mode
        assert after.size == before.size
        if suffix != "webp":  # which drops the colours of transparent pixels
            assert np.array_equal(np.asarray(after), np.asarray(before if mode == "I;16" else before.convert(mode)))
        if "A" in mode:
            assert np.array_equal(after.getchannel("A"), before.convert(mode).getchannel("A"))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_orientation_and_profile_are_kept(suffix, tmp_path):
    """The pixels stay as they are stored, so that the orientation still says how to turn them."""
    source, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    Image.fromarray(COLOURS[:, :, :3]).save(source, exif=oriented(), icc_profile=PROFILE)
    picture = read_picture(source, None)
    write_picture(target, picture, 1 - picture.colours)
    with Image.open(target) as after:
        assert after.getexif()[0x0112] == 6
        assert after.info["icc_profile"] == PROFILE
        assert after.size == (14, 9)


def test_metadata_behind_the_pixels_are_kept(tmp_path):
    """As the PNG specification permits."""
    Image.fromarray(COLOURS[:, :, :3]).save(tmp_path / "a.png", exif=oriented())
    content = (tmp_path / "a.png").read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4])
    chunk = content[start:end]
    place = content.index(b"IEND") - 4
    (tmp_path / "b.png").write_bytes(content[:start] + content[end:place] + chunk + content[place:])
    write_picture(tmp_path / "c.png", picture := read_picture(tmp_path / "b.png", None), picture.colours)
    with Image.open(tmp_path / "c.png") as after:
        assert after.getexif()[0x0112] == 6


def test_what_lies_beyond_white_and_black_is_clamped_and_grey_is_the_mean_of_the_channels(tmp_path):
    Image.fromarray(np.full((2, 2), 100, np.uint8)).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png", None)
    new = torch.tensor([0.2, 0.5, 1.7])[:, None, None].expand(3, 2, 2)
    write_picture(tmp_path / "b.png", picture, new)
    with Image.open(tmp_path / "b.png") as after:
        assert np.asarray(after).tolist() == [[round((0.2 + 0.5 + 1.0) / 3 * 255)] * 2] * 2


def png_of_16_bit_colours():
    """As a file of 1x1 pixels by the PNG specification."""
    import struct
    import zlib

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + struct.pack(">HHH", 1, 257, 65535))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_every_file_that_cannot_be_used_is_named_before_any_is_read(tmp_path):
    (tmp_path / "deep.png").write_bytes(png_of_16_bit_colours())
    (tmp_path / "text.png").write_text("no picture")
    Image.new("L", (30, 40)).save(tmp_path / "large.png")
    Image.new("L", (3, 4)).save(tmp_path / "good.png")
    with pytest.raises(DataError) as refused:
        check_pictures(sorted(tmp_path.iterdir()), 1000)
    said = str(refused.value)
    assert said.startswith("3 of 4 pictures cannot be used: ")
    assert "deep.png (of 16-bit colours only 8 bits would be kept; save it with 8 bits, or as 16-bit grey)" in said
    assert "large.png (its 30x40 = 1200 pixels are more than max_pixels=1000)" in said
    assert "text.png (no image that can be read)" in said


def test_alpha_has_no_place_in_a_jpeg(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png", None)
    with pytest.raises(ValueError, match=r"a \.jpg file cannot have such a picture \(.*\); choose another suffix"):
        write_picture(tmp_path / "b.jpg", picture, picture.colours)
    assert not (tmp_path / "b.jpg").exists()


def test_the_outputs_of_a_folder_are_not_its_inputs(tmp_path):
    for name in ("b.png", "a.JPG", "a.denoised.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "c.png").mkdir()
    assert [path.name for path in pictures_in(tmp_path)] == ["a.JPG", "b.png"]
    assert default_output(tmp_path / "a.JPG").name == "a.denoised.JPG"
    assert default_output(tmp_path / "a.b.gif").name == "a.b.denoised.png"
