"""A training and its verdict: in the result, in MLflow, in the run's folder and on the terminal."""

import contextlib
import io
import json
import logging
import sys
from typing import NamedTuple

import pytest

from scratch_dl import tracking
from scratch_dl.diagnosis import Verdict, explain, own_signals
from scratch_dl.diagnosis.diagnosis import verify_command
from scratch_dl.diagnosis.output_class import CLASSES
from scratch_dl.train import train
from scratch_dl.training import checkpoint
from scratch_dl.training.loop import Diverged
from scratch_dl.training.run import VerificationError

SMALL = ["debug=fast", "threads=1", "model.kernel_size=3", "model.upsampling=nearest", "model.channels=[8,8,8]",
         "trainer.test=false", "trainer.epochs=1", "tracking.detail=trial", "optimizer=sgd", "optimizer.lr=0.5",
         "schedule=ramp_down", "verification=off"]  # fmt: skip


class Ended(NamedTuple):
    """A training that has come to its end: its result (None if it diverged), folder, output, run in MLflow."""

    result: object
    folder: object
    out: str
    client: object
    run: object

    @property
    def verdict(self):
        return self.result.diagnosis if self.result else Verdict(**self.summary["diagnosis"])

    @property
    def summary(self):
        return json.loads((self.folder / "summary.json").read_text())

    def artifacts(self, path):
        return {item.path for item in self.client.list_artifacts(self.run.info.run_id, path)}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for all runs here."""
    return tmp_path_factory.mktemp("diagnosis") / "mlruns"


@pytest.fixture(scope="module")
def trained(store):
    """(name, *overrides) -> Ended, each name once."""
    from mlflow import MlflowClient

    known = {}

    def once(name, *overrides):
        if name not in known:
            folder, said, result = store / "hydra" / "a" / name, io.StringIO(), None
            with contextlib.redirect_stdout(said), contextlib.suppress(Diverged):
                result = train([*SMALL, f"tracking.dir={store}", f"hydra.run.dir={folder}", *overrides])
            client = MlflowClient(f"sqlite:///{store}/mlflow.db")
            run_id = json.loads((folder / "summary.json").read_text())["run_id"]
            known[name] = Ended(result, folder, said.getvalue(), client, client.get_run(run_id))
        return known[name]

    return once


HEALTHY = ("healthy", ["trainer.epochs=2"])
# (name of the run, overrides, (cause, module, direction, first step), rule)
SICK = [
    pytest.param("code", ["fault=conv_bias_gradient_mean", "verification=quick"],
                 ("conv_bias_gradient_mean", "conv1", "grad_bias", 0), "verification", id="code-with-the-oracle"),
    pytest.param("algebra", ["fault=upsampling_gradient_averaged", "verification=quick", "verification.oracle=false"],
                 ("upsampling_gradient_averaged", "up1", "grad_input", 0), "verification", id="code-without-it"),
    pytest.param("unverified", ["fault=sigmoid_gradient_at_upstream", "optimizer.lr=1e-5"],
                 ("sigmoid_gradient_at_upstream", "sigmoid", "grad_input", 0), "at_upstream", id="code-unverified"),
    pytest.param("init", ["fault=init_tiny"], ("init_too_small", "conv1", "init", 0), "gain_low", id="init"),
    pytest.param("geometry", ["fault=kernel_one_stride_two"],
                 ("pixels_never_read", "conv1", "settings", 0), "pixels_unread", id="geometry"),
    pytest.param("data", ["fault=data_scaled_wrong"],
                 ("data_scaled_wrong", "data", "settings", 0), "data_level_high", id="data"),
    pytest.param("rate", ["fault=learning_rate_too_small"],
                 ("learning_rate_too_small", "optimizer", "settings", 0), "learning_rate_low", id="learning-rate"),
    pytest.param("clearing", ["fault=conv_bias_never_cleared"],
                 ("conv_bias_never_cleared", "conv1", "contract", 1), "bias_left_over", id="contract-from-step-1"),
    pytest.param("stale", ["fault=stale_gradient_reference"],
                 ("stale_gradient_reference", "conv1", "contract", 0), "parameters_lost", id="contract"),
    pytest.param("diverged", ["optimizer.lr=1e30"],
                 ("learning_rate_too_large", "optimizer", "settings", None), "", id="diverged"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "overrides", "place", "rule"), SICK)
def test_a_sick_training_ends_with_its_cause_module_direction_and_step(trained, name, overrides, place, rule):
    """In the result, as tags and a JSON file in MLflow, and in the summary; with evidence and a cure."""
    ended = trained(name, *overrides)
    verdict = ended.verdict
    cause, module, direction, step = place
    assert (verdict.cause, verdict.module, verdict.direction) == (cause, module, direction), verdict
    assert verdict.step == step or step is None, verdict
    assert verdict.rule.startswith(rule)
    assert verdict.evidence
    assert verdict.what
    assert verdict.cure
    tags = ended.run.data.tags
    assert (tags["diagnosis"], tags["diagnosis.module"], tags["diagnosis.direction"]) == (cause, module, direction)
    assert tags["diagnosis.step"] == str(verdict.step)
    assert tags["output_class"] in CLASSES
    assert "diagnosis/verdict.json" in ended.artifacts("diagnosis")
    assert "figures/diagnosis.png" in ended.artifacts("figures")
    text = (ended.folder / "artifacts" / "diagnosis" / "verdict.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(verdict.to_json()))
    assert ended.summary["diagnosis"] == json.loads(text)
    assert ended.summary["output_class"] == verdict.output_class


@pytest.mark.parametrize(("name", "overrides", "place", "_rule"), SICK)
def test_the_terminal_has_the_verdict_of_a_sick_training(trained, name, overrides, place, _rule):
    """In the end panel; and what is certain once, as soon as it is seen, with its place right."""
    ended = trained(name, *overrides)
    said = [line for line in ended.out.splitlines() if line.startswith("diagnosis: ")]
    assert len(said) <= 1, said
    if ended.result is not None:
        panel, _, commands = ended.out[ended.out.index("FINISHED") :].partition("╰")
        assert f"diagnosis {ended.verdict.cause}: {place[1]}" in panel
        assert max(map(len, panel.splitlines())) <= 80
        assert f"\ndiagnose  python -m scratch_dl.diagnose run={ended.result.run_id} " in commands
    if name not in ("rate", "diverged", "init"):  # of which there is doubt, or which came later
        told = ended.out[ended.out.index(said[0]) :]
        assert max(map(len, told.partition("epoch")[0].splitlines())) <= 80
        assert " ".join(told.split()).startswith(f"diagnosis: {ended.verdict.line} what {ended.verdict.what} evidence ")
        assert f"cure {ended.verdict.cure}"[:40] in " ".join(told.split())
        assert "epoch 1/1" in told, "it was said too late"


def test_a_training_of_a_few_steps_is_too_short_to_judge_everywhere(trained):
    """No module, no figure under tracking.detail=trial, and nothing on the terminal but the panel's line."""
    ended = trained(*HEALTHY[:1], *HEALTHY[1])
    assert (ended.verdict.healthy, ended.verdict.finds_fault) == (False, False), ended.verdict
    assert ended.verdict.what.endswith("an output without clear progress: 20 of 500 steps")
    assert ended.run.data.tags["diagnosis"] == "too_short"
    assert {value for tag, value in ended.run.data.tags.items() if tag.startswith("diagnosis.")} == {"none"}
    assert "diagnosis too_short" in ended.out
    assert "diagnosis: " not in ended.out
    assert ended.summary["diagnosis"]["cause"] == "too_short"
    assert ended.artifacts("figures") == set()
    assert "diagnosis/verdict.json" in ended.artifacts("diagnosis")


@pytest.mark.parametrize(
    ("steps", "gains", "cause"),
    [
        pytest.param(499, [-4.0, -3.9], "too_short", id="short-and-below-its-input"),
        pytest.param(499, [-4.0, 0.1], "healthy", id="short-and-above-its-input"),
        pytest.param(500, [-4.0, -3.9], "not_converged", id="long-and-below-its-input"),
        pytest.param(500, [-4.0, 2.0], "healthy", id="long-and-above-its-input"),
    ],
)
def test_healthy_needs_an_output_that_is_better_than_its_input(tmp_path, steps, gains, cause):
    places = [0, steps]
    history = {
        "train/loss": [(steps, 0.1)], "watch/relu1/dead": [(0, 0.0)],
        "watch/output_class": [(place, float(CLASSES.index("worse_than_blur"))) for place in places],
        "val/psnr_db": [(place, 20 + gain) for place, gain in zip(places, gains, strict=True)],
        "val/gain_db": list(zip(places, gains, strict=True)),
    }  # fmt: skip
    assert explain(tmp_path, history, None).cause == cause


def test_the_command_that_verifies_has_the_runs_own_settings():
    words = ["model=unet", "fault=relu_mask_from_gradient", "tracking.dir=a b", "verification=off", "hydra.run.dir=x",
             "optimizer.lr=0.1", "model.channels=[8, 8]"]  # fmt: skip
    own = "model=unet fault=relu_mask_from_gradient optimizer.lr=0.1 'model.channels=[8, 8]'"
    assert verify_command(words) == f"python -m scratch_dl.verify {own}"
    assert verify_command([]) == "python -m scratch_dl.verify"


def test_mlflow_has_the_signals_at_the_watched_steps_and_the_class_at_each_validation(trained):
    """With PREFIX watch/, by module; `output_class` is a position in CLASSES."""
    ended = trained(*HEALTHY[:1], *HEALTHY[1])

    def steps(key):
        return sorted(point.step for point in ended.client.get_metric_history(ended.run.info.run_id, key))

    for key in ("conv1/activation_mean", "conv1/activation_std", "relu1/zero_share", "relu1/dead", "sigmoid/saturated",
                "up2/grad_norm", "grad_ratio", "conv2/update_ratio", "sigmoid/error_correlation", "output_mean",
                "output_std"):  # fmt: skip
        assert steps(f"watch/{key}") == [0, 1, 2, 5, 10], key
    assert steps("watch/output_class") == [0, 10, 20]
    assert steps("watch/optimizer/room") == steps("watch/conv1.weight/slope") == steps("watch/data/level") == [0]
    last = ended.client.get_metric_history(ended.run.info.run_id, "watch/output_class")[-1].value
    assert CLASSES[int(last)] == ended.verdict.output_class == ended.run.data.tags["output_class"]


def test_the_verdict_follows_from_the_record_alone(trained):
    """As a killed run's does."""
    for name, overrides, *_ in [param.values for param in SICK]:
        ended = trained(name, *overrides)
        again = explain(
            tracking.Journal(ended.folder).folder, tracking.Journal(ended.folder).history(), ended.summary["reason"]
        )
        assert again.to_json() == ended.summary["diagnosis"], name


def numbers(ended):
    """Metric -> (step, value), of those that are no signals and no times."""
    history = tracking.Journal(ended.folder).history()
    return {key: points for key, points in history.items()
            if not key.startswith("watch/") and key not in ("training_s", "images_per_s")}  # fmt: skip


def weights(ended):
    content = checkpoint.load(ended.folder / "checkpoints" / checkpoint.LAST)
    return checkpoint.digest([content["network"], content["optimizer"]])


DROPOUT = """
import random, numpy, torch

class Dropout:
    def forward(self, x):
        keep = 0.8 + 0.1 * random.random() + 0.1 * numpy.random.rand()
        self.mask = (torch.rand(x.shape) < keep).to(x.dtype)
        return x * self.mask

    def backward(self, g):
        return g * self.mask

class Sigmoid:
    def forward(self, x):
        self.y = 1 / (1 + (-x).exp())
        return self.y

    def backward(self, g):
        return 1 / (2 + g.exp() + (-g).exp())

class Itself(Dropout):
    '''Works in the training's own network only, not in a copy.'''

    def forward(self, x):
        if not hasattr(self, "me"):
            self.me = id(self)
        if self.me != id(self):
            raise RuntimeError("this is a copy of me")
        return super().forward(x)

class Never(Dropout):
    '''Cannot be copied at all.'''

    def __deepcopy__(self, memo):
        raise TypeError("nobody copies me")
"""


def mine(kind, place="relu2"):
    """A training with this class in the place of one of ours."""
    return ["model=sequential", f"model.modules.{place}._target_=my_diagnosed.{kind}",
            "allowed_targets=[my_diagnosed.]"]  # fmt: skip


NOT_SEQUENTIAL = [word for word in SMALL if not word.startswith("model.")]


@pytest.fixture
def _my_layers(tmp_path, monkeypatch):
    """A file of a user's own in the current folder."""
    (tmp_path / "my_diagnosed.py").write_text(DROPOUT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_diagnosed", None)


def test_a_watched_training_ends_with_the_same_bits_and_losses_as_one_that_is_not(trained):
    """Weights, optimizer and every metric of the training and its validations."""
    on, off = trained(*HEALTHY[:1], *HEALTHY[1]), trained("off", *HEALTHY[1], "diagnosis=off")
    assert off.result.diagnosis is None
    assert off.run.data.tags["diagnosis"] == "off"
    assert not own_signals(tracking.Journal(off.folder).history())
    assert weights(on) == weights(off)
    assert numbers(on) == numbers(off)
    assert len(numbers(on)["train/loss"]) == 20


@pytest.mark.usefixtures("_my_layers")
def test_a_watched_training_that_draws_random_numbers_ends_with_the_same_bits(store):
    """Torch's, NumPy's and Python's are drawn in every step by a module of a user's own."""
    import random

    import numpy as np
    import torch

    ends = {}
    for diagnosis in ("default", "off"):
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002 (the global state)
        folder = store / "hydra" / "a" / f"draws-{diagnosis}"
        train([*NOT_SEQUENTIAL, *mine("Dropout"), f"diagnosis={diagnosis}", f"tracking.dir={store}",
               f"hydra.run.dir={folder}"])  # fmt: skip
        ended = Ended(None, folder, "", None, None)
        ends[diagnosis] = weights(ended), numbers(ended)
    assert ends["default"] == ends["off"]


@pytest.mark.usefixtures("_my_layers")
@pytest.mark.parametrize("kind", ["Itself", "Never"], ids=["raises-as-a-copy", "cannot-be-copied"])
def test_a_module_that_raises_when_it_is_watched_ends_no_training(store, kind, caplog):
    """It is said, and the training goes on to its end; what was not seen is not called healthy."""
    with caplog.at_level(logging.WARNING):
        result = train([*NOT_SEQUENTIAL, *mine(kind), f"tracking.dir={store}",
                        f"hydra.run.dir={store}/hydra/a/raises-{kind}"])  # fmt: skip
    assert result.status == "FINISHED"
    assert result.progress.step == 10
    said = [record.getMessage() for record in caplog.records if "diagnosis" in record.getMessage()]
    assert len(said) == 2, said  # before the first step, and at the first one that is watched
    assert all({"Itself": "this is a copy of me", "Never": "nobody copies me"}[kind] in line for line in said)
    assert result.diagnosis.cause == "unknown", "healthy is a word for what was looked at"


@pytest.mark.usefixtures("_my_layers")
def test_a_training_that_its_verification_stops_has_a_verdict_too(store, capsys):
    """A sigmoid of a user's own that makes the paper's mistake: it is called by its name before any step."""
    folder = store / "hydra" / "a" / "stopped"
    with pytest.raises(VerificationError, match="first at sigmoid grad_input"):
        train([*NOT_SEQUENTIAL, *mine("Sigmoid", "sigmoid"), "verification=quick", "verification.lockstep_steps=0",
               f"tracking.dir={store}", f"hydra.run.dir={folder}"])  # fmt: skip
    verdict = json.loads((folder / "summary.json").read_text())["diagnosis"]
    assert (verdict["cause"], verdict["module"]) == ("sigmoid_gradient_at_upstream", "sigmoid")
    assert "diagnosis: sigmoid_gradient_at_upstream: sigmoid grad_input, before the first" in capsys.readouterr().out
    assert "train/loss" not in tracking.Journal(folder).history()


def test_a_resumed_run_is_watched_on_and_keeps_its_signs(store):
    """What was seen before the first step is not forgotten, and nothing is said twice of one step."""
    base = [*SMALL, "fault=kernel_one_stride_two", "schedule=constant", f"tracking.dir={store}"]
    part = train([*base, f"hydra.run.dir={store}/hydra/a/resumed"])
    longer = train([f"resume={part.folder}", "trainer.epochs=2", f"tracking.dir={store}"])
    assert longer.diagnosis.line == part.diagnosis.line
    history = tracking.Journal(longer.folder).history()
    assert [step for step, _ in history["watch/output_mean"]] == [0, 1, 2, 5, 10]
    assert [step for step, _ in history["watch/conv1.weight/slope"]] == [0]
