"""A picture from a file and back: its colours as the network takes them, and everything else as it was."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from torch import Tensor

from scratch_dl.data.files import SUFFIXES, each, opened
from scratch_dl.denoising import deep
from scratch_dl.system.files import write_atomically

MARK = ".denoised"
_LARGEST = {"uint8": 255, "uint16": 65535}
_ORIENTATION = 0x0112
# Description, make, model, orientation, software, date, artist and copyright.
_TIFF_TAGS = {0x010E, 0x010F, 0x0110, _ORIENTATION, 0x0131, 0x0132, 0x013B, 0x8298}
_OPAQUE = (".jpg", ".jpeg")
_JPEG = {"quality": 95, "subsampling": 0}
_OPTIONS: dict[str, dict[str, Any]] = {".jpg": _JPEG, ".jpeg": _JPEG, ".webp": {"lossless": True}}


@dataclass(frozen=True)
class Picture:
    """A picture in memory.

    Attributes:
        colours: (3, H, W) in [0, 1], float32; a grey picture has three equal channels.
        grey: whether it is grey.
        largest: the number that is white in the file, 255 or 65535.
        alpha: (H, W) uint8, or uint16 beside 16-bit colours; None if the picture is opaque.
        metadata: EXIF data (with the orientation) and ICC profile, as Pillow's `save` takes them.
    """

    colours: Tensor
    grey: bool
    largest: int
    alpha: NDArray[Any] | None
    metadata: dict[str, Any]


def check_pictures(paths: Sequence[Path], max_pixels: int | None) -> None:
    """Check pictures by their headers; no picture is decoded.

    Raises:
        DataError: naming every file that cannot be used, at once.
    """

    def check(path: Path) -> None:
        with opened(path, max_pixels, "max_pixels") as image:
            _check_depth(image)

    each({str(path): path for path in paths}, check)


def read_picture(path: Path, max_pixels: int | None, suffix: str | None = None) -> Picture:
    """Read a file; of several frames, the first one.

    The pixels stay as they are stored: an EXIF orientation is kept, not applied; only a TIFF file's are turned upright.

    Args:
        path: of the file.
        max_pixels: how many pixels it may have; None: any number.
        suffix: of the file that is to be written, if it must be able to have what this one has.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is empty or too large, or has numbers or an alpha channel that cannot be kept.
    """
    with opened(path, max_pixels, "max_pixels") as image:
        _check_depth(image)
        is_deep = deep.is_deep(image)
        if is_deep and suffix is not None:
            _check_deep_suffix(suffix)
        tiff = _tiff_exif(image) if image.format == "TIFF" else {}
        image.load()
        # Only now, as a PNG file may have them behind its pixels.
        metadata = {key: image.info[key] for key in ("exif", "icc_profile") if image.info.get(key)} | tiff
        if image.mode.startswith("I"):
            return Picture(_colours(_checked(np.asarray(image)), 65535), True, 65535, None, metadata)
        if is_deep:
            with opened(path, max_pixels, "max_pixels") as again:
                pixels = deep.decode(image, again)
            alpha = pixels[:, :, 3].copy() if pixels.shape[2] == 4 else None
            return Picture(_colours(pixels[:, :, :3], 65535), False, 65535, alpha, metadata)
        has_alpha = "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info
        grey = image.mode in ("1", "L", "LA", "La")
        if image.mode in ("CMYK", "LAB"):
            metadata.pop("icc_profile", None)  # it describes those colours
        pixels = np.asarray(image.convert(("LA" if has_alpha else "L") if grey else "RGBA" if has_alpha else "RGB"))
        if has_alpha and suffix is not None and suffix.lower() in _OPAQUE:
            raise ValueError(f"a {suffix} file cannot have its alpha channel; choose another suffix")
        alpha = pixels[:, :, -1].copy() if has_alpha else None
        return Picture(_colours(pixels[:, :, :-1] if has_alpha else pixels, 255), grey, 255, alpha, metadata)


def write_picture(path: Path, picture: Picture, colours: Tensor) -> None:
    """Write new colours in the place of those of a picture: grey or not, with its depth, alpha and metadata.

    A JPEG file gets quality 95.

    Args:
        path: of the file, which is written completely or not at all.
        picture: that was read.
        colours: (3, H, W); clamped to [0, 1].

    Raises:
        OSError: if it cannot be written.
        ValueError: if the format of the suffix cannot have such a picture.
    """
    scaled = colours.clamp(0, 1).permute(1, 2, 0).numpy() * np.float32(picture.largest)
    if picture.grey:
        scaled = scaled.mean(axis=2, keepdims=True)
    pixels = np.rint(scaled).astype(np.uint8 if picture.largest == 255 else np.uint16)
    if picture.alpha is not None:
        pixels = np.concatenate([pixels, picture.alpha[:, :, None]], axis=2)
    if pixels.dtype == np.uint16 and pixels.shape[2] > 1:
        _check_deep_suffix(path.suffix)
        write_atomically(path, _encoded(pixels, picture.metadata, path.suffix))
        return
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    options: dict[str, Any] = {**picture.metadata, **_OPTIONS.get(path.suffix.lower(), {})}
    try:
        image.save(buffer, format=Image.registered_extensions()[path.suffix.lower()], **options)
    except (OSError, KeyError) as error:
        raise ValueError(f"a {path.suffix} file cannot have such a picture ({error}); choose another suffix") from error
    write_atomically(path, buffer.getbuffer())


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder, in order, without those that `default_output` names."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    return [path for path in files if not path.stem.endswith(MARK)]


def default_output(path: Path) -> Path:
    """Return photo.denoised.png for photo.png; a GIF, which has 256 colours only, becomes a PNG."""
    suffix = ".png" if path.suffix.lower() == ".gif" else path.suffix
    return path.with_name(f"{path.stem}{MARK}{suffix}")


def _tiff_exif(image: Image.Image) -> dict[str, bytes]:
    """Return as EXIF data those tags of a TIFF file that do not describe its pixels, which Pillow turns upright."""
    kept, exif = Image.Exif(), image.getexif()
    for tag in (_TIFF_TAGS - {_ORIENTATION}) & exif.keys():
        kept[tag] = exif[tag]
    return {"exif": kept.tobytes()}


def _check_depth(image: ImageFile) -> None:
    """Refuse 16-bit numbers of which only 8 bits can be read."""
    if deep.is_deep(image) and not deep.can_decode(image):
        raise ValueError(
            "only 8 of its 16 bits could be read; save it as RGB or RGBA in interleaved order, or as 16-bit grey"
        )


def _check_deep_suffix(suffix: str) -> None:
    if suffix.lower() not in deep.SUFFIXES:
        raise ValueError(f"a {suffix} file cannot have its 16-bit colours; choose {', '.join(deep.SUFFIXES)}")


def _encoded(pixels: NDArray[Any], metadata: dict[str, Any], suffix: str) -> bytes:
    """The content of a PNG or TIFF file."""
    if suffix.lower() == ".png":
        return deep.encode_png(pixels, metadata)
    exif = Image.Exif()
    exif.load(metadata.get("exif", b""))
    return deep.encode_tiff(pixels, metadata, {tag: exif[tag] for tag in _TIFF_TAGS & exif.keys()})


def _checked(grey: NDArray[Any]) -> NDArray[Any]:
    if grey.min() < 0 or grey.max() > _LARGEST["uint16"]:
        raise ValueError(f"numbers must be in [0, 65535], but are in [{grey.min()}, {grey.max()}]")
    return grey


def _colours(pixels: NDArray[Any], largest: int) -> Tensor:
    scaled = pixels.astype(np.float32) / largest
    if scaled.ndim == 2:
        scaled = scaled[:, :, None]
    return torch.from_numpy(np.ascontiguousarray(np.broadcast_to(scaled, (*scaled.shape[:2], 3)).transpose(2, 0, 1)))
