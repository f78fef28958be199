"""What may differ when a run goes on, and what `resume=` becomes."""

import pytest
import yaml

from scratch_dl import train
from scratch_dl.config.overrides import expand
from scratch_dl.training import checkpoint, resume


def test_resume_makes_hydra_write_nothing_of_its_own():
    assert expand(["resume=abc", "trainer.epochs=6"]) == [
        "resume.run='abc'",
        "hydra.run.dir=.",
        "trainer.epochs=6",
    ]
    assert expand(["seed=1", "resume.allow=[seed]"]) == ["seed=1", "resume.allow=[seed]"]


RECORDED = {"optimizer": {"_target_": "SGD", "lr": 1.0, "momentum": 0.9}, "seed": 1, "model": {"channels": [1, 2, 3]},
            "metrics": {"ssim": {"_target_": "ssim"}}}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "given", "changes"),
    [
        pytest.param({"seed": 1}, ["seed=1"], {}, id="said-again"),
        pytest.param({"seed": 2}, [], {}, id="a-default-is-not-said"),
        pytest.param({"seed": 2}, ["seed=2"], {"seed": (1, 2)}, id="a-value"),
        pytest.param(
            {"model": {"channels": [1, 2, 4]}},
            ["model.channels=[1,2,4]"],
            {"model.channels": ([1, 2, 3], [1, 2, 4])},
            id="a-list",
        ),
        pytest.param(
            {"optimizer": {"_target_": "Adam", "lr": 1.0}},
            ["optimizer=adam"],
            {"optimizer": (RECORDED["optimizer"], {"_target_": "Adam", "lr": 1.0})},
            id="a-group",
        ),
        pytest.param(
            {"metrics": {"ssim": None}},
            ["metrics.ssim=null"],
            {"metrics.ssim": ({"_target_": "ssim"}, None)},
            id="a-metric-left-out",
        ),
        pytest.param({"extra": 1}, ["+extra=1"], {"extra": (None, 1)}, id="an-addition"),
    ],
)
def test_only_what_the_command_says_otherwise_counts_as_a_change(command, given, changes):
    assert resume.changed_settings(RECORDED, {**RECORDED, **command}, given) == changes


@pytest.mark.parametrize(
    ("key", "allowed", "depends_on_length", "free"),
    [
        ("optimizer.lr", [], False, False),
        ("optimizer.lr", ["optimizer.lr"], False, True),
        ("optimizer.lr", ["optimizer"], False, True),
        ("optimizer.lr", ["opt"], False, False),
        ("trainer.epochs", [], False, True),
        ("trainer.epochs", [], True, False),
        ("trainer.epochs", ["trainer.epochs"], True, True),
        ("trainer.max_minutes", [], True, True),
        ("trainer.checkpoint_every_steps", [], True, True),
        ("verification", [], True, True),
        ("verification.on_failure", [], True, True),
        ("verificationx.enabled", [], True, False),
        ("metrics.mae._target_", [], True, True),
        ("loss.eps", [], False, False),
    ],
)
def test_a_setting_that_changes_the_result_needs_permission(key, allowed, depends_on_length, free):
    assert resume.may_change(key, allowed, depends_on_length) is free


TINY = ["debug=fast", "threads=1", "model.channels=[4,5,4]", "trainer.epochs=1", "data.crops_per_epoch=16",
        "data.validation_crops=2", "schedule=constant", "optimizer=sgd", "verification=off", "diagnosis=off",
        "trainer.test=false", "tracking.detail=trial"]  # fmt: skip


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A run of two steps that has ended: its folder, and what names its store."""
    store = tmp_path_factory.mktemp("store") / "mlruns"
    result = train.train([*TINY, f"tracking.dir={store}", f"hydra.run.dir={store}/hydra/run"])
    return result.folder, f"tracking.dir={store}"


KEEPS = "a resumed run keeps its"
SGD_TO_ADAM = f"{KEEPS} optimizer: scratch_dl.optim.SGD cannot become scratch_dl.optim.Adam; leave out optimizer=..., "
MSE_TO_L1 = f"{KEEPS} loss: scratch_dl.nn.MSELoss cannot become scratch_dl.nn.L1Loss; leave out loss=..., "
PAPER_TO_UNET = f"{KEEPS} model: scratch_dl.models.paper cannot become scratch_dl.models.unet; leave out model=..."


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(["model=unet"], PAPER_TO_UNET, id="model"),
        pytest.param(["loss=l1"], f"{MSE_TO_L1}or permit it by 'resume.allow=[loss]'", id="loss"),
        pytest.param(["optimizer=adam"], f"{SGD_TO_ADAM}or permit it by 'resume.allow=[optimizer]'", id="optimizer"),
        pytest.param(["optimizer=adam", "resume.allow=[optimizer.lr]"], SGD_TO_ADAM, id="permitted-a-value"),
        pytest.param(["optimizer.lr=3"], "optimizer.lr of the run in ", id="value"),
        pytest.param(
            ["resume.allow=optimizer"], "resume.allow must be a list of keys such as [optimizer.lr]", id="list"
        ),
    ],
)
def test_what_a_resumed_run_keeps_is_named_old_and_new(in_process, ended, given, message):
    folder, where = ended
    status, _, err = in_process(train, f"resume={folder}", where, *given)
    assert (status, err.count("\n")) == (2, 1), err
    assert err.startswith(f"error: {message}")


def test_a_permitted_group_is_replaced_as_a_whole_and_the_run_goes_on(ended):
    """Adam begins afresh, and takes none of SGD's settings or velocities; what was killed meanwhile goes on too."""
    folder, where = ended
    more = [f"resume={folder}", where, "optimizer=adam", "optimizer.lr=0.01", "resume.allow=[optimizer]"]
    result = train.train([*more, "trainer.epochs=2"])
    assert (result.status, result.progress.step) == ("FINISHED", 4)
    recorded = resume.recorded_config(folder)["optimizer"]
    assert recorded == {
        "_target_": "scratch_dl.optim.Adam", "lr": 0.01, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0
    }  # fmt: skip
    assert train.train([f"resume={folder}", where, "trainer.epochs=3"]).progress.step == 6


def test_a_run_that_was_recorded_before_there_were_losses_and_metrics_goes_on_with_what_it_had(ended):
    """Its configuration has no such group: it trained under the squared error, and was scored by PSNR and SSIM."""
    folder, where = ended
    file = folder / "config.yaml"
    whole = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({key: value for key, value in whole.items() if key not in ("loss", "metrics")}))
    recorded = resume.recorded_config(folder)
    assert recorded["loss"] == {"_target_": "scratch_dl.nn.MSELoss"}
    assert list(recorded["metrics"]) == ["psnr_db", "ssim"]
    epochs = whole["trainer"]["epochs"] + 1
    result = train.train([f"resume={folder}", where, "loss=mse", f"trainer.epochs={epochs}"])
    assert (result.status, result.progress.step) == ("FINISHED", 2 * epochs)
    assert "val_whole/ssim" in result.scores
    assert yaml.safe_load(file.read_text())["loss"] == recorded["loss"]


def test_a_permitted_loss_takes_over_and_another_metric_needs_no_permission(ended):
    folder, where = ended
    epochs = resume.recorded_config(folder)["trainer"]["epochs"] + 1
    more = [f"resume={folder}", where, f"trainer.epochs={epochs}", "metrics.ssim=null",
            "+metrics.pooled._target_=scratch_dl.data.metrics.psnr_pooled_db"]  # fmt: skip
    result = train.train([*more, "loss=l1", "resume.allow=[loss]"])
    assert result.status == "FINISHED"
    assert result.scores["val_whole/pooled"] == pytest.approx(result.scores["val_whole/psnr_pooled_db"])
    assert "val_whole/ssim" not in result.scores
    assert resume.recorded_config(folder)["loss"] == {"_target_": "scratch_dl.nn.L1Loss"}
    assert resume.recorded_config(folder)["metrics"]["ssim"] is None


def test_a_run_whose_checkpoint_has_no_digest_of_its_pictures_yet_goes_on(tmp_path):
    where = [f"tracking.dir={tmp_path}", f"hydra.run.dir={tmp_path}/run"]
    result = train.train([*TINY, *where])
    file = result.folder / "checkpoints" / checkpoint.LAST
    content = checkpoint.load(file)
    del content["data"]
    checkpoint.save(file, content)
    assert train.train([f"resume={result.folder}", where[0], "trainer.epochs=2"]).progress.step == 4
