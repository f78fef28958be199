"""What README and docs/ say to type works."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import preloaded
from scratch_dl.config.composing import compose_config
from scratch_dl.config.metrics import metric_names
from scratch_dl.search.settings import read_settings
from scratch_dl.search.space import read_space
from scratch_dl.search.space_check import check_keys
from scratch_dl.train import build

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {
    path.name: path.read_text() for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]
}
LINES = re.findall(r"^(?:\$ )?python -m scratch_dl\.train .*$", "\n".join(PAGES.values()), re.MULTILINE)
WORDS = [shlex.split(line.split("#")[0].split("scratch_dl.train", 1)[1]) for line in LINES]
OVERRIDES = [words for words in WORDS if not re.search(r"-m |resume=|--help|my_|lrr", " ".join(words))]
SEARCHES = [words[1:] for words in WORDS if words[:1] == ["-m"] and words[1].startswith("search=")]


def test_the_two_commands_stand_in_it_and_ci_runs_the_second():
    assert "\n    pip install -e . && python -m scratch_dl.train\n" in README
    assert '\n    pip install -e ".[test]" && pytest\n' in README


def test_the_python_example_learns():
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "MSELoss" in block]
    done = preloaded.run([sys.executable, "-c", block], capture_output=True, text=True, check=True)
    losses = [float(line) for line in done.stdout.split()]
    assert len(losses) == 10
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("overrides", OVERRIDES, ids=" ".join)
def test_the_settings_in_the_examples_exist(overrides):
    assert build(compose_config("train", overrides)).trainer.epochs


@pytest.mark.parametrize("words", SEARCHES, ids=" ".join)
def test_the_searches_in_the_examples_can_be_read(words):
    config = compose_config("train", [word for word in words if "(" not in word])
    own = [word for word in words if not word.startswith("hydra.")]
    space = read_space(config.hydra.sweeper.params, config.hydra.sweeper.conditions, own)
    check_keys(space, config)
    assert read_settings(config.hydra, "mlruns", metric_names(config.metrics)).n_trials
    assert len(SEARCHES) >= 3


def test_the_conditions_in_the_example_can_be_read():
    (block,) = re.findall(r"```yaml\n(hydra:.*?)```", PAGES["searches.md"], re.DOTALL)
    sweeper = OmegaConf.create(block).hydra.sweeper
    names = [parameter.name for parameter in read_space(sweeper.params, sweeper.conditions, []).parameters]
    assert names == ["optimizer", "optimizer.momentum[optimizer=sgd]", "optimizer.lr[optimizer=sgd]",
                     "optimizer.lr[optimizer=adam]"]  # fmt: skip


def test_the_module_of_ones_own_is_verified_as_shown(tmp_path):
    """The module, the command, what it prints but for the time, and the assertion for a test of one's own."""
    module, check = (
        re.search(rf"```python\n({start}.*?)```", PAGES["verify.md"], re.DOTALL)[1]
        for start in ("class Tanh", "from scratch_dl.ver")
    )
    (tmp_path / "my_layers.py").write_text(module)
    command, shown = re.search(
        r"\$ python -m (scratch_dl.verify .*?)\n(.*?)```", PAGES["verify.md"], re.DOTALL
    ).groups()
    settings = {**os.environ, "COLUMNS": "80"}
    words = [sys.executable, "-m", *shlex.split(command)]
    done = preloaded.run(words, cwd=tmp_path, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert without_time(done.stdout) == without_time(shown)
    program = f"import torch\nfrom my_layers import Tanh\n{check}"
    done = preloaded.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "AssertionError: verification of Tanh" in done.stderr


def without_time(text):
    lines = re.sub(r"in [\d.]+ s", "in some time", text).strip().splitlines()
    return [line.rstrip() for line in lines]


@pytest.mark.parametrize("name", PAGES)
def test_every_picture_page_and_folder_that_is_linked_exists(name):
    folder = ROOT if name in ("README.md", "CONTRIBUTING.md") else ROOT / "docs"
    links = [link.partition("#")[0] for link in re.findall(r"\]\((.*?)\)", PAGES[name])]
    assert not [link for link in links if link and "://" not in link and not (folder / link).exists()]
    named = re.findall(r"`((?:src|conf|experiments|tests)/[\w./-]+)`", PAGES[name])
    assert not [path for path in named if not (ROOT / path).exists()]


def test_readme_fits_200_lines():
    assert len(README.splitlines()) <= 200
