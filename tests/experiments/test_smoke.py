"""Every study runs at a small size, and parts of some do what the tables take for granted."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scratch_dl.train import train

FOLDER = Path(__file__).parents[2] / "experiments"
STUDIES = sorted(FOLDER.glob("*/run.py"))
SMALL = (
    "model.channels=[4,4,4]", "model.init=xavier", "optimizer=adam", "schedule=cosine", "data.crops_per_epoch=40",
    "data.validation_crops=8", "data.downsample=4", "trainer.epochs=3", "trainer.test=false", "threads=1", "seed=2",
)  # fmt: skip


@pytest.mark.exhaustive
@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.parent.name)
def test_the_study_runs(study, tmp_path):
    done = subprocess.run([sys.executable, study, "--smoke"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def sweep_study():
    """The module of experiments/005-geometry-sweep."""
    spec = importlib.util.spec_from_file_location("geometry_sweep", FOLDER / "005-geometry-sweep" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_twin_is_trained_as_the_network_is(sweep_study, tmp_path):
    own = train([*SMALL, "verification=off", "diagnosis=off", "tracking.detail=trial",
                 f"tracking.dir={tmp_path / 'own'}", f"hydra.run.dir={tmp_path / 'run'}"])  # fmt: skip
    twin = sweep_study.Twin("small", SMALL, tmp_path).train()
    assert twin.best_step == own.progress.best_step > 0
    assert twin.best_psnr_db == pytest.approx(own.progress.best_psnr_db, abs=1e-3)
    twin.model.load_state_dict(twin.best)
    twin._put_into_network()
    for ours, theirs in zip(own.network.parameters(), twin.network.parameters(), strict=True):
        torch.testing.assert_close(ours.value, theirs.value, rtol=1e-3, atol=1e-5)


def test_a_twin_goes_on_where_it_was_bit_for_bit(sweep_study, tmp_path):
    undisturbed = sweep_study.Twin("small", SMALL, tmp_path / "one").train()
    sweep_study.Twin("small", SMALL, tmp_path / "two").train(epochs=1)
    resumed = sweep_study.Twin("small", SMALL, tmp_path / "two")
    assert resumed.step == 0
    resumed.train()
    assert (resumed.step, resumed.best_step, resumed.best_psnr_db) == (
        undisturbed.step, undisturbed.best_step, undisturbed.best_psnr_db)  # fmt: skip
    for name, value in undisturbed.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    # Another training of the same name begins anew.
    assert sweep_study.Twin("small", (*SMALL, "seed=3"), tmp_path / "two").train(epochs=1).step == 5


@pytest.mark.parametrize(
    ("kernel", "mode", "padding", "shown"),
    [
        (4, "transposed", [1, "same", 1, "same"], ("4", "same", "16-32-16")),
        (3, "nearest", [1, 1, 1, 1], ("3", "same", "16-32-16")),
        (3, "nearest", [0, 0, 2, 1], ("3", "0 0 2 same", "16-32-16")),
        ("[6,4,4,6]", "transposed", [2, 1, 1, 2], ("6 4 4 6", "same", "16-32-16")),
        (4, "nearest", [1, 1, "same", "same"], ("4", "same", "16-32-16")),
        (4, "nearest", ["same", "same", 2, "same"], ("4", "same same 2 same", "16-32-16")),
    ],
)
def test_a_geometry_has_one_name(sweep_study, kernel, mode, padding, shown):
    params = {"model.kernel_size": kernel, "model.upsampling": mode,
              **{f"model.padding.{place}": value for place, value in enumerate(padding)},
              **{f"model.channels.{place}": value for place, value in enumerate((16, 32, 16))}}  # fmt: skip
    assert sweep_study.described(sweep_study.geometry_of(params)) == shown
