"""Files of a run that MLflow shows: their place in the run's folder, and pictures in the format of MLflow's grid."""

import re
import uuid
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scratch_dl.system.files import file_errors
from scratch_dl.tracking.names import check_artifact_path
from scratch_dl.tracking.values import now_ms

ARTIFACTS = "artifacts"
_THUMBNAIL_PX = 480  # as large as the grid shows one run's picture


def artifact_file(folder: Path, path: str) -> Path:
    """Return the file of the artifact `path` of the run in `folder`, after creating its parent folder.

    Raises:
        ValueError: if the path leads outside the folder of artifacts.
    """
    file = folder / ARTIFACTS / check_artifact_path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def check_image(array: NDArray[np.uint8], key: str) -> None:
    """Refuse a picture that MLflow's grid cannot show.

    Raises:
        ValueError: if the array is not uint8 of shape (height, width, 3), or the key contains a slash.
    """
    if not re.fullmatch(r"[\w\-. ]+", key, re.ASCII):
        raise ValueError(f"an image's key must be letters, digits, '_', '-', '.' or spaces, but got {key!r}")
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ValueError(f"an image must be uint8 of shape (height, width, 3), but got {array.dtype} {array.shape}")


def save_image(folder: Path, array: NDArray[np.uint8], key: str, step: int) -> tuple[Path, Path]:
    """Write a picture and a thumbnail of it, and return both files.

    MLflow's grid reads key, step and time from the file names, and shows the thumbnail first.
    """
    from PIL import Image

    stem = f"{key}+step+{step}+timestamp+{now_ms()}+{uuid.uuid4()}"
    large, small = (artifact_file(folder, f"images/{stem}{suffix}") for suffix in (".png", "+compressed.webp"))
    picture = Image.fromarray(np.ascontiguousarray(array))
    with file_errors(large):
        picture.save(large)
    picture.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    with file_errors(small):
        picture.save(small)
    return large, small
