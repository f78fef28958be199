"""Image files to arrays (H, W, 3): grey becomes three equal channels, palettes their colours, alpha lies on white."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from scratch_dl.data.dataset import DataError
from scratch_dl.system.checks import Pair
from scratch_dl.terminal.console import progress

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif")
T = TypeVar("T")


def read_sizes(paths: Mapping[str, Path], max_pixels: int | None = None, cure: str = "") -> dict[str, Pair]:
    """Name -> (height, width), from the files' headers; no picture is decoded.

    Args:
        paths: name -> file.
        max_pixels: how many pixels a picture may have; None: any number.
        cure: ends the message of an error.

    Raises:
        DataError: naming every file that cannot be used, at once.
    """
    return each(paths, lambda path: _size(path, max_pixels), cure)


def read_all(paths: Mapping[str, Path], max_pixels: int | None = None, cure: str = "") -> dict[str, NDArray[Any]]:
    """Name -> (H, W, 3) uint8, or uint16 for 16-bit grey. Arguments and error as for `read_sizes`."""
    return each(paths, lambda path: read(path, max_pixels), cure)


def read_usable(paths: Mapping[str, Path], max_pixels: int | None) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the pictures that can be used, as `read_all` does, and name -> reason for the others."""
    return _attempt(paths, lambda path: read(path, max_pixels))


def read(path: Path, max_pixels: int | None = None) -> NDArray[Any]:
    """(H, W, 3) of one file, the first frame if it has several.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is empty or too large, or its numbers are of another kind.
    """
    with opened(path, max_pixels) as image:
        image.load()
        if image.mode.startswith("I;16") or image.mode == "I":
            grey = np.asarray(image)
            if grey.min() < 0 or grey.max() > np.iinfo(np.uint16).max:
                raise ValueError(f"numbers must be in [0, 65535], but are in [{grey.min()}, {grey.max()}]")
            return np.repeat(grey.astype(np.uint16)[:, :, None], 3, axis=2)
        if "A" in image.getbands() or "transparency" in image.info:
            layer = image.convert("RGBA")
            return np.asarray(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"))
        return np.asarray(image.convert("RGB"))


def shown(path: Path | str) -> str:
    """Return a file's name as a message can have it: in one line, whatever bytes it is made of."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def _size(path: Path, max_pixels: int | None) -> Pair:
    with opened(path, max_pixels) as image:
        return image.height, image.width


@contextmanager
def opened(path: Path, max_pixels: int | None, setting: str = "data.max_pixels") -> Iterator[ImageFile]:
    """Give an image whose header was read and is acceptable; nothing is decoded yet.

    Args:
        path: of the file.
        max_pixels: how many pixels it may have; None: any number.
        setting: that limits them, for the message.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is empty or too large, or its numbers are of another kind.
    """
    if not path.stat().st_size:
        raise ValueError("the file is empty")
    if not path.is_file():  # to open a pipe would wait for ever
        raise ValueError("it is not a file")
    # Pillow's own limit only warns, and cannot be raised by a setting.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path) as image:
            if max_pixels is not None and (pixels := image.width * image.height) > max_pixels:
                raise ValueError(
                    f"its {image.width}x{image.height} = {pixels} pixels are more than {setting}={max_pixels}"
                )
            if image.mode == "F":
                raise ValueError("floating-point images are not supported: save it with 8 or 16 bits")
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def listed(reasons: Mapping[str, str], most: int | None = None) -> str:
    """Return names and the reasons why each cannot be used, in one line; of more than `most`, the first ones."""
    words = [f"{shown(name)} ({reason})" for name, reason in reasons.items()]
    return "; ".join([*words[:most], *(["..."] if most is not None and len(words) > most else [])])


def each(paths: Mapping[str, Path], function: Callable[[Path], T], cure: str = "") -> dict[str, T]:
    """Return what a function makes of each file; `cure` ends the message of an error.

    Raises:
        DataError: naming every file that cannot be used, at once.
    """
    found, bad = _attempt(paths, function)
    if bad:
        words = listed({str(paths[name]): reason for name, reason in bad.items()})
        raise DataError(f"{len(bad)} of {len(paths)} pictures cannot be used: {words}{cure}")
    return found


def _attempt(paths: Mapping[str, Path], function: Callable[[Path], T]) -> tuple[dict[str, T], dict[str, str]]:
    """Return what a function makes of each file, and why it makes nothing of the others, by name."""
    found, bad = {}, {}
    with progress("reading pictures", len(paths)) as advance:
        for name, path in paths.items():
            try:
                found[name] = function(path)
            except (OSError, ValueError, SyntaxError) as error:
                bad[name] = why(error)
            advance()
    return found, bad


def why(error: Exception) -> str:
    """Return why a picture cannot be used, without the file's name."""
    if isinstance(error, UnidentifiedImageError):
        return "no image that can be read"
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(words.split())[:150] or type(error).__name__
