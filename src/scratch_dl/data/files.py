"""Image files to arrays (H, W, 3): grey becomes three equal channels, palettes their colours, alpha lies on white."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scratch_dl.data.dataset import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif")


def read_all(paths: Mapping[str, Path]) -> dict[str, NDArray[Any]]:
    """Name -> (H, W, 3) uint8, or uint16 for 16-bit grey.

    Raises:
        DataError: naming every file that cannot be read, at once.
    """
    found, bad = {}, []
    for name, path in paths.items():
        try:
            found[name] = read(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            bad.append(f"{path} ({' '.join(str(error).split())[:100] or type(error).__name__})")
    if bad:
        raise DataError(f"{len(bad)} of {len(paths)} pictures cannot be read: {'; '.join(bad)}")
    return found


def read(path: Path) -> NDArray[Any]:
    """(H, W, 3) of one file, the first frame if it has several.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is empty, or its numbers are of another kind.
    """
    if not path.stat().st_size:
        raise ValueError("the file is empty")
    with Image.open(path) as image:
        image.load()
        if image.mode.startswith("I;16") or image.mode == "I":
            grey = np.asarray(image)
            if grey.min() < 0 or grey.max() > np.iinfo(np.uint16).max:
                raise ValueError(f"numbers must be in [0, 65535], but are in [{grey.min()}, {grey.max()}]")
            return np.repeat(grey.astype(np.uint16)[:, :, None], 3, axis=2)
        if image.mode == "F":
            raise ValueError("floating-point images are not supported: save it with 8 or 16 bits")
        if "A" in image.getbands() or "transparency" in image.info:
            layer = image.convert("RGBA")
            return np.asarray(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"))
        return np.asarray(image.convert("RGB"))
