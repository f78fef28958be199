"""The pages: on 127.0.0.1 only, on the right store, ended with all their processes."""

import os
import shlex
import signal
import socket
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

import preloaded
from scratch_dl import ui
from scratch_dl.config.overrides import override_value
from scratch_dl.tracking import Run, open_store

SOURCE = str(Path(ui.__file__).parents[1])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        pytest.param(["prot=1"], "prot is not a setting; did you mean 'port'?", id="misspelt"),
        pytest.param(["tracking.dirr=x"], "did you mean 'tracking.dir'?", id="misspelt-dotted"),
        pytest.param(["zzz"], "there are: tracking.dir, tracking.uri, port", id="nothing-near"),
        pytest.param(["port"], "port must be given as port=...", id="no-value"),
        pytest.param(["port=abc"], "whole number from 1 to 65535, but got 'abc'", id="word"),
        pytest.param(["port=70000"], "but got '70000'", id="too-large"),
        pytest.param(["port=2.5"], "but got '2.5'", id="fraction"),
        pytest.param(["port=true"], "but got 'true'", id="bool"),
        pytest.param(["tracking.dir=${x"], "cannot be read", id="broken-value"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(arguments, match, in_process):
    status, out, err = in_process(ui, *arguments)
    assert status == 2
    assert match in err
    assert err.count("\n") == 1
    assert not out


@pytest.mark.parametrize("folder", ["a#b", "my runs", "it's", "a\\'b\\", "é,(b)", "null", "5", "~/x"])
def test_a_folder_is_read_as_the_end_of_a_run_prints_it(folder):
    """Quoted for Hydra and for a shell."""
    from scratch_dl.config.composing import compose_config
    from scratch_dl.training.summary import where_flags

    words = shlex.split(where_flags(compose_config("train", [f"tracking.dir={override_value(folder)}"])))
    assert compose_config("train", words).tracking.dir == folder
    assert ui.parse(words)["tracking.dir"] == folder


def test_help_names_every_key(in_process):
    status, out, _ = in_process(ui, "--help")
    assert status == 0
    assert all(key in out for key in ui.DEFAULTS)


def test_a_missing_store_says_to_train_first_and_makes_nothing(tmp_path, in_process):
    status, _, err = in_process(ui, f"tracking.dir={tmp_path / 'none'}")
    assert status == 1
    assert "train first: python -m scratch_dl.train" in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_taken_port_is_named_with_a_free_one(tmp_path, in_process):
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind((ui.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, _, err = in_process(ui, f"tracking.dir={tmp_path}", f"port={port}")
    assert status == 2
    assert f"port={port} is taken" in err
    assert err.count("port=") == 2


def test_a_server_is_pointed_at(in_process):
    status, out, _ = in_process(ui, "tracking.uri=http://127.0.0.1:9")
    assert status == 0
    assert "http://127.0.0.1:9 is a server" in out


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        *(pytest.param(number, marks=pytest.mark.exhaustive) for number in (signal.SIGHUP, signal.SIGKILL)),
    ],
)
def test_the_pages_show_the_store_on_this_machine_only_and_end_clean(tmp_path, number):
    store = open_store(tmp_path / "my runs")
    Run.create(store, tmp_path / "my runs" / "one", "pages").finish("FINISHED")
    port = ui.free_port()
    words = [sys.executable, "-m", "scratch_dl.ui", f"tracking.dir={store.directory}", f"port={port}"]
    environ = {**os.environ, "PYTHONPATH": SOURCE}
    with preloaded.Popen(words, stdout=preloaded.PIPE, stderr=preloaded.STDOUT, text=True, env=environ,
                          cwd=tmp_path) as shown:  # fmt: skip
        said = [shown.stdout.readline(), shown.stdout.readline()]
        assert "the same by hand" in said[0], said
        assert f"open http://127.0.0.1:{port}" in said[1], said
        family = psutil.Process(shown.pid).children(recursive=True)
        listening = {c.laddr.ip for each in family for c in each.net_connections("inet") if c.status == "LISTEN"}
        assert listening == {"127.0.0.1"}
        query = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get-by-name?experiment_name=pages"
        with urllib.request.urlopen(query, timeout=20) as answer:
            assert b'"pages"' in answer.read()
        shown.send_signal(number)
        rest = shown.communicate(timeout=30)[0]
    assert shown.returncode == (-number if number == signal.SIGKILL else 0), rest
    assert "Traceback" not in rest
    assert not psutil.wait_procs(family, timeout=5)[1], "a process was left behind"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my runs"]


def test_a_store_that_mlflow_cannot_open_is_one_line(tmp_path, in_process):
    (tmp_path / "mlflow.db").write_text("no database, and longer than a header" * 50)
    status, _, err = in_process(ui, f"tracking.dir={tmp_path}", f"port={ui.free_port()}")
    assert status == 1
    assert "not a database that can be used" in err
    assert err.count("\n") == 1
