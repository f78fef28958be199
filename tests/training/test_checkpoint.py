"""Checkpoints: whole or not at all, checked when read, and never running what is in them."""

import os
import pickle

import pytest
import torch

from scratch_dl.training import checkpoint
from scratch_dl.training.checkpoint import CheckpointError, load, load_last, save, save_last

CONTENT = {"network": {"w": torch.arange(6.0).reshape(2, 3)}, "progress": {"step": 3, "best": -float("inf")}}


def test_what_is_saved_is_loaded(tmp_path):
    save(tmp_path / "a.pt", CONTENT)
    content = load(tmp_path / "a.pt")
    assert torch.equal(content["network"]["w"], CONTENT["network"]["w"])
    assert content["progress"] == CONTENT["progress"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*a\.pt"):
        load(tmp_path / "a.pt")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = tmp_path / "a.pt"
    save(path, CONTENT)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="damaged"):
        load(path)


def test_a_flipped_bit_in_a_tensor_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    save(path, CONTENT)
    content = bytearray(path.read_bytes())
    position = content.find(torch.tensor([1.0, 2.0]).numpy().tobytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load(path)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    for name, write in {
        "torch": torch.save,
        "pickle": lambda item, path: path.write_bytes(pickle.dumps(item, protocol=2)),
    }.items():
        path = tmp_path / name
        write({"digest": "", "content": Evil()}, path)
        with pytest.raises(CheckpointError, match="damaged, or no checkpoint"):
            load(path)
    assert not (tmp_path / "ran").exists()


def test_a_damaged_last_checkpoint_gives_way_to_the_previous_one_with_a_warning(tmp_path, caplog):
    for step in (1, 2):
        save_last(tmp_path, {"step": step})
    last = tmp_path / checkpoint.LAST
    last.write_bytes(last.read_bytes()[:100])
    assert load_last(tmp_path) == {"step": 1}
    assert "last.pt is damaged" in caplog.text
    assert "previous.pt" in caplog.text


def test_a_first_checkpoint_that_is_damaged_is_refused(tmp_path):
    save_last(tmp_path, {"step": 1})
    (tmp_path / checkpoint.LAST).write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged"):
        load_last(tmp_path)


def test_what_a_killed_process_left_is_cleaned_up_and_counts_as_nothing(tmp_path):
    save_last(tmp_path, {"step": 1})
    stray = tmp_path / f"{checkpoint.LAST}.123.tmp"
    stray.write_bytes(b"half")
    assert load_last(tmp_path) == {"step": 1}
    save_last(tmp_path, {"step": 2})
    assert not stray.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint.LAST, checkpoint.PREVIOUS]


def test_a_full_disk_keeps_the_old_checkpoint_and_names_the_path(tmp_path, monkeypatch):
    save(tmp_path / "a.pt", {"step": 1})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"a\.pt cannot be written: No space left on device"):
        save(tmp_path / "a.pt", {"step": 2})
    assert load(tmp_path / "a.pt") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_the_digest_sees_values_names_shapes_and_dtypes():
    base = {"a": torch.zeros(2, 3), "b": 1}
    others = [
        {"a": torch.zeros(3, 2), "b": 1},
        {"a": torch.zeros(2, 3, dtype=torch.float64), "b": 1},
        {"c": torch.zeros(2, 3), "b": 1},
        {"a": torch.zeros(2, 3), "b": 2},
    ]
    assert len({checkpoint.digest(content) for content in [base, *others]}) == 5
    assert checkpoint.digest(base) == checkpoint.digest({"b": 1, "a": torch.zeros(2, 3)})
