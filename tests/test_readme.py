"""What README says to type works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scratch_dl.frontdoor import compose_config
from scratch_dl.train import build

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
OVERRIDES = [
    line.split("#")[0].split("scratch_dl.train", 1)[1].split()
    for line in re.findall(r"^python -m scratch_dl\.train .*$", README, re.MULTILINE)
    if not re.search(r"-m seed|resume=|--help", line)
]


def test_the_two_commands_stand_in_it_and_ci_runs_the_second():
    assert "\n    pip install -e . && python -m scratch_dl.train\n" in README
    assert '\n    pip install -e ".[test]" && pytest\n' in README


def test_the_python_example_learns():
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "MSELoss" in block]
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=True)
    losses = [float(line) for line in done.stdout.split()]
    assert len(losses) == 10
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("overrides", OVERRIDES, ids=" ".join)
def test_the_settings_in_the_examples_exist(overrides):
    assert build(compose_config("train", overrides)).trainer.epochs


def test_every_picture_and_folder_named_exists():
    for path in [*re.findall(r"!\[.*?\]\((.*?)\)", README), "conf/train.yaml", "experiments/000-step-time/run.py"]:
        assert (ROOT / path).is_file(), path
