"""An own part that lacks a method, or has one with other arguments, is refused before a run exists."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import preloaded
from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config
from scratch_dl.config.plain import plain
from scratch_dl.system.errors import ConfigError
from scratch_dl.train import train

NOISE = """
class Mine:
    name, needs_subpixels = "mine", False
    def __call__(self, clean, subpixels, generator):
        return clean + 0.1 * torch.randn(clean.shape, generator=generator)
"""
SCHEDULE = """
class Mine:
    depends_on_length = True
    def factor(self, progress):
        return 1 - progress
"""
OPTIMIZER = """
class Mine(Optimizer):
    def __init__(self, parameters):
        super().__init__(parameters, 0.1, 0)
    def _update(self, values, grads, states):
        for value, grad in zip(values, grads):
            value -= self.lr * grad
"""
PARTS = {"noise": NOISE, "schedule": SCHEDULE, "optimizer": OPTIMIZER}
BROKEN = [  # group, what the class has instead of what, and the message
    ("noise", ("__call__", "apply"), r"has no __call__\(clean, subpixels, generator\);"),
    ("noise", ("needs_subpixels = ", "_ = "), r"has no needs_subpixels;"),
    ("noise", ('name, needs_subpixels = "mine", False', ""), r"has no name, no needs_subpixels;"),
    ("noise", ("clean, subpixels, generator)", "clean)"),
     r"must have __call__\(clean, subpixels, generator\), but has __call__\(clean\);"),
    ("noise", ("clean + 0.1", "[0] + 0.1"), r"fails when it is tried: __call__\(clean, subpixels, generator\) r"),
    ("noise", ("return clean", "return clean[:1] * 0, clean"), r"must return a tensor .*, but got tuple;"),
    ("noise", ("torch.randn(clean.shape, g", "torch.randn(2, 3, 4, 8, g"), r"fails when it is tried: .* RuntimeError"),
    ("noise", ("return clean", "return clean.double()"), r"float32, but got \(2, 3, 8, 8\), torch.float64;"),
    ("noise", (", generator=generator", ""), r"must draw from the generator that it is given alone"),
    ("schedule", ("factor", "rate"), r"has no factor\(progress\);"),
    ("schedule", ("depends_on_length", "depends"), r"has no depends_on_length;"),
    ("schedule", ("self, progress", "self, step, steps"),
     r"must have factor\(progress\), but has factor\(step, steps\);"),
    ("schedule", ("return 1 - progress", "pass"), r"must return a float, but factor\(0.0\) returned a NoneType;"),
    ("schedule", ("1 - progress", "self.lr"), r"factor\(progress\) raises AttributeError: 'Mine' object has no attri"),
    ("optimizer", ("values, grads, states", "values, grads"), r"fails when it is tried: step\(\) raises TypeError"),
    ("optimizer", ("(Optimizer)", ""),
     r"has no parameters, no lr, no zero_grad\(\), no step\(\), no state_dict\(\), no l"),
]  # fmt: skip


def setup_with(group, code, folder, monkeypatch):
    """Build a training with the class Mine of `code` in the group, from a file in `folder`."""
    (folder / "mine.py").write_text(f"import torch\nfrom scratch_dl.optim import Optimizer\n{code}")
    monkeypatch.syspath_prepend(folder)
    sys.modules.pop("mine", None)
    config = plain(compose_config("train", ["allowed_targets=[mine.]"]))
    return build({**config, group: {"_target_": "mine.Mine"}})


@pytest.mark.parametrize("group", PARTS)
def test_a_part_with_everything_is_taken(group, tmp_path, monkeypatch):
    assert type(vars(setup_with(group, PARTS[group], tmp_path, monkeypatch)).get(group, "")).__name__ in ("Mine", "str")


@pytest.mark.parametrize(("group", "change", "message"), BROKEN)
def test_a_part_that_does_not_fit_is_refused_with_the_page_that_shows_one(
    group, change, message, tmp_path, monkeypatch
):
    code = PARTS[group].replace(*change)
    if "(Optimizer)" in change:
        code = "class Mine:\n    def __init__(self, parameters):\n        pass\n"
    assert code != PARTS[group]
    with pytest.raises(ConfigError, match=message) as refused:
        setup_with(group, code, tmp_path, monkeypatch)
    assert str(refused.value).startswith(f"{group}._target_=mine.Mine ")
    article = "an" if group == "optimizer" else "a"
    assert str(refused.value).endswith(f"; docs/adding-things.md shows {article} {group} of one's own")
    assert "\n" not in str(refused.value)


def test_a_data_set_and_a_model_that_do_not_fit_are_refused(tmp_path, monkeypatch):
    data = "class Mine:\n    name, crop_size = 'mine', (32, 32)\n    def __init__(self, noise):\n        pass\n"
    with pytest.raises(ConfigError, match=r"^data\._target_=mine.Mine has no digest, no sizes, .*shows a data set of"):
        setup_with("data", data, tmp_path, monkeypatch)
    model = "from scratch_dl.nn import Sequential\ndef Mine():\n    return Sequential({})\n"
    with pytest.raises(ConfigError, match=r"^model\._target_=mine.Mine has no multiple, no predict\(images\);"):
        setup_with("model", model, tmp_path, monkeypatch)


def test_nothing_is_written_when_a_part_is_refused(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("class Mine:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("mine", None)
    words = ["noise._target_=mine.Mine", "~noise.std", "allowed_targets=[mine.]", "tracking.dir=runs"]
    with pytest.raises(ConfigError, match=r"noise\._target_=mine.Mine has no name"):
        train(words)
    assert not Path("runs").exists()


PAGE = (Path(__file__).parents[2] / "docs" / "adding-things.md").read_text()
CONFIGS = dict(
    re.findall(r"`my_conf/(\w+)/mine\.yaml`(?:(?!```).)*```yaml\n(_target_: my_parts.*?)```", PAGE, re.DOTALL)
)


def test_the_parts_of_the_page_train_together(tmp_path):
    """Each example of docs/adding-things.md, in a file of that name, is taken, verified and trained."""
    assert set(CONFIGS) == {"noise", "schedule", "optimizer", "data", "model"}
    (tmp_path / "my_parts.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)))
    for group, config in CONFIGS.items():
        (tmp_path / "my_conf" / group).mkdir(parents=True)
        (tmp_path / "my_conf" / group / "mine.yaml").write_text(config)
    for split in ("train", "validation", "test"):
        (tmp_path / "scans" / split).mkdir(parents=True)
        pixels = np.random.default_rng(len(split)).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "scans" / split / f"{split}.png")
    words = [
        "--config-dir",
        "my_conf",
        "allowed_targets=[my_parts.]",
        "debug=fast",
        *(f"{group}=mine" for group in CONFIGS),
    ]
    command = [sys.executable, "-m", "scratch_dl.train", *words]
    done = preloaded.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "shallow" in done.stdout
    assert "scans" in done.stdout
    assert re.search(r"verified +passed", done.stdout), done.stdout
