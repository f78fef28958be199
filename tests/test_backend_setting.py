"""The setting `backend`: what trains, what is recorded, and that a run goes on with the kernels it began with."""

import time
from pathlib import Path

import pytest
import torch

from scratch_dl import kernels
from scratch_dl.kernels import library
from scratch_dl.system.errors import ConfigError
from scratch_dl.train import train
from scratch_dl.training import checkpoint

SMALL = ["debug=fast", "threads=1", "model.channels=[4,5,4]", "schedule=constant", "data.crops_per_epoch=40",
         "tracking.detail=trial", "trainer.test=false", "verification=off"]  # fmt: skip
NATIVE = [f"native {name}" for name in getattr(library.load(), "offered", ())]


@pytest.fixture(autouse=True)
def as_before():
    before = kernels.used()
    yield
    kernels.use(before)


@pytest.fixture
def native_here():
    found = library.load()
    if isinstance(found, str):
        pytest.fail(f"no native library to test ({found}): build it by `python setup.py build_ext --inplace`")
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A tracking folder for all tests of this file."""
    return tmp_path_factory.mktemp("store") / "mlruns"


def here(store):
    """A new folder in the store."""
    return [f"tracking.dir={store}", f"hydra.run.dir={store}/hydra/a/{time.monotonic_ns()}"]


def run(store, *overrides):
    return train([*SMALL, *here(store), *overrides])


def go_on(store, part, *overrides):
    return train([f"resume={part.folder}", "trainer.epochs=2", f"tracking.dir={store}", *overrides])


def tags(store, result):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{store}/mlflow.db").get_run(result.run_id).data.tags


def content(result):
    return checkpoint.load(Path(result.folder) / "checkpoints" / checkpoint.LAST)


def digest(result):
    return checkpoint.digest([content(result)[name] for name in ("network", "optimizer")])


@pytest.fixture(scope="module")
def whole(store):
    """A run of two epochs, undisturbed, of each backend; made when asked for."""
    made = {}

    def of(backend):
        if backend not in made:
            made[backend] = run(store, "trainer.epochs=2", f"backend={backend}")
        return made[backend]

    return of


@pytest.mark.parametrize(
    "backend", ["reference", *NATIVE[:1], *(pytest.param(name, marks=pytest.mark.exhaustive) for name in NATIVE[1:])]
)
def test_a_run_is_computed_by_the_backend_it_asks_for_and_says_so(backend, store, whole, capsys):
    result = whole(backend)
    assert result.status == "FINISHED"
    assert f"kernels: {backend}\n" in capsys.readouterr().out
    assert tags(store, result)["kernels"] == backend
    assert content(result)["kernels"] == backend


@pytest.mark.usefixtures("native_here")
def test_native_is_the_widest_instruction_set(store, whole):
    result = whole("native")
    assert tags(store, result)["kernels"] == content(result)["kernels"] == NATIVE[0]
    assert digest(result) == digest(whole(NATIVE[0]))


@pytest.mark.usefixtures("native_here")
def test_two_backends_give_nearly_the_same_weights_and_not_the_same_bits(whole):
    """So that the tests of bits below can fail."""
    one, other = whole("reference"), whole("native portable")
    assert digest(one) != digest(other)
    for name, value in content(one)["network"].items():
        torch.testing.assert_close(value, content(other)["network"][name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backend", ["reference", "native portable"])
def test_a_run_goes_on_by_itself_with_the_kernels_it_began_with(backend, native_here, store, whole, monkeypatch):
    """Bit for bit, though "auto" would now be another one: as on another machine, or where it was not yet built."""
    with monkeypatch.context() as elsewhere:
        if backend == "reference":
            elsewhere.setattr(kernels, "load", lambda: "it was not built")
        else:
            elsewhere.setattr(native_here, "offered", (backend.removeprefix("native "),))
        kernels.use("auto")
        part = run(store, "trainer.epochs=1", "backend=auto")
    assert content(part)["kernels"] == backend
    kernels.use("auto")
    result = go_on(store, part)
    assert content(result)["kernels"] == backend
    assert digest(result) == digest(whole(backend))


@pytest.mark.parametrize("backend", ["reference", "native portable"])
@pytest.mark.usefixtures("native_here")
def test_a_run_that_chose_its_backend_goes_on_with_it(backend, store, whole):
    part = run(store, "trainer.epochs=1", f"backend={backend}")
    kernels.use("auto")
    result = go_on(store, part)
    assert content(result)["kernels"] == tags(store, result)["kernels"] == backend
    assert digest(result) == digest(whole(backend))


@pytest.mark.usefixtures("native_here")
def test_a_run_of_kernels_that_are_not_here_goes_on_with_others_and_says_so(store, whole, monkeypatch, capsys):
    part = run(store, "trainer.epochs=1", "backend=auto")
    monkeypatch.setattr(kernels, "load", lambda: "it was not built")
    result = go_on(store, part)
    said = capsys.readouterr().out
    assert f"the run was computed by {NATIVE[0]} kernels, which cannot be used here: its bits will not be" in said
    assert "kernels: reference; native: it was not built" in said
    assert content(result)["kernels"] == tags(store, result)["kernels"] == "reference"
    for name, value in content(result)["network"].items():
        torch.testing.assert_close(value, content(whole(NATIVE[0]))["network"][name], rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("native_here")
def test_another_backend_on_resume_needs_permission(store):
    part = run(store, "trainer.epochs=1", "backend=reference")
    with pytest.raises(ConfigError, match=r"backend of the run in .* is 'reference' and cannot become 'native'"):
        go_on(store, part, "backend=native")
    result = go_on(store, part, "backend=native", "resume.allow=[backend]")
    assert content(result)["kernels"] == NATIVE[0]


@pytest.mark.parametrize("module", ["train", "verify", "evaluate"])
def test_an_unknown_backend_is_one_line_with_the_nearest_one(module, run_command, whole):
    result = whole("reference")
    more = {"train": SMALL, "verify": [], "evaluate": [f"run={result.folder}"]}[module]
    status, _, said = run_command(module, *more, "backend=referense")
    assert status == 2, said
    (line,) = said.splitlines()
    assert line.startswith("error: backend must be one of auto, reference, native"), line
    assert "'referense'" in line
    assert "did you mean 'reference'" in line


@pytest.mark.parametrize("backend", ["reference", *NATIVE[-1:]])
def test_verify_and_evaluate_take_a_backend_and_record_it(backend, run_command, store, whole):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    result = whole("reference")
    used = kernels.used()
    before = {run.info.run_id for run in runs(client)}
    for module, more in [
        ("verify", ["model.channels=[4,5,4]", "verification=quick", "verification.lockstep_steps=2",
                    "data.crop_size=8", "record=true"]),
        ("evaluate", [f"run={result.folder}", "splits=[validation]"]),
    ]:  # fmt: skip
        status, out, said = run_command(module, *more, f"backend={backend}", *here(store))
        assert status == 0, out + said
        assert kernels.used() == used
        new = [run for run in runs(client) if run.info.run_id not in before]
        assert [run.data.tags["kernels"] for run in new] == [backend], module
        before |= {run.info.run_id for run in new}


def runs(client):
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
