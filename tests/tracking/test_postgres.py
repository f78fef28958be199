"""A store in a real PostgreSQL: made by several at once, trained into, and its password nowhere."""

import json
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

import preloaded
from scratch_dl import tracking
from scratch_dl import train as train_module
from scratch_dl.system.passwords import without_password
from scratch_dl.tracking import Run, TrackingError, locks, open_store
from scratch_dl.tracking.locks import connect
from scratch_dl.tracking.mlflow_calls import mlflow_call
from scratch_dl.tracking.store import client
from scratch_dl.train import train

BEGIN = """
import sys, time
from pathlib import Path
from scratch_dl.tracking import Run, open_store
import mlflow
folder = Path(sys.argv[1])
(folder / f"ready{sys.argv[3]}").touch()
while not (folder / "go").exists():
    time.sleep(0.005)
run = Run.create(open_store(folder, sys.argv[2]), folder / sys.argv[3], "same")
run.metric("train/loss", 1.0, 1)
sys.exit(not run.finish("FINISHED"))
"""


@pytest.fixture(scope="module")
def uri(postgres):
    """A database that has MLflow's tables, whose making takes seconds."""
    return postgres()


@pytest.fixture
def password(uri):
    """Random, so that whatever has it has it from the address."""
    return make_url(uri).password


@pytest.fixture
def store(uri, tmp_path):
    return open_store(tmp_path / "mlruns", uri)


def runs_of(store, experiment):
    with mlflow_call():
        found = client(store).get_experiment_by_name(experiment)
        return client(store).search_runs([found.experiment_id])


@pytest.mark.exhaustive
def test_four_processes_start_at_once_on_an_empty_database(postgres, tmp_path):
    uri = postgres()
    environment = {**os.environ, "PYTHONPATH": str(Path(tracking.__file__).parents[2])}
    started = [
        preloaded.Popen([sys.executable, "-c", BEGIN, str(tmp_path), uri, str(index)], stdout=preloaded.PIPE,
                         stderr=preloaded.STDOUT, env=environment)
        for index in range(4)
    ]  # fmt: skip
    while len(list(tmp_path.glob("ready*"))) < 4 and all(process.poll() is None for process in started):
        time.sleep(0.02)
    (tmp_path / "go").touch()
    output = [process.communicate(timeout=120)[0].decode() for process in started]
    assert [process.returncode for process in started] == [0] * 4, output
    lines = [line for one in output for line in one.splitlines()]
    assert not [line for line in lines if "is locked by another process; waiting" not in line], "chatter"
    found = runs_of(open_store(tmp_path, uri), "same")
    assert [run.info.status for run in found] == ["FINISHED"] * 4
    with connect(uri) as connection:
        versions = connection.execute(text("SELECT count(*) FROM alembic_version")).scalar_one()
    assert versions == 1


def test_a_training_is_recorded_and_its_password_is_not(uri, password, tmp_path, monkeypatch):
    """As typed on a command line, whose words become tags."""
    overrides = ["debug=fast", "trainer.epochs=1", f"tracking.uri={uri}", f"tracking.dir={tmp_path / 'mlruns'}"]
    overrides.append(f"hydra.run.dir={tmp_path / 'mlruns' / 'hydra' / 'one'}")
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "scratch_dl.train", *overrides])
    result = train(overrides)
    store = open_store(tmp_path / "mlruns", uri)
    with mlflow_call():
        run = client(store).get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["val/psnr_db"] == pytest.approx(result.progress.last_psnr_db, rel=1e-6)
    assert store.shown in run.data.tags["command"]
    assert password not in json.dumps([run.data.tags, run.data.params])
    assert json.loads((result.folder / "journal.jsonl").read_text().splitlines()[0])["uri"] == without_password(uri)
    # A checkpoint's configuration is not written by tracking.
    said = [path for path in tmp_path.glob("mlruns/**/artifacts/**/*") if path.is_file() and path.suffix != ".pt"]
    said += [result.folder / "journal.jsonl"]
    assert [path for path in said if path.name == "config.yaml"], "the settings are among the artifacts"
    assert [path for path in said if password.encode() in path.read_bytes()] == []
    assert not list(tmp_path.rglob("*.db")), "a sqlite store was made too"


def test_what_was_not_sent_is_sent_later_with_a_password_of_the_environment(store, password, monkeypatch):
    run = Run.create(store, store.directory / "later", "later")
    run.tags({"odd": "a\0b\udc80" + "x" * 9000})
    with monkeypatch.context() as patch:
        patch.setattr("scratch_dl.tracking.background.unavailable_reason", lambda *_: "refused")
        assert not run.finish("FINISHED")
    with pytest.raises(TrackingError, match=r"password.*; a run stores no password: give it by tracking.uri="):
        tracking.replay(run.folder)
    monkeypatch.setenv("PGPASSWORD", password)
    assert tracking.replay(run.folder)
    (found,) = runs_of(store, "later")
    assert found.info.status == "FINISHED"
    assert found.data.tags["odd"].startswith("a\N{REPLACEMENT CHARACTER}b\\udc80xxx")


@pytest.mark.exhaustive
def test_a_database_that_is_killed_in_mid_run_costs_nothing(own_postgres, tmp_path, in_process):
    """The training goes on at its pace; one command with the password in the address sends the rest."""
    uri, where = own_postgres.database(), f"tracking.dir={tmp_path / 'mlruns'}"
    home = tmp_path / "mlruns" / "hydra" / "one"
    words = ["model.channels=[8,8,8]", "data.crop_size=16", "data.crops_per_epoch=64", "trainer.batch_size=4",
             "trainer.epochs=100", "trainer.test=false", "data.validation_crops=4", "verification=off",
             "diagnosis=off", "threads=1", where, f"tracking.uri={uri}", f"hydra.run.dir={home}"]  # fmt: skip
    with preloaded.Popen([sys.executable, "-m", "scratch_dl.train", *words], stdout=preloaded.PIPE,
                          stderr=preloaded.PIPE, text=True) as process:  # fmt: skip
        while not (home / "checkpoints" / "previous.pt").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        own_postgres.stop(signal.SIGKILL)
        out, said = process.communicate(timeout=120)
    assert process.returncode == 3, said
    assert said.count("does not answer") == 1, said
    assert own_postgres.password not in out + said
    own_postgres.start()
    status, out, said = in_process(train_module, f"resume={home}", f"tracking.uri={uri}")
    assert status == 0, said
    (run,) = runs_of(open_store(tmp_path / "mlruns", uri), "denoising")
    with mlflow_call():
        history = client(open_store(tmp_path / "mlruns", uri)).get_metric_history(run.info.run_id, "val/psnr_db")
    assert run.info.status == "FINISHED"
    assert sorted(each.step for each in history) == list(range(0, 1601, 16))


def test_messages_name_the_store_without_its_password(store, uri, password, caplog, monkeypatch):
    with pytest.raises(TrackingError, match=r"not in tracking.uri=postgresql.*:\*\*\*@"):
        tracking.find_folder(store, "nothing")
    run = Run.create(store, store.directory / "silent", "silent")
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr("scratch_dl.tracking.background.unavailable_reason", lambda *_: "refused")
        assert not run.flush()
    with caplog.at_level(logging.INFO):
        assert run.flush()
    assert len([record for record in caplog.records if store.shown in record.getMessage()]) == 2
    assert password not in caplog.text
    assert (store.shown, store.address) == (uri.replace(password, "***"), uri.replace(f":{password}", ""))


def test_a_store_that_cannot_be_used_is_one_line(postgres, uri, password, tmp_path):
    other = postgres()
    with connect(other) as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num TEXT)"))
    place, name = uri.rpartition("@")[2], uri.rpartition("/")[2]
    rows = [
        (f"postgresql+psycopg://tester:wrong-{password}@{place}", "password authentication failed for user"),
        (uri.replace(name, "missing"), 'database "missing" does not exist'),
        (f"postgresql+psycopg://tester:{password}@127.0.0.1:9/{name}", "does not answer"),
        (f"postgresql+psycopg://tester:a/b@{password}@{place}", "'@' in a password"),
        (f"postgresql+psycopg://tester:{password}@127.0.0.1:x/{name}", "does not answer|no address"),
        (f"postgresql+nothing://tester:{password}@{place}", "is not the address of a database"),
        (other, "contains the tables of another program, such as Optuna"),
    ]
    for address, match in rows:
        start = time.monotonic()
        with pytest.raises(TrackingError, match=match) as error:
            open_store(tmp_path, address)
        message = str(error.value)
        assert message.startswith("tracking.uri=postgresql+"), message
        assert "\n" not in message
        assert password not in message
        assert time.monotonic() - start < 15, address


def test_a_server_that_accepts_connections_but_never_answers_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "CONNECT_TIMEOUT_S", 2)  # the shortest that libpq uses
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        start = time.monotonic()
        with pytest.raises(
            TrackingError, match=r"tracking.uri=postgresql.* cannot be used: connection timeout"
        ) as error:
            open_store(tmp_path, f"postgresql+psycopg://me:s3cret@127.0.0.1:{mute.getsockname()[1]}/x")
        assert time.monotonic() - start < 15
    assert "s3cret" not in str(error.value)


def test_tables_of_a_newer_mlflow_are_told(uri, tmp_path):
    open_store(tmp_path, uri)
    with connect(uri) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'f' || version_num"))
        try:
            with pytest.raises(TrackingError, match=r"tracking.uri=.* written by another version of MLflow"):
                open_store(tmp_path, f"{uri}?application_name=again")  # MLflow looks once at an address
        finally:
            connection.execute(text("UPDATE alembic_version SET version_num = substr(version_num, 2)"))


def test_a_missing_driver_says_what_to_install(uri, password, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(TrackingError, match=r'tracking.uri=.*pip install "scratch_dl\[postgresql\]"$') as error:
        open_store(tmp_path, uri)
    assert password not in str(error.value)
