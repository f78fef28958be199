"""16-bit colours, of which Pillow decodes only the high bytes, and which it cannot encode."""

import io
import re
import sys
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin

SUFFIXES = (".png", ".tif", ".tiff")
# Of each pair of bytes Pillow takes the high one, as the order of the bytes says; by the opposite order, the low one.
_OPPOSITE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_RAW = {f"{mode};16{order}": f"{mode};16{other}" for mode in ("RGB", "RGBA") for order, other in _OPPOSITE.items()}


def is_deep(image: Image.Image) -> bool:
    """Return whether an image that is not decoded yet has 16-bit numbers of which Pillow keeps 8 bits."""
    return not image.mode.startswith("I") and re.search(";16[BLN]", str(getattr(image, "tile", ""))) is not None


def can_decode(image: ImageFile.ImageFile) -> bool:
    """Return whether `decode` can read such an image: RGB or RGBA, and not a plane for each channel."""
    planes = getattr(image, "tag_v2", {}).get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) != 1
    return not planes and "transparency" not in image.info and all(_raw(tile[3])[0] in _RAW for tile in image.tile)


def decode(image: Image.Image, again: ImageFile.ImageFile) -> NDArray[np.uint16]:
    """(H, W, 3 or 4) of a file that was opened twice: the low bytes are read from `again`."""
    again.tile = [_with_low_bytes(tile) for tile in again.tile]
    high, low = np.asarray(image).astype(np.uint16), np.asarray(again).astype(np.uint16)
    return high << np.uint16(8) | low


def encode_png(pixels: NDArray[np.uint16], metadata: Mapping[str, bytes]) -> bytes:
    """(H, W, 3 or 4) -> a PNG file; `metadata` as Pillow's `save` takes them."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2", order="C").view(np.uint8).reshape(height, -1)
    rows[1:] -= rows[:-1].copy()  # filter 2: each row less the one above it
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), rows], axis=1)
    sides = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    chunks = {b"IHDR": sides + bytes([16, 2 if channels == 3 else 6, 0, 0, 0])}
    if "icc_profile" in metadata:
        chunks[b"iCCP"] = b"ICC Profile\0\0" + zlib.compress(metadata["icc_profile"])
    if "exif" in metadata:
        chunks[b"eXIf"] = metadata["exif"].removeprefix(b"Exif\0\0")
    file = io.BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    for kind, content in {**chunks, b"IDAT": zlib.compress(filtered.tobytes()), b"IEND": b""}.items():
        PngImagePlugin.putchunk(file, kind, content)
    return file.getvalue()


def encode_tiff(pixels: NDArray[np.uint16], metadata: Mapping[str, bytes], tags: Mapping[int, Any]) -> bytes:
    """(H, W, 3 or 4) -> a TIFF file with further `tags`; `metadata` as Pillow's `save` takes them."""
    height, width, channels = pixels.shape
    data, names = zlib.compress(pixels.astype("<u2").tobytes()), TiffImagePlugin
    directory = names.ImageFileDirectory_v2()
    values = {
        **tags,
        names.IMAGEWIDTH: width,
        names.IMAGELENGTH: height,
        names.BITSPERSAMPLE: (16,) * channels,
        names.COMPRESSION: 8,  # deflate
        names.PHOTOMETRIC_INTERPRETATION: 2,  # RGB
        names.STRIPOFFSETS: 0,  # the data begin where the directory ends
        names.SAMPLESPERPIXEL: channels,
        names.ROWSPERSTRIP: height,
        names.STRIPBYTECOUNTS: len(data),
        **({names.EXTRASAMPLES: 2} if channels == 4 else {}),  # alpha that is not premultiplied
        **({names.ICCPROFILE: metadata["icc_profile"]} if "icc_profile" in metadata else {}),
    }
    for tag, value in values.items():
        directory[tag] = value
    file = io.BytesIO()
    directory.save(file)
    return file.getvalue() + data


def _raw(args: Any) -> tuple[Any, ...]:
    """The arguments of a decoder, of which the first says how the pixels are packed."""
    return (args,) if isinstance(args, str) else tuple(args)


def _with_low_bytes(tile: Any) -> Any:
    """What is to be decoded where, from the low bytes; older versions of Pillow have it as a plain tuple."""
    packed, *others = _raw(tile[3])
    args = (_RAW[packed], *others)
    return tile._replace(args=args) if hasattr(tile, "_replace") else (*tile[:3], args)
