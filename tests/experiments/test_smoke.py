"""Every study runs at a small size, and leaves nothing behind."""

import sys
from pathlib import Path

import pytest

import preloaded

FEW = {"002-speed": ["--parts", "steps"]}  # tests/test_bench.py measures all of them
STUDIES = sorted((Path(__file__).parents[2] / "experiments").glob("*/run.py"))


@pytest.mark.exhaustive
@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.parent.name)
def test_the_study_runs(study, tmp_path):
    done = preloaded.run(
        [sys.executable, study, "--smoke", *FEW.get(study.parent.name, [])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
