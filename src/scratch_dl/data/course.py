"""The data of the paper's course: `train_data.pkl` and `val_data.pkl`, which contain noisy images."""

import hashlib
import io
import pickle
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scratch_dl.data.dataset import DataError, Photograph, generator_of
from scratch_dl.data.files import shown
from scratch_dl.data.noise import Noise, Recorded
from scratch_dl.system import unpickling
from scratch_dl.system.checks import Pair, boolean, choice, integer, text

_MOVES: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda images: images.flip(2),
    lambda images: images.flip(3),
    lambda images: images.transpose(2, 3),
)
TRAIN, VALIDATION = "train_data.pkl", "val_data.pkl"


class Course:
    """Pairs of uint8 images (n, 3, h, w): two noisy ones for the training, noisy and clean for validation and test.

    The first half of `val_data.pkl` is the validation, the second half the test. Files of `torch.save` and plain
    pickles are read, and no code in them is ever run.

    Args:
        noise: noise=recorded.
        path: the folder of the two files.
        target: "noise2noise"; the course's training pairs have no clean images.
        crop_size: the images' size.
        crops_per_epoch: how many pairs the trainer calls an epoch, at most; None: all.
        validation_crops: how many of the validation images each validation scores.
        seed: accepted for the sake of a common command line; the images are fixed.
        augment: flip and transpose training pairs, and exchange the two, at random.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if one is out of range.
        DataError: if a file is missing, empty, or may not be read.
    """

    name = "course"

    def __init__(
        self,
        noise: Noise,
        path: str,
        target: str,
        crop_size: int,
        validation_crops: int,
        seed: int,
        augment: bool,
        crops_per_epoch: int | None = None,
    ) -> None:
        if not isinstance(noise, Recorded):
            raise ValueError(f"the course's data bring their own noise: add noise=recorded (it is noise={noise.name})")
        self.noise = noise
        self.path = Path(text("path", path)).expanduser()
        if choice("target", target, ("noise2noise", "clean")) == "clean":
            raise ValueError("target must be noise2noise for data=course, whose training pairs have no clean images")
        side = integer("crop_size", crop_size, minimum=1)
        self.crop_size = (side, side)
        self.crops_per_epoch = crops_per_epoch
        if crops_per_epoch is not None:
            integer("crops_per_epoch", crops_per_epoch, minimum=1)
        self.validation_crops = integer("validation_crops", validation_crops, minimum=1)
        integer("seed", seed, minimum=0)
        self.augment = boolean("augment", augment)
        self._order: tuple[tuple[int, int], Tensor] | None = None
        for name in (TRAIN, VALIDATION):
            _check_file(self.path / name)

    @property
    def licence(self) -> str:
        """Unknown for files that the user brings."""
        return "the course's own"

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits over both files and the settings that evaluation sees."""
        sha = hashlib.sha256()
        for name in (TRAIN, VALIDATION):
            sha.update(_bytes(self.path / name))
        sha.update(repr((self.crop_size, self.validation_crops)).encode())
        return sha.hexdigest()[:16]

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Numbers of images."""
        half = len(self._pairs[0]) // 2
        return {"train": len(self._train[0]), "validation": half, "test": len(self._pairs[0]) - half}

    def describe(self) -> dict[str, Any]:
        """Return the description of the data that a run records."""
        return {
            "name": self.name,
            "digest": self.digest,
            "licence": self.licence,
            "sizes": self.sizes,
            "noise": repr(self.noise),
            "target": "noise2noise",
            "crop_size": list(self.crop_size),
            "sources": str(self.path.absolute()),
        }

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of whole batches in an epoch.

        Raises:
            DataError: if not even one fits.
        """
        count = len(self._train[0])
        if batch_size > count:
            raise DataError(f"trainer.batch_size must be <= {count}, the images of {TRAIN}, but got {batch_size}")
        return min(count, self.crops_per_epoch or count) // batch_size

    def batch(self, step: int, batch_size: int, seed: int) -> tuple[Tensor, Tensor]:
        """(input, target), each (n, 3, h, w), of a step; an epoch takes each pair once, in an order of its own."""
        per_epoch = self.steps_per_epoch(batch_size)
        epoch, position = divmod(step, per_epoch)
        if self._order is None or self._order[0] != (seed, epoch):
            order = torch.randperm(len(self._train[0]), generator=generator_of("order", seed, epoch))
            self._order = (seed, epoch), order
        chosen = self._order[1][position * batch_size : (position + 1) * batch_size]
        input, target = (_unit(images[chosen]) for images in self._train)
        if not self.augment:
            return input, target
        flags = torch.randint(
            2, (4, batch_size, 1, 1, 1), generator=generator_of("batch", seed, step), dtype=torch.bool
        )
        for flag, move in zip(flags, _MOVES, strict=False):
            input, target = (torch.where(flag, move(images), images) for images in (input, target))
        return torch.where(flags[3], target, input), torch.where(flags[3], input, target)

    @cached_property
    def validation(self) -> tuple[Tensor, Tensor]:
        """(noisy, clean), each (n, 3, h, w)."""
        half = len(self._pairs[0]) // 2
        noisy, clean = (_unit(images[: min(half, self.validation_crops)]) for images in self._pairs)
        return noisy, clean

    def photograph_sizes(self, split: str) -> dict[str, Pair]:
        """Return name -> size: all images have the size of the crops, and their number is known only from the file."""
        return {f"{choice('split', split, ('validation', 'test'))}_0": self.crop_size}

    def photographs(self, split: str) -> list[Photograph]:
        """The images of "validation" or "test", one by one."""
        choice("split", split, ("validation", "test"))
        half = len(self._pairs[0]) // 2
        part = range(half) if split == "validation" else range(half, len(self._pairs[0]))
        noisy, clean = self._pairs
        return [Photograph(f"{split}_{i}", _unit(noisy[i]), _unit(clean[i])) for i in part]

    @cached_property
    def _train(self) -> tuple[Tensor, Tensor]:
        return self._load(TRAIN, at_least=1)

    @cached_property
    def _pairs(self) -> tuple[Tensor, Tensor]:
        return self._load(VALIDATION, at_least=2)

    def _load(self, name: str, at_least: int) -> tuple[Tensor, Tensor]:
        path = self.path / name
        content = load_pair(path)
        shape = (3, *self.crop_size)
        for position, images in enumerate(content):
            what = f"{path}: tensor {position}"
            if not isinstance(images, Tensor) or images.dtype != torch.uint8:
                got = images.dtype if isinstance(images, Tensor) else type(images).__name__
                raise DataError(f"{what} must be a uint8 tensor with numbers from 0 to 255, but is {got}")
            if images.ndim != 4 or tuple(images.shape[1:]) != shape:
                raise DataError(
                    f"{what} must have shape (n, {', '.join(map(str, shape))}), but has {tuple(images.shape)}"
                )
            if len(images) < at_least:
                raise DataError(f"{what} must have at least {at_least} images, but has {len(images)}")
        if len(content[0]) != len(content[1]):
            raise DataError(
                f"{path}: both tensors must have as many images, but have {len(content[0])} and {len(content[1])}"
            )
        return content


def load_pair(path: Path) -> tuple[Any, Any]:
    """Return the two objects of a file of `torch.save` (either format) or of a pickle; runs no code from it.

    Raises:
        DataError: if it cannot be read, has anything but tensors in it, or not two.
    """
    raw = _bytes(path)
    try:
        content = unpickling.load(io.BytesIO(raw))
    except Exception as error:
        try:
            content = _TensorsOnly(io.BytesIO(raw)).load()
        except Exception as other:
            reason = str(other) if isinstance(other, _Unwanted) else unpickling.failure_reason(error)
            raise DataError(f"{shown(path)} must be a pair of tensors saved by torch or pickle, but {reason}") from None
    if not isinstance(content, tuple | list) or len(content) != 2:
        raise DataError(f"{shown(path)} must be a pair of tensors, but is {type(content).__name__}")
    return content[0], content[1]


class _Unwanted(pickle.UnpicklingError):
    """A pickle asks for something that a pair of tensors does not need."""


class _TensorsOnly(pickle.Unpickler):
    """Reads pickles of tensors, and refuses every other name before it is called."""

    def find_class(self, module: str, name: str) -> Any:
        """The few callables that a pickled tensor is made of."""
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            # torch's own function unpickles anything.
            return lambda content: unpickling.load(io.BytesIO(content))
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            # Not the function itself: a pickle can set the attributes of whatever it is handed.
            rebuild: Any = torch._utils._rebuild_tensor_v2
            return lambda *parts: rebuild(*parts)
        if (module, name) == ("_codecs", "encode"):
            # How protocols up to 2 write bytes.
            return lambda content, encoding: content.encode("latin1" if encoding == "latin1" else "ascii")
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise _Unwanted(f"it asks for {module}.{name}, which a pair of tensors does not need")


def _check_file(path: Path) -> None:
    """Refuse a file that is not there, is empty, or may not be read."""
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise DataError(
            f"path must be a folder with {TRAIN} and {VALIDATION}, but {shown(path)} cannot be read: {error.strerror}"
        ) from None
    if empty:
        raise DataError(f"path must be a folder with {TRAIN} and {VALIDATION}, but {shown(path)} is empty")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be read: {error.strerror}") from None


def _unit(images: Tensor) -> Tensor:
    """uint8 -> float32 in [0, 1]."""
    return images.to(torch.float32) / 255
