"""What comes out of a file goes into one of the same kind: depth, alpha, orientation and colour profile."""

import dataclasses
import io

import numpy as np
import pytest
import tifffile
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


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
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


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_tiff_file_that_says_how_it_is_to_be_turned_is_turned_once(depth, tmp_path):
    """Pillow turns its pixels, so that the tag must not be written again."""
    stored = (COLOURS if depth == np.uint8 else DEEP)[:, :, :3]
    (tmp_path / "a.tif").write_bytes(tiff(stored, extratags=[(0x0112, "H", 1, 6, True)], iccprofile=PROFILE))
    picture = read_picture(tmp_path / "a.tif", None)
    write_picture(tmp_path / "b.tif", picture, picture.colours)
    with tifffile.TiffFile(tmp_path / "b.tif") as after:
        assert 0x0112 not in after.pages[0].tags
        assert np.array_equal(after.asarray(), np.rot90(stored, -1))
        assert after.pages[0].iccprofile == PROFILE


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


DEEP = RNG.integers(0, 65536, (9, 14, 4), dtype=np.uint16)


def png_of_16_bits(pixels, colour_type, interlaced=False):
    """A file by the PNG specification, rows without a filter; interlaced by Adam7."""
    import struct
    import zlib

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    adam7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    passes = [pixels[y::down, x::across] for y, x, down, across in (adam7 if interlaced else ((0, 0, 1, 1),))]
    data = b"".join(b"\0" + row.astype(">u2").tobytes() for part in passes for row in part)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour_type, 0, 0, interlaced)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def tiff(pixels, **options):
    """A file that tifffile writes, a witness that knows nothing of Pillow."""
    file = io.BytesIO()
    extra = {"extrasamples": ["unassalpha"]} if pixels.shape[2] == 4 else {}
    tifffile.imwrite(file, pixels, photometric="rgb", **extra, **options)
    return file.getvalue()


DEEP_FILES = [
    pytest.param(png_of_16_bits(DEEP[:, :, :3], 2), ".png", 3, id="png"),
    pytest.param(png_of_16_bits(DEEP[:, :, :3], 2, interlaced=True), ".png", 3, id="png-interlaced"),
    pytest.param(png_of_16_bits(DEEP, 6), ".png", 4, id="png-alpha"),
    pytest.param(tiff(DEEP[:, :, :3], byteorder="<"), ".tif", 3, id="tiff"),
    pytest.param(tiff(DEEP[:, :, :3], byteorder=">"), ".TIFF", 3, id="tiff-big-endian"),
    pytest.param(tiff(DEEP[:, :, :3], rowsperstrip=2), ".tif", 3, id="tiff-strips"),
    pytest.param(tiff(DEEP, compression="zlib", predictor=True), ".tif", 4, id="tiff-packed-alpha"),
    pytest.param(tiff(DEEP, byteorder=">", compression="zlib"), ".tif", 4, id="tiff-big-endian-packed"),
]


@pytest.mark.parametrize("target", ["b.png", "b.tif"])
@pytest.mark.parametrize(("content", "suffix", "channels"), DEEP_FILES)
def test_every_bit_of_16_bit_colours_is_kept(content, suffix, channels, target, tmp_path):
    """Pillow itself reads the high bytes only; the files that are written are read by other programs' means."""
    source, target = tmp_path / f"a{suffix}", tmp_path / target
    source.write_bytes(content)
    check_pictures([source], None)
    picture = read_picture(source, None, target.suffix)
    expected = torch.from_numpy(DEEP[:, :, :3].astype(np.float32) / 65535).permute(2, 0, 1)
    assert torch.equal(picture.colours, expected)
    write_picture(target, picture, picture.colours)
    again = read_picture(target, None)
    assert torch.equal(again.colours, expected)
    assert (picture.alpha is None) == (again.alpha is None) == (channels == 3)
    with Image.open(target) as after:
        assert after.size == (14, 9)
        assert np.array_equal(np.asarray(after), DEEP[:, :, :channels] >> 8)
    if target.suffix == ".tif":
        assert np.array_equal(tifffile.imread(target), DEEP[:, :, :channels])
    else:
        assert np.array_equal(unfiltered(target.read_bytes()), DEEP[:, :, :channels])


def unfiltered(png):
    """The 16-bit numbers of a PNG file whose rows all have filter 2, read by the specification."""
    import zlib

    start = png.index(b"IDAT")
    rows = np.frombuffer(zlib.decompress(png[start + 4 : start + 4 + int.from_bytes(png[start - 4 : start])]), np.uint8)
    rows = rows.reshape(9, -1)
    assert (rows[:, 0] == 2).all()
    return np.ascontiguousarray(rows[:, 1:].cumsum(axis=0, dtype=np.uint8)).view(">u2").reshape(9, 14, -1)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_orientation_and_profile_are_kept_beside_16_bit_colours(suffix, tmp_path):
    Image.fromarray(COLOURS[:, :, :3]).save(tmp_path / "small.png", exif=oriented(), icc_profile=PROFILE)
    (tmp_path / "a.png").write_bytes(png_of_16_bits(DEEP, 6))
    metadata = read_picture(tmp_path / "small.png", None).metadata
    picture = dataclasses.replace(read_picture(tmp_path / "a.png", None), metadata=metadata)
    write_picture(tmp_path / f"b{suffix}", picture, picture.colours)
    with Image.open(tmp_path / f"b{suffix}") as after:
        assert after.getexif()[0x0112] == 6
        assert after.info["icc_profile"] == PROFILE


def test_16_bit_colours_have_no_place_in_other_formats(tmp_path):
    (tmp_path / "a.png").write_bytes(png_of_16_bits(DEEP, 6))
    message = r"a \.webp file cannot have its 16-bit colours; choose \.png, \.tif, \.tiff"
    with pytest.raises(ValueError, match=message):
        read_picture(tmp_path / "a.png", None, ".webp")
    picture = read_picture(tmp_path / "a.png", None)
    with pytest.raises(ValueError, match=message):
        write_picture(tmp_path / "b.webp", picture, picture.colours)
    assert not (tmp_path / "b.webp").exists()


def test_a_bmp_file_of_16_bits_a_pixel_is_read(tmp_path):
    """5, 6 and 5 bits are not 16-bit numbers."""
    import struct

    pixels = struct.pack("<4H", 0xFFFF, 0xF800, 0x07E0, 0x001F)
    header = struct.pack("<IiiHHIIiiII", 40, 4, 1, 1, 16, 3, 8, 0, 0, 0, 0) + struct.pack("<3I", 0xF800, 0x07E0, 0x001F)
    (tmp_path / "a.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 74, 0, 0, 66) + header + pixels)
    check_pictures([tmp_path / "a.bmp"], None)
    colours = read_picture(tmp_path / "a.bmp", None).colours[:, 0].T
    assert colours.tolist() == [[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


NOT_READ = [  # Pillow gives 8 bits of the first, and mixes up the planes of the second
    pytest.param(png_of_16_bits(DEEP[:, :, :2], 4), ".png", id="grey-alpha"),
    pytest.param(tiff(DEEP[:, :, :3].transpose(2, 0, 1), planarconfig="separate", compression="zlib"),
                 ".tif", id="planes"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "suffix"), NOT_READ)
def test_16_bits_that_cannot_all_be_read_are_refused(content, suffix, tmp_path):
    (tmp_path / f"deep{suffix}").write_bytes(content)
    with pytest.raises(DataError, match=r"deep.* \(only 8 of its 16 bits could be read; save it as RGB or RGBA in"):
        check_pictures([tmp_path / f"deep{suffix}"], None)


def test_every_file_that_cannot_be_used_is_named_before_any_is_read(tmp_path):
    (tmp_path / "deep.png").write_bytes(png_of_16_bits(DEEP[:, :, :2], 4))
    (tmp_path / "text.png").write_text("no picture")
    Image.new("L", (30, 40)).save(tmp_path / "large.png")
    Image.new("L", (3, 4)).save(tmp_path / "good.png")
    with pytest.raises(DataError) as refused:
        check_pictures(sorted(tmp_path.iterdir()), 1000)
    said = str(refused.value)
    assert said.startswith("3 of 4 pictures cannot be used: ")
    assert "deep.png (only 8 of its 16 bits could be read; " in said
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
