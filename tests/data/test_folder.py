"""A folder of images: the split, and what is refused."""

import errno
import json
import os
import shutil
import struct
import zlib
from itertools import chain
from pathlib import Path

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


def _png_header(side):
    """A PNG that says it is a black and white square, without its pixels."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0), b"IDAT", b"IEND")
    framed = (struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


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
    (tmp_path / "file.png").write_bytes(b"no folder")
    for path in (tmp_path / "nowhere", tmp_path / "file.png"):
        with pytest.raises(DataError, match=rf"path must be a folder of images, but '{path}' is not a folder"):
            build("folder", path=str(path))


def test_too_few_images_are_counted(build, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=r"at least 3 images .* has 0"):
        build("folder", path=str(tmp_path))


def test_a_folder_below_that_cannot_be_read_is_named(build, folder, monkeypatch):
    """It is not left out, as then the split would be another one."""
    (folder / "private").mkdir()
    scan = os.scandir

    def refusing(path):
        if str(path).endswith("private"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=r"path must be a folder that can be read, but .*private': Permission denied"):
        build("folder", path=str(folder))


def test_a_pipe_among_the_images_is_named(build, folder):
    """To open it would wait for ever."""
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(DataError, match=r"1 of 13 pictures cannot be used: .*pipe\.png \("):
        build("folder", path=str(folder))


def test_a_test_picture_too_small_for_its_scores_is_refused_by_name(build, folder):
    """Only the end of a training looks at it."""
    name = _splits(build("folder", path=str(folder)))["test"][0]
    Image.fromarray(np.zeros((80, 13, 3), dtype=np.uint8)).save(folder / name)
    with pytest.raises(
        DataError, match=rf"downsample must leave at least 7x7 pixels, .* 2 does not of {name} \(40x6\)"
    ):
        build("folder", path=str(folder))


@pytest.mark.filterwarnings("error")
def test_every_picture_with_too_many_pixels_is_refused_by_its_header(build, folder):
    """20 KB of a PNG can be 5 GB in memory."""
    large = ["large.png", "larger.png"]
    for name, side in zip(large, (13_000, 30_000), strict=True):  # Pillow warns of the first, and refuses the second
        (folder / name).write_bytes(_png_header(side))
    with pytest.raises(DataError) as refusal:
        build("folder", path=str(folder))
    said = str(refusal.value)
    assert "2 of 14 pictures cannot be used" in said
    assert "its 13000x13000 = 169000000 pixels are more than data.max_pixels=100000000" in said
    assert all(name in said for name in large)


@pytest.mark.filterwarnings("error")
def test_a_larger_limit_lets_a_larger_picture_through(build, folder):
    """Larger than Pillow's own one, which would refuse it."""
    (folder / "large.png").write_bytes(_png_header(13_400))
    limit = Image.MAX_IMAGE_PIXELS
    build("folder", path=str(folder), max_pixels=200_000_000)
    with pytest.raises(DataError, match=r"more than data\.max_pixels=5599"):
        build("folder", path=str(folder), max_pixels=80 * 70 - 1)
    assert limit == Image.MAX_IMAGE_PIXELS


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


def test_the_pictures_of_runs_are_left_out(build, folder):
    """Where the folder of the runs lies among the images, each run would change the next one's data."""
    before = _splits(build("folder", path=str(folder)))
    (folder / "mlruns" / "artifacts").mkdir(parents=True)
    (folder / "mlruns" / "processes").mkdir()  # wherever the database is
    (folder / "mlruns" / "processes" / "id").touch()
    shutil.copy(folder / "0.png", folder / "mlruns" / "artifacts")
    assert _splits(build("folder", path=str(folder))) == before


AWKWARD = ("IMG (1).png", "IMG _1_.png", "Grün-2.png", "a,b.jpg", "two\nlines.png", "%2e%2e%2fx.png",
           f"{'l' * 240}.png", "cats/3.png", "cats_3.png", "cats/o'b=1.webp", os.fsdecode(b"\xff\xfe.png"))  # fmt: skip


@pytest.fixture
def awkward(tmp_path):
    """Small images whose names no address, database or file of MLflow takes as they are."""
    rng = np.random.default_rng(0)
    (tmp_path / "pictures" / "cats").mkdir(parents=True)
    for i, name in enumerate(AWKWARD):
        picture = Image.fromarray(rng.integers(0, 256, (19 + i, 27 - i, 3), dtype=np.uint8))
        with (tmp_path / "pictures" / name).open("wb") as file:
            picture.save(file, {".jpg": "jpeg", ".webp": "webp"}.get(Path(name).suffix, "png"))
    return tmp_path


def test_a_training_on_awkward_names_ends_and_is_resumed_and_evaluated(awkward, monkeypatch, in_process):
    """Every name gets a grid of images of its own in MLflow."""
    from mlflow import MlflowClient

    from scratch_dl import evaluate
    from scratch_dl.tracking import image_key
    from scratch_dl.train import train

    monkeypatch.chdir(awkward)
    small = ("data.downsample=1", "data.crop_size=16", "data.crops_per_epoch=8", "data.validation_crops=2",
             "data.validation_share=0.4", "data.test_share=0.4", "model.channels=[2,2,2]", "trainer.batch_size=8",
             "trainer.pictures=9", "schedule=constant", "verification=off", "diagnosis=off", "threads=1")  # fmt: skip
    first = train(["data=folder", "data.path=pictures", *small, "trainer.epochs=1"])
    assert first.status == "FINISHED"
    again = train([f"resume={first.run_id}", "trainer.epochs=2"])
    assert (again.status, again.progress.step, again.tracked) == ("FINISHED", 2, True)
    status, _, err = in_process(evaluate, f"run={first.run_id}")
    assert (status, err) == (0, "")
    client = MlflowClient(f"sqlite:///{awkward}/mlruns/mlflow.db")
    (inputs,) = client.get_run(first.run_id).inputs.dataset_inputs
    splits = json.loads(inputs.dataset.profile)["splits"]
    keys = {image_key(f"{prefix}_{name}") for split, prefix in (("validation", "val_whole"), ("test", "test"))
            for name in splits[split]}  # fmt: skip
    assert len(keys) == 8
    for run in client.search_runs(["1"]):
        paths = [item.path for item in client.list_artifacts(run.info.run_id, "images")]
        assert {path.removeprefix("images/").partition("+")[0] for path in paths} - {"samples"} == keys


def _break(folder):
    """Files that look like pictures: name -> what a list of them says of it."""
    whole = (folder / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])  # its header can be read
    (folder / "text.jpg").write_text("no image")
    (folder / "none.gif").touch()
    Image.fromarray(np.zeros((80, 70), dtype=np.float32)).save(folder / "floats.tif")
    (folder / "huge.png").write_bytes(_png_header(13_000))
    return {
        "cut.png": "truncated",
        "text.jpg": "no image that can be read",
        "none.gif": "the file is empty",
        "floats.tif": "floating-point images are not supported",
        "huge.png": "more than data.max_pixels",
    }


def test_broken_pictures_are_left_out_as_if_they_were_not_there(build, folder):
    before = build("folder", path=str(folder))
    digest, described = before.digest, before.describe()
    expected = _break(folder)
    data = build("folder", path=str(folder), skip_broken=True)
    assert data.digest == digest
    assert data.skipped.keys() == expected.keys()
    assert all(words in data.skipped[name] for name, words in expected.items()), data.skipped
    assert data.describe() == {**described, "skipped": data.skipped}
    for split in ("validation", "test"):
        ours, theirs = data.photographs(split), before.photographs(split)
        assert [each.name for each in ours] == [each.name for each in theirs]
        assert all((a.noisy == b.noisy).all() for a, b in zip(ours, theirs, strict=True))
    assert data.skipped_line.startswith("5 of 17 pictures are left out: ")
    assert data.skipped_line.endswith("; ...")


def test_without_the_setting_a_broken_picture_is_refused_with_the_setting_that_leaves_it_out(build, folder):
    """By its header at once, by its pixels before the first step."""
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:5000])
    data = build("folder", path=str(folder))
    with pytest.raises(
        DataError, match=r"cut\.png \(.*\); in a training, or with data=folder, data\.skip_broken=true leaves them out$"
    ):
        data.digest  # noqa: B018
    (folder / "text.jpg").write_text("no image")
    with pytest.raises(
        DataError,
        match=r"text\.jpg \(.*\); in a training, or with data=folder, data\.skip_broken=true leaves them out$",
    ):
        build("folder", path=str(folder))


def test_a_folder_of_broken_pictures_only_is_refused_in_one_line(build, tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.png").write_text("no image")
    with pytest.raises(DataError) as refusal:
        build("folder", path=str(tmp_path), skip_broken=True)
    why = "(no image that can be read)"
    assert str(refusal.value).endswith(
        f"but '{tmp_path}' has 0 besides 5 that cannot be used: 0.png {why}; 1.png {why}; 2.png {why}; ..."
    )
    assert "\n" not in str(refusal.value)


def test_each_picture_is_decoded_once_for_the_training(build, folder, monkeypatch):
    """All are decoded to find the broken ones; those that the training needs are kept."""
    from scratch_dl.data import files

    read, names = files.read, []
    monkeypatch.setattr(files, "read", lambda path, limit: names.append(path.name) or read(path, limit))
    data = build("folder", path=str(folder), skip_broken=True)
    data.digest, data.validation  # noqa: B018
    assert sorted(names) == sorted(path.name for path in folder.iterdir())


SMALL = ("data.downsample=1", "data.crop_size=16", "data.crops_per_epoch=8", "data.validation_crops=2",
         "model.channels=[2,2,2]", "trainer.batch_size=8", "schedule=constant", "verification=off", "diagnosis=off",
         "threads=1")  # fmt: skip


def test_a_run_records_what_it_left_out_and_is_resumed_on_the_same_pictures_only(
    folder, monkeypatch, capsys, in_process
):
    from mlflow import MlflowClient

    from scratch_dl import evaluate
    from scratch_dl.system.errors import ConfigError
    from scratch_dl.train import train

    (folder / "pictures").mkdir()
    for file in [path for path in folder.iterdir() if path.is_file()]:
        file.rename(folder / "pictures" / file.name)
    expected = _break(folder / "pictures")
    monkeypatch.chdir(folder)
    overrides = ["data=folder", "data.path=pictures", *SMALL, "trainer.epochs=1"]
    with pytest.raises(
        ConfigError, match=r"in a training, or with data=folder, data\.skip_broken=true leaves them out"
    ):
        train(overrides)
    assert not Path("mlruns").exists()
    first = train([*overrides, "data.skip_broken=true"])
    assert "data.skip_broken=true: 5 of 17 pictures are left out: " in capsys.readouterr().out
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    (inputs,) = client.get_run(first.run_id).inputs.dataset_inputs
    assert json.loads(inputs.dataset.profile)["skipped"].keys() == expected.keys()
    listed = Path(client.download_artifacts(first.run_id, "skipped.txt")).read_text().splitlines()
    assert [line.partition(":")[0] for line in listed] == sorted(expected)
    status, out, err = in_process(evaluate, f"run={first.run_id}", "data=folder", "data.path=pictures",
                                  "data.downsample=1", "data.skip_broken=true")  # fmt: skip
    assert (status, err) == (0, "")
    assert "5 of 17 pictures are left out" in out
    more = [f"resume={first.run_id}", "trainer.epochs=2"]
    shutil.copy("pictures/0.png", "pictures/cut.png")  # somebody mends a file
    with pytest.raises(
        ConfigError, match=r"not those of its last checkpoint .* or permit it by 'resume.allow=\[data\]'"
    ):
        train(more)
    (folder / "pictures" / "cut.png").unlink()
    assert train(more).progress.step == 2
    shutil.copy("pictures/0.png", "pictures/cut.png")
    assert train([more[0], "trainer.epochs=3", "resume.allow=[data]"]).progress.step == 3
