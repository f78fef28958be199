"""A data set of clean pictures, of which crops and noise are drawn; each picture belongs to one split as a whole.

Axis letters: n crop, k original pixel of a shrunk one, h w pixel of a crop, H W pixel of a picture.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from scratch_dl.data.dataset import DataError, Photograph, generator_of
from scratch_dl.data.files import read_all, read_sizes, shown
from scratch_dl.data.metrics import SSIM_WINDOW
from scratch_dl.data.noise import Noise, Recorded
from scratch_dl.system.checks import Pair, boolean, choice, integer, pair

SPLITS = ("train", "validation", "test")


class _Pixels(NamedTuple):
    """The pictures of a split in one line: picture p starts at offset[p], its rows are width[p] long."""

    clean: Tensor  # (pixels, 3)
    subpixels: Tensor | None  # (pixels, k, 3)
    offset: Tensor
    height: Tensor
    width: Tensor


class Pictures(ABC):
    """Crops of whole pictures, with new noise in each batch.

    The constructor reads the pictures' headers, so that a picture that does not fit is refused before any training.

    Args:
        noise: makes the noisy images.
        target: of the training: "noise2noise", a second noisy draw (Lehtinen et al. 2018, arXiv 1803.04189), or
            "clean".
        crop_size: of training and validation crops, an int or (h, w).
        downsample: each pixel is the mean of a square of so many pixels a side; 1 leaves the pictures as they are.
        crops_per_epoch: how many crops the trainer calls an epoch.
        validation_crops: how many fixed crops each validation scores.
        seed: of the fixed crops and noises of the evaluation, whatever the training's seed.
        augment: flip and transpose training crops, and exchange their colour channels, at random.
        max_pixels: how many pixels a picture may have before it is shrunk; None: any number.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if one is out of range, or a picture cannot be used.
    """

    name: str
    cure = ""  # ends the message about pictures that cannot be used

    def __init__(
        self,
        noise: Noise,
        target: str,
        crop_size: int | tuple[int, int],
        downsample: int,
        crops_per_epoch: int,
        validation_crops: int,
        seed: int,
        augment: bool,
        max_pixels: int | None = None,
    ) -> None:
        self.noise = noise
        self.target = choice("target", target, ("noise2noise", "clean"))
        self.crop_size = pair("crop_size", crop_size, minimum=1)
        self.downsample = integer("downsample", downsample, minimum=1)
        self.crops_per_epoch = integer("crops_per_epoch", crops_per_epoch, minimum=1)
        self.validation_crops = integer("validation_crops", validation_crops, minimum=1)
        self.seed = integer("seed", seed, minimum=0)
        self.augment = boolean("augment", augment)
        if isinstance(noise, Recorded):
            raise ValueError("noise=recorded is for data=course; these pictures are clean, so choose another noise")
        if noise.needs_subpixels and self.downsample < 2:
            raise ValueError(f"downsample must be >= 2 for noise={noise.name}, but got {downsample}")
        self.max_pixels = max_pixels if max_pixels is None else integer("max_pixels", max_pixels, minimum=1)
        self._read: dict[str, dict[str, NDArray[Any]]] = {}
        self._check_sizes()

    @property
    @abstractmethod
    def licence(self) -> str:
        """The licences of the pictures."""

    @abstractmethod
    def _paths(self, split: str) -> dict[str, Path]:
        """The names and files of a split's pictures."""

    @abstractmethod
    def _sources(self) -> Any:
        """Where each picture comes from."""

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits over the training's and validation's pixels, the test's names, and the settings.

        The pixels of the test pictures are not in it; only the final evaluation scores them.
        """
        sha = hashlib.sha256()
        for split in ("train", "validation"):
            for name, pixels in self._pictures(split).items():
                sha.update(f"{split}{name}{pixels.shape}".encode("utf-8", "surrogateescape"))
                sha.update(pixels.tobytes())
        settings = (list(self._paths("test")), repr(self.noise), self.crop_size, self.downsample, self.validation_crops)
        sha.update(repr((*settings, self.seed)).encode())
        return sha.hexdigest()[:16]

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Numbers of pictures and crops."""
        sizes = {f"{split}_photographs": len(self._paths(split)) for split in SPLITS}
        return {**sizes, "crops_per_epoch": self.crops_per_epoch, "validation_crops": self.validation_crops}

    def describe(self) -> dict[str, Any]:
        """Return the description of the data that a run records."""
        return {
            "name": self.name,
            "digest": self.digest,
            "licence": self.licence,
            "sizes": self.sizes,
            "noise": repr(self.noise),
            "target": self.target,
            "crop_size": list(self.crop_size),
            "downsample": self.downsample,
            "splits": {split: list(self._paths(split)) for split in SPLITS},
            "sources": self._sources(),
        }

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of whole batches in an epoch.

        Raises:
            DataError: if there is none.
        """
        if batch_size > self.crops_per_epoch:
            raise DataError(
                f"trainer.batch_size must be <= data.crops_per_epoch = {self.crops_per_epoch}, but got {batch_size}"
            )
        return self.crops_per_epoch // batch_size

    def batch(self, step: int, batch_size: int, seed: int) -> tuple[Tensor, Tensor]:
        """(input, target), each (n, 3, h, w), of the training crops of a step."""
        generator = generator_of("batch", seed, step)
        clean, subpixels = self._crops(self._train, batch_size, generator, self.augment)
        if self.augment:
            # A few photographs hold few hues; exchanged channels keep the network from learning those by heart.
            channels = torch.rand(batch_size, 3, generator=generator).argsort(dim=1)
            sample = torch.arange(batch_size)[:, None]
            clean = clean[sample, channels]
            subpixels = None if subpixels is None else subpixels.transpose(1, 2)[sample, channels].transpose(1, 2)
        input = self.noise(clean, subpixels, generator)
        return input, clean if self.target == "clean" else self.noise(clean, subpixels, generator)

    @cached_property
    def validation(self) -> tuple[Tensor, Tensor]:
        """(noisy, clean), each (n, 3, h, w): fixed crops of the validation pictures with fixed noise."""
        generator = generator_of("validation", self.seed)
        pixels = self._line_up("validation")
        clean, subpixels = self._crops(pixels, self.validation_crops, generator, augment=False)
        return self.noise(clean, subpixels, generator).contiguous(), clean.contiguous()

    def photographs(self, split: str) -> list[Photograph]:
        """The whole pictures of "validation" or "test" with fixed noise."""
        choice("split", split, SPLITS[1:])
        found = []
        for name, pixels in self._pictures(split).items():
            clean, subpixels = self._shrink(pixels)
            planes = None if subpixels is None else subpixels.permute(2, 3, 0, 1)[None]
            image = clean.permute(2, 0, 1).contiguous()
            noisy = self.noise(image[None], planes, generator_of("photograph", self.seed, name))[0]
            found.append(Photograph(name, noisy.contiguous(), image))
        return found

    def photograph_sizes(self, split: str) -> dict[str, Pair]:
        """Name -> (H, W) of the whole pictures of a split."""
        return {name: self._sizes[name] for name in self._paths(split)}

    @cached_property
    def _sizes(self) -> dict[str, Pair]:
        """Name -> (height, width) of every picture after it was shrunk, from the files' headers."""
        paths = {name: path for split in SPLITS for name, path in self._paths(split).items()}
        f = self.downsample
        sizes = read_sizes(paths, self.max_pixels, self.cure)
        return {name: (height // f, width // f) for name, (height, width) in sizes.items()}

    def _check_sizes(self) -> None:
        """Refuse pictures that a crop, or the window of SSIM, does not fit into.

        Raises:
            DataError: naming all of them.
        """
        h, w = self.crop_size
        smallest = (max(h, w), max(h, w)) if self.augment else (h, w)  # a transposed crop has to fit, too
        of_crops = {**self.photograph_sizes("train"), **self.photograph_sizes("validation")}
        small = {name: size for name, size in of_crops.items() if size[0] < smallest[0] or size[1] < smallest[1]}
        if small:
            raise DataError(
                f"crop_size must fit into every picture after downsampling, but {h}x{w} does not fit into "
                f"{_with_sizes(small)}"
            )
        small = {name: size for name, size in self.photograph_sizes("test").items() if min(size) < SSIM_WINDOW}
        if small:
            raise DataError(
                f"downsample must leave at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels, the window of SSIM, of every "
                f"picture, but {self.downsample} does not of {_with_sizes(small)}"
            )

    @cached_property
    def _train(self) -> _Pixels:
        return self._line_up("train")

    def _pictures(self, split: str) -> dict[str, NDArray[Any]]:
        if split not in self._read:
            self._load(split)
        return self._read[split]

    def _load(self, split: str) -> None:
        """Read the pictures of a split."""
        self._read[split] = read_all(self._paths(split), self.max_pixels, self.cure)

    def _shrink(self, pixels: NDArray[Any]) -> tuple[Tensor, Tensor | None]:
        """(H f, W f, 3) -> clean (H, W, 3) in [0, 1], and (H, W, f f, 3) where the noise needs it."""
        f = self.downsample
        white = float(np.iinfo(pixels.dtype).max)
        height, width = pixels.shape[0] // f, pixels.shape[1] // f
        blocks = torch.from_numpy(pixels[: height * f, : width * f].astype(np.float32) / white)
        blocks = blocks.view(height, f, width, f, 3).permute(0, 2, 1, 3, 4).reshape(height, width, f * f, 3)
        return blocks.mean(dim=2), blocks if self.noise.needs_subpixels else None

    def _line_up(self, split: str) -> _Pixels:
        shrunk = [self._shrink(pixels) for pixels in self._pictures(split).values()]
        sizes = [clean.shape[0] * clean.shape[1] for clean, _ in shrunk]
        return _Pixels(
            torch.cat([clean.reshape(-1, 3) for clean, _ in shrunk]),
            torch.cat([sub.flatten(0, 1) for _, sub in shrunk if sub is not None])
            if self.noise.needs_subpixels
            else None,
            torch.tensor([sum(sizes[:i]) for i in range(len(sizes))]),
            torch.tensor([clean.shape[0] for clean, _ in shrunk]),
            torch.tensor([clean.shape[1] for clean, _ in shrunk]),
        )

    def _crops(self, pixels: _Pixels, count: int, generator: Generator, augment: bool) -> tuple[Tensor, Tensor | None]:
        """(n, 3, h, w) and (n, k, 3, h, w) of `count` crops at random places, gathered by index arithmetic."""
        h, w = self.crop_size
        n = (count, 1, 1)
        places = (pixels.height - h + 1) * (pixels.width - w + 1)
        picture = torch.multinomial(places.double(), count, replacement=True, generator=generator)
        draws = torch.rand(2, count, generator=generator, dtype=torch.float64)
        flags = torch.randint(2, (3, count, 1, 1), generator=generator, dtype=torch.bool) if augment else None
        rows, columns = torch.arange(h).view(1, h, 1), torch.arange(w).view(1, 1, w)
        high, wide = torch.tensor(h), torch.tensor(w)
        if flags is not None:
            rows, columns = torch.where(flags[0], h - 1 - rows, rows), torch.where(flags[1], w - 1 - columns, columns)
            high, wide = (torch.where(flags[2].view(-1), a, b) for a, b in ((w, h), (h, w)))
            rows, columns = torch.where(flags[2], columns, rows), torch.where(flags[2], rows, columns)
        width = pixels.width[picture]
        top = (draws[0] * (pixels.height[picture] - high + 1)).long()
        left = (draws[1] * (width - wide + 1)).long()
        corner = pixels.offset[picture] + top * width + left
        index = (corner.view(n) + rows * width.view(n) + columns).flatten()
        clean = pixels.clean.index_select(0, index).view(count, h, w, 3).permute(0, 3, 1, 2)
        if pixels.subpixels is None:
            return clean, None
        return clean, pixels.subpixels.index_select(0, index).view(count, h, w, -1, 3).permute(0, 3, 4, 1, 2)


def _with_sizes(small: Mapping[str, Pair]) -> str:
    return ", ".join(f"{shown(name)} ({height}x{width})" for name, (height, width) in sorted(small.items()))
