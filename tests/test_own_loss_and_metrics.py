"""A training under a loss and with a metric of a user's own, as the documentation shows them, from end to end."""

import re
from pathlib import Path

import pytest
import torch

from scratch_dl import compare, diagnose, evaluate, train
from scratch_dl.tracking import Journal
from scratch_dl.training.result import read_summary
from test_evaluate import SMALL

PAGE = (Path(__file__).parents[1] / "docs" / "adding-things.md").read_text()
(SHOWN,) = re.findall(r"```python\n(class Huber.*?)```", PAGE, re.DOTALL)
OWN = f"""{SHOWN}

def nan(output, clean):
    return float("nan")
"""
TRAINED = (*[word for word in SMALL if word not in ("diagnosis=off", "verification=off", "tracking.detail=trial")],
           "loss._target_=my_parts.Huber", "+metrics.mae._target_=my_parts.mae", "+metrics.mae.scale=2")  # fmt: skip
ALLOWED = "allowed_targets=[my_parts.]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `my_parts.py` and two runs: mlruns/own, and mlruns/l1 under the absolute error."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_parts.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        train.train([*TRAINED, ALLOWED, "hydra.run.dir=mlruns/own"])
        train.train([*SMALL, "loss=l1", "tracking.detail=full", "hydra.run.dir=mlruns/l1"])
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    return folder


def test_the_metric_is_logged_at_each_validation_and_on_whole_photographs(here):
    history = Journal(here / "mlruns" / "own").history()
    assert [step for step, _ in history["val/mae"]] == [0, 1]
    assert all(0 < value < 2 for _, value in history["val/mae"])
    assert read_summary(Path("mlruns/own"))["scores"]["val_whole/mae"] == history["val_whole/mae"][-1][1]
    assert "val/ssim" in history


def test_the_verdicts_say_what_was_looked_at_and_which_rules_were_left_out(here, in_process):
    report = (here / "mlruns/own/artifacts/verification/report.md").read_text()
    assert "loss (Huber)" in report
    assert "loss has no reference" in report
    assert "checked by: central differences, " in report
    words = "loss_undivided, error_sign, learning_rate_low: rules that do not hold under Huber"
    assert words in (here / "mlruns/own/artifacts/diagnosis/verdict.json").read_text()
    status, out, err = in_process(diagnose, "run=mlruns/own")
    assert (status, err) == (0, "")
    assert "left out" in out
    assert words in " ".join(out.replace("│", " ").split())


@pytest.mark.usefixtures("here")
def test_it_goes_on_and_is_evaluated_with_the_permission_and_not_without(in_process):
    refusal = "loss._target_ must begin with one of scratch_dl.nn., but got 'my_parts.Huber'; 'allowed_targets=[my_"
    status, _, err = in_process(train, "resume=mlruns/own", "trainer.epochs=2", "resume.allow=[trainer.epochs]")
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: {refusal}")
    status, _, err = in_process(evaluate, "run=mlruns/own", "splits=[validation]")
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("error: metrics.mae._target_ must begin with one of scratch_dl.data.metrics., but got 'my_")
    status, out, err = in_process(evaluate, "run=mlruns/own", "splits=[validation]", ALLOWED, "hydra.run.dir=mlruns/e")
    assert (status, err) == (0, "")
    assert f"metrics   mae {read_summary(Path('mlruns/own'))['scores']['val_whole/mae']:.4g} (validation" in out


@pytest.mark.usefixtures("here")
def test_a_metric_can_be_added_to_the_evaluation_of_a_run_that_had_none(in_process):
    words = [
        "run=mlruns/l1",
        "splits=[validation]",
        ALLOWED,
        "hydra.run.dir=mlruns/added",
        "+metrics.mine._target_=my_parts.mae",
    ]
    status, out, err = in_process(evaluate, *words)
    assert (status, err) == (0, "")
    assert "metrics   mine 0." in out


def test_the_comparison_has_the_metric_and_names_both_losses(here, in_process):
    status, out, err = in_process(compare, "mlruns/own", "mlruns/l1", ALLOWED, "hydra.run.dir=mlruns/c")
    assert (status, err) == (0, "")
    assert "mae (val)" in " ".join(out.split())
    assert "my_parts.Huber" in out
    page = (here / "compare.html").read_text()
    assert "own loss on the validation crops (Huber, mean absolute error: not comparable)" in page


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("metrics.mae", ["+metrics.mae._target_=my_parts.nan", ALLOWED]),
        ("loss._target_", ["loss._target_=scratch_dl.nn.ReLU", ALLOWED]),
        ("fault=mse_gradient_not_divided", ["loss=l1", "fault=mse_gradient_not_divided"]),
        ("loss", ["loss=huber"]),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(tmp_path, in_process, key, words):
    status, out, err = in_process(train, *SMALL, *words, f"tracking.dir={tmp_path}/runs")
    assert (status, err.count("\n")) == (2, 1), err
    assert out.startswith("model=paper ") or not out, "only what was to be trained"
    assert err.startswith(f"error: {key} ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("here")
def test_the_figure_of_the_losses_names_the_loss_and_the_noise_of_the_targets(monkeypatch):
    from scratch_dl.config.build import build
    from scratch_dl.config.composing import compose_config
    from scratch_dl.training import conclusion, pictures

    drawn = []
    monkeypatch.setattr(pictures, "curves", lambda *arguments, **_: drawn.append(arguments))
    setup = build(compose_config("train", [*SMALL, "loss=l1"]))

    class Run:
        run_id = "0" * 32

        def history(self, names):
            return {name: [(0, 1.0)] for name in names}

        def figure(self, *_):
            pass

    conclusion._log_figures(Run(), setup, dict.fromkeys([f"baseline/{n}_psnr_db" for n in conclusion.BASELINES], 1.0))
    _, label, floor = drawn[0]
    noisy, clean = setup.data.validation
    assert label == "mean absolute error"
    assert floor[conclusion.FLOOR] == pytest.approx(float((noisy - clean).abs().mean()), rel=1e-5)


def test_the_loss_of_the_documentation_is_pytorchs(here):  # noqa: ARG001 (for its module)
    from my_parts import Huber

    from scratch_dl.verification import check_module

    report = check_module(Huber(0.2), torch.nn.HuberLoss(delta=0.2), inputs=[(4, 3, 8, 9)] * 2)
    assert report.passed, str(report)
    assert "forward" in report.verdicts["Huber"]
