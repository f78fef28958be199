"""The course's files: read in every format, refused by name, and never run."""

import io
import os
import pickle

import pytest
import torch

from scratch_dl.data import DataError, Gaussian, Recorded

FORMATS = [
    pytest.param(lambda pair: pickle.dumps(pair), id="pickle"),
    pytest.param(
        lambda pair: pickle.dumps(pair, protocol=2),
        id="pickle-protocol-2",
    ),
    pytest.param(lambda pair: _saved(pair, True), id="torch-zip"),
    pytest.param(lambda pair: _saved(pair, False), id="torch-legacy"),
]


def _saved(content, zipped):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _images(count=10, size=(3, 32, 32), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *size), generator=generator, dtype=torch.uint8)


class _Marks:
    """Unpickled, it makes the folder `path`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class _Nested(_Marks):
    """The same hidden in the bytes of a tensor's storage, which torch's own loader would unpickle."""

    def __reduce__(self):
        return torch.storage._load_from_bytes, (pickle.dumps(_Marks(self.path)),)


ATTACKS = [
    pytest.param(lambda path: pickle.dumps(_Marks(path)), id="alone"),
    pytest.param(lambda path: pickle.dumps((_images(), _Marks(path))), id="in-a-pair"),
    pytest.param(lambda path: pickle.dumps((_images(), _Nested(path))), id="in-a-storage"),
    pytest.param(lambda path: _saved((_images(), _Marks(path)), True), id="torch-zip"),
    pytest.param(lambda path: _saved((_images(), _Marks(path)), False), id="torch-legacy"),
]
NAN = torch.full((10, 3, 32, 32), torch.nan)
UNFIT = [
    pytest.param((_images(10), _images(9)), "as many images, but have 10 and 9", id="counts-differ"),
    pytest.param((_images(size=(32, 32, 3)),) * 2, r"shape \(n, 3, 32, 32\), but has \(10, 32, 32, 3\)", id="last"),
    pytest.param((_images(size=(1, 32, 32)),) * 2, r"but has \(10, 1, 32, 32\)", id="one-channel"),
    pytest.param((_images(size=(3, 16, 16)),) * 2, r"but has \(10, 3, 16, 16\)", id="another-size"),
    pytest.param((_images(0), _images(0)), "at least 1 images, but has 0", id="none"),
    pytest.param((NAN, NAN), "uint8 tensor .* but is torch.float32", id="nan"),
    pytest.param((_images(), "text"), "tensor 1 must be a uint8 tensor .* but is str", id="no-tensor"),
    pytest.param((_images(),), "must be a pair of tensors", id="one-tensor"),
    pytest.param(7, "must be a pair of tensors, but is int", id="a-number"),
]
UNREADABLE = [
    pytest.param(None, "train_data.pkl cannot be read: No such file", id="missing"),
    pytest.param(b"", "train_data.pkl is empty", id="empty"),
    pytest.param(pickle.dumps((_images(), _images()))[:9000], "train_data.pkl must be a pair", id="cut-pickle"),
    pytest.param(_saved((_images(), _images()), True)[:9000], "train_data.pkl must be a pair", id="cut-zip"),
    pytest.param(_saved((_images(), _images()), False)[:9000], "train_data.pkl must be a pair", id="cut-legacy"),
    pytest.param(b"no pickle at all", "train_data.pkl must be a pair", id="text"),
]


@pytest.fixture
def course(build, tmp_path):
    """Makes the data set of two files with these bytes; None is no file."""

    def course(train=None, validation=b"not looked at", **changes):
        for name, content in (("train_data.pkl", train), ("val_data.pkl", validation)):
            if content is not None:
                (tmp_path / name).write_bytes(content)
        return build("course", Recorded(), path=str(tmp_path), **changes)

    return course


@pytest.mark.parametrize("save", FORMATS)
def test_every_format_reads_alike(course, save):
    noisy, clean = _images(seed=1), _images(seed=2)
    data = course(save((_images(), _images())), save((noisy, clean)))
    torch.testing.assert_close(data.validation[0], noisy[:5].float() / 255, rtol=0, atol=0)
    test = data.photographs("test")
    assert len(test) == 5
    torch.testing.assert_close(test[0].clean, clean[5].float() / 255, rtol=0, atol=0)


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_in_a_file_is_refused_and_does_not_run(course, tmp_path, attack):
    with pytest.raises(DataError, match=r"train_data\.pkl") as refusal:
        course(attack(tmp_path / "ran")).batch(0, 2, seed=0)
    assert not (tmp_path / "ran").exists()
    assert "\n" not in str(refusal.value)


def test_the_attacks_would_run_if_unpickled(tmp_path):
    pickle.loads(pickle.dumps(_Marks(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_a_file_cannot_change_torch(course):
    name = b"__defaults__"
    poison = (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(N}X" + len(name).to_bytes(4, "little") + name + b"K\x07\x85stb."
    )
    before = torch._utils._rebuild_tensor_v2.__defaults__
    try:
        with pytest.raises(DataError):
            course(poison).batch(0, 2, seed=0)
        assert torch._utils._rebuild_tensor_v2.__defaults__ == before
    finally:
        torch._utils._rebuild_tensor_v2.__defaults__ = before


@pytest.mark.parametrize(("content", "message"), UNFIT)
def test_tensors_that_do_not_fit_are_refused_by_name(course, content, message):
    with pytest.raises(DataError, match=rf"train_data\.pkl.*{message}"):
        course(pickle.dumps(content)).batch(0, 2, seed=0)


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
def test_a_missing_or_empty_file_is_refused_when_the_data_set_is_made(course, content):
    with pytest.raises(
        DataError, match=r"path must be a folder with train_data\.pkl and val_data\.pkl, but .*val_data"
    ):
        course(pickle.dumps((_images(), _images())), content)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("save", FORMATS)
def test_torch_says_nothing_of_a_file_in_words_of_its_own(course, capfd, save):
    """Neither of a good one, nor of one that asks for code."""
    files = save((_images(), _images()))
    course(files, files).batch(0, 2, seed=0)
    with pytest.raises(DataError) as refusal:
        course(save((_images(), _Marks("/nowhere")))).batch(0, 2, seed=0)
    assert "\n" not in str(refusal.value)
    assert "weights" not in str(refusal.value).lower()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("content", "message"), UNREADABLE)
def test_files_that_cannot_be_read_are_named(course, content, message):
    with pytest.raises(DataError, match=message):
        course(content).batch(0, 2, seed=0)


def test_an_epoch_takes_every_pair_once_and_the_next_in_another_order(course):
    marked = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 3, 32, 32).contiguous()
    data = course(pickle.dumps((marked, marked)))
    epochs = [
        [round(x * 255) for step in range(5) for x in data.batch(first + step, 2, seed=0)[0][:, 0, 0, 0].tolist()]
        for first in (0, 5)
    ]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]


def test_a_batch_is_a_function_of_seed_and_step_alone(course):
    files = pickle.dumps((_images(seed=1), _images(seed=2)))
    one, other = course(files), course(files)
    one.batch(0, 2, seed=3)
    for a, b in zip(one.batch(6, 2, seed=3), other.batch(6, 2, seed=3), strict=True):
        assert torch.equal(a, b)


def test_a_batch_larger_than_the_set_names_both_numbers(course):
    with pytest.raises(ValueError, match=r"trainer.batch_size must be <= 10, .*but got 11"):
        course(pickle.dumps((_images(), _images()))).steps_per_epoch(11)


def test_clean_targets_and_other_noises_are_refused_before_a_file_is_read(build, tmp_path):
    with pytest.raises(ValueError, match="target must be noise2noise"):
        build("course", Recorded(), path=str(tmp_path), target="clean")
    with pytest.raises(ValueError, match="noise=recorded"):
        build("course", Gaussian(std=0.1), path=str(tmp_path))


def test_the_digest_follows_the_number_of_validation_images(course):
    files = pickle.dumps((_images(), _images()))
    assert course(files, files, validation_crops=2).digest != course(files, files, validation_crops=3).digest
