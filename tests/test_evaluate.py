"""The evaluation of a trained run: refused before a folder is made, and recorded as fully as a training."""

import shlex
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import preloaded
from scratch_dl import evaluate, kernels
from scratch_dl.data import Gaussian
from scratch_dl.data.dataset import generator_of
from scratch_dl.system import provenance
from scratch_dl.train import train
from scratch_dl.training.result import read_summary

SMALL = ("debug=fast", "threads=1", "verification=off", "diagnosis=off", "model.channels=[2,2,2]", "trainer.epochs=1",
         "trainer.test=false", "data.downsample=8", "data.crop_size=16", "data.crops_per_epoch=8",
         "data.validation_crops=2", "tracking.detail=trial")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which a run was trained: mlruns/one."""
    folder = tmp_path_factory.mktemp("evaluations")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train([*SMALL, "hydra.run.dir=mlruns/one"])
    return folder


@pytest.fixture
def evaluated(folder, monkeypatch, in_process):
    """Evaluates by `arguments` there: exit status, stdout, stderr, and the folders of runs that are new."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        before = set(Path("mlruns").rglob("journal.jsonl"))
        # Evaluations of one process in one second would share a folder.
        status, out, err = in_process(evaluate, *arguments, f"hydra.run.dir=mlruns/evaluations/{time.monotonic_ns()}")
        return status, out, err, [path.parent for path in set(Path("mlruns").rglob("journal.jsonl")) - before]

    return run


def run_of(folder):
    """What MLflow has of the run of a folder."""
    from mlflow import MlflowClient

    from scratch_dl.tracking import Journal

    return MlflowClient(f"sqlite:///{Path('mlruns').absolute()}/mlflow.db").get_run(Journal(folder).header["run_id"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("run=nowhere/at/all",),
            "run must be a run's folder (with a config.yaml), its id, latest or best, but got 'nowhere/at/all'",
        ),
        (("run=0123456789abcdef",), "run=0123456789abcdef"),
        (("run=mlruns/one", "splits=foo"), "splits must be some of validation, test, but got 'foo'"),
        (("run=mlruns/one", "splits=[foo]"), "splits must be some of validation, test, but got ['foo']"),
        (("run=mlruns/one", "checkpoint=foo"), "checkpoint must be one of best, last, but got 'foo'"),
        (("run=mlruns/one", "threads=0"), "threads must be >= 1, but got 0"),
        (("run=mlruns/one", "noise=gaussian", "noise.std=-1"), "noise.std must be a finite number > 0, but got -1"),
        (("run=mlruns/one", "+foo=1"), "foo is not a setting; there are: run, checkpoint, splits, "),
        (("run=mlruns/one", "+tracking.foo=1"), "tracking.foo is not a setting; there are: dir, uri, "),
        (("-m", "run=mlruns/one", "checkpoint=best,last"), "evaluate takes one configuration at a time, but got -m"),
        ((), "run must be given, for example run=..., but it is missing"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line_and_leaves_nothing(evaluated, folder, arguments, message):
    before = sorted(folder.rglob("*"))
    status, out, err, _ = evaluated(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {message}"), err
    assert err.count("\n") == 1, err
    assert sorted(folder.rglob("*")) == before


def test_a_photograph_that_the_network_cannot_predict_is_refused_before(evaluated, folder):
    """As of a data set that has changed since the training."""
    shutil.copytree("mlruns/one", "mlruns/changed", dirs_exist_ok=True)
    config = folder / "mlruns" / "changed" / "config.yaml"
    config.write_text(config.read_text().replace("downsample: 8", "downsample: 40"))
    before = sorted(folder.rglob("*"))
    status, _, err, _ = evaluated("run=mlruns/changed")
    assert (status, err.partition(",")[0]) == (
        2,
        "error: data.crop_size must fit into every picture after downsampling",
    )
    assert sorted(folder.rglob("*")) == before
    shutil.rmtree("mlruns/changed")


def test_an_evaluation_is_recorded_with_all_that_it_was_made_of(evaluated):
    words = ("run=mlruns/one", "noise=poisson", "splits=[validation]", "threads=1", "+tracking.tags.note=mine")
    status, out, err, (new,) = evaluated(*words)
    assert (status, err) == (0, "")
    run = run_of(new)
    assert f"recorded  {run.info.run_id} (experiment debug)\n" in out
    evaluated_run = read_summary(Path("mlruns/one"))["run_id"]
    name = f"evaluation of {evaluated_run[:8]} on photos, Poisson(peak=30)"
    assert (run.info.status, run.info.run_name) == ("FINISHED", name)
    tags, git = run.data.tags, provenance.git_state()
    assert (tags["evaluates"], tags["note"], tags["kernels"]) == (evaluated_run, "mine", kernels.used())
    assert {"command", "version"} <= set(tags)
    assert (tags["git.commit"], tags["git.dirty"]) == (git.commit, str(git.dirty).lower())
    assert {"checkpoint": "best", "noise.peak": "30", "threads": "1"}.items() <= run.data.params.items()
    assert not (new / ".hydra").exists()  # which would keep passwords


def test_an_experiment_of_ones_own_is_taken(evaluated):
    status, out, _, (new,) = evaluated("run=mlruns/one", "splits=[validation]", "tracking.experiment=mine")
    assert status == 0
    assert "(experiment mine)" in out
    assert run_of(new).data.tags["evaluates"] == read_summary(Path("mlruns/one"))["run_id"]


def test_all_pictures_of_a_folder_of_ones_own_are_one_set(evaluated, folder):
    """One is enough. Noise is added to them as to the photographs of the training."""
    (folder / "own").mkdir(exist_ok=True)
    for number, size in enumerate([(40, 30), (64, 64)]):
        Image.effect_noise(size, 60).save(folder / "own" / f"{number}.png")
    status, out, err, (new,) = evaluated("run=latest", "data=folder", "data.path=own", "data.downsample=1")
    assert (status, err) == (0, "")
    assert "all pictures" in out
    assert "validation" not in out
    assert "data      WholeFolder(path=own, downsample=1, seed=0, max_pixels=100000000)" in out
    assert "noise     Gaussian(std=0.098)" in out
    metrics = run_of(new).data.metrics
    noisy = torch.stack([psnr_of_noisy(folder / "own" / f"{number}.png") for number in (0, 1)]).mean()
    assert metrics["test/noisy_psnr_db"] == pytest.approx(float(noisy), abs=1e-4)
    shutil.rmtree(folder / "own")


def psnr_of_noisy(path):
    """By the seed and the name of the picture alone."""
    clean = torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).astype(np.float32) / 255).permute(2, 0, 1)[
        None
    ]
    noisy = Gaussian(25 / 255)(clean, None, generator_of("photograph", 0, path.name))
    return -10 * (noisy - clean).double().square().mean().log10()


def test_what_mlflow_has_not_got_is_told_with_a_cure_that_works(evaluated, monkeypatch):
    with monkeypatch.context() as patch:
        for module in ("background", "run"):
            patch.setattr(f"scratch_dl.tracking.{module}.unavailable_reason", lambda *_: "it is gone")
        status, _, err, (new,) = evaluated("run=mlruns/one", "splits=[validation]")
    assert status == 3
    line = err.splitlines()[-1]
    assert line.startswith("error: MLflow has not received everything; later: python -c ")
    assert run_of(new).info.status == "RUNNING"
    words = shlex.split(line.partition("later: ")[2])
    assert words.pop(0) == "python"
    done = preloaded.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert run_of(new).info.status == "FINISHED"
    assert "val_whole/psnr_db" in run_of(new).data.metrics


def test_threads_and_backend_are_used_and_then_as_before(evaluated, monkeypatch):
    from scratch_dl.evaluation import scoring

    seen, threads, used = [], torch.get_num_threads(), kernels.used()
    scored = scoring.evaluate_photographs

    def watching(*arguments):
        seen.append((torch.get_num_threads(), kernels.used()))
        return scored(*arguments)

    monkeypatch.setattr(scoring, "evaluate_photographs", watching)
    assert evaluated("run=mlruns/one", "splits=[validation]", "threads=2", "backend=reference")[0] == 0
    assert seen == [(2, "reference")]
    assert (torch.get_num_threads(), kernels.used()) == (threads, used)
