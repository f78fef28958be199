"""Which run a person means by the beginning of an id, `latest` and `best`."""

from types import SimpleNamespace

import pytest

from scratch_dl.tracking import Run, TrackingError, open_store
from scratch_dl.tracking.selection import BEST, LATEST, best_runs, data_and_noise, get_run, select_run
from scratch_dl.tracking.store import client


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return open_store(tmp_path_factory.mktemp("selection") / "mlruns")


@pytest.fixture
def empty(tmp_path):
    return open_store(tmp_path / "mlruns")


def trained(store, name, psnr, *, digest="d1", std=0.1, status="FINISHED", verification="passed", **tags):
    run = Run.create(store, store.directory / name, "chosen", name, {"verification": verification, **tags})
    run.params({"trainer.epochs": 1, "parameters": 9, "noise.std": std, "fault": tags.get("fault", "none")})
    run.params({"data._target_": "scratch_dl.data.Folder", "data.path": "x"})
    run.dataset({"name": "photos", "digest": digest}, "training")
    run.metric("val/best_psnr_db", psnr, 10)
    assert run.finish(status)
    return run.run_id


def test_best_is_the_best_sound_run_of_the_last_ones_data_and_noise(store):
    older = trained(store, "other noise", 35.0, std=0.05)
    good = trained(store, "good", 28.0)
    trained(store, "other data", 36.0, digest="d2")
    trained(store, "faulty", 33.0, fault="relu_mask_from_gradient")
    trained(store, "stopped", 34.0, status="KILLED")
    trained(store, "not verified", 32.0, verification="off")
    trained(store, "wrong", 31.0, verification="failed")
    better = trained(store, "better", 29.0)
    trained(store, "worse", 27.0)
    trained(store, "trial-3", 39.0, study="custom", trial="3")
    other = Run.create(store, store.directory / "verification", "chosen", "verification", {"verification": "passed"})
    other.params({"trainer.epochs": 1, "noise.std": 0.1})  # a verification has all settings of a training
    other.metric("val/best_psnr_db", 40.0, 0)
    assert other.finish("FINISHED")
    assert select_run(store, BEST).info.run_id == better
    assert [run.info.run_name for run in best_runs(store)] == ["better", "good", "worse"]
    assert select_run(store, LATEST).info.run_name == "trial-3"  # the verification trained nothing
    client(store).delete_run(better)
    assert select_run(store, BEST).info.run_id == good
    assert select_run(store, older[:7]).info.run_id == older


def run_with(digest, data="Photos", std="0.1", **settings):
    params = {f"data.{key}": value for key, value in {"_target_": f"scratch_dl.data.{data}", **settings}.items()}
    inputs = SimpleNamespace(dataset_inputs=[SimpleNamespace(dataset=SimpleNamespace(digest=digest))])
    return SimpleNamespace(data=SimpleNamespace(params={"noise.std": std, **params}), inputs=inputs)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        pytest.param(run_with("d2", train="[a]"), True, id="train"),
        pytest.param(run_with("d1", train="[a, b]", seed="1"), False, id="crops"),
        pytest.param(run_with("d1", train="[a, b]", std="0.2"), False, id="noise"),
    ],
)
def test_scores_can_be_compared_if_the_same_pixels_were_scored(other, same):
    """Whatever was trained on; the pictures of a folder may have changed, which only their digest shows."""
    assert (data_and_noise(run_with("d1", train="[a, b]")) == data_and_noise(other)) is same
    assert data_and_noise(run_with("d1", "Folder")) != data_and_noise(run_with("d2", "Folder"))


@pytest.mark.parametrize("name", [BEST, LATEST])
def test_without_a_run_the_message_has_the_command_that_makes_one(empty, name):
    with pytest.raises(TrackingError, match=f"run={name}, but no .*; train one: python -m scratch_dl.train$"):
        select_run(empty, name)


def test_a_beginning_that_several_ids_have_is_refused_with_them(empty):
    """One letter in sixteen is the same for two ids; here, as many runs are made as it takes."""
    ids = []
    while len({run_id[0] for run_id in ids}) == len(ids):
        ids.append(trained(empty, f"run{len(ids)}", 1.0))
    same = next(a for a in ids for b in ids if a != b and a[0] == b[0])[0]
    with pytest.raises(TrackingError, match=f"run={same} is the beginning of 2 ids: "):
        get_run(empty, same, shortest=1)
