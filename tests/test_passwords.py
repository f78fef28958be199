"""A password in an address: in no file, table, artifact or line that a command leaves."""

import sqlite3

import pytest

from scratch_dl import diagnose, evaluate, train, ui, verify
from scratch_dl.system.passwords import hidden

PASSWORD = "s3cret-p4ss"
ADDRESS = f"http://bob:{PASSWORD}@tracker.example/x"
SMALL = ("debug=fast", "threads=1", "verification=off", "model.channels=[2,2,2]", "trainer.epochs=1",
         "data.downsample=8", "data.crop_size=16", "data.crops_per_epoch=8", "data.validation_crops=2",
         f"+tracking.tags.where='{ADDRESS}'")  # fmt: skip


def test_settings_are_hidden_in_whatever_nesting():
    settings = {"a": [{"b": ADDRESS}, (ADDRESS, 1)], "c": None, "d": "plain"}
    masked = ADDRESS.replace(PASSWORD, "***")
    assert hidden(settings) == {"a": [{"b": masked}, [masked, 1]], "c": None, "d": "plain"}


@pytest.fixture(scope="module")
def left():
    """What the commands of this module have printed."""
    return []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("passwords")


@pytest.fixture
def run(folder, left, monkeypatch, in_process):
    monkeypatch.chdir(folder)

    def run(module, *arguments):
        status, out, err = in_process(module, *arguments)
        left.append(out + err)
        return status, out, err

    return run


def found(folder):
    """The files with the password in them, databases included."""
    return [path for path in folder.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        pytest.param(train, (*SMALL, "hydra.run.dir=mlruns/one"), id="training"),
        pytest.param(train, ("resume=mlruns/one", SMALL[-1]), id="resumed"),
        pytest.param(train, ("-m", *SMALL, "seed=1,2", "tracking.detail=trial"), id="grid"),
        pytest.param(
            train,
            ("-m", "search=custom", *SMALL, "seed=choice(1,2)", "hydra.sweeper.n_trials=2", "trainer.test=false"),
            id="search",
        ),
        pytest.param(evaluate, ("run=mlruns/one", SMALL[-1], "hydra.run.dir=mlruns/two"), id="evaluation"),
        pytest.param(diagnose, ("run=mlruns/one", SMALL[-1]), id="diagnosis"),
        pytest.param(
            verify,
            (
                *SMALL[:-1],
                SMALL[-1],
                "verification=quick",
                "verification.lockstep_steps=1",
                "verification.geometries=false",
            ),
            id="verification",
        ),
    ],
)
def test_no_command_leaves_the_password_of_a_tag(run, folder, module, arguments):
    status, out, err = run(module, *arguments)
    assert status in (0, 1 if module is diagnose else 0), err
    assert found(folder) == []
    assert PASSWORD not in out + err


def test_the_tag_is_kept_without_the_password(folder):
    """So what was looked at is what is written."""
    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as database:
        values = database.execute("SELECT value FROM tags WHERE key = 'where'").fetchall()
    assert {value for (value,) in values} == {ADDRESS.replace(PASSWORD, "***")}
    assert "bob:***@tracker" in (folder / "mlruns" / "one" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("module", "argument"),
    [
        (train, f"tracking.uri=http://bob:{PASSWORD}@127.0.0.1:9"),
        (train, f"data.target='{ADDRESS}'"),
        (train, f"data=folder data.path='{ADDRESS}'"),
        (train, f"model='{ADDRESS}'"),
        (train, f"'{ADDRESS}'=1"),
        (train, f"-m seed=1,'{ADDRESS}'"),
        (evaluate, f"run='{ADDRESS}'"),
        (ui, f"tracking.uri={ADDRESS}"),
        (train, f"tracking.dir='{ADDRESS}'"),
        (ui, f"port={ADDRESS}"),
    ],
)
def test_no_message_shows_a_password(run, module, argument):
    status, out, err = run(module, *argument.split())
    assert status != 0 or module is ui
    assert out + err
    assert PASSWORD not in out + err
