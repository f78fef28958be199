"""Runs against a real sqlite store and a real server: nothing lost, nothing twice."""

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import sqlite3
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import preloaded
from scratch_dl import tracking
from scratch_dl.tracking import Run, TrackingError, open_store
from scratch_dl.tracking import store as store_module
from scratch_dl.tracking.errors import one_line
from scratch_dl.tracking.mlflow_calls import mlflow_call
from scratch_dl.tracking.sender import Sender
from scratch_dl.tracking.store import client

MODEL_CODE = """
import mlflow
import numpy as np


class Doubler(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        with open(context.artifacts["weights"]) as file:
            self.factor = float(file.read())

    def predict(self, context, model_input: np.ndarray, params=None):
        return np.asarray(model_input, dtype=np.float32) * self.factor


mlflow.models.set_model(Doubler())
"""


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """Creating the tables takes seconds, so they are made once and copied."""
    directory = tmp_path_factory.mktemp("template")
    open_store(directory)
    return directory / "mlflow.db"


@pytest.fixture
def store(template, tmp_path):
    (tmp_path / "mlruns").mkdir()
    shutil.copy(template, tmp_path / "mlruns" / "mlflow.db")
    return open_store(tmp_path / "mlruns")


@pytest.fixture
def folder(store):
    return store.directory / "hydra" / "one"


@pytest.fixture
def run(store, folder):
    return Run.create(store, folder, "demo", "first", {"seed": "1"})


def history(store, run_id, key):
    """Return what MLflow holds of a metric, as sorted (step, value)."""
    with mlflow_call():
        return sorted((each.step, each.value) for each in client(store).get_metric_history(run_id, key))


def stored(store, run_id):
    with mlflow_call():
        return client(store).get_run(run_id)


def artifacts(store, run_id, path=None):
    with mlflow_call():
        return sorted(file.path for file in client(store).list_artifacts(run_id, path))


def test_everything_a_run_says_is_read_back(store, run, folder):
    run.metrics({"train/loss": 0.5, "val/psnr_db": 20}, step=1)
    run.metric("train/loss", 0.25, 2)
    run.params({"model.channels": [3, 4], "long": "x" * 9000})
    run.tags({"note": "hello"})
    run.text("seed: 1\n", "config/config.yaml")
    (folder / "best.pt").write_text("weights")
    run.file(folder / "best.pt", "checkpoints")
    assert run.flush()
    assert run.finish("FINISHED", "all epochs done")
    found = stored(store, run.run_id)
    assert history(store, run.run_id, "train/loss") == [(1, 0.5), (2, 0.25)]
    assert found.data.params["model.channels"] == "[3, 4]"
    assert len(found.data.params["long"]) == 6000
    assert found.data.tags["note"] == "hello"
    assert found.data.tags["reason"] == "all epochs done"
    assert found.info.status == "FINISHED"
    assert found.info.end_time >= found.info.start_time
    assert found.info.run_name == "first"
    assert artifacts(store, run.run_id, "config") == ["config/config.yaml"]
    assert artifacts(store, run.run_id, "checkpoints") == ["checkpoints/best.pt"]
    with mlflow_call():
        copy = client(store).download_artifacts(run.run_id, "config/config.yaml", str(store.directory))
    assert Path(copy).read_text() == "seed: 1\n"


def test_nothing_reaches_mlflow_before_sync(store, run):
    run.metric("train/loss", 1.0, 1)
    assert history(store, run.run_id, "train/loss") == []


def test_a_first_value_stands_when_a_step_is_said_again(store, run):
    run.metric("train/loss", 1.0, 1)
    run.metric("train/loss", 2.0, 1)
    assert run.flush()
    assert history(store, run.run_id, "train/loss") == [(1, 1.0)]


def test_more_entries_than_a_batch_holds_all_arrive(store, run):
    for step in range(2300):
        run.metric("train/loss", step / 7, step)
    run.params({f"p{index}": index for index in range(250)})
    run.tags({f"t{index}": index for index in range(150)})
    assert run.flush()
    assert history(store, run.run_id, "train/loss") == [(step, step / 7) for step in range(2300)]
    assert len(stored(store, run.run_id).data.params) == 250


def test_values_that_are_not_finite_become_a_tag(store, run, folder):
    run.metrics({"val/loss": float("inf"), "train/loss": float("nan")}, 3)
    run.metrics({"val/loss": float("-inf"), "train/loss": 1.0}, 4)
    assert run.flush()
    tags = stored(store, run.run_id).data.tags
    assert (tags["nonfinite/val/loss"], tags["nonfinite/train/loss"]) == ("3", "3")
    assert history(store, run.run_id, "val/loss") == []
    assert history(store, run.run_id, "train/loss") == [(4, 1.0)]
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    said = [line["values"]["val/loss"] for line in lines if line["kind"] == "metrics"]
    assert said == ["inf", "-inf"]


@pytest.mark.parametrize("name", ["a@b", "a[0]", "../a", "/a", "a//b", "", ".", "a" * 251, "a\n"])
def test_a_name_mlflow_would_refuse_is_refused_early(run, name):
    for say in (lambda: run.metric(name, 1.0, 1), lambda: run.params({name: 1}), lambda: run.tags({name: 1})):
        with pytest.raises(ValueError, match=r"the name of a (metric|parameter|tag) must"):
            say()


def test_a_parameter_that_changes_is_told_by_a_tag(store, run, folder):
    run.params({"lr": 1.0, "seed": 1})
    assert run.flush()
    again = Run.reopen(store, folder, 0)
    again.params({"lr": 0.5, "seed": 1})
    assert again.flush()
    found = stored(store, run.run_id).data
    assert found.params == {"lr": "1.0", "seed": "1"}
    assert found.tags["changed/lr"] == "0.5"
    assert "changed/seed" not in found.tags


def test_pictures_stand_once_and_by_their_step(store, run, folder):
    picture = np.zeros((8, 12, 3), np.uint8)
    run.image(picture, "samples", 5)
    run.image(picture, "samples", 5)
    run.image(picture, "samples", 10)
    assert run.flush()
    (folder / "sent.json").unlink()  # as if killed before it could be written
    again = Run.reopen(store, folder, 5)
    again.image(picture, "samples", 10)
    assert again.flush()
    names = [Path(path).name for path in artifacts(store, run.run_id, "images")]
    assert len(names) == 4, names
    assert sum(name.startswith("samples+step+5+timestamp+") for name in names) == 2, names
    assert stored(store, run.run_id).data.tags["mlflow.loggedImages"] == "True"


@pytest.mark.parametrize(
    ("array", "key", "match"),
    [
        pytest.param(np.zeros((4, 4, 3), np.float32), "samples", "must be uint8", id="float"),
        pytest.param(np.zeros((4, 4), np.uint8), "samples", r"\(4, 4\)", id="grey"),
        pytest.param(np.zeros((4, 4, 3), np.uint8), "val/samples", "key must be", id="slash"),
    ],
)
def test_a_picture_mlflow_would_distort_is_refused(run, array, key, match):
    with pytest.raises(ValueError, match=match):
        run.image(array, key, 1)


def test_a_figure_becomes_an_artifact(store, run):
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2])
    run.figure(figure, "figures/loss.png")
    assert run.flush()
    assert artifacts(store, run.run_id, "figures") == ["figures/loss.png"]


def test_data_sets_are_inputs_once(store, run, folder):
    for context in ("train", "validation"):
        run.dataset({"name": f"photos-{context}", "digest": "d" * 64, "licence": "CC0"}, context)
    assert run.flush()
    (folder / "sent.json").unlink()
    assert Run.reopen(store, folder, 0).flush()
    inputs = stored(store, run.run_id).inputs.dataset_inputs
    assert sorted((each.dataset.name, each.tags[0].value) for each in inputs) == [
        ("photos-train", "train"),
        ("photos-validation", "validation"),
    ]
    assert json.loads(inputs[0].dataset.profile)["licence"] == "CC0"


def test_a_model_stands_once_and_loads_in_a_fresh_process(store, run, folder, tmp_path, monkeypatch):
    code = tmp_path / "doubler.py"
    code.write_text(MODEL_CODE)
    monkeypatch.setattr("scratch_dl.tracking.sender.MODEL_CODE", code)
    weights = folder / "weights.txt"
    weights.write_text("2.0")
    run.model(weights, step=7)
    assert run.flush()
    (folder / "sent.json").unlink()
    assert Run.reopen(store, folder, 7).finish("FINISHED")
    with mlflow_call():
        models = client(store).search_logged_models([run.experiment_id])
    assert [(model.name, str(model.status)) for model in models] == [("model", "READY")]
    program = (
        "import mlflow, numpy as np, sys; mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.pyfunc.load_model(f'runs:/{sys.argv[2]}/model')\n"
        "print(model.predict(np.ones((1, 3, 5, 7), np.float32)).sum())"
    )
    words = [sys.executable, "-c", program, store.uri, run.run_id]
    done = preloaded.run(words, capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path)
    assert float(done.stdout) == 2 * 3 * 5 * 7


def test_reopening_drops_what_came_after_the_checkpoint(store, run, folder):
    run.metrics({"train/loss": 1.0}, 1)
    assert run.flush()
    run.metrics({"train/loss": 2.0, "val/loss": 2.0}, 2)
    run.metrics({"train/loss": float("nan")}, 3)
    again = Run.reopen(store, folder, 2)
    again.metrics({"train/loss": 3.0}, 3)
    assert again.finish("FINISHED")
    assert again.run_id == run.run_id
    assert history(store, run.run_id, "train/loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert "nonfinite/train/loss" not in stored(store, run.run_id).data.tags


def test_a_run_that_ended_is_running_again_when_reopened(store, run, folder):
    run.metric("train/loss", 1.0, 1)
    assert run.finish("KILLED")
    again = Run.reopen(store, folder, 1)
    assert stored(store, run.run_id).info.status == "RUNNING"
    again.metric("train/loss", 0.5, 2)
    assert again.finish("FINISHED")
    assert stored(store, run.run_id).info.status == "FINISHED"
    assert history(store, run.run_id, "train/loss") == [(1, 1.0), (2, 0.5)]


def test_an_earlier_checkpoint_repeats_steps_without_doubling_them(store, run, folder):
    for step in (1, 2, 3):
        run.metric("train/loss", float(step), step)
    assert run.flush()
    again = Run.reopen(store, folder, 1)
    for step in (2, 3, 4):
        again.metric("train/loss", float(step), step)
    assert again.flush()
    assert history(store, run.run_id, "train/loss") == [(step, float(step)) for step in (1, 2, 3, 4)]


def test_a_batch_that_arrived_without_being_noted_is_not_sent_twice(store, run, folder, monkeypatch, caplog):
    """MLflow takes the batch, but the answer is lost; after that even the times of the entries differ."""
    api = client(store)
    original = api.log_batch

    def lose_the_answer(*args, **kwargs):
        from mlflow.exceptions import MlflowException

        original(*args, **kwargs)
        raise MlflowException("connection reset\nby peer")

    monkeypatch.setattr(api, "log_batch", lose_the_answer)
    run.metric("train/loss", 1.0, 1)
    assert not run.flush()
    assert not run.flush()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1, warnings
    assert "tracking.uri=" in warnings[0]
    assert "\n" not in warnings[0]
    monkeypatch.setattr(api, "log_batch", original)
    record = folder / "journal.jsonl"
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    record.write_text("".join(json.dumps({**line, "time": 5}) + "\n" for line in lines))
    (folder / "sent.json").unlink(missing_ok=True)
    assert Run.reopen(store, folder, 1).flush()
    assert history(store, run.run_id, "train/loss") == [(1, 1.0)]


def test_one_refused_entry_does_not_hold_up_the_others(store, run, caplog):
    run.metric("train/loss", 1.0, 1)
    with mlflow_call():
        client(store).log_param(run.run_id, "lr", "1")
    run.params({"lr": 2})
    run.tags({"note": "after"})
    assert run.flush()
    assert stored(store, run.run_id).data.tags["note"] == "after"
    assert history(store, run.run_id, "train/loss") == [(1, 1.0)]
    assert [record.message for record in caplog.records if "refused an entry" in record.message]


def test_a_deleted_run_keeps_its_journal(store, run, folder):
    with mlflow_call():
        client(store).delete_run(run.run_id)
    run.metric("train/loss", 1.0, 1)
    assert not run.flush()
    with pytest.raises(TrackingError, match="deleted"):
        Run.reopen(store, folder, 1)
    with mlflow_call():
        client(store).restore_run(run.run_id)
    assert run.finish("FINISHED")
    assert history(store, run.run_id, "train/loss") == [(1, 1.0)]


def test_a_foreign_journal_chooses_no_code_and_no_file_outside_of_its_folder(store, run, folder, tmp_path, caplog):
    """A run's folder may come from someone else, and continuing it sends its unsent entries."""
    precious, evil = tmp_path / "precious.txt", tmp_path / "evil.py"
    precious.write_text("secret")
    evil.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    journal = run._journal
    journal.append({"kind": "artifact", "file": str(precious), "into": ""})
    journal.append({"kind": "image", "key": "x", "step": 9, "files": [str(precious)]})
    with pytest.raises(TrackingError, match="outside the run's folder"):
        Run.reopen(store, folder, 5)
    assert precious.exists()
    assert not run.flush()
    assert "outside the run's folder" in caplog.text
    assert artifacts(store, run.run_id) == []
    (folder / "weights.txt").write_text("2.0")
    other = tracking.Journal.create(tmp_path / "foreign", {**journal.header})
    (tmp_path / "foreign" / "weights.txt").write_text("2.0")
    other.append({"kind": "model", "weights": "weights.txt", "code": str(evil), "code_paths": [str(tmp_path)],
                  "requirements": [], "shape": [-1, 3, -1, -1], "step": 1})  # fmt: skip
    Sender(store, other, sole_sender=False).send()
    assert not (tmp_path / "ran").exists()


def test_a_password_is_in_no_name_and_in_no_warning(store, folder, monkeypatch, caplog):
    address = "http://bob:SECRET@127.0.0.1:9/x"
    run = Run.create(store, folder, f"e {address}", f"r {address}")
    assert "SECRET" not in stored(store, run.run_id).info.run_name
    monkeypatch.setattr(
        Sender, "send", lambda *_args: (_ for _ in ()).throw(tracking.UnavailableError(one_line(OSError(address))))
    )
    assert not run.flush()
    assert "bob:***@" in caplog.text
    assert "SECRET" not in caplog.text


def test_a_living_run_is_not_judged_by_another_run_at_the_same_path(store, run, folder):
    """Containers that share a server may all have their run in /out/run."""
    record = folder / "journal.jsonl"
    record.write_text(record.read_text().replace(run.run_id, "0" * 32))
    assert tracking.close_orphans(store) == ([], [run.run_id])


def test_half_a_line_left_by_a_kill_is_dropped(store, run, folder):
    run.metric("train/loss", 1.0, 1)
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(b'{"kind": "metrics", "st')
    again = Run.reopen(store, folder, 5)
    again.metric("train/loss", 2.0, 2)
    assert again.flush()
    assert history(store, run.run_id, "train/loss") == [(1, 1.0), (2, 2.0)]


def test_the_error_of_a_full_disk_names_the_path(run, monkeypatch):
    def no_space(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", no_space)
    with pytest.raises(OSError, match=r"No space left on device: .*journal\.jsonl"):
        run.metric("train/loss", 1.0, 1)


def test_a_status_gets_out_when_an_artifact_cannot(store, run, folder, monkeypatch, caplog):
    def no_space(*_args):
        raise OSError(28, "No space left on device", "somewhere/best.pt")

    run.text("x", "x.txt")
    monkeypatch.setattr(Sender, "_send_artifact", no_space)
    assert not run.flush()
    assert not run.finish("FAILED", "no space")
    assert stored(store, run.run_id).info.status == "FAILED"
    assert "somewhere/best.pt" in caplog.text
    monkeypatch.undo()
    assert tracking.replay(folder)
    assert artifacts(store, run.run_id) == ["x.txt"]


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "", "a:b"])
def test_an_artifact_stays_in_the_folder(run, path):
    with pytest.raises(ValueError, match="artifact's path must be relative"):
        run.text("x", path)


def test_names_with_dots_and_slashes_write_nothing_outside(store, tmp_path):
    run = Run.create(store, store.directory / "hydra" / "odd", "../../evil/x", "../../evil")
    run.text("x", "x.txt")
    assert run.finish("FINISHED")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlruns"]
    assert not (tmp_path.parent / "evil").exists()
    assert artifacts(store, run.run_id) == ["x.txt"]


def test_a_deleted_experiment_says_how_to_restore_it(store, run):
    with mlflow_call():
        client(store).delete_experiment(run.experiment_id)
    with pytest.raises(TrackingError, match=r"tracking.experiment='demo' was deleted; .* mlflow experiments restore"):
        Run.create(store, store.directory / "two", "demo")


@pytest.mark.usefixtures("run")
def test_a_folder_holds_one_run(store, folder):
    with pytest.raises(TrackingError, match="already contains a run"):
        Run.create(store, folder, "demo")
    with pytest.raises(TrackingError, match="it is not the folder of a run"):
        Run.reopen(store, store.directory, 0)


def test_the_folder_of_a_run_is_found_and_a_wrong_id_shows_the_nearest(store, run, folder):
    assert tracking.find_folder(store, run.run_id) == folder
    assert tracking.find_folder(store, run.run_id[:8]) == folder
    with pytest.raises(TrackingError, match=f"nearest are {run.run_id}"):
        tracking.find_folder(store, run.run_id[:3])  # too short to be meant


def test_only_runs_whose_folder_nobody_works_in_are_closed(store, run, folder):
    """In whatever experiment; of a folder that cannot be seen nothing is known."""
    dead = Run.create(store, store.directory / "dead", "another experiment")
    elsewhere = Run.create(store, store.directory / "elsewhere", "demo")
    with mlflow_call():
        client(store).set_tag(elsewhere.run_id, "scratch_dl.folder", "/not/on/this/machine")
        foreign = client(store).create_run(run.experiment_id).info.run_id
    with tracking.folder_lock(folder):
        closed, unknown = tracking.close_orphans(store)
    assert (closed, unknown) == ([dead.run_id], [elsewhere.run_id])
    found = stored(store, dead.run_id)
    assert (found.info.status, found.data.tags["interrupted"]) == ("KILLED", "true")
    assert found.info.end_time
    assert [stored(store, one).info.status for one in (run.run_id, elsewhere.run_id, foreign)] == ["RUNNING"] * 3


def test_a_run_that_ends_while_others_look_for_orphans_keeps_its_status(store, run, monkeypatch):
    """Under load, minutes may pass between the list of the running ones and the look at their locks."""
    from scratch_dl.tracking import lookup

    is_folder_locked = lookup.is_folder_locked

    def ends_first(path):
        assert run.finish("FINISHED")
        return is_folder_locked(path)

    monkeypatch.setattr(lookup, "is_folder_locked", ends_first)
    assert tracking.close_orphans(store) == ([], [])
    ended = stored(store, run.run_id)
    assert (ended.info.status, "interrupted" in ended.data.tags) == ("FINISHED", False)


def test_a_run_of_another_user_is_left_alone(store, run, folder, monkeypatch):
    """Whoever may not open its lock cannot tell whether it lives."""
    (folder / "lock").touch()

    def refused(*_args, **_options):
        raise PermissionError(13, "Permission denied", str(folder / "lock"))

    monkeypatch.setattr("scratch_dl.tracking.process.FileLock.acquire", refused)
    assert tracking.close_orphans(store) == ([], [run.run_id])
    assert stored(store, run.run_id).info.status == "RUNNING"


def test_neither_clock_nor_host_name_makes_a_living_run_dead(store, run, folder, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "another-container")
    monkeypatch.setattr(time, "time", lambda: 4e9)
    with tracking.folder_lock(folder):
        assert tracking.close_orphans(store) == ([], [])
    assert tracking.close_orphans(store) == ([run.run_id], [])


def test_a_store_that_cannot_be_used_is_one_line(tmp_path, template):
    (tmp_path / "file").write_text("x")
    (tmp_path / "mlflow.db").write_text("no database, and longer than a header" * 50)
    (tmp_path / "newer").mkdir()
    shutil.copy(template, tmp_path / "newer" / "mlflow.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "newer" / "mlflow.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        database.commit()
    rows = [
        ((tmp_path / "file", None), "tracking.dir=.*file"),
        ((tmp_path, None), "tracking.uri=.*not a database"),
        ((tmp_path / "newer", None), "another version of MLflow"),
        ((tmp_path / "what?", None), "must be a folder without"),
        ((tmp_path, "./mlruns"), "tracking.uri must be like http.* but got './mlruns'"),
        ((tmp_path, "http://127.0.0.1:9"), "tracking.uri=http://127.0.0.1:9 does not answer"),
        ((tmp_path, "postgresql://me@127.0.0.1:9/x"), "does not answer"),
    ]
    for arguments, match in rows:
        start = time.monotonic()
        with pytest.raises(TrackingError, match=match) as error:
            open_store(*arguments)
        assert "\n" not in str(error.value)
        assert time.monotonic() - start < 10, arguments


def test_a_server_that_accepts_connections_but_never_answers_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "PROBE_TIMEOUT_S", 0.5)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        start = time.monotonic()
        with pytest.raises(TrackingError, match="does not answer"):
            open_store(tmp_path, f"http://127.0.0.1:{mute.getsockname()[1]}")
        assert time.monotonic() - start < 10


@pytest.mark.exhaustive
def test_four_processes_start_at_once_on_a_fresh_store(tmp_path):
    program = (
        "import sys; from pathlib import Path; from scratch_dl.tracking import Run, open_store\n"
        "store = open_store(sys.argv[1])\n"
        "run = Run.create(store, Path(sys.argv[1]) / sys.argv[2], 'same')\n"
        "run.metric('train/loss', 1.0, 1); sys.exit(not run.finish('FINISHED'))"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "mlruns")]
    started = [
        preloaded.Popen([*words, str(index)], stdout=preloaded.PIPE, stderr=preloaded.STDOUT, env=_environment())
        for index in range(4)
    ]
    output = [process.communicate(timeout=90)[0].decode() for process in started]
    assert [process.returncode for process in started] == [0] * 4, output
    lines = [line for one in output for line in one.splitlines()]
    assert not [line for line in lines if "is locked by another process; waiting" not in line], "MLflow's chatter"
    store = open_store(tmp_path / "mlruns")
    with mlflow_call():
        experiment = client(store).get_experiment_by_name("same")
        runs = client(store).search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 4


@pytest.mark.exhaustive
def test_a_server_that_goes_and_comes_back_loses_and_doubles_nothing(store, tmp_path, caplog, server):
    with server(store) as (port, first):
        remote = open_store(tmp_path / "local", f"http://127.0.0.1:{port}")
        run = Run.create(remote, tmp_path / "local" / "one", "remote")
        run.metric("train/loss", 1.0, 1)
        run.text("one", "one.txt")
        assert run.flush()
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    start = time.monotonic()
    for step in (2, 3, 4):
        run.metric("train/loss", float(step), step)
        assert not run.flush()
    run.text("two", "two.txt")
    assert not run.finish("FINISHED")
    assert time.monotonic() - start < 5
    warnings = [record for record in caplog.records if "does not answer" in record.getMessage()]
    assert len(warnings) == 1
    with pytest.raises(TrackingError, match="does not answer"):
        tracking.replay(run.folder)
    with server(store, port):
        assert tracking.replay(run.folder)
        assert tracking.replay(run.folder)
        found = stored(remote, run.run_id)
        assert found.info.status == "FINISHED"
        assert history(remote, run.run_id, "train/loss") == [(step, float(step)) for step in (1, 2, 3, 4)]
        assert artifacts(remote, run.run_id) == ["one.txt", "two.txt"]


def test_later_calls_send_what_an_outage_kept(store, run, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    run.metric("train/loss", 1.0, 1)
    with monkeypatch.context() as patch:
        patch.setattr("scratch_dl.tracking.background.unavailable_reason", lambda *_: "refused")
        assert not run.flush()
    assert run.flush()
    assert "answers again" in caplog.text
    assert history(store, run.run_id, "train/loss") == [(1, 1.0)]


def test_replay_waits_for_a_run_that_goes_on(store):
    program = (
        "import sys; from pathlib import Path; from scratch_dl.tracking import Run, folder_lock, open_store\n"
        "store, folder = open_store(sys.argv[1]), Path(sys.argv[1]) / 'busy'\n"
        "with folder_lock(folder):\n"
        "    Run.create(store, folder, 'same')\n"
        "    print('ready', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", program, str(store.directory)]
    with preloaded.Popen(words, stdin=preloaded.PIPE, stdout=preloaded.PIPE, env=_environment()) as busy:
        assert busy.stdout.readline() == b"ready\n"
        with pytest.raises(TrackingError, match=f"has not ended: process {busy.pid} on"):
            tracking.replay(store.directory / "busy")
        busy.communicate()
    assert tracking.replay(store.directory / "busy")


def _environment():
    source = str(Path(tracking.__file__).parents[2])
    return {**os.environ, "PYTHONPATH": source}
