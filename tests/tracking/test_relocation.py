"""Runs follow their folder: moved, renamed or copied, they go on where they lie, and nothing is made where they lay."""

import contextlib
import shutil
import sqlite3
import sys

import pytest

import preloaded
from scratch_dl import tracking
from scratch_dl.tracking import Run, TrackingError, open_store, replay, store_location
from scratch_dl.tracking.mlflow_calls import mlflow_call
from scratch_dl.tracking.store import client

NAMES = ["new", "with space", "grün", "a#b"]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A project `old` with one run, made through a database in its folder of runs."""
    project = tmp_path_factory.mktemp("original") / "old"
    make_run(project, "first")
    return project


@pytest.fixture
def old(original, tmp_path):
    """The project itself, as if it had been made below this test's folder."""
    shutil.copytree(original, tmp_path / "old")
    open_store(tmp_path / "old" / "mlruns")
    return tmp_path / "old"


def make_run(project, name):
    store = open_store(project / "mlruns")
    run = Run.create(store, project / "mlruns" / "hydra" / "today" / name, "demo", name)
    run.text("hello\n", "note.txt")
    run.metric("val/psnr_db", 20.0, 1)
    assert run.finish("FINISHED")
    return run


def addresses(project):
    with contextlib.closing(sqlite3.connect(project / "mlruns" / "mlflow.db")) as database:
        rows = database.execute(
            "SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs "
            "UNION SELECT value FROM tags WHERE key = 'scratch_dl.folder'"
        )
        return {row[0].removeprefix("file://") for row in rows}


def artifact(project, run_id):
    store = open_store(project / "mlruns")
    with mlflow_call():
        return [file.path for file in client(store).list_artifacts(run_id)]


def the_run(project):
    store = open_store(project / "mlruns")
    with mlflow_call():
        (run,) = client(store).search_runs([client(store).get_experiment_by_name("demo").experiment_id])
    return run.info.run_id


@pytest.mark.parametrize("name", NAMES)
def test_a_moved_project_keeps_its_artifacts_and_writes_nothing_where_it_was(old, tmp_path, name, capsys):
    run_id = the_run(old)
    new = old.rename(tmp_path / name)
    capsys.readouterr()
    assert artifact(new, run_id) == ["note.txt"]
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{new}/mlruns was moved from {old}/mlruns: "), said
    assert len(said) == 1
    second = make_run(new, "second")
    assert artifact(new, second.run_id) == ["note.txt"]
    assert not old.exists()
    assert capsys.readouterr().out == "", "it says so once"


def test_a_copy_is_of_its_own_and_the_original_stays_as_it_is(old, tmp_path):
    before, run_id = addresses(old), the_run(old)
    shutil.copytree(old, tmp_path / "copy")
    make_run(tmp_path / "copy", "second")
    assert addresses(old) == before
    assert all(str(tmp_path / "copy") in address for address in addresses(tmp_path / "copy") if "://" not in address)
    shutil.rmtree(old)
    assert artifact(tmp_path / "copy", run_id) == ["note.txt"]


def test_two_names_of_one_folder_change_nothing(old, tmp_path, capsys):
    (tmp_path / "link").symlink_to(old)
    before = addresses(old)
    capsys.readouterr()
    open_store(tmp_path / "link" / "mlruns")
    assert capsys.readouterr().out == ""
    assert addresses(old) == before


def test_a_run_is_found_by_its_id_and_by_its_folder_after_a_move(old, tmp_path):
    run_id = the_run(old)
    new = old.rename(tmp_path / "new")
    folder = new / "mlruns" / "hydra" / "today" / "first"
    assert store_location(folder) == (new / "mlruns", None)
    assert tracking.find_folder(open_store(new / "mlruns"), run_id) == folder
    run = Run.reopen(open_store(*store_location(folder)), folder, 1)
    run.metric("val/psnr_db", 21.0, 2)
    assert run.finish("FINISHED")
    assert not old.exists()


def test_a_store_elsewhere_finds_a_moved_run_by_its_journal(old, tmp_path):
    """PostgreSQL and servers are never rewritten; the journal below the given tracking.dir shows whose folder it is."""
    run_id = the_run(old)
    shutil.move(old / "mlruns" / "mlflow.db", tmp_path / "shared.db")
    new = old.rename(tmp_path / "new")
    store = open_store(new / "mlruns", f"sqlite:///{tmp_path}/shared.db")
    with mlflow_call():
        client(store).set_tag(run_id, "scratch_dl.folder", str(old / "mlruns" / "hydra" / "today" / "first"))
    assert tracking.find_folder(store, run_id) == new / "mlruns" / "hydra" / "today" / "first"


def test_a_folder_of_another_run_is_not_taken_for_it(old):
    """The tag is what anybody who may write to a shared server can set."""
    store, run_id = open_store(old / "mlruns"), the_run(old)
    other = make_run(old, "other")
    with mlflow_call():
        client(store).set_tag(run_id, "scratch_dl.folder", str(other.folder))
    assert tracking.find_folder(store, run_id).name == "first"


def test_a_folder_whose_database_has_gone_is_one_line_and_makes_none(old):
    (old / "mlruns" / "mlflow.db").unlink()
    folder = old / "mlruns" / "hydra" / "today" / "first"
    with pytest.raises(TrackingError, match=r"is missing; give the tracking\.dir or tracking\.uri"):
        store_location(folder)
    assert replay(folder), "all of it was sent"
    assert not (old / "mlruns" / "mlflow.db").exists()


def test_what_was_not_sent_before_a_move_is_sent_after_it(old, tmp_path, monkeypatch):
    store = open_store(old / "mlruns")
    run = Run.create(store, old / "mlruns" / "hydra" / "today" / "late", "demo", "late")
    run.metric("val/psnr_db", 20.0, 1)
    with monkeypatch.context() as patch:
        patch.setattr("scratch_dl.tracking.background.unavailable_reason", lambda *_: "refused")
        assert not run.finish("FINISHED")
    new = old.rename(tmp_path / "new")
    assert replay(new / "mlruns" / "hydra" / "today" / "late")
    with mlflow_call():
        found = client(open_store(new / "mlruns")).get_run(run.run_id)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"val/psnr_db": 20.0})


def test_nothing_is_rewritten_while_another_process_works_in_the_folder(old, tmp_path):
    """As of a container that sees the same folder by another path."""
    program = (
        "import sys; from scratch_dl.tracking import open_store\n"
        "open_store(sys.argv[1]); print(1, flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", program, str(old / "mlruns")]
    with preloaded.Popen(words, stdin=preloaded.PIPE, stdout=preloaded.PIPE, text=True) as other:
        assert other.stdout.readline() == "1\n"
        new = old.rename(tmp_path / "new")
        before = addresses(new)
        with pytest.raises(TrackingError, match=rf"was moved from {old}/mlruns, but process {other.pid} on"):
            open_store(new / "mlruns")
        assert addresses(new) == before
        other.communicate()
    open_store(new / "mlruns")
    assert addresses(new) != before


def test_an_experiment_whose_folder_is_not_here_is_refused_before_anything_runs(old, tmp_path):
    """In a database apart from its artifacts, another tracking.dir may be another machine's."""
    shutil.move(old / "mlruns" / "mlflow.db", tmp_path / "shared.db")
    (tmp_path / "mine").mkdir()
    store = open_store(old / "mlruns", f"sqlite:///{tmp_path}/shared.db")
    with mlflow_call():
        client(store).create_experiment("theirs", artifact_location="file:///nowhere/here/mlruns/artifacts")
    with pytest.raises(TrackingError, match=r"tracking\.experiment=theirs keeps its artifacts in /nowhere/here/mlruns"):
        Run.create(store, old / "mlruns" / "hydra" / "new", "theirs")
    assert not (old / "mlruns" / "hydra" / "new").exists()


def test_a_database_apart_from_its_runs_is_not_rewritten_for_another_folder(old, tmp_path):
    """Several folders of runs in one database: when the disk of one is away, the others are not in its place."""
    shutil.move(old / "mlruns" / "mlflow.db", tmp_path / "shared.db")
    shared = f"sqlite:///{tmp_path}/shared.db"
    open_store(old / "mlruns", shared)
    old.rename(tmp_path / "unmounted")
    open_store(tmp_path / "second" / "mlruns", shared)
    (tmp_path / "unmounted").rename(old)
    with mlflow_call():
        api = client(open_store(old / "mlruns", shared))
        (run,) = api.search_runs([api.get_experiment_by_name("demo").experiment_id])
        assert [file.path for file in api.list_artifacts(run.info.run_id)] == ["note.txt"]


def test_a_copy_of_one_runs_folder_does_not_take_the_run_over(old, tmp_path):
    store, folder = open_store(old / "mlruns"), old / "mlruns" / "hydra" / "today" / "first"
    shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(TrackingError, match=rf"is a copy of the run in {folder}, to which .*; continue there: resume="):
        Run.reopen(store, tmp_path / "copy", 1)
    assert tracking.find_folder(store, the_run(old)) == folder
