"""The loop: determinism, stops at a batch boundary, resume bit for bit, early ends. On a tiny data set of its own."""

import math
import os
import signal
import threading
import time

import pytest
import torch

from scratch_dl.config.schema import DiagnosisSettings, Setup, Tracking, Trainer, Verification
from scratch_dl.evaluation import scoring
from scratch_dl.models import paper
from scratch_dl.nn import CharbonnierLoss, L1Loss, MSELoss
from scratch_dl.optim import SGD, Adam
from scratch_dl.schedule import Constant, LinearRampDown
from scratch_dl.system.provenance import usable_cores
from scratch_dl.training import checkpoint
from scratch_dl.training import loop as training_module
from scratch_dl.training.events import Listener
from scratch_dl.training.loop import Diverged, Progress, Training
from scratch_dl.training.signals import Interrupted


class TinyData:
    """Flat 8x8 images with noise; a batch is a function of seed and step, as the trainer wants it.

    `at_draw` maps the step of a batch, or "validation", to what happens while it is drawn, once.
    """

    name, digest, crop_size = "tiny", "0" * 16, (8, 8)

    def __init__(self, at_draw=None, crops=12):
        self.at_draw, self.crops = dict(at_draw or {}), crops

    def steps_per_epoch(self, batch_size):
        return self.crops // batch_size

    def batch(self, step, batch_size, seed):
        self.at_draw.pop(step, lambda: None)()
        return self._batch(step, batch_size, seed)

    def _batch(self, step, batch_size, seed):
        generator = torch.Generator().manual_seed(1000 * seed + step)
        clean = torch.rand(batch_size, 3, 1, 1, generator=generator).expand(-1, -1, 8, 8)
        noise = torch.randn(2, batch_size, 3, 8, 8, generator=generator) / 10
        return clean + noise[0], clean + noise[1]

    @property
    def validation(self):
        self.at_draw.pop("validation", lambda: None)()
        noisy, _ = self._batch(0, 4, 99)
        return noisy, noisy.mean(dim=(2, 3), keepdim=True).expand(-1, -1, 8, 8).contiguous()


class Sink:
    def __init__(self):
        self.points, self.syncs = [], []

    def metric(self, key, value, step, every_step=False):  # noqa: ARG002 (a sink's arguments)
        self.points.append((key, step, value))

    def metrics(self, values, step):
        for key, value in values.items():
            self.metric(key, value, step)

    def sync(self):
        self.syncs.append(len(self.points))


class Epochs(Listener):
    def __init__(self, at_step=None):
        self.at_step, self.epochs = at_step or {}, []

    def on_step_end(self, step, _loss):
        self.at_step.get(step, lambda: None)()

    def on_epoch(self, epoch, _scores):
        self.epochs.append(epoch)


def training(
    folder, *, epochs=3, schedule=None, optimizer=None, lr=0.5, at_step=None, seed=0, data=None, loss=None,
    metrics=None, **trainer,
):  # fmt: skip
    settings = {"batch_size": 4, "clip_norm": None, "max_minutes": None, "patience": None,
                "checkpoint_every_steps": None, "repeat_first_batch": False, "pictures": 1,
                "test": False, **trainer}  # fmt: skip
    network = paper([3, 4, 3], 4, "same", "transposed", True, "pytorch", (8, 8), torch.Generator().manual_seed(seed))
    optimizer = (optimizer or (lambda parameters: SGD(parameters, lr, momentum=0.9)))(network.parameters())
    setup = Setup(
        {"optimizer": {"lr": lr}}, seed, "cpu", "float32", "auto", None, data or TinyData(), network, loss or MSELoss(),
        optimizer, schedule or Constant(), Trainer(epochs=epochs, **settings),
        Verification(False, "stop", oracle=True, float32=True, geometries=True, lockstep_steps=0, lockstep_max_s=20),
        DiagnosisSettings(enabled=False, every=400), Tracking("mlruns", None, "x", None, None, {}, "full"), None,
        metrics or {},
    )  # fmt: skip
    return Training(setup, folder, Sink(), Epochs(at_step), 20.0)


def weights(run):
    return checkpoint.digest(run.setup.network.state_dict())


def metrics(*runs):
    points = [point for run in runs for point in run.sink.points if point[0] != "images_per_s"]
    keys = [point[:2] for point in points]
    assert len(set(keys)) == len(keys), "a (metric, step) stands twice"
    return sorted(points)


@pytest.mark.parametrize("loss", [MSELoss, L1Loss, CharbonnierLoss])
def test_it_learns_and_counts_its_steps(tmp_path, loss):
    run = training(tmp_path, epochs=100, optimizer=lambda parameters: Adam(parameters, 0.01), loss=loss())
    progress = run.fit()
    assert progress.step == 300
    assert progress.last_psnr_db > progress.first_psnr_db + 3
    assert run.setup.optimizer.steps == 300
    assert run.listener.epochs == list(range(101))
    losses = [step for key, step, _ in run.sink.points if key == "train/loss"]
    assert losses == list(range(1, 301))


def test_the_same_seed_twice_gives_bit_identical_weights_and_another_seed_does_not(tmp_path):
    digests = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run = training(tmp_path / name, seed=seed)
        run.fit()
        digests.append(weights(run))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [2, 3, 5])
@pytest.mark.parametrize(
    "optimizer", [None, lambda parameters: Adam(parameters, 0.01)], ids=["sgd-with-momentum", "adam"]
)
def test_a_signal_stops_at_a_batch_and_the_run_goes_on_bit_for_bit(tmp_path, number, step, optimizer):
    schedule = LinearRampDown(0.5)
    whole = training(tmp_path / "whole", schedule=schedule, optimizer=optimizer)
    whole.fit()
    first = training(
        tmp_path / "cut", schedule=schedule, optimizer=optimizer, at_step={step: lambda: os.kill(os.getpid(), number)}
    )
    with pytest.raises(Interrupted) as stopped:
        first.fit()
    assert stopped.value.exit_status == 128 + number
    assert first.progress.step == step
    second = training(tmp_path / "cut", schedule=schedule, optimizer=optimizer)
    second.restore(checkpoint.load_last(tmp_path / "cut" / "checkpoints"))
    second.fit()
    assert weights(second) == weights(whole)
    assert metrics(first, second) == metrics(whole)
    best = checkpoint.load(tmp_path / "cut" / "checkpoints" / checkpoint.BEST)
    expected = checkpoint.load(tmp_path / "whole" / "checkpoints" / checkpoint.BEST)
    assert checkpoint.digest(best["network"]) == checkpoint.digest(expected["network"])


def interrupt_here():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("threads", [1, usable_cores()], ids=["drawn-beside-the-network", "drawn-in-turn"])
@pytest.mark.parametrize(
    ("moment", "step"),
    [
        pytest.param("validation", 0, id="first-validation"),
        pytest.param(0, 0, id="first-batch-of-all"),
        pytest.param(3, 3, id="first-batch-of-an-epoch"),
        pytest.param(4, 4, id="a-batch-within-an-epoch"),
    ],
)
def test_a_signal_while_something_is_drawn_validates_nothing_twice(tmp_path, moment, step, threads):
    """With patience 2 an epoch that counts twice would end the training early."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = training(tmp_path / "whole", lr=0.0, patience=2, epochs=9)
        whole.fit()
        first = training(tmp_path / "cut", lr=0.0, patience=2, epochs=9, data=TinyData({moment: interrupt_here}))
        with pytest.raises(Interrupted):
            first.fit()
        second = training(tmp_path / "cut", lr=0.0, patience=2, epochs=9)
        second.restore(checkpoint.load_last(tmp_path / "cut" / "checkpoints"))
        second.fit()
    finally:
        torch.set_num_threads(before)
    assert first.progress.step in (step, step + 1)  # the batch may be drawn while the step before it is made
    assert metrics(first, second) == metrics(whole)
    assert first.listener.epochs + second.listener.epochs == whole.listener.epochs
    assert second.progress.epochs_since_best == whole.progress.epochs_since_best


def test_a_closed_terminal_stops_a_run_and_nohup_keeps_it(tmp_path):
    hangup = {2: lambda: os.kill(os.getpid(), signal.SIGHUP)}
    with pytest.raises(Interrupted, match="SIGHUP") as stopped:
        training(tmp_path / "closed", at_step=hangup).fit()
    assert stopped.value.exit_status == 129
    assert checkpoint.load_last(tmp_path / "closed" / "checkpoints")["progress"]["step"] == 2
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert training(tmp_path / "nohup", at_step=hangup).fit().step == 9
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_handlers_of_signals_are_given_back(tmp_path):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    training(tmp_path).fit()
    assert [signal.getsignal(number) for number in numbers] == before


def test_under_a_constant_schedule_a_finished_run_can_be_prolonged(tmp_path):
    whole = training(tmp_path / "whole", epochs=4)
    whole.fit()
    training(tmp_path / "part", epochs=2).fit()
    rest = training(tmp_path / "part", epochs=4)
    rest.restore(checkpoint.load_last(tmp_path / "part" / "checkpoints"))
    rest.fit()
    assert weights(rest) == weights(whole)


def test_the_record_goes_out_only_after_the_checkpoint_is_written(tmp_path, monkeypatch):
    run = training(tmp_path)
    saved = []
    monkeypatch.setattr(checkpoint, "save_last", lambda _, content: saved.append(content["progress"]["step"]))
    monkeypatch.setattr(run.sink, "sync", lambda: saved.append("sync") or True)
    run.fit()
    assert saved == [0, "sync", 3, "sync", 6, "sync", 9, "sync"]


def test_the_best_checkpoint_has_the_weights_and_the_step_of_the_highest_score(tmp_path, monkeypatch):
    run = training(tmp_path)
    seen, scores = [], iter([1.0, 3.0, 2.0, 2.5])

    def scored(*arguments):
        seen.append(weights(run))
        return score(*arguments)._replace(psnr_db=next(scores))

    score = scoring.score
    monkeypatch.setattr(scoring, "score", scored)
    run.fit()
    best = checkpoint.load(tmp_path / "checkpoints" / checkpoint.BEST)
    assert checkpoint.digest(best["network"]) == seen[1]
    assert best["progress"]["step"] == run.progress.best_step == 3
    assert run.progress.best_psnr_db == 3.0


def test_each_step_has_the_rate_of_the_schedule_times_the_base_rate(tmp_path):
    """Also after a resume, whose checkpoint has the rate of its last step."""
    schedule, rates = LinearRampDown(share=1.0, end=0.1), {}

    class Rates(Listener):
        def on_step_begin(self, step, _batch):
            rates[step] = run.setup.optimizer.lr

    run = training(tmp_path, schedule=schedule, lr=0.5)
    run.listener = Rates()
    run.fit()
    rates = {step: rate for step, rate in rates.items() if step < 6}
    run = training(tmp_path, schedule=schedule, lr=0.5)
    run.listener = Rates()
    run.restore(checkpoint.load(tmp_path / "checkpoints" / checkpoint.PREVIOUS))
    run.fit()
    assert rates == pytest.approx({step: 0.5 * schedule.factor(step / 9) for step in range(9)})


def test_a_diverging_run_stops_with_the_reason_and_keeps_the_best_from_before(tmp_path):
    run = training(tmp_path, optimizer=lambda parameters: SGD(parameters, 1e38))
    with pytest.raises(Diverged, match=r"train/loss became \w+ at step \d+; a smaller optimizer\.lr"):
        run.fit()
    best = checkpoint.load(tmp_path / "checkpoints" / checkpoint.BEST)
    assert all(bool(tensor.isfinite().all()) for tensor in best["network"].values())


@pytest.mark.parametrize("crops", [4, 12], ids=["every-step-ends-an-epoch", "within-an-epoch"])
def test_a_run_that_diverged_goes_on_with_the_smaller_rate_that_its_message_proposes(tmp_path, crops):
    data = TinyData(crops=crops)
    run = training(tmp_path, data=data, optimizer=lambda parameters: SGD(parameters, 1e30), checkpoint_every_steps=1)
    with pytest.raises(Diverged, match=r"a smaller optimizer\.lr \(it is 1e\+30\)"):
        run.fit()
    content = checkpoint.load_last(tmp_path / "checkpoints")
    assert all(bool(tensor.isfinite().all()) for tensor in content["network"].values())
    again = training(tmp_path, data=data, lr=1e-3)
    again.setup.network.load_state_dict(content["network"])
    again.progress = Progress(**content["progress"])
    assert math.isfinite(again.fit().last_psnr_db)


def test_checkpoints_between_validations_neither_validate_nor_let_the_record_go_out(tmp_path, monkeypatch):
    run = training(tmp_path, checkpoint_every_steps=2)
    happened = []
    monkeypatch.setattr(checkpoint, "save_last", lambda _, content: happened.append(content["progress"]["step"]))
    monkeypatch.setattr(run.sink, "sync", lambda: happened.append("sync"))
    run.fit()
    assert happened == [0, "sync", 2, 3, "sync", 4, 6, "sync", 8, 9, "sync"]
    assert run.listener.epochs == [0, 1, 2, 3]


def test_a_run_goes_on_bit_for_bit_from_a_checkpoint_between_validations(tmp_path):
    whole = training(tmp_path / "whole")
    whole.fit()

    def killed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training(tmp_path / "cut", checkpoint_every_steps=2, at_step={5: killed}).fit()
    rest = training(tmp_path / "cut")
    content = checkpoint.load_last(tmp_path / "cut" / "checkpoints")
    assert content["progress"]["step"] == 4
    rest.restore(content)
    rest.fit()
    assert weights(rest) == weights(whole)


def test_patience_ends_a_run_that_no_longer_improves(tmp_path):
    progress = training(tmp_path, lr=0.0, epochs=10, patience=2).fit()
    assert progress.step == 6
    assert progress.best_step == 0
    assert progress.stopped == "no better val/psnr_db for trainer.patience=2 epochs"


def test_max_minutes_ends_a_run_with_a_validation_and_a_checkpoint(tmp_path):
    run = training(tmp_path, epochs=1000, max_minutes=1e-9)
    progress = run.fit()
    assert progress.step == 1
    assert progress.stopped.startswith("trainer.max_minutes")
    assert checkpoint.load_last(tmp_path / "checkpoints")["progress"]["step"] == 1


def test_the_time_of_the_loop_is_measured_and_goes_on_after_a_resume(tmp_path):
    start = time.monotonic()
    first = training(tmp_path).fit()
    took = time.monotonic() - start
    assert 0 < first.training_s <= first.elapsed_s <= took
    again = training(tmp_path, epochs=6)
    again.restore(checkpoint.load_last(tmp_path / "checkpoints"))
    assert again.fit().elapsed_s > first.elapsed_s


def test_max_minutes_counts_validations_too(tmp_path):
    slow = TinyData()
    slow.at_draw = {"validation": lambda: time.sleep(0.2)}
    progress = training(tmp_path, epochs=1000, max_minutes=0.2 / 60, data=slow).fit()
    assert progress.step == 1
    assert progress.training_s < 0.2 < progress.elapsed_s


def test_one_batch_again_and_again_is_learnt_better_than_ever_new_ones(tmp_path):
    again, new = (training(tmp_path / str(flag), epochs=100, repeat_first_batch=flag) for flag in (True, False))
    losses = []
    for run in (again, new):
        run.fit()
        losses.append([value for key, _, value in run.sink.points if key == "train/loss"][-1])
    assert losses[0] < losses[1]


def test_clipping_logs_the_norm_and_changes_the_path(tmp_path):
    run, clipped = training(tmp_path / "a"), training(tmp_path / "b", clip_norm=1e-3)
    run.fit()
    clipped.fit()
    norms = [value for key, _, value in clipped.sink.points if key == "train/grad_norm"]
    assert len(norms) == 9
    assert all(norm > 1e-3 for norm in norms)
    assert weights(run) != weights(clipped)


@pytest.mark.parametrize("cores", [1, 64], ids=["in-turn", "beside-the-network"])
def test_batches_are_the_same_wherever_they_are_drawn(cores, tmp_path, monkeypatch):
    """Beside the network in a thread, without autograd there too, or in turn with its steps."""
    monkeypatch.setattr(training_module, "usable_cores", lambda: cores)
    run, threads = training(tmp_path), []
    draw = run.setup.data.batch

    def noted(step, batch_size, seed):
        threads.append((threading.current_thread() is threading.main_thread(), torch.is_grad_enabled()))
        return draw(step, batch_size, seed)

    run.setup.data.batch = noted
    run.fit()
    assert ((False, False) in threads) == (cores == 64)
    assert not any(grad for _, grad in threads)
    plain = training(tmp_path / "plain")
    plain.fit()
    assert weights(run) == weights(plain)


def test_no_autograd_is_at_work(tmp_path):
    seen = []
    training(tmp_path, epochs=1, at_step={1: lambda: seen.append(torch.is_grad_enabled())}).fit()
    assert seen == [False]


def test_progress_survives_a_checkpoint_even_before_the_first_validation(tmp_path):
    checkpoint.save(tmp_path / "a.pt", {"progress": vars(Progress())})
    assert checkpoint.load(tmp_path / "a.pt")["progress"]["best_psnr_db"] == -math.inf


@pytest.mark.parametrize("loss", [L1Loss, CharbonnierLoss, lambda: L1Loss("sum")], ids=["l1", "charbonnier", "l1-sum"])
def test_under_each_loss_an_interrupted_run_goes_on_bit_for_bit(tmp_path, loss):
    """Its validations are between the steps: they leave nothing in the loss that a step would see."""
    settings = {"epochs": 8, "optimizer": lambda parameters: Adam(parameters, 0.03), "schedule": LinearRampDown(0.5)}
    whole = training(tmp_path / "whole", loss=loss(), **settings)
    whole.fit()
    stop = {7: lambda: os.kill(os.getpid(), signal.SIGTERM)}
    first = training(tmp_path / "cut", loss=loss(), at_step=stop, **settings)
    with pytest.raises(Interrupted):
        first.fit()
    second = training(tmp_path / "cut", loss=loss(), **settings)
    second.restore(checkpoint.load_last(tmp_path / "cut" / "checkpoints"))
    second.fit()
    assert weights(second) == weights(whole)
    assert metrics(first, second) == metrics(whole)


def test_the_validation_loss_is_the_trainings_own_and_metrics_stand_beside_psnr(tmp_path):
    """Of a sum it is that of a batch, so that the curves of training and validation can be compared."""
    own = {"peak": lambda output, clean: (output - clean).abs().max()}
    for loss, each in ((L1Loss("sum"), 1), (L1Loss(), 1 / (4 * 3 * 8 * 8)), (MSELoss(), None)):
        run = training(tmp_path, epochs=1, loss=loss, metrics=own, batch_size=2)
        noisy, clean = run.setup.data.validation
        error = scoring.denoise(run.setup.network, noisy) - clean
        run.fit()
        values = {key: value for key, step, value in run.sink.points if step == 0}
        expected = float(error.square().mean()) if each is None else float(error.abs().sum()) * each
        expected *= 2 / 4 if each == 1 else 1  # the validation has 4 crops
        assert values["val/loss"] == pytest.approx(expected, rel=1e-5)
        assert values["val/peak"] == pytest.approx(float(error.abs().max()), rel=1e-6)
        assert set(values) >= {"val/psnr_db", "val/psnr_pooled_db", "val/gain_db"}
        assert "val/ssim" not in values


def test_a_metric_that_fails_later_costs_its_value_only(tmp_path, caplog):
    calls = iter([0.5, 0.6])
    run = training(tmp_path, metrics={"mine": lambda *_: next(calls)})
    assert run.fit().step == 9
    values = [value for key, _, value in run.sink.points if key == "val/mine"]
    assert values[:2] == [0.5, 0.6]
    assert math.isnan(values[2])
    assert "no metric mine: StopIteration" in caplog.text
