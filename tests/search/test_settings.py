"""How a search is done is checked before anything is written, and each name makes what Optuna calls so."""

from pathlib import Path

import optuna
import pytest
from omegaconf import OmegaConf

from scratch_dl.config.composing import compose_config
from scratch_dl.config.yaml_files import CONF
from scratch_dl.search.settings import Algorithm, check_algorithms, read_settings
from scratch_dl.search.storage import SafeCmaEs, quiet
from scratch_dl.search.trial_result import Objective
from scratch_dl.system.errors import ConfigError

SWEEPER = Path(CONF) / "hydra" / "sweeper" / "scratch_dl.yaml"


def read(directory="mlruns", search="geometry", metrics=("psnr_db", "ssim"), **given):
    """What the file says, but for what is given."""
    sweeper = {**OmegaConf.to_container(OmegaConf.load(SWEEPER)), **given}
    hydra = OmegaConf.create({"sweeper": sweeper, "runtime": {"choices": {"search": search}}})
    return read_settings(hydra, directory, metrics)


def test_the_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = read_settings(compose_config("train", ["search=custom"]).hydra, "mlruns")
    assert (settings.study_name, settings.n_trials, settings.workers, settings.seed) == ("custom", 30, 1, 0)
    assert settings.storage == f"sqlite:///{tmp_path}/mlruns/optuna.db"
    assert settings.objectives == (Objective("val/psnr_db", "best", "maximize"),)
    assert (settings.sampler, settings.pruner) == (Algorithm("tpe", {}), Algorithm("median", {}))
    assert not list(tmp_path.iterdir())


def test_a_study_is_called_as_its_search_unless_it_has_a_name():
    assert read().study_name == "geometry"
    assert read(study_name="mine").study_name == "mine"
    assert read(search=None).study_name == "custom"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "sqlite:////here/runs/optuna.db"),
        ("sqlite:///study.db", "sqlite:////here/study.db"),
        ("sqlite:///a/b.db", "sqlite:////here/a/b.db"),
        ("sqlite:////else/study.db", "sqlite:////else/study.db"),
        ("sqlite:///~/study.db", "sqlite:////home/me/study.db"),
        ("study.journal", "/here/study.journal"),
        ("~/study.journal", "/home/me/study.journal"),
        ("/else/a journal", "/else/a journal"),
        ("postgresql+psycopg://me:pw@host/db", "postgresql+psycopg://me:pw@host/db"),
        ("postgresql://host:5433/db", "postgresql://host:5433/db"),
    ],
)
def test_a_storage_is_the_same_from_every_folder(tmp_path, monkeypatch, given, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    wanted = expected.replace("/here", str(tmp_path))
    assert read("runs", storage=given).storage == wanted


@pytest.mark.parametrize("directory", ["/somewhere", "~/runs"])
def test_the_default_storage_lies_under_tracking_dir(monkeypatch, directory):
    monkeypatch.setenv("HOME", "/home/me")
    assert read(directory).storage == f"sqlite:///{directory.replace('~', '/home/me')}/optuna.db"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"n_trials": 0}, r"hydra\.sweeper\.n_trials must be >= 1, but got 0"),
        ({"n_trials": 2.5}, r"hydra\.sweeper\.n_trials must be an integer >= 1, but got 2\.5"),
        ({"n_trials": "many"}, r"hydra\.sweeper\.n_trials must be an integer >= 1, but got 'many'"),
        ({"n_trials": True}, r"hydra\.sweeper\.n_trials must be an integer >= 1, but got True"),
        ({"n_trials": None}, r"hydra\.sweeper\.n_trials must be an integer >= 1 for sampler=tpe, but got null"),
        ({"workers": 0}, r"hydra\.sweeper\.workers must be >= 1, but got 0"),
        ({"workers": None}, r"hydra\.sweeper\.workers must be an integer >= 1, but got None"),
        ({"seed": -1}, r"hydra\.sweeper\.seed must be >= 0, but got -1"),
        ({"seed": 2**32}, r"hydra\.sweeper\.seed must be <= 4294967295, but got 4294967296"),
        ({"seed": None}, r"hydra\.sweeper\.seed must be an integer"),
        ({"study_name": 3}, r"hydra\.sweeper\.study_name must be a non-empty string, but got 3"),
        ({"study_name": " "}, r"hydra\.sweeper\.study_name must be a non-empty string"),
        # Samplers and pruners
        ({"sampler": "tpf"}, r"must be one of tpe, random, grid, qmc, cmaes, gp, nsgaii, but got 'tpf'; .* 'tpe'"),
        ({"sampler": None}, r"hydra\.sweeper\.sampler must be one of tpe, .*, but got None"),
        ({"sampler": ["tpe"]}, r"hydra\.sweeper\.sampler must be one of tpe, .*, but got \['tpe'\]"),
        ({"sampler": {"n_startup_trials": 3}}, r"hydra\.sweeper\.sampler must be one of tpe, .*, but got None"),
        ({"sampler": {"name": "tpe", "n_startup_trial": 3}},
         r"sampler\.n_startup_trial is not a setting of tpe; did you mean 'n_startup_trials'"),
        ({"sampler": {"name": "tpe", "seed": 3}}, r"hydra\.sweeper\.sampler\.seed is not a setting of tpe"),
        ({"sampler": {"name": "random", "qmc_type": "halton"}}, r"sampler\.qmc_type is not a setting of random"),
        ({"sampler": {"name": "qmc", "qmc_type": "hal"}}, r"hydra\.sweeper\.sampler.*hal"),
        ({"pruner": "medium"}, r"sweeper\.pruner must be one of median, hyperband, none, .* 'medium'; .* 'median'"),
        ({"pruner": {"name": "median", "warmup": 3}}, r"hydra\.sweeper\.pruner\.warmup is not a setting of median"),
        ({"pruner": {"name": "hyperband", "n_startup_trials": 3}}, r"pruner\.n_startup_trials is not a setting of hy"),
        ({"pruner": {"name": "none", "n_startup_trials": 3}}, r"pruner\.n_startup_trials is not a setting of none"),
        ({"pruner": {"name": "median", "n_startup_trials": -1}}, r"hydra\.sweeper\.pruner.*startup trials"),
        ({"pruner": {"name": "hyperband", "max_resource": "all"}}, r"hydra\.sweeper\.pruner.*max_resource"),
        # Objectives
        ({"objective": "best val/psnr"}, r"objective must be one of val/psnr_db, .* 'val/psnr'; .*'val/psnr_db'"),
        ({"objective": "psnr_db"}, r"hydra\.sweeper\.objective must be one of .*did you mean 'val/psnr_db'"),
        ({"objective": "zzzzzz"}, r"hydra\.sweeper\.objective must be one of .* watch/, verify/, but got 'zzzzzz'$"),
        ({"objective": "mean val/psnr_db"}, r"sweeper\.objective must be like 'best val/psnr_db' .* 'mean val/psnr"),
        ({"objective": "the best val/psnr_db"}, r"sweeper\.objective must be like .*, but got 'the best val/psnr_db'"),
        ({"objective": "best test/psnr_db"}, r"sweeper\.objective must not be of the test photographs, .* 'best te"),
        ({"objective": "test/whole/psnr_db"}, r"hydra\.sweeper\.objective must not be of the test photographs"),
        ({"objective": "best test_whole/psnr_db"}, r"hydra\.sweeper\.objective must (not be of the test|be one of)"),
        ({"objective": ""}, r"hydra\.sweeper\.objective must be a non-empty string"),
        ({"objective": 3}, r"hydra\.sweeper\.objective must be a non-empty string, but got 3"),
        ({"objective": [], "direction": []}, r"hydra\.sweeper\.objective must name a metric, but got none"),
        ({"direction": "up"}, r"hydra\.sweeper\.direction must be one of maximize, minimize, but got 'up'"),
        ({"direction": "maximise"}, r"hydra\.sweeper\.direction .* but got 'maximise'; did you mean 'maximize'"),
        ({"direction": ["maximize", "minimize"]},
         r"hydra\.sweeper\.direction must have one of maximize, minimize for each of the 1 objectives, but got \['max"),
        ({"objective": ["val/psnr_db", "parameters"], "pruner": "none", "direction": "maximize"},
         r"hydra\.sweeper\.direction must have .* each of the 2 objectives, but got 'maximize'"),
        ({"objective": ["val/ssim", "best val/ssim"], "direction": ["maximize"] * 2, "pruner": "none"},
         r"hydra\.sweeper\.objective must be given once each, but got best val/ssim twice"),
        ({"objective": ["val/psnr_db", "parameters"], "direction": ["maximize", "minimize"]},
         r"hydra\.sweeper\.pruner must be none for several objectives, but got median"),
        *(({"objective": name}, rf"hydra\.sweeper\.pruner must be none for the objective {name}, .* but got median")
          for name in ("parameters", "training_s", "train/loss", "val_whole/psnr_db", "watch/relu1/dead")),
        # Storages
        ({"storage": ""}, r"hydra\.sweeper\.storage must be a non-empty string"),
        ({"storage": 3}, r"hydra\.sweeper\.storage must be a non-empty string, but got 3"),
        ({"storage": "mysql://me:secret@host/db"}, r"sweeper\.storage must be like sqlite:///study\.db, .* 'mysql://me:\*\*\*@host/db'$"),
        ({"storage": "redis://host"}, r"sweeper\.storage must be like sqlite:///study\.db, .* 'redis://host'$"),
        ({"storage": "study.db"}, r"hydra\.sweeper\.storage must be like sqlite:///study\.db, .* but got 'study\.db'"),
        ({"storage": "a/study.sqlite3"}, r"hydra\.sweeper\.storage must be like .* but got 'a/study\.sqlite3'"),
        ({"storage": "sqlite://"}, r"hydra\.sweeper\.storage .*sqlite"),
        ({"storage": "sqlite:///:memory:"}, r"hydra\.sweeper\.storage .*memory"),
    ],
)  # fmt: skip
def test_a_bad_setting_is_refused_by_its_key_with_the_rule_and_the_value(tmp_path, monkeypatch, given, words):
    monkeypatch.chdir(tmp_path)
    with quiet(), pytest.raises(ConfigError, match=words) as refused:
        check_algorithms(read(**given), conditional=False)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("objective", "direction", "expected"),
    [
        ("val/loss", "minimize", [Objective("val/loss", "best", "minimize")]),
        ("last val/ssim", "maximize", [Objective("val/ssim", "last", "maximize")]),
        (["best val/psnr_db", "parameters"], ["maximize", "minimize"],
         [Objective("val/psnr_db", "best", "maximize"), Objective("parameters", "best", "minimize")]),
        (["best val/psnr_db", "last val/psnr_db"], ["maximize"] * 2,
         [Objective("val/psnr_db", "best", "maximize"), Objective("val/psnr_db", "last", "maximize")]),
        ("val/mae", None, [Objective("val/mae", "best", "minimize")]),
        ("last val_whole/mine", "minimize", [Objective("val_whole/mine", "last", "minimize")]),
        ("last watch/relu1/dead", "minimize", [Objective("watch/relu1/dead", "last", "minimize")]),
    ],
)  # fmt: skip
def test_objectives_are_logged_metrics_by_their_best_or_last_value(objective, direction, expected):
    metrics = ("psnr_db", "ssim", "mae", "mine")
    settings = read(metrics=metrics, objective=objective, direction=direction, pruner="none")
    assert settings.objectives == tuple(expected)


@pytest.mark.parametrize(
    ("metrics", "given", "words"),
    [
        (("psnr_db", "ssim", "mine"), {"objective": "val/mine"},
         r"sweeper\.direction must be given for val/mine, a metric of your own: hydra\.sweeper\.direction=minim"),
        (("psnr_db", "ssim", "mine"), {"objective": "val/mien", "direction": "minimize"},
         r"objective must be one of .*'val/mien'; did you mean 'val/mine'\?; .*\+metrics\.mien\._target_=my"),
        (("psnr_db", "ssim"), {"objective": "val/mine", "direction": "minimize"},
         r"objective must be one of .*but got 'val/mine'.*\+metrics\.mine\._target_=my_metrics\.mine$"),
        (("psnr_db",), {"objective": "val/ssim"}, r"objective must be one of .*but got 'val/ssim'"),
        (("psnr_db", "mine"), {"objective": "val_whole/mine", "direction": "minimize"},
         r"hydra\.sweeper\.pruner must be none for the objective val_whole/mine"),
        (("psnr_db", "mine"), {"objective": "test/mine"}, r"objective must not be of the test photographs"),
    ],
)  # fmt: skip
def test_an_own_metric_is_an_objective_where_it_is_configured(metrics, given, words):
    with pytest.raises(ConfigError, match=words) as refused:
        read(metrics=metrics, **given)
    assert "\n" not in str(refused.value)


def test_the_best_value_is_the_greatest_or_the_least_and_the_last_one_the_last():
    values = [3.0, 1.0, 4.0, 2.0]
    assert [Objective("m", at, way).pick(values) for at in ("best", "last") for way in ("maximize", "minimize")] == [
        4.0, 1.0, 2.0, 2.0
    ]  # fmt: skip


def test_a_grid_may_be_searched_to_its_end():
    assert read(sampler="grid", n_trials=None).n_trials is None
    assert read(sampler={"name": "grid"}, n_trials=None).n_trials is None


@pytest.mark.parametrize(
    ("sampler", "kind", "inside"),
    [
        ("tpe", optuna.samplers.TPESampler, {"_multivariate": True, "_group": True, "_n_startup_trials": 3}),
        ({"name": "tpe", "n_startup_trials": 20, "multivariate": False, "group": False}, optuna.samplers.TPESampler,
         {"_n_startup_trials": 20, "_multivariate": False, "_group": False}),
        ("random", optuna.samplers.RandomSampler, {}),
        ("grid", optuna.samplers.RandomSampler, {}),
        ("qmc", optuna.samplers.QMCSampler, {"_scramble": True, "_qmc_type": "sobol", "_seed": 7}),
        ({"name": "qmc", "qmc_type": "halton", "scramble": False}, optuna.samplers.QMCSampler,
         {"_qmc_type": "halton", "_scramble": False}),
        ("cmaes", SafeCmaEs, {"_n_startup_trials": 1}),
        ({"name": "cmaes", "n_startup_trials": 4, "sigma0": 0.2}, SafeCmaEs,
         {"_n_startup_trials": 4, "_sigma0": 0.2}),
        ("gp", optuna.samplers.GPSampler, {"_n_startup_trials": 10}),
        ({"name": "nsgaii", "population_size": 8}, optuna.samplers.NSGAIISampler, {"_population_size": 8}),
    ],
)  # fmt: skip
def test_a_sampler_is_optunas_with_its_arguments(sampler, kind, inside):
    settings = read(sampler=sampler, seed=7)
    with quiet():
        made = settings.make_sampler(123, conditional=True)
    assert type(made) is kind
    assert {name: getattr(made, name) for name in inside} == inside


def test_a_tpe_that_cannot_work_with_conditions_is_refused():
    settings = read(sampler={"name": "tpe", "multivariate": False})
    check_algorithms(settings, conditional=False)
    check_algorithms(read(sampler={"name": "tpe", "multivariate": False, "group": False}), conditional=True)
    with pytest.raises(ConfigError, match=r"sampler\.multivariate must be true, or group false, .* but got false"):
        check_algorithms(settings, conditional=True)


def test_tpe_looks_at_groups_where_some_parameters_are_conditional():
    with quiet():
        made = [read().make_sampler(0, conditional) for conditional in (False, True)]
    assert [one._group for one in made] == [False, True]


@pytest.mark.parametrize(
    ("pruner", "kind", "inside"),
    [
        ("median", optuna.pruners.MedianPruner, {"_n_startup_trials": 5, "_n_warmup_steps": 5}),
        ({"name": "median", "n_startup_trials": 2, "n_warmup_steps": 1}, optuna.pruners.MedianPruner,
         {"_n_startup_trials": 2, "_n_warmup_steps": 1}),
        ("hyperband", optuna.pruners.HyperbandPruner, {"_max_resource": 8, "_reduction_factor": 3}),
        ({"name": "hyperband", "reduction_factor": 2, "max_resource": 5}, optuna.pruners.HyperbandPruner,
         {"_max_resource": 5, "_reduction_factor": 2}),
        ("none", optuna.pruners.NopPruner, {}),
        (None, optuna.pruners.NopPruner, {}),
    ],
)  # fmt: skip
def test_a_pruner_is_optunas_with_its_arguments(pruner, kind, inside):
    with quiet():
        made = read(pruner=pruner).make_pruner(8)
    assert type(made) is kind
    assert {name: getattr(made, name) for name in inside} == inside


def test_startup_trials_are_trainings():
    with quiet():
        assert read(sampler="tpe").make_sampler(0, False, refused=7)._n_startup_trials == 10
        assert read(sampler={"name": "tpe", "n_startup_trials": 2}).make_sampler(0, False, 7)._n_startup_trials == 9


def test_a_fifth_of_the_trainings_is_good_to_tpe_however_many_points_are_refused():
    with quiet():
        made = read(sampler="tpe").make_sampler(0, False, refused=100)
    assert [made._gamma(100 + trainings) for trainings in (1, 10, 11, 120, 400)] == [1, 2, 3, 24, 25]


def test_tpe_considers_fewer_candidates_after_each_repeat():
    with quiet():
        made = [read(sampler="tpe").make_sampler(0, False, repeats=repeats) for repeats in (0, 1, 2, 9)]
        own = read(sampler={"name": "tpe", "n_ei_candidates": 8}).make_sampler(0, False, repeats=1)
    assert [sampler._n_ei_candidates for sampler in (*made, own)] == [24, 12, 6, 1, 4]


def test_a_choice_is_named_with_its_arguments():
    assert str(read(sampler={"name": "tpe", "n_startup_trials": 20}).sampler) == "tpe n_startup_trials=20"
    assert str(read().sampler) == "tpe"
