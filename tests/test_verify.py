"""The command: what it exits with, what it says, and what it writes."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest

import preloaded
from scratch_dl import verify

LAYERS = """
import torch

class Tanh:
    def __init__(self, gain=1.0):
        self.gain = gain

    def forward(self, x):
        self.y = (self.gain * x).tanh()
        return self.y

    def backward(self, g):
        return self.gain * g * (1 - self.y**2)

class Wrong(Tanh):
    def backward(self, g):
        return self.gain * g * (1 - self.y)

class Refuses:
    def __init__(self):
        raise ValueError("no such layer")

class Forward:
    def forward(self, x):
        return x

def tanh(x):
    return x.tanh()

def other(x, y):
    return x + y
"""
MODULE = ["module=my_layers.Tanh", "input=[2,3]"]
WRONG = ["module=my_layers.Wrong", "input=[2,3]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with layers of a user's own."""
    folder = tmp_path_factory.mktemp("verify")
    (folder / "my_layers.py").write_text(LAYERS)
    return folder


@pytest.fixture
def run(folder, monkeypatch, in_process):
    """The command in this process: (exit status, stdout, stderr)."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "my_layers", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    return partial(in_process, verify)


def only_layers(folder):
    """Nothing has been written."""
    return {path.name for path in folder.iterdir()} <= {"my_layers.py", "__pycache__"}


def test_the_command_in_a_process_of_its_own(folder):
    """As it is typed: status 1, the report on stdout, the module found in the current folder."""
    done = preloaded.run([sys.executable, "-m", "scratch_dl.verify", *WRONG], cwd=folder, capture_output=True,
                          text=True, timeout=120, check=False)  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    assert "FAIL Wrong grad_input: error " in done.stdout
    assert only_layers(folder)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        pytest.param(MODULE, 0, "all 2 verdicts passed", id="algebra"),
        pytest.param([*MODULE, "reference=torch.nn.Tanh"], 0, "all 3 verdicts passed", id="torch-class"),
        pytest.param([*MODULE, "reference=my_layers.tanh"], 0, "all 3 verdicts passed", id="function"),
        pytest.param([*MODULE, "args={gain: 2.0}"], 0, "all 2 verdicts passed", id="arguments"),
        pytest.param([*MODULE, "args={gain: 2.0}", "reference=my_layers.tanh"], 1, "FAIL Tanh forward", id="forward"),
        pytest.param([*WRONG, "reference=torch.nn.Tanh"], 1, "smallest failing input [1, 1] with input [", id="wrong"),
        pytest.param([*MODULE, "draws=1"], 0, "(9 comparisons", id="draws"),
        pytest.param(
            [
                "module=scratch_dl.nn.Conv2d", "args={in_channels: 3, out_channels: 8, kernel_size: [3, 2]}",
                "input=[4,3,16,16]", "reference=torch.nn.Conv2d",
            ],
            0, "all 5 verdicts passed", id="the-issues-example",
        ),
        pytest.param(["module=scratch_dl.nn.MSELoss", "input=[[2,3],[2,3]]"], 0, "all 3 verdicts passed", id="loss"),
    ],
)  # fmt: skip
def test_a_module_of_ones_own(run, folder, arguments, status, said):
    """Exit status 0 or 1, the table on stdout, and nothing is written in the folder."""
    got, out, err = run(*arguments)
    assert (got, err) == (status, "")
    assert said in out
    assert only_layers(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["module=my_layers.Tan", "input=[2]"], "module must name a callable, but my_layers has no 'Tan'",
                     id="class"),
        pytest.param(["module=my_layer.Tanh", "input=[2]"], "module must be like package.module.Class, but there is no",
                     id="file"),
        pytest.param(["module=my_layers.tanh", "input=[2]"], "module must name a class, but got 'my_layers.tanh'",
                     id="function"),
        pytest.param(["module=my_layers.Forward", "input=[2]"], "module must have a forward and a backward",
                     id="no-backward"),
        pytest.param(["module=my_layers.Refuses", "input=[2]"], "args: no such layer", id="refuses"),
        pytest.param([*MODULE, "args={gian: 2}"], "args.gian is not a setting; did you mean 'gain'?", id="argument"),
        pytest.param([*MODULE, "args=2"], "args must be a mapping, for example 'args={kernel_size: 3}', but got 2",
                     id="args"),
        pytest.param(["module=my_layers.Tanh"], "input must be given with module=..., for example input=[4,3,16,16]",
                     id="no-input"),
        pytest.param(["module=my_layers.Tanh", "input=4x3"], "input must be a shape such as [4, 3, 16", id="input"),
        pytest.param(["module=my_layers.Tanh", "input=[2,-3]"], "input must be >= 1, but got -3", id="negative-input"),
        pytest.param([*MODULE, "reference=torch.nn.Tahn"], "reference must name a callable, but torch.nn has no 'Tahn'",
                     id="reference"),
        pytest.param([*MODULE, "reference=my_layers.other"], "reference must take what the module takes, but raised",
                     id="reference-arguments"),
        pytest.param(
            ["module=scratch_dl.nn.Conv2d", "args={in_channels: 1, out_channels: 2, kernel_size: 3}", "input=[1,1,4,4]",
             "reference=torch.nn.ConvTranspose2d", "record=true"],
            "reference must have parameters of the shapes", id="reference-shapes",
        ),
        pytest.param(["suite=modul"], "suite must be one of network, module, tables, but got 'modul'; did you mean 'm",
                     id="suite"),
        pytest.param(["suite=module"], "module must be given, for example module=my_layers.MyConv", id="no-module"),
        pytest.param(["verification=off"], "verification must be full or quick here, but got off", id="off"),
        pytest.param(["record=maybe"], "record must be true, false or null, but got 'maybe'", id="record"),
        pytest.param(["draws=0"], "draws must be >= 1, but got 0", id="draws"),
        pytest.param(["suite=tables", "runs=1.5"], "runs must be an integer >= 1, but got 1.5", id="runs"),
        pytest.param(["suite=tables", "rounds=none"], "rounds must be an integer >= 1, but got 'none'", id="rounds"),
        pytest.param([*MODULE, "+foo=1"], "foo is not a setting; there are: model, ", id="added-beside-a-module"),
        pytest.param(["suite=tables", "+foo=1"], "foo is not a setting; there are: model, ", id="added-beside-a-suite"),
        pytest.param(["+tracking.foo=1"], "tracking.foo is not a setting; there are: dir, uri, ", id="added-below"),
        pytest.param(["sed=1"], "sed is not a setting; did you mean 'seed'?", id="setting"),
        pytest.param(["model=unett"], "model must be one of paper, sequential, unet, but got 'unett'", id="model"),
        pytest.param(["optimizer.lr=abc"], "optimizer.lr must be a finite number >= 0, but got 'abc'", id="train's"),
        pytest.param(["verification.lockstep_steps=-1"], "verification.lockstep_steps must be >= 0, but got -1",
                     id="steps"),
    ],
)  # fmt: skip
def test_a_usage_error_is_one_line_and_exit_2_and_leaves_nothing(run, folder, arguments, message):
    """In the user's words, on stderr, before anything is written."""
    status, out, err = run(*arguments)
    assert (status, out) == (2, ""), err
    assert err.startswith(f"error: {message}"), err
    assert err.count("\n") == 1, err
    assert only_layers(folder)


def recorded(store, run_name):
    """MLflow's client and the one run of the experiment "verification"."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("verification").experiment_id],
                                f"tags.`mlflow.runName` = '{run_name}'")  # fmt: skip
    return client, run


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for the tests that record: its tables are made once."""
    return tmp_path_factory.mktemp("store") / "mlruns"


@pytest.fixture
def place(store, request):
    """Overrides: the store, and a folder of the test's own, since the default one is named after second and process."""
    return [f"tracking.dir={store}", f"hydra.run.dir={store}/hydra/{request.node.name}"]


def test_a_network_is_verified_as_train_would_build_it_and_recorded(run, store, place, folder):
    """model=unet optimizer=adam: tag, metrics and artifacts in the experiment "verification"; none elsewhere."""
    overrides = ["model=unet", "model.channels=4", "optimizer=adam", "verification=quick", "threads=1"]
    status, out, err = run(*overrides, *place)
    assert (status, err) == (0, ""), out
    client, found = recorded(store, "network")
    assert f"recorded  {found.info.run_id} (experiment verification)" in out
    assert found.info.status == "FINISHED"
    assert found.data.tags["verification"] == "passed"
    assert found.data.metrics["verify/passed"] == 1
    assert 0 <= found.data.metrics["verify/grad_weight_rel_err"] < 1e-10
    assert found.data.metrics["verify/lockstep_rel_err"] < 1e-10
    assert found.data.params["optimizer._target_"] == "scratch_dl.optim.Adam"
    paths = {item.path for item in client.list_artifacts(found.info.run_id, "verification")}
    assert paths == {f"verification/{name}" for name in ("report.json", "report.md", "verdicts.json")}
    text = Path(client.download_artifacts(found.info.run_id, "verification/report.json", str(store))).read_text()
    assert json.loads(text)["passed"] is True
    assert only_layers(folder)


def test_a_module_is_recorded_if_asked_for(run, store, place):
    """With its own name, and as failed, which is the status of no crash."""
    status, _, err = run(*WRONG, "record=true", *place)
    assert (status, err) == (1, "")
    _, found = recorded(store, "my_layers.Wrong")
    assert found.info.status == "FINISHED"
    assert found.data.tags["verification"] == "failed"
    assert found.data.tags["verification.failed"] == "Wrong grad_input"
    assert found.data.metrics["verify/passed"] == 0


def test_a_network_is_not_recorded_if_asked_not_to(run, store):
    """Nothing of it is kept."""
    before = {path for path in store.rglob("*") if path.is_dir()}
    status, out, _ = run("model.channels=[2,2,2]", "verification=quick", "record=false", "threads=1",
                         f"tracking.dir={store}")  # fmt: skip
    assert status == 0, out
    assert "recorded" not in out
    assert "network" in out
    assert {path for path in store.rglob("*") if path.is_dir()} == before


def test_the_papers_tables_are_printed_and_recorded(run, store, place):
    """At the smallest size."""
    status, out, err = run("suite=tables", "runs=2", "rounds=1", "calls=1", *place)
    assert (status, err) == (0, ""), out
    assert "Table III: " in out
    _, found = recorded(store, "tables")
    assert found.data.metrics["tables/passed"] == 1
