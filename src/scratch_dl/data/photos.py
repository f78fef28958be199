"""Real photographs that ship inside scikit-image and scikit-learn: nothing is downloaded."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from scratch_dl.data.noise import Noise
from scratch_dl.data.pictures import SPLITS, Pictures
from scratch_dl.system.checks import choice


class Source(NamedTuple):
    """Where a photograph lies and whose it is."""

    package: str
    path: str
    licence: str
    author: str


# As the packages state: skimage.data's documentation, and sklearn/datasets/images/README.txt.
PHOTOS = {
    "astronaut": Source("skimage", "data/astronaut.png", "public domain", "NASA"),
    "chelsea": Source("skimage", "data/chelsea.png", "CC0", "Stefan van der Walt"),
    "coffee": Source("skimage", "data/coffee.png", "CC0", "Rachel Michetti"),
    "hubble_deep_field": Source("skimage", "data/hubble_deep_field.jpg", "public domain", "NASA"),
    "retina": Source("skimage", "data/retina.jpg", "CC0", "Mikael Haeggstroem"),
    "rocket": Source("skimage", "data/rocket.jpg", "CC0", "SpaceX"),
    "china": Source("sklearn", "datasets/images/china.jpg", "CC BY 2.0", "danielbuechele (Flickr)"),
    "flower": Source("sklearn", "datasets/images/flower.jpg", "CC BY 2.0", "vultilion (Flickr)"),
}


class Photos(Pictures):
    """The photographs of PHOTOS; each belongs to one split as a whole. Other arguments are those of `Pictures`.

    An argument for each setting of conf/data/photos.yaml, so that a wrong setting is named before anything is built.

    Args:
        noise: added to the pictures.
        train: names of the training photographs.
        validation: names of the photographs that choose the best checkpoint.
        test: names of the photographs that only the final evaluation reads.

    Raises:
        ValueError: if a name is unknown, a split is empty, or a photograph is named twice.
    """

    name = "photos"

    def __init__(
        self,
        noise: Noise,
        train: Sequence[str],
        validation: Sequence[str],
        test: Sequence[str],
        target: str,
        crop_size: int | tuple[int, int],
        downsample: int,
        crops_per_epoch: int,
        validation_crops: int,
        seed: int,
        augment: bool,
    ) -> None:
        self._splits = dict(zip(SPLITS, (train, validation, test), strict=True))
        seen: dict[str, str] = {}
        for split, names in self._splits.items():
            if isinstance(names, str) or not isinstance(names, Sequence) or not names:
                raise ValueError(f"{split} must be a list of photographs, at least one, but got {names!r}")
            for name in names:
                choice(split, name, PHOTOS)
                if name in seen:
                    raise ValueError(f"{split} must share no photograph with {seen[name]}, but both have {name!r}")
                seen[name] = split
        super().__init__(noise, target, crop_size, downsample, crops_per_epoch, validation_crops, seed, augment)

    @property
    def licence(self) -> str:
        """The licences of all the photographs."""
        return ", ".join(sorted({PHOTOS[name].licence for split in SPLITS for name in self._splits[split]}))

    def _paths(self, split: str) -> dict[str, Path]:
        return {name: _folder(PHOTOS[name].package) / PHOTOS[name].path for name in self._splits[split]}

    def _sources(self) -> dict[str, Any]:
        return {name: PHOTOS[name]._asdict() for split in SPLITS for name in self._splits[split]}


def _folder(package: str) -> Path:
    """Return a package's folder without importing it, which would take seconds."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {package}, which brings the photographs, is not installed")
    return Path(spec.origin).parent
