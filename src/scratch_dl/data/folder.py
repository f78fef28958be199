"""A folder of the user's own images, split by whole file."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from scratch_dl.checks import real, text
from scratch_dl.data.dataset import DataError
from scratch_dl.data.files import SUFFIXES, read_all
from scratch_dl.data.noise import Noise
from scratch_dl.data.pictures import SPLITS, Pictures


class Folder(Pictures):
    """The images in a folder and below it; which split a file falls in depends on the files' names alone.

    Args:
        path: the folder.
        validation_share: of the files, at least one file; in (0, 1).
        test_share: of the files, at least one file; in (0, 1).
        settings: those of Pictures.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if one is out of range.
    """

    name = "folder"

    def __init__(
        self,
        noise: Noise,
        path: str,
        validation_share: float,
        test_share: float,
        target: str,
        crop_size: int | tuple[int, int],
        downsample: int,
        crops_per_epoch: int,
        validation_crops: int,
        seed: int,
        augment: bool,
    ) -> None:
        self.path = Path(text("path", path)).expanduser()
        self.validation_share = real("validation_share", validation_share, above=0, below=1)
        self.test_share = real("test_share", test_share, above=0, below=1)
        if self.validation_share + self.test_share >= 1:
            raise ValueError(f"test_share must leave files for the training, but got {validation_share} + {test_share}")
        super().__init__(noise, target, crop_size, downsample, crops_per_epoch, validation_crops, seed, augment)

    @property
    def licence(self) -> str:
        """Not known of files that the user brings."""
        return "the user's own"

    @cached_property
    def _splits(self) -> dict[str, list[str]]:
        if not self.path.is_dir():
            raise DataError(f"data.path must be a folder of images, but {str(self.path)!r} is none")
        names = sorted(
            str(file.relative_to(self.path))
            for file in self.path.rglob("*")
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and not file.is_dir()
        )
        if len(names) < len(SPLITS):
            raise DataError(
                f"data.path must hold at least {len(SPLITS)} images ({', '.join(SUFFIXES)}), one for each split, "
                f"but {str(self.path)!r} holds {len(names)}"
            )
        names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
        validation, test = (max(1, round(share * len(names))) for share in (self.validation_share, self.test_share))
        if validation + test >= len(names):
            validation = test = 1
        cut = len(names) - validation - test
        parts = (names[:cut], names[cut : cut + validation], names[cut + validation :])
        return dict(zip(SPLITS, parts, strict=True))

    def _names(self, split: str) -> list[str]:
        return self._splits[split]

    def _load(self, split: str) -> dict[str, NDArray[Any]]:
        if split == "test":
            return read_all({name: self.path / name for name in self._names("test")})
        # All at once, so that one message names every bad file. The test's are only seen to be whole, and dropped:
        # a broken one would else end the run at its last step.
        found = read_all({name: self.path / name for part in SPLITS for name in self._names(part)})
        for part in SPLITS[:2]:
            self._read[part] = {name: found[name] for name in self._names(part)}
        return self._read[split]

    def _sources(self) -> str:
        return str(self.path.absolute())
