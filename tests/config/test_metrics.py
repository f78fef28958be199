"""The group `metrics`: ours, a user's own, and what cannot be one, refused in one line before a run."""

import pytest
import torch

from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config
from scratch_dl.config.metrics import is_of_every_run, make_metrics, metric_names, own_names
from scratch_dl.config.plain import plain
from scratch_dl.system.errors import ConfigError

OWN = """
import torch

def mae(output, clean, scale=1.0):
    return (output - clean).abs().mean() * scale

class Power:
    def __init__(self, exponent):
        self.exponent = exponent
    def __call__(self, output, clean):
        return float((output - clean).abs().pow(self.exponent).mean())

class Silent:
    pass

def images(output, clean):
    return output - clean

def nothing(output, clean):
    pass

def nan(output, clean):
    return float("nan")

def failing(output, clean):
    raise RuntimeError("no luck\\nat all")

def narrow(output, clean):
    assert output.shape[-1] % 4 == 0, "not divisible by 4"
    return 1.0

def clearing(output, clean):
    return float(output.zero_().sum())

def lonely(output):
    return 1.0
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes the metrics of a training by overrides, with the module `own_metrics` at hand and permitted."""
    (tmp_path / "own_metrics.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)

    def make(*overrides):
        config = plain(compose_config("train", ["allowed_targets=[own_metrics.]", *overrides]))
        return make_metrics(config, (32, 32))

    return make


def test_the_default_has_ssim_beside_psnr_which_every_run_has(made):
    from scratch_dl.data import metrics

    assert made() == {"ssim": metrics.ssim}
    assert made("metrics.ssim=null") == made("~metrics.ssim") == made("~metrics.psnr_db", "~metrics.ssim") == {}


def test_a_function_with_and_without_settings_and_a_class(made):
    of = "own_metrics"
    metrics = made(f"+metrics.mae._target_={of}.mae", f"+metrics.ten._target_={of}.mae", "+metrics.ten.scale=10",
                   f"+metrics.cube._target_={of}.Power", "+metrics.cube.exponent=3")  # fmt: skip
    output, clean = torch.full((2, 3, 8, 8), 0.5), torch.zeros(2, 3, 8, 8)
    values = {name: float(metrics[name](output, clean)) for name in ("mae", "ten", "cube")}
    assert values == {"mae": 0.5, "ten": 5.0, "cube": 0.125}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("+metrics.mae._target_=own_metrics.mea", r"^metrics\.mae\._target_ must name a callable.*did you mean 'mae'"),
        ("+metrics.mae._target_=os.getcwd", r"^metrics\.mae\._target_ must begin with .*'allowed_targets=\[os\.\]' pe"),
        ("+metrics.mae._target_=own_metrics.mae +metrics.mae.scal=2", r"^metrics\.mae\.scal is not .*did you mean 'sc"),
        ("+metrics.mae._target_=own_metrics.mae +metrics.mae.output=2", r"^metrics\.mae\.output is not a setting"),
        ("+metrics.p._target_=own_metrics.Power", r"^metrics\.p\.exponent must be given"),
        ("+metrics.p._target_=own_metrics.Silent", r"^metrics\.p\._target_ must make a metric, .* has no __call__"),
        ("+metrics.mae=own_metrics.mae", r"^metrics\.mae must have a _target_, for example \+metrics\.mae\._target_=m"),
        ("+metrics.my-x._target_=own_metrics.mae", r"^metrics\.my-x must have a name of letters, digits and '_'"),
        ("+metrics.loss._target_=own_metrics.mae", r"^metrics\.loss must have another name.*\+metrics\.loss_own\._t"),
        ("+metrics.tv_psnr_db._target_=own_metrics.mae", r"^metrics\.tv_psnr_db must have another name"),
        ("metrics.ssim._target_=own_metrics.mae", r"^metrics\.ssim must be scratch_dl\.data\.metrics\.ssim.*ssim_own"),
        ("metrics.psnr_db=null", r"^metrics\.psnr_db must not be null, as PSNR decides which checkpoint is the best"),
        ("+metrics.x._target_=own_metrics.images", r"^metrics\.x .*returned a Tensor of the shape \(2, 3, 32, 32\)"),
        ("+metrics.x._target_=own_metrics.nothing", r"^metrics\.x cannot score .*must return a number, but returned a"),
        ("+metrics.x._target_=own_metrics.nan", r"^metrics\.x must be a finite number, but is nan for random pixels"),
        ("+metrics.x._target_=own_metrics.failing", r"^metrics\.x cannot score .*RuntimeError: no luck at all; a metr"),
        ("+metrics.x._target_=own_metrics.narrow", r"^metrics\.x cannot score .*\(1, 3, 33, 35\): .*not divisible by "),
        ("+metrics.x._target_=own_metrics.clearing", r"^metrics\.x must leave the pictures as they are"),
        ("+metrics.x._target_=own_metrics.lonely", r"^metrics\.x cannot score .*takes 1 positional argument but 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_metric_is_refused_by_its_key(made, overrides, message):
    with pytest.raises(ConfigError, match=message) as refused:
        made(*overrides.split())
    assert "\n" not in str(refused.value)


def test_a_metric_without_a_plus_is_refused_with_the_plus():
    with pytest.raises(ConfigError, match=r"'\+metrics\.mae\._target_=\.\.\.'"):
        compose_config("train", ["metrics.mae._target_=own_metrics.mae"])


def test_a_training_has_them(tmp_path, monkeypatch):
    (tmp_path / "own_metrics.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["allowed_targets=[own_metrics.]", "+metrics.mae._target_=own_metrics.mae"]
    setup = build(compose_config("train", words))
    assert list(setup.metrics) == ["ssim", "mae"]
    assert setup.config["metrics"]["mae"] == {"_target_": "own_metrics.mae"}


def test_names_tell_ours_from_a_users():
    group = {"psnr_db": {}, "ssim": None, "mae": {}}
    assert (metric_names(group), own_names(group), own_names(None)) == (["psnr_db", "mae"], ["mae"], [])
    names = ("psnr_db", "psnr_pooled_db", "nlm_psnr_db", "ssim", "loss", "gain_db", "mae", "my_loss")
    assert [name for name in names if not is_of_every_run(name)] == ["mae", "my_loss"]
