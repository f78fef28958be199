"""MLflow's environment variables are used and said: below the command line, above presets and defaults."""

import pytest

from scratch_dl import bench, delete, diagnose, evaluate, runs, train, ui, verify
from scratch_dl.config.composing import compose_config
from scratch_dl.config.environment import EXPERIMENT, RUN_ID, URI, from_environment
from scratch_dl.system.errors import ConfigError

SECRET = "postgresql://bob:SE'C,R(E)T@127.0.0.1:1/db"


def tracked(*overrides, **how):
    """The tracking settings of a command line in this environment."""
    return compose_config("train", [*overrides, *from_environment(overrides, **how)]).tracking


@pytest.mark.parametrize(
    ("variable", "key", "value"),
    [
        (URI, "uri", "sqlite:///elsewhere.db"),
        (EXPERIMENT, "experiment", "my, 'experiment' (é)"),
        (RUN_ID, "run_id", "0123"),
    ],
)  # fmt: skip
def test_a_variable_is_used_and_said(monkeypatch, capsys, variable, key, value):
    """Above a preset's; whatever characters it has; one of digits stays a text."""
    monkeypatch.setenv(variable, value)
    assert tracked("debug=fast")[key] == value
    assert capsys.readouterr().out == f"{variable}={value} is used as tracking.{key}\n"


@pytest.mark.parametrize("said", ["tracking.experiment=x", "+tracking.experiment=x", "++tracking.experiment=x"])
def test_the_command_line_wins(monkeypatch, capsys, said):
    monkeypatch.setenv(EXPERIMENT, "other")
    assert from_environment([said]) == []
    assert capsys.readouterr().out == ""


def test_no_argument_holds_a_password_and_no_line_shows_it(monkeypatch, capsys):
    monkeypatch.setenv(URI, SECRET)
    assert from_environment([]) == ["tracking.uri='${oc.env:MLFLOW_TRACKING_URI}'"]
    assert capsys.readouterr().out == f"{URI}=postgresql://bob:***@127.0.0.1:1/db is used as tracking.uri\n"
    assert tracked().uri == SECRET


@pytest.mark.parametrize(
    ("variable", "overrides", "how", "reason"),
    [
        pytest.param(RUN_ID, [], {"several": True}, "it is for a single new training", id="grid"),
        pytest.param(RUN_ID, ["resume.run='x'"], {}, "it is for a single new training", id="resumed"),
        pytest.param(RUN_ID, [], {"name": "evaluate"}, "it is for a single new training", id="evaluate"),
        pytest.param(RUN_ID, [], {"name": "verify"}, "it is for a single new training", id="verify"),
        pytest.param(EXPERIMENT, ["resume.run='x'"], {}, "a resumed run stays in its experiment", id="experiment"),
        pytest.param(EXPERIMENT, [], {"name": "evaluate"}, "an evaluation is recorded in its run", id="of"),
        pytest.param(EXPERIMENT, [], {"name": "diagnose"}, "it records nothing", id="diagnose"),
        pytest.param(EXPERIMENT, [], {"name": "delete"}, "a run is named by its id", id="delete"),
    ],
)  # fmt: skip
def test_a_variable_that_does_not_count_is_ignored_with_a_line(monkeypatch, capsys, variable, overrides, how, reason):
    monkeypatch.setenv(variable, "x")
    assert from_environment(overrides, **how) == []
    out = capsys.readouterr().out
    assert out.startswith(f"{variable}=x is ignored: {reason}")
    assert out.count("\n") == 1


@pytest.mark.parametrize("address", ["file:///a/mlruns", "file:x", "./mlruns", "databricks", "ftp://bob:SECRET@host/x"])
def test_an_address_that_cannot_be_used_is_refused_with_the_variable_and_the_cure(monkeypatch, capsys, address):
    monkeypatch.setenv(URI, address)
    with pytest.raises(
        ConfigError, match=rf"^{URI} must be like http.*; unset {URI}, or give tracking\.uri="
    ) as refused:
        from_environment([])
    assert "SECRET" not in str(refused.value) + capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "arguments"),
    [(train, ["seed=x"]), (verify, ["seed=x"]), (bench, ["seed=x"]), (diagnose, ["run=/x"]), (evaluate, ["run=/x"]),
     (delete, ["/x"])],
    ids=["train", "verify", "bench", "diagnose", "evaluate", "delete"],
)  # fmt: skip
def test_every_command_uses_the_address(in_process, monkeypatch, tmp_path, command, arguments):
    """Before a fault of another setting is found, and without a trace in the folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(URI, SECRET)
    status, out, err = in_process(command, *arguments)
    assert status == 2, err
    first, *rest = out.splitlines()
    assert first == f"{URI}=postgresql://bob:***@127.0.0.1:1/db is used as tracking.uri"
    assert all(line.startswith("model=") for line in rest), "nothing but what was to be trained"
    assert list(tmp_path.iterdir()) == []


def test_a_command_whose_output_programs_read_says_so_on_stderr(in_process, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(URI, SECRET)
    status, out, err = in_process(runs, "format=x")
    assert (status, out) == (2, "")
    assert err.splitlines()[0] == f"{URI}=postgresql://bob:***@127.0.0.1:1/db is used as tracking.uri"
    assert "SE'C" not in err


def test_the_ui_uses_the_address(in_process, monkeypatch):
    monkeypatch.setenv(URI, "http://bob:SECRET@127.0.0.1:5000")
    status, out, _ = in_process(ui)
    assert status == 0
    assert "SECRET" not in out
    assert f"{URI}=http://bob:***@127.0.0.1:5000 is used as tracking.uri" in out
    assert "http://bob:***@127.0.0.1:5000 is a server with pages of its own" in out


def test_the_ui_refuses_an_address_that_cannot_be_used(in_process, monkeypatch):
    monkeypatch.setenv(URI, "file:///x")
    status, _, err = in_process(ui)
    assert status == 2
    assert f"error: {URI} must be like http" in err
