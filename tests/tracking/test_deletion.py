"""What is deleted with a run, what is not, and what is left when it fails half-way."""

import re
import shutil

import pytest

from scratch_dl.tracking import Run, SharedRun, TrackingError, deletion, folder_lock, open_store
from scratch_dl.tracking.deletion import delete_run, plan_deletions
from scratch_dl.tracking.errors import SettingError, UnavailableError
from scratch_dl.tracking.lookup import FOLDER_TAG
from scratch_dl.tracking.store import client


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "mlruns")


def trained(store, name, status="FINISHED", folder=None, experiment="experiment"):
    """A run with a checkpoint, an artifact and a logged model: (id, local folder, folder of the model)."""
    run = Run.create(store, folder or store.directory / "hydra" / name, experiment, name)
    run.params({"trainer.epochs": 1, "parameters": 9})
    run.metric("val/psnr_db", 20.0, 1)
    (run.folder / "checkpoints").mkdir(exist_ok=True)
    (run.folder / "checkpoints" / "last.pt").write_bytes(b"weights")
    run.text("a note", "notes/note.txt")
    assert run.finish(status) if status else run.flush()
    model = client(store).create_logged_model(run.experiment_id, "model", source_run_id=run.run_id)
    (run.folder / "checkpoints" / "MLmodel").write_text("a model")
    client(store).log_model_artifacts(model.model_id, str(run.folder / "checkpoints"))
    client(store).finalize_logged_model(model.model_id, "READY")
    return run.run_id, run.folder, store.directory / "artifacts" / "models" / model.model_id


def artifacts(store, run_id):
    return store.directory / "artifacts" / run_id


def stage(store, run_id):
    return client(store).get_run(run_id).info.lifecycle_stage


def delete(store, *names):
    for planned in plan_deletions(store, names):
        delete_run(store, planned)


def names_as_output(store, run_id, model):
    """As a training does at its end: the run names its model, also after the model was deleted."""
    from mlflow.entities import LoggedModelOutput

    client(store).log_outputs(run_id, [LoggedModelOutput(model.name, step=1)])


def is_whole(store, run_id, folder, model):
    kept = [folder / "journal.jsonl", folder / "checkpoints" / "last.pt", model / "artifacts" / "MLmodel",
            artifacts(store, run_id) / "artifacts" / "notes" / "note.txt"]  # fmt: skip
    return stage(store, run_id) == "active" and all(path.is_file() for path in kept)


def test_a_run_is_deleted_in_mlflow_with_folder_artifacts_and_models_and_no_other_is(store):
    one, other = trained(store, "one"), trained(store, "other")
    assert is_whole(store, *one)
    delete(store, one[0][:8])
    run_id, folder, model = one
    assert stage(store, run_id) == "deleted"
    assert client(store).get_run(run_id).data.metrics == {"val/psnr_db": 20.0}
    assert not folder.exists()
    assert not artifacts(store, run_id).exists()
    assert not model.exists()
    experiment = client(store).get_run(run_id).info.experiment_id
    assert [each.source_run_id for each in client(store).search_logged_models([experiment])] == [other[0]]
    assert is_whole(store, *other)


def test_a_run_named_twice_is_deleted_once(store):
    run_id, *_ = trained(store, "one")
    assert len(plan_deletions(store, [run_id, run_id[:8]])) == 1


@pytest.mark.parametrize("name", ["best", "latest"])
def test_a_run_is_named_by_its_id_and_not_by_what_it_is_today(store, name):
    run = Run.create(store, store.directory / "sound", "e", "sound", {"verification": "passed"})
    run.params({"trainer.epochs": 1, "parameters": 9})
    run.metric("val/best_psnr_db", 20.0, 1)
    assert run.finish("FINISHED")
    with pytest.raises(SettingError, match=f"^runs must be ids, .* but got '{name}'; now it is {run.run_id}$"):
        plan_deletions(store, [name])


def test_a_run_whose_folder_is_locked_is_running_whatever_mlflow_says(store):
    run_id, folder, model = trained(store, "one")
    with folder_lock(folder), pytest.raises(TrackingError, match=f"^{run_id} .* is running; wait for it or end it"):
        plan_deletions(store, [run_id])
    assert is_whole(store, run_id, folder, model)


def test_a_run_that_begins_to_run_after_the_plan_is_not_deleted(store):
    run_id, folder, model = trained(store, "one")
    (planned,) = plan_deletions(store, [run_id])
    with folder_lock(folder), pytest.raises(TrackingError, match=r"^MLflow still shows it .* is working in "):
        delete_run(store, planned)
    assert is_whole(store, run_id, folder, model)


def test_a_run_that_was_killed_is_deleted_although_mlflow_shows_it_running(store):
    run_id, folder, _ = trained(store, "killed", status=None)
    assert client(store).get_run(run_id).info.status == "RUNNING"
    delete(store, run_id)
    assert stage(store, run_id) == "deleted"
    assert not folder.exists()


def test_a_run_that_runs_where_it_cannot_be_seen_is_not_deleted(store):
    run_id, folder, _ = trained(store, "elsewhere", status=None)
    shutil.rmtree(folder)
    with pytest.raises(TrackingError, match="is RUNNING, and whether its process lives cannot be seen from here"):
        plan_deletions(store, [run_id])
    assert stage(store, run_id) == "active"


def test_the_run_of_a_study_that_is_searched_is_not_deleted(store):
    study = SharedRun.create(store, "sweep", "study", {})
    with pytest.raises(TrackingError, match=f"^{study.run_id} .* is running"):
        plan_deletions(store, [study.run_id])


@pytest.mark.parametrize("how", ["run_id", "source"])
def test_the_champion_of_a_registered_model_is_not_deleted_until_another_is(store, how):
    one, two = trained(store, "one"), trained(store, "two")
    api = client(store)
    api.create_registered_model("denoiser")
    for run_id, _, model in (one, two):
        api.create_model_version("denoiser", str(model), run_id=run_id if how == "run_id" else None)
    delete(store, trained(store, "three")[0])  # no version has an alias
    api.set_registered_model_alias("denoiser", "champion", "1")
    with pytest.raises(TrackingError, match=r"is the champion of the registered model denoiser \(version 1\)"):
        plan_deletions(store, [two[0], one[0]])
    assert is_whole(store, *one)
    assert is_whole(store, *two)
    api.set_registered_model_alias("denoiser", "champion", "2")
    delete(store, one[0])
    assert stage(store, one[0]) == "deleted"
    assert is_whole(store, *two)


def test_a_folder_that_belongs_to_another_run_is_never_removed(store):
    one, other = trained(store, "one"), trained(store, "other")
    shutil.rmtree(one[1])
    client(store).set_tag(one[0], FOLDER_TAG, str(other[1]))  # as after a wrong copy
    delete(store, one[0])
    assert stage(store, one[0]) == "deleted"
    assert is_whole(store, *other)


def test_a_folder_without_the_runs_journal_is_never_removed(store, tmp_path):
    run_id, folder, _ = trained(store, "one")
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    client(store).set_tag(run_id, FOLDER_TAG, str(home))
    delete(store, run_id)
    assert (home / "thesis.txt").read_text() == "years of work"
    assert not folder.exists()  # found below the store, by its journal


@pytest.mark.parametrize("thing", ["thesis.txt", "project/code.py", ".git/config", "artifacts/again/journal.jsonl"])
def test_a_folder_with_something_else_in_it_is_not_removed(store, tmp_path, thing):
    """A user chose it by hydra.run.dir; the message names what is in the way."""
    run_id, folder, model = trained(store, "one", folder=tmp_path / "work")
    (folder / thing).parent.mkdir(parents=True, exist_ok=True)
    (folder / thing).write_text("years of work")
    with pytest.raises(TrackingError, match=rf"has the folder {folder}, in which {folder}/\S+ is not its own; move"):
        plan_deletions(store, [run_id])
    assert (folder / thing).exists()
    assert is_whole(store, run_id, folder, model)


@pytest.mark.parametrize("place", ["..", "."])
def test_a_folder_that_contains_the_store_is_not_removed(tmp_path, place):
    store = open_store(tmp_path / "artifacts")
    run_id, folder, _ = trained(store, "one", folder=(store.directory / place).resolve())
    with pytest.raises(TrackingError, match=r"in which \S+ is not its own"):
        plan_deletions(store, [run_id])
    assert (store.directory / "mlflow.db").exists()
    assert (folder / "journal.jsonl").exists()


def test_a_model_of_another_run_stays_although_the_run_names_it(store):
    one, other = trained(store, "one"), trained(store, "other")
    names_as_output(store, one[0], other[2])
    delete(store, one[0])
    assert not one[2].exists()
    assert is_whole(store, *other)


def test_a_run_whose_folder_was_moved_and_linked_is_removed_with_the_link(store, tmp_path):
    run_id, folder, _ = trained(store, "one")
    folder.rename(tmp_path / "larger disk")
    folder.symlink_to(tmp_path / "larger disk")
    delete(store, run_id)
    assert not folder.is_symlink()
    assert not (tmp_path / "larger disk").exists()


def test_a_link_in_a_runs_folder_is_removed_and_what_it_points_to_is_not(store, tmp_path):
    run_id, folder, _ = trained(store, "one")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis.txt").write_text("years of work")
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").symlink_to(elsewhere)
    (folder / "artifacts" / "link").symlink_to(elsewhere)
    delete(store, run_id)
    assert not folder.exists()
    assert (elsewhere / "thesis.txt").exists()


@pytest.mark.parametrize("uri", ["{tmp}/elsewhere", "mlflow-artifacts:/1", "file://{store}/artifacts/../../elsewhere"])
def test_artifacts_that_are_not_below_those_of_the_store_stay(store, tmp_path, uri):
    uri = uri.format(tmp=tmp_path, store=store.directory)
    experiment = client(store).create_experiment("theirs", artifact_location=uri)
    info = client(store).create_run(experiment).info
    client(store).set_terminated(info.run_id)
    place = tmp_path / "elsewhere" / info.run_id / "artifacts"
    place.mkdir(parents=True)
    (planned,) = plan_deletions(store, [info.run_id])
    assert (planned.artifacts, planned.remote) == ((), info.artifact_uri)
    delete_run(store, planned)
    assert stage(store, info.run_id) == "deleted"
    assert place.exists()


def test_a_folder_of_artifacts_that_is_not_named_by_the_run_stays(store):
    """As if the database said so: it is below the store, but it is that of all runs."""
    run_id, *_ = trained(store, "one")
    run = client(store).get_run(run_id)
    for address in (store.artifact_location, f"{store.artifact_location}/artifacts"):
        run.info._artifact_uri = address
        assert deletion._artifacts(store, run, []) == ((), address)


def test_what_mlflow_refuses_to_delete_keeps_its_files(store, monkeypatch):
    run_id, folder, model = trained(store, "one")
    (planned,) = plan_deletions(store, [run_id])

    def refuse(*_):
        raise UnavailableError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(deletion, "_call", refuse)
        with pytest.raises(TrackingError, match=r"^MLflow still shows it \(disk I/O error\)$"):
            delete_run(store, planned)
    assert is_whole(store, run_id, folder, model)


@pytest.mark.parametrize("failing", ["artifacts", "model", "checkpoints", "summary.json", "journal.jsonl"])
def test_after_a_failure_mlflow_hides_the_run_and_its_whole_id_removes_the_rest(store, monkeypatch, failing):
    run_id, folder, model = trained(store, "one")
    names_as_output(store, run_id, model)
    (folder / "summary.json").write_text("{}")
    (planned,) = plan_deletions(store, [run_id])
    place = {"artifacts": artifacts(store, run_id), "model": model}.get(failing, folder / failing)
    remove = deletion._remove

    def fail(path):
        if path == place:
            raise OSError(5, "Input/output error", str(path))
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(deletion, "_remove", fail)
        with pytest.raises(TrackingError, match=r"^it is deleted in MLflow, but some of its files are left \(/.*error"):
            delete_run(store, planned)
    assert stage(store, run_id) == "deleted"
    assert (folder / "journal.jsonl").exists()
    (again,) = plan_deletions(store, [run_id])
    assert not again.is_shown
    delete_run(store, again)
    for path in (folder, artifacts(store, run_id), model):
        assert not path.exists()
    with pytest.raises(SettingError, match=re.escape(f"runs={run_id} is deleted already, and nothing of it is left")):
        plan_deletions(store, [run_id])
