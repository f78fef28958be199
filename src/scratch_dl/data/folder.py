"""A folder of the user's own images; each file belongs to one split as a whole."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from scratch_dl.data.dataset import DataError
from scratch_dl.data.files import SUFFIXES, listed, read_all, read_usable, shown
from scratch_dl.data.metrics import SSIM_WINDOW
from scratch_dl.data.noise import Noise
from scratch_dl.data.pictures import SPLITS, Pictures
from scratch_dl.system.checks import boolean, integer, real, text

_SHOWN = 3  # pictures that a line names
_OF_RUNS = ("processes", "id")  # exists in every folder of runs; their pictures change with each run


class Folder(Pictures):
    """The images in a folder and below it, split by the files' names alone. Other arguments are those of `Pictures`.

    An argument for each setting of conf/data/folder.yaml, so that a wrong setting is named before anything is built.

    Args:
        noise: added to the pictures.
        path: the folder.
        validation_share: of the files, at least one file; in (0, 1).
        test_share: of the files, at least one file; in (0, 1).
        skip_broken: leave out the files that cannot be used, as if they were not there, instead of refusing the folder.
            What is broken is only seen when it is decoded, so the constructor then reads all pictures.

    Attributes:
        skipped: name -> reason, of each file that was left out.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if one is out of range.
        DataError: if the folder cannot be used, or a picture in it cannot; the message names every such picture.
    """

    name = "folder"
    _kept: tuple[str, ...] = SPLITS[:2]  # whose pictures stay in memory, if they are all read to find the broken ones

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
        max_pixels: int,
        skip_broken: bool = False,
    ) -> None:
        self.path = Path(text("path", path)).expanduser()
        self.validation_share = real("validation_share", validation_share, above=0, below=1)
        self.test_share = real("test_share", test_share, above=0, below=1)
        if self.validation_share + self.test_share >= 1:
            raise ValueError(f"test_share must leave files for the training, but got {validation_share} + {test_share}")
        self.skip_broken = boolean("skip_broken", skip_broken)
        self.skipped: dict[str, str] = {}
        names, found = list(_images(self.path)), dict[str, NDArray[Any]]()
        if self.skip_broken:
            paths = {name: self.path / name for name in names}
            found, self.skipped = read_usable(paths, integer("max_pixels", max_pixels, minimum=1))
            names = list(found)
        self._splits = self._split(names)
        super().__init__(
            noise, target, crop_size, downsample, crops_per_epoch, validation_crops, seed, augment, max_pixels
        )
        if self.skip_broken:
            self._read |= {split: {name: found[name] for name in self._splits[split]} for split in self._kept}

    @property
    def cure(self) -> str:  # type: ignore[override]
        """The setting without which a broken picture is refused."""
        return "" if self.skip_broken else "; in a training, or with data=folder, data.skip_broken=true leaves them out"

    @property
    def skipped_line(self) -> str:
        """How many pictures were left out, and the first of them; "" if none was."""
        if not self.skipped:
            return ""
        total = len(self.skipped) + sum(map(len, self._splits.values()))
        return f"{len(self.skipped)} of {total} pictures are left out: {listed(self.skipped, _SHOWN)}"

    def describe(self) -> dict[str, Any]:
        """As that of all pictures; with `skip_broken` also what was left out, and why."""
        return {**super().describe(), **({"skipped": self.skipped} if self.skip_broken else {})}

    @property
    def licence(self) -> str:
        """Unknown for files that the user brings."""
        return "the user's own"

    def _split(self, names: list[str]) -> dict[str, list[str]]:
        """Return split -> names of its files.

        Raises:
            DataError: if they are too few.
        """
        if len(names) < len(SPLITS):
            raise DataError(
                f"path must be a folder with at least {len(SPLITS)} images ({', '.join(SUFFIXES)}), one for each "
                f"split, but {shown(self.path)!r} has {len(names)}{self._besides()}"
            )
        names.sort(key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
        validation, test = (max(1, round(share * len(names))) for share in (self.validation_share, self.test_share))
        if validation + test >= len(names):
            validation = test = 1
        cut = len(names) - validation - test
        parts = (names[:cut], names[cut : cut + validation], names[cut + validation :])
        return dict(zip(SPLITS, parts, strict=True))

    def _besides(self) -> str:
        """What was left out, as the end of a message; "" if nothing was."""
        count, words = len(self.skipped), listed(self.skipped, _SHOWN)
        return f" besides {count} that cannot be used: {words}" if count else ""

    def _paths(self, split: str) -> dict[str, Path]:
        return {name: self.path / name for name in self._splits[split]}

    def _load(self, split: str) -> None:
        if split == "test":
            super()._load(split)
            return
        # All at once, so that one message names every bad file. Those of the test split are only checked and dropped:
        # a broken one would otherwise end the run at its last step.
        paths = {name: self.path / name for part in SPLITS for name in self._splits[part]}
        found = read_all(paths, self.max_pixels, self.cure)
        for part in SPLITS[:2]:
            self._read[part] = {name: found[name] for name in self._splits[part]}

    def _sources(self) -> str:
        return str(self.path.absolute())


class WholeFolder(Folder):
    """All images in a folder and below it as one set, "test"; it cannot be trained on. Arguments as in Folder."""

    _kept = SPLITS[2:]

    def __init__(
        self, noise: Noise, path: str, downsample: int, seed: int, max_pixels: int, skip_broken: bool = False
    ) -> None:
        fixed = (0.5, 0.25, "clean", SSIM_WINDOW, downsample, 1, 1, seed, False)
        super().__init__(noise, path, *fixed, max_pixels, skip_broken)

    def _split(self, names: list[str]) -> dict[str, list[str]]:
        if not names:
            raise DataError(
                f"path must be a folder of images ({', '.join(SUFFIXES)}), but {shown(self.path)!r} has none"
                f"{self._besides()}"
            )
        return {"train": [], "validation": [], "test": sorted(names)}


def _images(folder: Path) -> Iterator[str]:
    """Yield the paths, relative to the folder, of the images in it and below it, in a fixed order.

    Raises:
        DataError: if it is not a folder, or a folder below it cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"path must be a folder of images, but {shown(folder)!r} is not a folder")

    def refuse(error: OSError) -> None:
        raise DataError(f"path must be a folder that can be read, but {shown(error.filename)!r}: {error.strerror}")

    for place, below, files in os.walk(folder, onerror=refuse):
        below[:] = sorted(name for name in below if not Path(place, name, *_OF_RUNS).exists())
        for file in sorted(files):
            if Path(file).suffix.lower() in SUFFIXES and not file.startswith("."):
                yield str(Path(place, file).relative_to(folder))
