"""What the tables of 005-geometry-sweep take for granted: fair PyTorch twins, and one name for each geometry."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

import _study
from scratch_dl.train import train

sys.path.append(str(Path(_study.__file__).parent / "005-geometry-sweep"))
import geometry_plan
from geometry_twin import Twin

FOLDER = Path(geometry_plan.__file__).parent
SMALL = (
    "model.channels=[4,4,4]", "model.init=xavier", "optimizer=adam", "schedule=cosine", "data.crops_per_epoch=40",
    "data.validation_crops=8", "data.downsample=4", "trainer.epochs=3", "trainer.test=false", "threads=1", "seed=2",
)  # fmt: skip


@pytest.mark.exhaustive
def test_a_twin_is_trained_as_the_network_is(tmp_path):
    own = train([*SMALL, "verification=off", "diagnosis=off", "tracking.detail=trial",
                 f"tracking.dir={tmp_path / 'own'}", f"hydra.run.dir={tmp_path / 'run'}"])  # fmt: skip
    twin = Twin("small", SMALL, tmp_path).train()
    assert twin.best_step == own.progress.best_step > 0
    assert twin.best_psnr_db == pytest.approx(own.progress.best_psnr_db, abs=1e-3)
    twin.model.load_state_dict(twin.best)
    twin.copy_into_network()
    for ours, theirs in zip(own.network.parameters(), twin.network.parameters(), strict=True):
        torch.testing.assert_close(ours.value, theirs.value, rtol=1e-3, atol=1e-5)


def test_a_twin_continues_where_it_was_bit_for_bit(tmp_path):
    undisturbed = Twin("small", SMALL, tmp_path / "one").train()
    Twin("small", SMALL, tmp_path / "two").train(epochs=1)
    resumed = Twin("small", SMALL, tmp_path / "two")
    assert resumed.step == 0
    resumed.train()
    assert (resumed.step, resumed.best_step, resumed.best_psnr_db) == (
        undisturbed.step, undisturbed.best_step, undisturbed.best_psnr_db)  # fmt: skip
    for name, value in undisturbed.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    # Another training of the same name starts from the beginning.
    assert Twin("small", (*SMALL, "seed=3"), tmp_path / "two").train(epochs=1).step == 5


@pytest.mark.parametrize(
    ("kernel", "mode", "padding", "expected"),
    [
        (4, "transposed", [1, "same", 1, "same"], ("4", "same", "16-32-16")),
        (3, "nearest", [1, 1, 1, 1], ("3", "same", "16-32-16")),
        (3, "nearest", [0, 0, 2, 1], ("3", "0 0 2 same", "16-32-16")),
        ("[6,4,4,6]", "transposed", [2, 1, 1, 2], ("6 4 4 6", "same", "16-32-16")),
        (4, "nearest", [1, 1, "same", "same"], ("4", "same", "16-32-16")),
        (4, "nearest", ["same", "same", 2, "same"], ("4", "same same 2 same", "16-32-16")),
    ],
)
def test_a_geometry_has_one_name(kernel, mode, padding, expected):
    params = {"model.kernel_size": kernel, "model.upsampling": mode,
              **{f"model.padding.{place}": value for place, value in enumerate(padding)},
              **{f"model.channels.{place}": value for place, value in enumerate((16, 32, 16))}}  # fmt: skip
    assert geometry_plan.describe(geometry_plan.geometry_of(params)) == expected


def test_the_tables_of_the_readme_are_those_of_results_json():
    spec = importlib.util.spec_from_file_location("geometry_run", FOLDER / "run.py")
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    tables = readme.partition(_study.BEGIN)[2].partition(_study.END)[0].strip()
    assert run.markdown(json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))) == tables
