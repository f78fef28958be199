"""What every run.py begins and ends with: the exit status, and the tables of its README."""

import argparse
import json

import pytest

from _jobs import StudyError
from _study import BEGIN, END, run_study, write_results


@pytest.mark.parametrize("name", ["finished", "failed", "ctrl-c"])
def test_the_exit_status_says_how_a_study_ended(name, tmp_path, capsys):
    def study(_options, directory):
        assert directory == tmp_path
        if name == "failed":
            raise StudyError("another process is working on it")
        if name == "ctrl-c":
            raise KeyboardInterrupt

    status, message = {
        "finished": (0, ""),
        "failed": (1, "error: another process is working on it\n"),
        "ctrl-c": (130, "stopped; the same command continues from here\n"),
    }[name]
    assert run_study(study, argparse.Namespace(smoke=False, directory=tmp_path)) == status
    assert capsys.readouterr().err == message


def test_a_smoke_run_has_a_directory_that_is_removed():
    directories = []
    assert run_study(lambda _, directory: directories.append(directory), argparse.Namespace(smoke=True)) == 0
    assert not directories[0].exists()


def test_only_the_text_between_the_comments_is_replaced(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n\n{BEGIN}\n\nold\n\n{END}\n\nafter\n")
    write_results(tmp_path, {"a": 1}, "new\n")
    assert readme.read_text() == f"before\n\n{BEGIN}\n\nnew\n\n{END}\n\nafter\n"
    assert json.loads((tmp_path / "results.json").read_text()) == {"a": 1}
