"""Files of a run that MLflow shows: where they lie in the run's folder, and pictures in the form of its grid."""

import re
import uuid
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scratch_dl.system.files import file_errors
from scratch_dl.tracking.names import check_artifact_path
from scratch_dl.tracking.values import now_ms

ARTIFACTS = "artifacts"
_THUMBNAIL_PX = 256


def artifact_file(folder: Path, path: str) -> Path:
    """Return where the artifact `path` of the run in `folder` lies, and make the folder around it.

    Raises:
        ValueError: if the path leaves the folder of artifacts.
    """
    file = folder / ARTIFACTS / check_artifact_path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def check_image(array: NDArray[np.uint8], key: str) -> None:
    """Refuse what MLflow's grid cannot show.

    Raises:
        ValueError: if the array is not a picture (height, width, 3) of 0 to 255, or the key has a slash.
    """
    if not re.fullmatch(r"[\w\-. ]+", key, re.ASCII):
        raise ValueError(f"an image's key must be letters, digits, '_', '-', '.' or spaces, but got {key!r}")
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ValueError(f"an image must be uint8 of shape (height, width, 3), but got {array.dtype} {array.shape}")


def save_image(folder: Path, array: NDArray[np.uint8], key: str, step: int) -> tuple[Path, Path]:
    """Write a picture and a small copy of it, and return both files.

    MLflow's grid reads key, step and time out of their names, and shows the small one first.
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
