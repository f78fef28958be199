"""`python -m scratch_dl.diagnose run=...` on finished, crashed and killed runs: what they have logged is enough."""

import contextlib
import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest

import preloaded
from scratch_dl import diagnose, tracking
from scratch_dl.train import train
from scratch_dl.training.loop import Diverged

SMALL = ["debug=fast", "threads=1", "model.kernel_size=3", "model.upsampling=nearest", "model.channels=[8,8,8]",
         "trainer.test=false", "trainer.epochs=1", "tracking.detail=trial", "optimizer=sgd", "optimizer.lr=0.5",
         "schedule=ramp_down", "verification=off"]  # fmt: skip
# name -> overrides
RUNS = {
    "healthy": ["trainer.epochs=2"],
    "finished": ["fault=conv_bias_never_cleared"],
    "verified": ["fault=conv_bias_gradient_mean", "verification=quick", "verification.lockstep_steps=0"],
    "diverged": ["optimizer.lr=1e30"],
    "off": ["fault=conv_bias_gradient_mean", "diagnosis=off", "verification=quick", "verification.lockstep_steps=0"],
    "unseen": ["diagnosis=off"],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for all runs here."""
    return tmp_path_factory.mktemp("diagnose") / "mlruns"


@pytest.fixture(scope="module")
def runs(store, killed_at):
    """Name -> folder of a run that has ended so; "killed" is the finished one, killed after 7 steps."""
    folders = {name: store / "hydra" / "a" / name for name in [*RUNS, "killed"]}
    for name, overrides in RUNS.items():
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Diverged):
            train([*SMALL, f"tracking.dir={store}", f"hydra.run.dir={folders[name]}", *overrides])
    more = [*RUNS["finished"], f"tracking.dir={store}", f"hydra.run.dir={folders['killed']}"]
    words, settings = [sys.executable, "-c", killed_at(7), *SMALL, *more], {**os.environ, "OMP_NUM_THREADS": "1"}
    code = preloaded.run(words, cwd=store, check=False, capture_output=True, timeout=120, env=settings).returncode
    assert code == -signal.SIGKILL
    return folders


@pytest.fixture
def command(tmp_path, monkeypatch, in_process, store):
    """The command in this process and in an empty folder: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)

    return lambda *arguments: in_process(diagnose, *arguments, f"tracking.dir={store}")


def own(folder):
    """The verdict that a run had itself."""
    return json.loads((folder / "artifacts" / "diagnosis" / "verdict.json").read_text())


def place(verdict):
    return verdict["cause"], verdict["module"], verdict["direction"], verdict["step"]


def words(out):
    """What a panel says, its border and line breaks left out."""
    return " ".join(out.replace("│", " ").split())


@pytest.mark.parametrize("name", ["healthy", "finished", "verified", "diverged"])
def test_a_run_that_has_ended_gets_the_verdict_that_it_had(runs, command, tmp_path, name):
    """Exit status 0 if it is healthy and 1 if not, within 80 columns; nothing is written."""
    status, out, err = command(f"run={runs[name]}")
    verdict = own(runs[name])
    assert (status, err) == (0 if name == "healthy" else 1, "")
    assert max(map(len, out.splitlines())) <= 80, out
    assert verdict["cause"] in words(out)
    for key in ("module", "direction", "cure", "what"):
        assert verdict[key] in words(out), key
    assert f"output {verdict['output_class']} " in words(out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["healthy", "finished", "verified", "diverged", "killed"])
def test_the_same_run_is_found_by_its_id(runs, command, name):
    """As by its folder."""
    run_id = tracking.Journal(runs[name]).header["run_id"]
    assert command(f"run={run_id}") == command(f"run={runs[name]}")


def test_a_killed_run_is_explained_as_the_undisturbed_one(runs, command, tmp_path):
    """It has no verdict and no summary of its own; the panel says that it has not ended."""
    assert not (runs["killed"] / "summary.json").exists()
    assert not (runs["killed"] / "artifacts" / "diagnosis" / "verdict.json").exists()
    status, out, err = command(f"run={runs['killed']}", f"output={tmp_path}/out")
    assert (status, err) == (1, "")
    assert "killed: has not ended, or was killed, step 7" in words(out)
    assert max(map(len, out.splitlines())) <= 80, out
    verdict = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert place(verdict) == place(own(runs["finished"])) == ("conv_bias_never_cleared", "conv1", "contract", 1)


def test_a_run_that_diverged_says_when_and_why(runs, command):
    """The reason is the error's."""
    _, out, _ = command(f"run={runs['diverged']}")
    assert "diverged: FAILED, step" in words(out)
    assert "train/loss became" in words(out)
    assert place(own(runs["diverged"]))[:3] == ("learning_rate_too_large", "optimizer", "settings")


@pytest.mark.parametrize("name", ["finished", "diverged"])
def test_output_is_a_folder_with_the_verdict_and_the_figure(runs, command, tmp_path, name):
    """The verdict is the run's own, word for word."""
    status, _, err = command(f"run={runs[name]}", "output=some/where")
    assert (status, err) == (1, "")
    assert {path.name for path in (tmp_path / "some" / "where").iterdir()} == {"verdict.json", "diagnosis.png"}
    assert json.loads((tmp_path / "some" / "where" / "verdict.json").read_text()) == own(runs[name])
    assert (tmp_path / "some" / "where" / "diagnosis.png").read_bytes()[:4] == b"\x89PNG"


def test_explaining_changes_nothing_of_the_run(runs, command):
    """Nor does it train."""
    before = {path: path.stat().st_mtime_ns for path in runs["finished"].rglob("*")}
    command(f"run={runs['finished']}")
    assert {path: path.stat().st_mtime_ns for path in runs["finished"].rglob("*")} == before


def test_a_record_cut_in_mid_line_is_read_and_left_as_it_is(runs, command, tmp_path):
    """A run that still goes on may be writing that line."""
    for path in ("config.yaml", "journal.jsonl"):
        (tmp_path / path).write_bytes((runs["killed"] / path).read_bytes())
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(b'{"kind": "metrics", "st')
    before = (tmp_path / "journal.jsonl").read_bytes()
    status, out, err = command(f"run={tmp_path}")
    assert (status, err) == (1, "")
    assert "conv_bias_never_cleared" in words(out)
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_a_run_that_was_verified_and_not_watched_names_what_the_verification_found(runs, command):
    """Place and direction; which mistake it is was not looked for."""
    status, out, err = command(f"run={runs['off']}")
    assert (status, err) == (1, "")
    assert "gradient_wrong: conv1 grad_bias, before the first step" in words(out)
    assert "output not seen" in words(out)


def test_a_run_that_was_neither_verified_nor_watched_is_unknown(runs, command):
    """And that is said, with what to do; it is not called healthy."""
    status, out, err = command(f"run={runs['unseen']}")
    assert (status, err) == (1, "")
    assert "diagnosis unknown " in words(out)
    assert "healthy" not in out
    assert "diagnosis=default" in words(out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["run=nowhere/at/all"],
            "run must be a run's folder (with a config.yaml), its id, latest or best, but got 'nowhere/at/all'",
        ),
        (["run=0123456789abcdef0123456789abcdef"], "0123456789abcdef0123456789abcdef"),
        ([], "run must be given, for example run=..., but it is missing"),
        (["run=x", "outputs=y"], "outputs is not a setting; did you mean 'output'?"),
        (["run=x", "+tracking.foo=1"], "tracking.foo is not a setting; there are: dir, uri, "),
    ],
    ids=["folder", "id", "missing", "setting", "added-below"],
)
def test_a_wrong_run_is_one_line_on_stderr_and_exit_2(runs, command, tmp_path, arguments, said):  # noqa: ARG001
    """In the user's words; nothing is written."""
    status, out, err = command(*arguments)
    assert (status, out) == (2, ""), err
    assert err.startswith("error: "), err
    assert said in err
    assert err.count("\n") == 1, err
    assert list(tmp_path.iterdir()) == []


def test_the_command_in_a_process_of_its_own_and_in_a_folder_with_spaces(runs, tmp_path):
    """As it is typed."""
    place = tmp_path / "a run (1), copied"
    place.mkdir()
    for path in ("config.yaml", "journal.jsonl", "summary.json"):
        (place / path).write_bytes((Path(runs["finished"]) / path).read_bytes())
    typed = [sys.executable, "-m", "scratch_dl.diagnose", f"run={place}"]
    done = preloaded.run(typed, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    assert "conv_bias_never_cleared" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert [path.name for path in tmp_path.iterdir()] == [place.name]
