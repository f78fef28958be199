"""The main job at a small size, in a temporary folder, read back through MLflow's own client."""

import json
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import preloaded
import scratch_dl
from scratch_dl import tracking
from scratch_dl.config.composing import compose_config
from scratch_dl.system.errors import ConfigError
from scratch_dl.tracking.deletion import _other_thing
from scratch_dl.train import train
from scratch_dl.training import checkpoint
from scratch_dl.training.loop import Diverged
from scratch_dl.training.note import again
from scratch_dl.training.result import attached_result
from scratch_dl.training.summary import print_summary

SMALL = ["debug=fast", "threads=1", "model.channels=[4,5,4]", "tracking.detail=trial"]


def command(*arguments, cwd, module="train", **more):
    return preloaded.run(
        [sys.executable, "-m", f"scratch_dl.{module}", *arguments],
        cwd=cwd, text=True, capture_output=True, timeout=120, check=False, **more,
    )  # fmt: skip


def in_folder(folder, *overrides):
    return train(
        [*SMALL, f"tracking.dir={folder}", f"hydra.run.dir={folder}/hydra/a/{time.monotonic_ns()}", *overrides]
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A finished small run and its store; creating the tables once saves seconds a test."""
    folder = tmp_path_factory.mktemp("store") / "mlruns"
    return folder, in_folder(folder, "tracking.detail=full")


@pytest.fixture
def store(template, tmp_path):
    """A store with tables and no folders of runs."""
    (tmp_path / "mlruns").mkdir()
    shutil.copy(template[0] / "mlflow.db", tmp_path / "mlruns")
    shutil.copytree(template[0] / "cache", tmp_path / "mlruns" / "cache")
    return tmp_path / "mlruns"


@pytest.fixture(scope="module")
def recorded(template):
    """MLflow's client and its run."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{template[0]}/mlflow.db")
    return client, client.get_run(template[1].run_id)


def test_a_runs_page_begins_with_its_result_and_ends_with_its_process(template, recorded):
    """Before the verdicts are known, their tags stand there already, so that they come first."""
    tags = recorded[1].data.tags
    shown = [key for key in tags if not key.startswith("mlflow.")]
    assert shown[:5] == ["model", "noise", "verification", "diagnosis", "kernels"]
    assert [tags[key] for key in shown[:4]] == ["paper", "Gaussian(std=0.098)", "passed", "too_short"]
    note, result = tags["mlflow.note.content"], template[1]
    assert note.startswith(f"**FINISHED: {result.scores['test/psnr_db']:.2f} dB on the test photographs**, below every")
    assert "- verification: passed\n- diagnosis: too\\_short; output " in note
    assert f"| test photographs | {result.scores['test/noisy_psnr_db']:.2f} | " in note
    assert f"- again: {again(result.overrides)}".replace("[", "\\[").replace("]", "\\]").replace("_", "\\_") in note
    assert "No result yet" not in note


def test_everything_in_a_runs_folder_is_known_as_its_own(template):
    """So that the run can be deleted: a folder with something else in it is left alone."""
    folder, result = template
    store = tracking.Store(folder, f"sqlite:///{folder}/mlflow.db")
    assert (result.folder / "checkpoints").is_dir()
    assert _other_thing(store, result.folder) is None


def test_the_baselines_have_two_points_and_so_a_line_in_a_chart(recorded):
    client, run = recorded
    for name in ("noisy", "blur", "tv", "nlm"):
        points = client.get_metric_history(run.info.run_id, f"baseline/{name}_psnr_db")
        assert [point.step for point in points] == [0, 20]
        assert len({point.value for point in points}) == 1


def digests(result):
    content = checkpoint.load(Path(result.folder) / "checkpoints" / checkpoint.LAST)
    return checkpoint.digest([content["network"], content["optimizer"]])


def test_mlflow_has_every_metric_by_its_name(template, recorded):
    client, run = recorded
    assert run.info.status == "FINISHED"
    names = {"train/loss", "val/loss", "val/psnr_db", "val/psnr_pooled_db", "val/ssim", "val/gain_db", "test/psnr_db",
             "val_whole/psnr_db", "images_per_s"}  # fmt: skip
    names |= {f"baseline/{name}_psnr_db" for name in ("noisy", "blur", "nlm", "tv")}
    assert names <= set(run.data.metrics)
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in losses] == list(range(1, 21))
    psnr = client.get_metric_history(run.info.run_id, "val/psnr_db")
    assert [point.step for point in psnr] == [0, 10, 20]
    gain = run.data.metrics["val/gain_db"]
    assert gain == pytest.approx(psnr[-1].value - run.data.metrics["baseline/noisy_psnr_db"])
    assert template[1].scores["test/psnr_db"] == pytest.approx(run.data.metrics["test/psnr_db"])


def test_mlflow_has_parameters_data_sets_and_the_way_to_repeat_the_run(recorded):
    _, run = recorded
    assert run.data.params["optimizer.lr"] == "0.004"
    assert run.data.params["model.channels"] == "[4, 5, 4]"
    assert "git.commit" in run.data.tags
    assert run.data.tags["overrides"].startswith("debug=fast")
    assert {i.dataset.name for i in run.inputs.dataset_inputs} == {"photos"}
    assert len(run.inputs.dataset_inputs[0].dataset.digest) == 16


def test_mlflow_has_the_artifacts(recorded):
    client, run = recorded

    def walk(path=None):
        for item in client.list_artifacts(run.info.run_id, path):
            yield from walk(item.path) if item.is_dir else [item.path]

    paths = set(walk())
    wanted = {"config.yaml", "environment.json", "network.txt", "figures/loss.png", "figures/psnr.png",
              "checkpoints/best.pt", "checkpoints/last.pt"}  # fmt: skip
    assert wanted <= paths
    pictures = sorted(path for path in paths if path.startswith("images/samples") and path.endswith(".png"))
    assert [f"+step+{step}+" in path for step, path in zip((0, 10, 20), pictures, strict=True)] == [True] * 3


MY_LAYERS = """
import torch

class MyConv:
    # 2x2 kernels of stride 2, in the course's convention
    def __init__(self, in_channels, out_channels):
        self.w = 0.3 * torch.randn(out_channels, in_channels, 2, 2)
        self.b = torch.zeros(out_channels)
        self.dw, self.db = torch.zeros_like(self.w), torch.zeros_like(self.b)

    def forward(self, *input):
        n, c, h, w = input[0].shape
        self.x = input[0].view(n, c, h // 2, 2, w // 2, 2)
        return torch.einsum("ocij,nchiwj->nohw", self.w, self.x) + self.b[:, None, None]

    def backward(self, *gradwrtoutput):
        (g,) = gradwrtoutput
        self.dw += torch.einsum("nohw,nchiwj->ocij", g, self.x)
        self.db += g.sum((0, 2, 3))
        grad = torch.einsum("ocij,nohw->nchiwj", self.w, g)
        return grad.reshape(len(g), grad.shape[1], 2 * g.shape[2], 2 * g.shape[3])

    def param(self):
        return [(self.w, self.dw), (self.b, self.db)]
"""
MINE = ["debug=fast", "threads=1", "model=sequential", "schedule=constant", "allowed_targets=[my_layers.]",
        *(f"~model.modules.conv1.{name}" for name in ("kernel_size", "stride", "padding")),
        "model.modules.conv1._target_=my_layers.MyConv", "tracking.detail=trial"]  # fmt: skip


@pytest.mark.exhaustive
def test_a_module_of_ones_own_is_trained_resumed_evaluated_and_loaded(store, monkeypatch):
    """From the file in the current folder; it knows nothing of this package, and is resumed bit for bit."""
    import mlflow

    folder = store.parent
    (folder / "my_layers.py").write_text(MY_LAYERS)
    done = command(*MINE, "trainer.epochs=1", f"tracking.dir={store}", cwd=folder)
    assert done.returncode == 0, done.stderr
    (part,) = store.glob("hydra/*/*")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "my_layers", raising=False)
    with pytest.raises(ConfigError, match=r"model\.modules\.conv1\._target_ must begin with one of scratch_dl\."):
        train([f"resume={part}", "trainer.epochs=2", f"tracking.dir={store}"])
    longer = train([f"resume={part}", "trainer.epochs=2", f"tracking.dir={store}", "allowed_targets=[my_layers.]"])
    whole = train([*MINE, "tracking.detail=full", f"tracking.dir={store}", f"hydra.run.dir={store}/hydra/a/whole"])
    assert digests(longer) == digests(whole)
    first, last = (checkpoint.load(part / "checkpoints" / name) for name in (checkpoint.PREVIOUS, checkpoint.LAST))
    assert not torch.equal(first["network"]["conv1.w"], last["network"]["conv1.w"])
    arguments = (f"run={part}", "splits=[validation]", f"tracking.dir={store}")
    assert "must begin with one of scratch_dl." in command(*arguments, cwd=folder, module="evaluate").stderr
    done = command(*arguments, "allowed_targets=[my_layers.]", cwd=folder, module="evaluate")
    assert done.returncode == 0, done.stderr
    mlflow.set_tracking_uri(f"sqlite:///{store}/mlflow.db")
    images = np.random.default_rng(0).random((2, 3, 17, 30), dtype=np.float32)
    output = mlflow.pyfunc.load_model(f"runs:/{whole.run_id}/model").predict(images)
    assert np.allclose(output, whole.network.predict(torch.from_numpy(images)).numpy(), atol=1e-6)
    with pytest.raises(ConfigError, match=r"model\.modules\.conv1\._target_ must begin with one of scratch_dl\."):
        checkpoint.load_network(part / "checkpoints" / checkpoint.BEST)


def test_the_model_loads_and_runs_in_a_fresh_process(template):
    folder, result = template
    code = (
        "import mlflow, numpy as np\n"
        f"mlflow.set_tracking_uri('sqlite:///{folder}/mlflow.db')\n"
        f"model = mlflow.pyfunc.load_model('runs:/{result.run_id}/model')\n"
        "assert model.metadata.signature is not None\n"
        "np.save('output.npy', model.predict(np.load('input.npy')))\n"
    )
    images = np.random.default_rng(0).random((2, 3, 17, 30), dtype=np.float32)
    np.save(folder / "input.npy", images)
    done = preloaded.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = result.network.predict(torch.from_numpy(images))
    assert np.allclose(np.load(folder / "output.npy"), expected.numpy(), atol=1e-6)


def test_nothing_is_written_outside_the_tracking_folder(template):
    folder, _ = template
    known = {"mlflow.db", "artifacts", "hydra", "cache", ".mlflow.db.lock", "processes", "input.npy", "output.npy"}
    assert {path.name for path in folder.iterdir()} <= known
    assert [path.name for path in folder.parent.iterdir()] == ["mlruns"]


def test_the_same_seed_twice_gives_bit_identical_weights(template, store):
    assert digests(in_folder(store)) == digests(template[1])
    assert digests(in_folder(store, "seed=1")) != digests(template[1])


def test_a_trial_records_metrics_and_the_final_picture_only(store):
    from mlflow import MlflowClient

    result = in_folder(store, "trainer.test=false")
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    assert "val/psnr_db" in client.get_run(result.run_id).data.metrics
    assert not any(key.startswith("test/") for key in client.get_run(result.run_id).data.metrics)
    names = {item.path for item in client.list_artifacts(result.run_id)}
    assert names == {"config.yaml", "diagnosis", "images", "network.txt"} | ({"git.diff"} & names)


@pytest.mark.parametrize(
    "what",
    [
        "model=unet",
        "optimizer=adam",
        *(
            pytest.param(what, marks=pytest.mark.exhaustive)
            for what in ("noise=pixelation", "dtype=float64", "schedule=cosine")
        ),
    ],
)
def test_the_other_choices_train_too(store, what):
    result = in_folder(store, what, *(["model.channels=4"] if "unet" in what else []))
    assert result.status == "FINISHED"


def test_a_killed_run_is_resumed_bit_for_bit_by_its_id(template, store, killed_at, run_command):
    """SIGKILL in the second epoch; the other process then goes on from the first epoch's checkpoint."""
    from mlflow import MlflowClient

    process = preloaded.Popen(
        [sys.executable, "-c", killed_at(15), *SMALL, f"tracking.dir={store}"], cwd=store, stdout=preloaded.DEVNULL
    )
    assert process.wait(timeout=120) == -signal.SIGKILL
    (folder,) = store.glob("hydra/*/*")
    run_id = json.loads((folder / "journal.jsonl").read_text().splitlines()[0])["run_id"]
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    assert client.get_run(run_id).info.status == "RUNNING"
    done = command(f"resume={run_id}", f"tracking.dir={store}", cwd=store)
    assert done.returncode == 0, done.stderr
    assert "continuing from epoch 1, step 10" in done.stdout
    assert client.get_run(run_id).info.status == "FINISHED"
    last = checkpoint.load(folder / "checkpoints" / checkpoint.LAST)
    assert checkpoint.digest([last["network"], last["optimizer"]]) == digests(template[1])
    steps = [point.step for point in client.get_metric_history(run_id, "train/loss")]
    assert sorted(steps) == list(range(1, 21))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    status, out, err = run_command("train", f"resume={folder}", f"tracking.dir={store}")
    assert status == 0, err
    assert "nothing to do" in out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.exhaustive)]
)
def test_a_signal_ends_the_command_with_its_status_and_the_run_as_killed(store, killed_at, number, status):
    from mlflow import MlflowClient

    code = killed_at(15).replace("signal.SIGKILL", f"{int(number)}")
    process = preloaded.run(
        [sys.executable, "-c", code, *SMALL, f"tracking.dir={store}"], cwd=store, check=False, capture_output=True
    )
    assert process.returncode == status, process.stderr
    (folder,) = store.glob("hydra/*/*")
    summary = json.loads((folder / "summary.json").read_text())
    info = MlflowClient(f"sqlite:///{store}/mlflow.db").get_run(summary["run_id"]).info
    assert info.status == "KILLED"
    assert info.end_time
    assert checkpoint.load(folder / "checkpoints" / checkpoint.LAST)["progress"]["step"] == 16


def test_a_changed_setting_is_refused_on_resume_unless_permitted(template):
    store, result = template
    with pytest.raises(ConfigError, match=r"optimizer\.lr of the run in .* is 0\.004 and cannot become 0\.5; .*allow="):
        train([f"resume={result.folder}", "optimizer.lr=0.5", f"tracking.dir={store}"])
    with pytest.raises(ConfigError, match=r"model\.channels of the run"):
        train([f"resume={result.folder}", "model.channels=[4,5,5]", f"tracking.dir={store}"])


def test_under_a_constant_schedule_a_finished_run_is_prolonged_bit_for_bit(store):
    whole = in_folder(store, "schedule=constant", "trainer.epochs=3")
    part = in_folder(store, "schedule=constant", "trainer.epochs=1")
    longer = train([f"resume={part.run_id}", "trainer.epochs=3", f"tracking.dir={store}"])
    assert longer.run_id == part.run_id
    assert digests(longer) == digests(whole)


def test_a_length_that_the_schedule_depends_on_cannot_change(template):
    store, result = template
    with pytest.raises(ConfigError, match=r"trainer\.epochs .* cannot become 3 \(the schedule depends on the length\)"):
        train([f"resume={result.folder}", "trainer.epochs=3", f"tracking.dir={store}"])


def test_a_diverging_run_fails_with_one_line_and_keeps_the_best_checkpoint(store, run_command):
    status, _, err = run_command("train", *SMALL, "optimizer.lr=1e30", f"tracking.dir={store}")
    assert status == 1
    assert err.count("\n") == 1, err
    assert "train/loss became" in err
    (folder,) = store.glob("hydra/*/*")
    assert json.loads((folder / "summary.json").read_text())["status"] == "FAILED"
    checkpoint.load(folder / "checkpoints" / checkpoint.BEST)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("optimizer.lr=abc", "error: optimizer.lr must be a finite number >= 0, but got 'abc'"),
        ("optimizer.lrr=1", "error: optimizer.lrr is not a setting; did you mean 'optimizer.lr'?"),
        ("modle=unet", "error: modle is not a setting; did you mean 'model'?"),
        ("model=unett", "error: model must be one of paper, sequential, unet, but got 'unett'; did you mean 'unet'?"),
        ("model.padding=[0,0,1,1]", "error: model: the output must have the input's size 32x32"),
        ("model._target_=os.mkdir", "error: model._target_ must begin with one of scratch_dl."),
        ("resume=nowhere/at/all", "error: resume must be a run's folder"),
        ("optimizer.lr", "error: "),
        ("trainer.batch_size=5000", "error: trainer.batch_size must be <= data.crops_per_epoch = 2400, but got 5000"),
        ("data.crop_size=4", "error: data.crop_size must be >= 7"),
        ("seed=99999999999999999999", "error: seed must be <= "),
        ("~optimizer._target_", "error: optimizer must be one of the group's choices"),
        ("noise=null", "error: a group takes one of its choices"),
        ("noise={_target_: scratch_dl.schedule.Constant}", "error: noise"),
        ("tracking.uri=foo", "error: tracking.uri must be like"),
    ],
)
def test_a_wrong_config_is_one_line_and_exit_2_and_leaves_nothing(tmp_path, run_command, argument, message):
    status, _, err = run_command("train", argument)
    assert status == 2
    assert err.startswith(message), err
    assert err.count("\n") == 1, err
    assert list(tmp_path.iterdir()) == []


def test_a_grid_ends_with_mean_and_spread(store):
    done = command(*SMALL, "-m", "seed=1,2", f"tracking.dir={store}", cwd=store)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("mean") for line in lines)
    assert any(line.startswith("std") for line in lines)


def test_a_run_that_fails_before_its_first_step_says_so(tmp_path, run_command):
    """A picture that breaks when it is decoded: nothing was verified or watched, and no setting was to blame."""
    (tmp_path / "pictures").mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (100, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    whole = (tmp_path / "pictures" / "0.png").read_bytes()
    (tmp_path / "pictures" / "0.png").write_bytes(whole[: len(whole) // 2])
    where = ["data=folder", f"data.path={tmp_path}/pictures", f"tracking.dir={tmp_path}/runs"]
    status, out, err = run_command("train", *SMALL, *where, f"hydra.run.dir={tmp_path}/runs/hydra/run")
    assert status == 1, err
    assert "FAILED before the first validation" in out
    assert "PSNR, dB" not in out
    assert "verified  not reached" in out
    _, out, _ = run_command("diagnose", f"run={tmp_path}/runs/hydra/run", f"tracking.dir={tmp_path}/runs")
    assert "the run ended before its first step" in out
    assert "diagnosis=off" not in out


def test_what_is_trained_is_said_first_and_without_a_password(run_command):
    """The choices of the groups, or what was typed for several trainings."""
    _, out, _ = run_command("train", *SMALL, "loss=l1", "optimizer.lr=abc")
    assert (
        out == "model=paper loss=l1 optimizer=adam_short_memory schedule=cosine data=photos noise=gaussian debug=fast\n"
    )
    _, out, _ = run_command("train", "loss._target_=my_losses.Huber", "debug=fast")
    assert out.startswith("model=paper loss=my_losses.Huber optimizer=")
    _, out, _ = run_command(
        "train", "-m", "seed=0,1", "optimizer.lr=abc", "tracking.uri=postgresql://bob:SECRET@127.0.0.1:1/x"
    )
    assert out == "several trainings: seed=0,1 optimizer.lr=abc tracking.uri=postgresql://bob:***@127.0.0.1:1/x\n"


def test_a_grid_with_one_bad_point_trains_none(tmp_path, run_command):
    status, _, err = run_command("train", *SMALL, "-m", "optimizer.lr=0.1,abc")
    assert status == 2
    assert err.startswith("error: optimizer.lr must be"), err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.exhaustive
def test_a_finished_run_is_evaluated_under_another_noise(template, run_command):
    folder, result = template
    arguments = (f"run={result.run_id}", "noise=pixelation", f"tracking.dir={folder}")
    status, out, err = run_command("evaluate", *arguments)
    assert status == 0, err
    assert "test photographs" in out


def test_help_and_cfg_say_what_there_is(tmp_path):
    """Every setting with its comment, of the model that is named."""
    said = command("--help", "model=unet", cwd=tmp_path).stdout
    assert max(map(len, said.splitlines())) <= 80
    assert "\nmodel=unet (or paper, sequential)\n" in said
    every = compose_config("train", ["model=unet"])
    for group in (
        "model",
        "optimizer",
        "schedule",
        "data",
        "noise",
        "trainer",
        "verification",
        "diagnosis",
        "tracking",
    ):
        for key in every[group]:
            assert key == "_target_" or f"\n  {group}.{key}=" in said, key
    for key in (
        "seed",
        "device",
        "dtype",
        "backend",
        "threads",
        "fault",
        "allowed_targets",
        "resume.run",
        "resume.allow",
    ):
        assert f"\n  {key}=" in said, key
    assert "trainer.epochs=24                 each ends with a validation and a checkpoint" in said
    shown = command("--cfg", "job", cwd=tmp_path).stdout
    assert "upsampling: transposed" in shown
    assert list(tmp_path.iterdir()) == []


def test_the_end_has_a_panel_of_80_columns_and_commands_that_can_be_copied(template, capsys):
    """However long they are: they stand below the panel, a line each."""
    long = [*SMALL, "tracking.tags.note=" + "x" * 100]
    print_summary(replace(template[1], overrides=long), compose_config("train", SMALL))
    lines = capsys.readouterr().out.splitlines()
    panel = [line for line in lines if line[0] in "╭│╰"]
    assert {len(line) for line in panel} == {80}
    commands = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines[len(panel) :]}
    assert list(commands) == ["look", "resume", "evaluate", "denoise", "again"]
    assert commands["again"] == again(long)


def test_the_commands_permit_what_the_run_needed(template, capsys):
    print_summary(replace(template[1], overrides=[]), compose_config("train", ["allowed_targets=[my.]"]))
    out = capsys.readouterr().out
    assert f"\nresume    python -m scratch_dl.train resume={template[1].run_id} 'allowed_targets=[my.]'\n" in out


def test_a_run_that_fails_ends_with_its_folder_and_the_commands_too(store, capsys):
    words = [*SMALL, "fault=sigmoid_gradient_at_upstream", f"tracking.dir={store}", "experiment=paper_sgd"]
    with pytest.raises(Diverged) as failed:
        train([*words, f"hydra.run.dir={store}/hydra/a/failed"])
    result = attached_result(failed.value)
    assert (result.status, result.folder) == ("FAILED", store / "hydra" / "a" / "failed")
    lines = capsys.readouterr().out.splitlines()
    (title,) = [line for line in lines if "─ FAILED: best at step " in line]
    assert lines.index(title) > len(lines) - 20
    assert f"diagnose  python -m scratch_dl.diagnose run={result.run_id} tracking.dir={store}" in lines


def test_a_result_is_short_in_a_notebook_and_shows_a_table_and_the_curve(template):
    result = template[1]
    said = repr(result)
    assert len(said) < 300
    assert said.startswith(
        f"<RunResult: FINISHED, run {result.run_id}, {result.progress.best_psnr_db:.2f} dB on the val"
    )
    shown = result._repr_html_()
    assert shown.count("<tr>") == 4
    assert f"<td>{result.scores['test/tv_psnr_db']:.2f}</td>" in shown
    assert 'src="data:image/png;base64,' in shown


def test_a_typo_is_one_line_in_a_notebook():
    """IPython asks an error for it."""
    with pytest.raises(ConfigError) as refused:
        train(["optimizer.lrr=1"])
    assert refused.value._render_traceback_() == [
        "UnknownKeyError: optimizer.lrr is not a setting; did you mean 'optimizer.lr'?"
    ]


@pytest.mark.parametrize("module", ["train", "verify", "denoise"])
def test_the_version_is_that_of_this_package(module, tmp_path):
    done = command("--version", cwd=tmp_path, module=module)
    assert (done.returncode, done.stdout) == (0, f"scratch_dl {scratch_dl.__version__}\n")


def test_the_same_run_cannot_be_worked_on_twice_at_once(template):
    folder = Path(template[1].folder)
    with (
        tracking.folder_lock(folder),
        pytest.raises(tracking.BusyError, match=rf"process {os.getpid()} on .* is working in"),
        tracking.folder_lock(folder),
    ):
        pass


@pytest.mark.parametrize("module", ["train", "evaluate"])
def test_no_command_calls_what_a_target_names_outside_the_package(template, tmp_path, module):
    folder, result = template
    (tmp_path / "victim").mkdir()
    noise = f"{{_target_: shutil.rmtree, path: {tmp_path / 'victim'}}}"
    more = (
        (f"run={result.folder}", f"tracking.dir={folder}", f"+noise={noise}")
        if module == "evaluate"
        else (f"noise={noise}",)
    )
    assert command(*more, cwd=tmp_path, module=module).returncode == 2
    assert (tmp_path / "victim").is_dir()


def test_a_checkpoint_is_not_asked_what_to_call(template, tmp_path):
    content = checkpoint.load(Path(template[1].folder) / "checkpoints" / checkpoint.BEST)
    (tmp_path / "victim").mkdir()
    content["config"] = {
        **content["config"],
        "model": {"_target_": "shutil.rmtree", "path": str(tmp_path / "victim")},
        "allowed_targets": ["shutil."],
    }
    checkpoint.save(tmp_path / "evil.pt", content)
    with pytest.raises(ConfigError, match=r"model\._target_ must begin with one of scratch_dl\."):
        checkpoint.load_network(tmp_path / "evil.pt")
    assert (tmp_path / "victim").is_dir()


def test_a_signal_while_the_record_is_sent_waits_for_it_and_is_obeyed(store, monkeypatch):
    from mlflow import MlflowClient

    from scratch_dl.tracking import Run

    finish = Run.finish

    def interrupted(self, *arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return finish(self, *arguments)

    monkeypatch.setattr(Run, "finish", interrupted)
    result = in_folder(store)
    assert result.exit_status == 143
    assert MlflowClient(f"sqlite:///{store}/mlflow.db").get_run(result.run_id).info.status == "FINISHED"


def test_a_second_signal_waits_for_the_summary(store, monkeypatch):
    """As of an impatient Ctrl-C: at the step that the first one ends, and while the best weights are loaded."""
    from scratch_dl.training import loop, run

    step, load = loop.Training.take_step, run.best_network

    def first(self, batch):
        step(self, batch)
        if self.progress.step == 15:
            os.kill(os.getpid(), signal.SIGTERM)

    def second(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return load(*arguments)

    monkeypatch.setattr(loop.Training, "take_step", first)
    monkeypatch.setattr(run, "best_network", second)
    result = in_folder(store)
    assert (result.status, result.exit_status) == ("KILLED", 143)
    assert json.loads((Path(result.folder) / "summary.json").read_text())["reason"] == "stopped by SIGTERM"


def test_what_was_permitted_to_change_on_resume_is_recorded(store):
    from mlflow import MlflowClient

    first = in_folder(store, "schedule=constant")
    changes = ["trainer.epochs=3", "optimizer.lr=0.5", "resume.allow=[optimizer.lr]"]
    second = train([f"resume={first.folder}", *changes, f"tracking.dir={store}"])
    tags = MlflowClient(f"sqlite:///{store}/mlflow.db").get_run(second.run_id).data.tags
    assert tags["changed/optimizer.lr"] == "0.5"
    assert tags["changed/trainer.epochs"] == "3"
    assert "optimizer.lr=0.5" in tags["resumed_with"]


def test_presets_are_refused_on_resume(template):
    with pytest.raises(ConfigError, match="experiment cannot be chosen on resume"):
        train([f"resume={template[1].folder}", "experiment=unet_adam", f"tracking.dir={template[0]}"])


def test_a_finished_run_gives_its_best_network_when_resumed_from_another_folder(template, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    again = train([f"resume={template[1].folder}"])
    for one, other in zip(again.network.parameters(), template[1].network.parameters(), strict=True):
        assert torch.equal(one.value, other.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.exhaustive
def test_a_grid_with_a_diverging_point_goes_on_and_says_so(store):
    done = command(*SMALL, "-m", "optimizer.lr=1e30,1", f"tracking.dir={store}", cwd=store)
    assert done.returncode == 1
    assert "train/loss became" in done.stderr
    assert "FAILED" in done.stdout
    assert "FINISHED" in done.stdout


def test_a_notebook_gets_the_same_words_as_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"optimizer\.lrr is not a setting; did you mean 'optimizer\.lr'"):
        train(["optimizer.lrr=1"])
    with pytest.raises(TypeError, match="overrides must be a list of texts, but got 'seed=1'"):
        train("seed=1")


@pytest.fixture(scope="module")
def verified(template, tmp_path_factory):
    """The template's training at the other two levels of verification: (level, store, result)."""
    folder = tmp_path_factory.mktemp("verified") / "mlruns"
    folder.mkdir()
    shutil.copy(template[0] / "mlflow.db", folder)
    shutil.copytree(template[0] / "cache", folder / "cache")
    levels = {
        "full": ["verification=full", "verification.lockstep_steps=5", "tracking.detail=full"],
        "off": ["verification=off"],
    }
    return folder, {level: in_folder(folder, *overrides) for level, overrides in levels.items()}


def test_verification_does_not_change_the_training(template, verified):
    """Full, quick and off end with the same weights and optimizer to the last bit: no random state is touched."""
    assert {digests(result) for result in verified[1].values()} == {digests(template[1])}


def test_mlflow_has_the_worst_error_of_each_direction_at_step_0(template, recorded, verified):
    """Beside the losses, with the tag and both artifacts; of a run that verifies nothing the tag says so."""
    from mlflow import MlflowClient

    other = MlflowClient(f"sqlite:///{verified[0]}/mlflow.db")
    full, off = (other.get_run(verified[1][level].run_id) for level in ("full", "off"))
    for client, run in ((recorded[0], recorded[1]), (other, full)):
        assert run.data.tags["verification"] == "passed"
        for key in ("forward", "grad_input", "grad_weight", "grad_bias", "contract", "lockstep"):
            (point,) = client.get_metric_history(run.info.run_id, f"verify/{key}_rel_err")
            assert point.step == 0, key
            assert 0 <= point.value < 1e-4, key
        assert run.data.metrics["verify/passed"] == 1
        paths = {item.path for item in client.list_artifacts(run.info.run_id, "verification")}
        assert paths == {f"verification/{name}" for name in ("report.json", "report.md", "verdicts.json")}
    assert full.data.metrics["verify/checks"] > 3 * recorded[1].data.metrics["verify/checks"]
    assert off.data.tags["verification"] == "off"
    assert not any(key.startswith("verify/") for key in off.data.metrics)
    assert "verification" not in {item.path for item in other.list_artifacts(off.info.run_id)}
    report = json.loads((Path(template[1].folder) / "artifacts" / "verification" / "report.json").read_text())
    assert report["passed"] is True
    assert len(report["findings"]) == recorded[1].data.metrics["verify/checks"]


BROKEN_LAYERS = MY_LAYERS.replace("self.db += g.sum((0, 2, 3))", "self.db += g.mean((0, 2, 3))")


@pytest.mark.exhaustive
def test_a_broken_module_of_ones_own_stops_the_run_in_one_line(store):
    """Exit status 1 before the first step; the run is FAILED with the reason, and has the report."""
    from mlflow import MlflowClient

    (store.parent / "my_layers.py").write_text(BROKEN_LAYERS)
    done = command(*MINE, f"tracking.dir={store}", cwd=store.parent)
    assert done.returncode == 1
    said = "verification failed, first at conv1 grad_bias; verification.on_failure=warn trains all the same"
    assert done.stderr == f"error: {said}\n"
    assert "FAIL conv1 grad_bias: error " in done.stdout
    (folder,) = store.glob("hydra/*/*")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["reason"]) == ("FAILED", f"VerificationError: {said}")
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    run = client.get_run(summary["run_id"])
    assert run.info.status == "FAILED"
    assert run.data.tags["reason"] == f"VerificationError: {said}"
    assert run.data.tags["verification"] == "failed"
    assert "conv1 grad_bias" in run.data.tags["verification.failed"]
    assert run.data.metrics["verify/passed"] == 0
    assert run.data.metrics["verify/grad_bias_rel_err"] > 0.1
    assert "train/loss" not in run.data.metrics
    paths = {item.path for item in client.list_artifacts(run.info.run_id, "verification")}
    assert paths == {f"verification/{name}" for name in ("report.json", "report.md", "verdicts.json")}


def test_with_a_warning_a_broken_module_is_trained_all_the_same(store, monkeypatch):
    """And the tag stays; resumed, it is warned again and says no metric twice."""
    from mlflow import MlflowClient

    (store.parent / "my_layers.py").write_text(BROKEN_LAYERS)
    monkeypatch.chdir(store.parent)
    monkeypatch.syspath_prepend(store.parent)
    monkeypatch.delitem(sys.modules, "my_layers", raising=False)
    warned = [*MINE, "verification.on_failure=warn", f"tracking.dir={store}"]
    first = train([*warned, "trainer.epochs=1", f"hydra.run.dir={store}/hydra/a/warned"])
    assert first.status == "FINISHED"
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    before = client.get_run(first.run_id).data
    assert (before.tags["verification"], before.metrics["verify/passed"]) == ("failed", 0)
    assert "train/loss" in before.metrics
    # A failing report is kept at any detail of tracking.
    assert client.list_artifacts(first.run_id, "verification")
    permit = "allowed_targets=[my_layers.]"
    second = train([f"resume={first.folder}", "trainer.epochs=2", f"tracking.dir={store}", permit])
    assert second.run_id == first.run_id
    assert client.get_run(first.run_id).data.tags["verification"] == "failed"
    for key in before.metrics:
        if key.startswith("verify/"):
            assert [point.step for point in client.get_metric_history(first.run_id, key)] == [0], key


def test_a_finished_run_is_not_verified_again(store, capsys):
    """Another level is no reason to go on with it."""
    finished = in_folder(store, "trainer.epochs=1")
    before = {path: path.stat().st_mtime_ns for path in Path(finished.folder).rglob("*")}
    capsys.readouterr()
    train([f"resume={finished.folder}", "verification=full", f"tracking.dir={store}"])
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in Path(finished.folder).rglob("*")} == before
