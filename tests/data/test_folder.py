"""A folder of images: the split, and what is refused."""

from itertools import chain

import numpy as np
import pytest
from PIL import Image

from scratch_dl.data import DataError

REFUSED = [
    pytest.param({"validation_share": 0}, "validation_share must be .*> 0", id="no-validation"),
    pytest.param({"test_share": 1.0}, "test_share must be .*< 1", id="all-test"),
    pytest.param({"validation_share": 0.5, "test_share": 0.5}, "leave files for the training", id="nothing-left"),
]


@pytest.fixture
def folder(tmp_path):
    """Twelve images of six kinds."""
    rng = np.random.default_rng(0)
    for i, suffix in enumerate(("png", "jpg", "bmp", "tif", "webp", "gif") * 2):
        Image.fromarray(rng.integers(0, 256, (80, 70, 3), dtype=np.uint8)).save(tmp_path / f"{i}.{suffix}")
    return tmp_path


def _splits(data):
    return data.describe()["splits"]


def test_every_file_is_in_one_split_and_names_alone_decide(build, folder):
    splits = _splits(build("folder", path=str(folder)))
    assert sorted(chain(*splits.values())) == sorted(file.name for file in folder.iterdir())
    assert {split: len(names) for split, names in splits.items()} == {"train": 8, "validation": 2, "test": 2}
    assert splits == _splits(build("folder", path=str(folder), seed=9))


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_shares_that_leave_a_split_empty_are_refused(build, folder, changes, message):
    with pytest.raises(ValueError, match=message):
        build("folder", path=str(folder), **changes)


def test_a_folder_that_is_none_is_named(build, tmp_path):
    with pytest.raises(DataError, match=r"data.path must be a folder .*nowhere"):
        build("folder", path=str(tmp_path / "nowhere")).sizes  # noqa: B018


def test_too_few_images_are_counted(build, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=r"at least 3 images .* holds 0"):
        build("folder", path=str(tmp_path)).sizes  # noqa: B018


def test_the_digest_follows_the_pixels(build, folder):
    data = build("folder", path=str(folder))
    changed = folder / _splits(data)["train"][0]
    before = data.digest
    Image.fromarray(np.zeros((80, 70, 3), dtype=np.uint8)).save(changed)
    assert build("folder", path=str(folder)).digest != before


def test_every_bad_file_is_named_before_the_training(build, folder):
    bad = [f"bad{i}.png" for i in range(6)]
    for name in bad:
        (folder / name).write_bytes(b"no image")
    with pytest.raises(DataError) as refusal:
        build("folder", path=str(folder)).digest  # noqa: B018
    assert all(name in str(refusal.value) for name in bad), str(refusal.value)


def test_hidden_files_and_folders_are_no_images(build, folder):
    (folder / "._0.png").write_bytes(b"what macOS leaves beside a file")
    (folder / "album.png").mkdir()
    names = list(chain(*_splits(build("folder", path=str(folder))).values()))
    assert "._0.png" not in names
    assert "album.png" not in names
