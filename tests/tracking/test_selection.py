"""Which run a person means by the beginning of an id, `latest` and `best`."""

import pytest

from scratch_dl.tracking import Run, TrackingError, open_store
from scratch_dl.tracking.selection import BEST, LATEST, best_runs, get_run, select_run
from scratch_dl.tracking.store import client


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return open_store(tmp_path_factory.mktemp("selection") / "mlruns")


@pytest.fixture
def empty(tmp_path):
    return open_store(tmp_path / "mlruns")


def trained(store, name, psnr, *, digest="d1", std=0.1, status="FINISHED", verification="passed", **tags):
    run = Run.create(store, store.directory / name, "chosen", name, {"verification": verification, **tags})
    run.params({"trainer.epochs": 1, "noise.std": std, "fault": tags.get("fault", "none")})
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
    evaluation = Run.create(store, store.directory / "evaluation", "chosen", "evaluation")
    evaluation.metric("val/best_psnr_db", 40.0, 0)
    assert evaluation.finish("FINISHED")
    assert select_run(store, BEST).info.run_id == better
    assert [run.info.run_name for run in best_runs(store)] == ["better", "good", "worse"]
    assert select_run(store, LATEST).info.run_name == "worse"  # the evaluation trained nothing
    client(store).delete_run(better)
    assert select_run(store, BEST).info.run_id == good
    assert select_run(store, older[:7]).info.run_id == older


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
