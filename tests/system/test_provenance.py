"""Where a run came from, also where git is missing or has nothing to say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scratch_dl.system import provenance
from scratch_dl.system.provenance import command_line, environment, git_state


@pytest.fixture
def git(tmp_path, monkeypatch):
    """Make a repository with one committed file `pkg/a.py`, and return a way to call git in it."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)

    def call(*words):
        done = subprocess.run(["git", "-C", str(tmp_path / "repo"), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    (tmp_path / "repo" / "pkg").mkdir(parents=True)
    (tmp_path / "repo" / "pkg" / "a.py").write_text("one = 1\n")
    call("init", "-q")
    call("add", ".")
    call("commit", "-q", "-m", "first")
    return call


def test_environment_names_versions_and_machine():
    found = environment()
    assert found["packages"]["torch"].startswith("2.")
    assert found["packages"]["mlflow"]
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["cores"] >= 1
    assert found["torch_threads"] >= 1
    assert found["cpu"]
    json.dumps(found)


def test_a_clean_checkout_is_its_commit(git, tmp_path):
    state = git_state(tmp_path / "repo" / "pkg")
    assert state is not None
    assert (state.commit, state.dirty, state.diff) == (git("rev-parse", "HEAD"), False, "")


def test_changes_and_new_files_are_in_the_diff(git, tmp_path):
    (tmp_path / "repo" / "pkg" / "a.py").write_text("one = 2\n")
    (tmp_path / "repo" / "née.txt").write_text("x")
    (tmp_path / "repo" / ".gitignore").write_text("*.log\n")
    (tmp_path / "repo" / "x.log").write_text("x")
    before = git("rev-parse", "HEAD")
    state = git_state(tmp_path / "repo" / "pkg")
    assert state is not None
    assert (state.commit, state.dirty) == (before, True)
    assert "-one = 1\n+one = 2\n" in state.diff
    assert "née.txt" in state.diff
    assert "x.log" not in state.diff


def test_a_diff_is_cut_at_a_megabyte(git, tmp_path):
    (tmp_path / "repo" / "pkg" / "a.py").write_bytes(b"\xff\xfe caf\xe9 " * 200_000)
    state = git_state(tmp_path / "repo" / "pkg")
    assert state is not None
    assert len(state.diff.encode()) <= provenance.DIFF_LIMIT_BYTES
    assert git("rev-parse", "HEAD") == state.commit


def test_code_outside_a_repository_takes_that_of_the_current_directory(git, tmp_path, monkeypatch):
    (tmp_path / "installed").mkdir()
    monkeypatch.chdir(tmp_path / "repo")
    state = git_state(tmp_path / "installed")
    assert state is not None
    assert state.commit == git("rev-parse", "HEAD")


@pytest.mark.usefixtures("git")
def test_untracked_code_inside_a_repository_is_not_taken_for_it(tmp_path, monkeypatch):
    """A virtual environment inside somebody's repository says nothing of the code installed in it."""
    (tmp_path / "repo" / "venv").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert git_state(tmp_path / "repo" / "venv") is None


def test_no_repository_no_commit_and_no_git_are_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert git_state(tmp_path) is None
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert git_state(tmp_path) is None
    assert git_state(tmp_path / "missing") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) is None


def test_the_command_line_can_be_pasted_into_a_shell(tmp_path):
    script = tmp_path / "say.py"
    script.write_text("from scratch_dl.system.provenance import command_line\nprint(command_line())")
    environ = {**os.environ, "PYTHONPATH": str(Path(provenance.__file__).parents[2])}
    words = [sys.executable, str(script), "name=a b", "lr=$x"]
    said = subprocess.run(words, capture_output=True, text=True, check=True, env=environ).stdout
    assert said.strip().endswith("'name=a b' 'lr=$x'")
    again = subprocess.run(said, shell=True, capture_output=True, text=True, check=True, env=environ).stdout
    assert again == said
    assert command_line()
