"""The run of a study, in sqlite and in a real PostgreSQL: shared by processes, and never closed under them."""

import signal
import sys
import time
from pathlib import Path

import pytest

import preloaded
from scratch_dl import tracking
from scratch_dl.tracking import DESCRIPTION, RefusedError, Run, SharedRun, Store, UnavailableError, open_store
from scratch_dl.tracking.mlflow_calls import mlflow_call
from scratch_dl.tracking.store import client

WORK = """
import sys
from pathlib import Path
from scratch_dl.tracking import SharedRun, Run, folder_lock, open_store
store, folder = open_store(sys.argv[1], sys.argv[2]), Path(sys.argv[3])
parent = SharedRun(store, sys.argv[4]) if len(sys.argv) > 4 else SharedRun.create(store, "sweep", "study", {})
parent.reopen()
with folder_lock(folder):
    trial = Run.create(store, folder, "sweep", "trial", {"mlflow.parentRunId": parent.run_id})
    print(parent.run_id, trial.run_id, flush=True)
    for line in sys.stdin:
        parent.params({"seed": 1, "kernel": line.strip()})
        parent.tags({"best": line.strip()})
        parent.metrics({"best/val_psnr_db": 20.0}, 7)
        print("said", flush=True)
"""


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.exhaustive)])
def store(request, tmp_path_factory):
    uri = request.getfixturevalue("postgres")() if request.param == "postgresql" else None
    return open_store(tmp_path_factory.mktemp("mlruns"), uri)


@pytest.fixture
def parent(store):
    return SharedRun.create(store, "sweep", "study", {"study": "geometry", "storage": "postgresql://me:pw@h/optuna"})


@pytest.fixture
def work(store, tmp_path):
    """Starts a process that works on a parent (or makes one) and has a trial: (process, parent's id, trial's id)."""
    started = []

    def start(run_id=None, where=store):
        words = [where.directory, where.uri, tmp_path / f"trial{len(started)}", *([run_id] if run_id else [])]
        process = preloaded.Popen([sys.executable, "-c", WORK, *map(str, words)],
                                   stdin=preloaded.PIPE, stdout=preloaded.PIPE, text=True)  # fmt: skip
        started.append(process)
        return process, *process.stdout.readline().split()

    yield start
    for process in started:
        with process:
            process.kill()


def stored(store, run_id):
    with mlflow_call():
        return client(store).get_run(run_id)


def status(store, run_id):
    return stored(store, run_id).info.status


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_everything_written_is_read_back(store, parent, tmp_path):
    (tmp_path / "report.md").write_text("# Report")
    parent.tags({"best": 3, "n" * 250: "x" * 9000})
    parent.params({"n_trials": 30, "long": "x" * 9000, **{f"p{index}": index for index in range(120)}})
    parent.metrics({"best/val_psnr_db": 27.5, "worst": float("nan")}, 4)
    parent.files([tmp_path / "report.md"])
    parent.finish("FINISHED")
    found = stored(store, parent.run_id)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "study")
    assert found.info.experiment_id == parent.experiment_id
    assert (found.data.tags["study"], found.data.tags["best"]) == ("geometry", "3")
    assert found.data.tags["storage"] == "postgresql://me:***@h/optuna"
    assert len(found.data.tags["n" * 250]) == 8000
    assert (found.data.params["n_trials"], found.data.params["p119"]) == ("30", "119")
    assert len(found.data.params["long"]) == 6000
    assert found.data.metrics == {"best/val_psnr_db": 27.5}
    assert found.data.tags["nonfinite/worst"] == "4"
    with mlflow_call():
        assert [file.path for file in client(store).list_artifacts(parent.run_id)] == ["report.md"]


def test_it_is_reopened_by_its_id(store, parent):
    parent.finish("KILLED")
    parent.tags({"interrupted": "true"})
    again = SharedRun(store, parent.run_id)
    assert again.experiment_id == parent.experiment_id
    assert status(store, parent.run_id) == "KILLED", "looking at it changes nothing"
    again.reopen()
    assert status(store, parent.run_id) == "RUNNING"
    assert "interrupted" not in stored(store, parent.run_id).data.tags
    again.finish("FINISHED")
    assert status(store, parent.run_id) == "FINISHED"


def test_a_parameter_is_set_once_and_a_change_becomes_a_tag(store, parent):
    parent.params({"n_trials": 30, "seed": 1})
    parent.params({"n_trials": 60, "seed": 1, "workers": 2})
    found = stored(store, parent.run_id).data
    assert found.params == {"n_trials": "30", "seed": "1", "workers": "2"}
    assert found.tags["changed/n_trials"] == "60"
    assert "changed/seed" not in found.tags


def test_a_parameter_that_another_process_sets_meanwhile_does_no_harm(store, parent, monkeypatch):
    api, original = client(store), client(store).log_batch

    def overtaken(run_id, metrics, params, tags):
        monkeypatch.setattr(api, "log_batch", original)
        original(run_id, params=[type(params[0])("seed", "2")])
        original(run_id, metrics, params, tags)

    monkeypatch.setattr(api, "log_batch", overtaken)
    parent.params({"seed": 1})
    found = stored(store, parent.run_id).data
    assert (found.params, found.tags["changed/seed"]) == ({"seed": "2"}, "1")


def test_a_metric_is_not_doubled_and_its_last_value_counts(store, parent):
    for value in (20.0, 20.0, 21.0, 21.0):
        parent.metrics({"best/val_psnr_db": value}, 3)
        time.sleep(0.002)
    with mlflow_call():
        history = client(store).get_metric_history(parent.run_id, "best/val_psnr_db")
    assert [(each.step, each.value) for each in history] == [(3, 20.0), (3, 21.0)]
    assert stored(store, parent.run_id).data.metrics["best/val_psnr_db"] == 21.0


@pytest.mark.parametrize("row", ["| 12 | complete | 27.51 |", "x" * 9000], ids=["table", "one line"])
def test_a_description_is_cut_at_a_lines_end(store, parent, row):
    parent.tags({DESCRIPTION: f"{row}\n" * 700})
    text = stored(store, parent.run_id).data.tags[DESCRIPTION]
    *lines, blank, last = text.split("\n")
    assert (blank, last) == ("", "(cut here)")
    assert 7900 < len(text) <= 8000
    assert len(row) > 8000 or set(lines) == {row}
    parent.tags({DESCRIPTION: "short\ntext"})
    assert stored(store, parent.run_id).data.tags[DESCRIPTION] == "short\ntext"


def test_a_trials_run_gets_tags_and_metrics_from_the_study(store, parent, tmp_path):
    trial = Run.create(store, tmp_path / "trial", "sweep")
    assert trial.finish("FINISHED")
    parent.describe_run(trial.run_id, {"state": "complete"}, {"objective": 2.5, "x": float("inf")}, 3)
    found = stored(store, trial.run_id)
    assert (found.info.status, found.data.tags["state"], found.data.tags["nonfinite/x"]) == (
        "FINISHED",
        "complete",
        "3",
    )
    with mlflow_call():
        history = client(store).get_metric_history(trial.run_id, "objective")
    assert [(each.step, each.value) for each in history] == [(3, 2.5)]


@pytest.mark.exhaustive
def test_two_processes_write_at_once(store, parent, work):
    workers = [work(parent.run_id)[0] for _ in range(2)]
    for process, kernel in zip(workers, "35", strict=True):
        process.stdin.write(f"{kernel}\n")
        process.stdin.flush()
    assert [process.stdout.readline() for process in workers] == ["said\n"] * 2
    found = stored(store, parent.run_id).data
    assert sorted([found.params["kernel"], found.tags["changed/kernel"]]) == ["3", "5"]
    assert found.metrics == {"best/val_psnr_db": 20.0}


def test_a_sweep_is_closed_when_its_last_process_has_died(store, work):
    maker, parent_id, first = work()
    other, _, second = work(parent_id)
    assert {parent_id, first, second}.isdisjoint(tracking.close_orphans(store)[0])
    kill(maker)
    assert first in tracking.close_orphans(store)[0]
    assert (status(store, parent_id), status(store, second)) == ("RUNNING", "RUNNING")
    kill(other)
    assert {parent_id, second} <= set(tracking.close_orphans(store)[0])
    assert (status(store, parent_id), stored(store, parent_id).data.tags["interrupted"]) == ("KILLED", "true")


def test_a_sweep_stays_running_while_a_process_on_another_machine_cannot_be_judged(store, work, tmp_path):
    """Its lock lies in another machine's folder of runs; there, it is dead."""
    process, parent_id, _ = work()
    elsewhere = Store(tmp_path / "elsewhere", store.uri)
    (elsewhere.directory / "artifacts").mkdir(parents=True)
    other, *_ = work(parent_id, elsewhere)
    kill(process)
    kill(other)
    closed, unknown = tracking.close_orphans(store)
    assert (parent_id in closed, parent_id in unknown) == (False, True)
    assert status(store, parent_id) == "RUNNING"
    assert parent_id in tracking.close_orphans(elsewhere)[0]


def test_a_process_that_finished_the_run_does_not_count_as_working_on_it(store, parent, work):
    process, *_ = work(parent.run_id)
    parent.finish("FINISHED")
    SharedRun(store, parent.run_id)
    with mlflow_call():
        client(store).update_run(parent.run_id, status="RUNNING")
    kill(process)
    assert parent.run_id in tracking.close_orphans(store)[0]


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda parent: parent.tags({"a@b": 1}), id="tag"),
        pytest.param(lambda parent: parent.params({"": 1}), id="parameter"),
        pytest.param(lambda parent: parent.metrics({"a[0]": 1.0}, 1), id="metric"),
        pytest.param(lambda parent: parent.metrics({"a": 1.0, "a/../b": 1.0}, 1), id="path"),
        pytest.param(lambda parent: parent.describe_run(parent.run_id, {}, {"a//b": 1}, 1), id="of-a-trial"),
        pytest.param(lambda parent: parent.files([Path("nothing.md")]), id="file"),
        pytest.param(lambda parent: parent.finish("DONE"), id="status"),
        pytest.param(lambda parent: SharedRun.create(parent._store, "", "study", {}), id="experiment"),
    ],
)
def test_invalid_values_are_refused(store, parent, write):
    with pytest.raises(RefusedError, match=r"^tracking\.uri=") as error:
        write(parent)
    assert "\n" not in str(error.value)
    assert status(store, parent.run_id) == "RUNNING"


def test_an_unknown_run_and_a_deleted_one_are_refused(store, parent):
    with pytest.raises(UnavailableError, match="nothing"):
        SharedRun(store, "nothing")
    with mlflow_call():
        client(store).delete_run(parent.run_id)
    with pytest.raises(RefusedError, match=r"restore it: MLFLOW_TRACKING_URI=\S+ mlflow runs restore --run-id"):
        SharedRun(store, parent.run_id)


def test_a_store_that_is_down_is_reported_at_once(parent, tmp_path):
    parent._store = Store(tmp_path, "postgresql+psycopg://me:s3cret@127.0.0.1:9/x")
    calls = [
        parent.reopen,
        lambda: parent.tags({"a": 1}),
        lambda: parent.params({"a": 1}),
        lambda: parent.metrics({"a": 1}, 1),
        lambda: parent.files([]),
        lambda: parent.describe_run("a", {"b": 1}, {}, 1),
        lambda: parent.finish("FINISHED"),
        lambda: SharedRun.create(parent._store, "sweep", "study", {}),
        lambda: SharedRun(parent._store, parent.run_id),
    ]
    for call in calls:
        start = time.monotonic()
        with pytest.raises(UnavailableError, match=r"tracking.uri=postgresql.*me:\*\*\*@127.0.0.1:9/x does not answer"):
            call()
        assert time.monotonic() - start < 5
