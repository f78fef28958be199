"""Nothing that a file, a run's folder or a storage names is executed; the current command line alone can permit it."""

import re
import sys
from pathlib import Path

import pytest

import preloaded
from scratch_dl import diagnose, evaluate, train, verify
from scratch_dl.config.composing import compose_config
from scratch_dl.system.errors import ConfigError

EVIL = "from pathlib import Path\nPath('PWN').write_text('imported')\ndef build(*_, **__):\n    Path('PWN').touch()\n"
SLURM = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
LOG = "hydra: {job_logging: {version: 1, root: {handlers: [x]}, handlers: {x: %s}}}"

# (a preset's content, the key that is refused)
SLOTS = [
    pytest.param("hydra: {callbacks: {x: {_target_: evil.build}}}", "hydra.callbacks.x._target_", id="callback"),
    pytest.param(
        "hydra: {callbacks: {x: {_target_: pandas.read_pickle, filepath_or_buffer: e.pkl}}}",
        "hydra.callbacks.x._target_", id="read_pickle"),
    pytest.param(
        "hydra: {callbacks: {x: {_target_: builtins.open, file: precious.txt, mode: w}}}",
        "hydra.callbacks.x._target_", id="open"),
    pytest.param(
        "hydra: {callbacks: {x: {y: {_target_: evil.build}}}}",
        "hydra.callbacks.x.y._target_", id="nested-callback"),
    pytest.param(
        "evil: {x: {_target_: evil.build}}\nhydra: {callbacks: '${evil}'}", "hydra.callbacks", id="callbacks-by-name"),
    pytest.param(
        "evil: {_target_: evil.build}\nhydra: {callbacks: {x: '${evil}'}}", "hydra.callbacks.x", id="callback-by-name"),
    pytest.param(
        "a: evil.build\nhydra: {callbacks: {x: {_target_: '${a}'}}}", "hydra.callbacks.x._target_",
        id="target-by-name"),
    pytest.param(
        "hydra: {job_logging: {version: 1, handlers: {h: {class: logging.FileHandler, delay: true, filename: "
        "'${hydra.runtime.output_dir}/${hydra.job.name}.log', '.': {baseFilename: precious.txt}}}, "
        "root: {handlers: [h]}}}", "hydra.job_logging.handlers.h...baseFilename", id="attribute-of-a-handler"),
    pytest.param("hydra: {launcher: {_target_: evil.build}}", "hydra.launcher._target_", id="launcher"),
    pytest.param(
        "hydra: {launcher: {_target_: hydra_plugins.evil.Launcher}}", "hydra.launcher._target_", id="plugin"),
    pytest.param("hydra: {sweeper: {_target_: evil.build}}", "hydra.sweeper._target_", id="sweeper"),
    pytest.param(
        "hydra: {sweeper: {params: {x: {_target_: evil.build}}}}", "hydra.sweeper.params.x._target_", id="nested"),
    pytest.param(LOG % "{class: evil.build}", "hydra.job_logging.handlers.x.class", id="handler"),
    pytest.param(LOG % "{(): evil.build}", "hydra.job_logging.handlers.x.()", id="handler-factory"),
    pytest.param(
        LOG % "{class: logging.StreamHandler, stream: ext://evil.Path}",
        "hydra.job_logging.handlers.x.stream", id="ext"),
    pytest.param(
        "e: ext://evil.Path\n" + LOG % "{class: logging.StreamHandler, stream: '${e}'}",
        "hydra.job_logging.handlers.x.stream", id="ext-by-name"),
    pytest.param(
        LOG % "{class: logging.FileHandler, filename: precious.txt, mode: w}",
        "hydra.job_logging.handlers.x.filename", id="file-handler"),
    pytest.param(
        LOG % "{class: logging.FileHandler, filename: precious.txt}", "hydra.job_logging.handlers.x.filename",
        id="file-that-grows"),
    pytest.param(
        "hydra: {job_logging: {version: 1, root: {}, formatters: {x: {(): evil.build}}}}",
        "hydra.job_logging.formatters.x.()", id="formatter"),
    pytest.param(
        "hydra: {job_logging: {version: 1, root: {}, filters: {x: {(): evil.build}}}}",
        "hydra.job_logging.filters.x.()", id="filter"),
    pytest.param(
        "hydra: {hydra_logging: {version: 1, root: {}, formatters: {x: {class: evil.build}}}}",
        "hydra.hydra_logging.formatters.x.class", id="hydra-logging"),
    pytest.param(
        "hydra: {overrides: {hydra: ['hydra.searchpath=[pkg://evil]']}}", "hydra.overrides.hydra", id="overrides"),
    pytest.param("hydra: {overrides: {task: ['allowed_targets=[evil.]']}}", "hydra.overrides.task", id="task"),
    pytest.param(
        "hydra: {mode: MULTIRUN, sweeper: {params: {'+hydra.callbacks.x._target_': evil.build}}}",
        "hydra.sweeper.params",
        id="params-of-a-grid"),
    pytest.param(
        "hydra: {mode: MULTIRUN, sweeper: {params: {allowed_targets: '[evil.]', model._target_: evil.build}}}",
        "hydra.sweeper.params", id="params-permit"),
    pytest.param(
        "hydra: {mode: MULTIRUN, sweeper: {params: {model._target_: evil.build}}}", "model._target_", id="params-name"),
    pytest.param(
        "defaults: [override /hydra/sweeper: scratch_dl]\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {seed: 'choice(1,2)', "
        "'+hydra.job.env_set.LD_PRELOAD': x}}}", "hydra.sweeper.params", id="params-of-a-search"),
    pytest.param("hydra: {job: {env_set: {LD_PRELOAD: /tmp/x.so}}}", "hydra.job.env_set.LD_PRELOAD", id="environment"),
    pytest.param("hydra: {job: {env_copy: [HOME]}}", "hydra.job.env_copy[0]", id="copied-environment"),
    pytest.param("allowed_targets: [evil.]\nmodel: {_target_: evil.build}", "allowed_targets", id="permits-itself"),
    pytest.param("model: {_target_: evil.build}", "model._target_", id="model"),
    pytest.param("noise: {_target_: subprocess.check_call, args: [touch, PWN]}", "noise._target_", id="noise"),
    pytest.param("data: {augment: {_target_: evil.build}}", "data.augment._target_", id="in-a-group"),
    pytest.param("tracking: {tags: {x: {_target_: evil.build}}}", "tracking.tags.x._target_", id="tag"),
]  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a module that leaves a trace when it is imported, and a file that must stay as it is."""
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "precious.txt").write_text("precious")
    (tmp_path / "e.pkl").write_bytes(b"cposix\nsystem\n(S'touch PWN'\ntR.")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("evil", None)


def preset(folder, content, name="experiment/x"):
    """A preset under `cfg`."""
    file = folder / "cfg" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"# @package _global_\n{content}\n")
    return ["--config-dir", "cfg", name.replace("/", "=")]


def is_untouched(folder):
    """Nothing was imported, called or written."""
    names = {path.name for path in folder.iterdir()} - {"cfg", "evil.py", "precious.txt", "e.pkl", "run", "evil"}
    return not names and "evil" not in sys.modules and (folder / "precious.txt").read_text() == "precious"


@pytest.mark.parametrize(("content", "key"), SLOTS)
def test_what_a_preset_names_is_refused_by_its_key_and_not_executed(in_process, place, content, key):
    status, out, err = in_process(train, *preset(place, content))
    assert (status, err.count("\n")) == (2, 1), err
    assert re.fullmatch(r"((model=|several trainings: ).*\n)?", out), "nothing but what was to be trained"
    assert err.startswith(f"error: {key} must "), err
    assert is_untouched(place)


LAUGHS = [
    pytest.param("model: {%s}", "a{after}: '${{model.a{before}}}${{model.a{before}}}'", id="texts"),
    pytest.param("model: {%s}", "a{after}: {{x: '${{model.a{before}}}', y: '${{model.a{before}}}'}}", id="mappings"),
    pytest.param("model: {%s}", "a{after}: ['${{..a{before}}}', '${{..a{before}}}']", id="relative"),
    pytest.param(
        "model: {%s}", "a{after}: '${{oc.select:model.a{before}}}${{oc.select:model.a{before}}}'", id="select"
    ),
]


@pytest.mark.parametrize(("content", "line"), LAUGHS)
def test_interpolations_cannot_blow_a_configuration_up(in_process, place, content, line):
    """Forty values of two of the one before."""
    lines = ["a0: xx", *(line.format(before=number, after=number + 1) for number in range(40))]
    status, _, err = in_process(train, *preset(place, content % ", ".join(lines)))
    assert status == 2
    assert err == "error: a configuration must have at most 10000000 characters once every ${...} is written out\n"


@pytest.mark.parametrize("content", ["model: {bias: '${model.init}', init: '${model.bias}'}", "model: {a: '${model}'}"])
def test_an_interpolation_of_itself_is_one_line(in_process, place, content):
    status, _, err = in_process(train, *preset(place, content))
    assert (status, err.count("\n")) == (2, 1), err


@pytest.mark.parametrize("mode", [["seed=1,2"], ["search=custom", "seed=choice(1,2)"]], ids=["grid", "search"])
def test_a_preset_of_several_runs_is_refused_too(in_process, place, mode):
    status, _, err = in_process(train, "-m", *mode, *preset(place, "hydra: {callbacks: {x: {_target_: evil.build}}}"))
    assert (status, err.count("\n")) == (2, 1), err
    assert "hydra.callbacks.x._target_ must be left out" in err
    assert is_untouched(place)


def test_each_point_of_a_grid_is_asked_as_its_own_logging_is_made_by_the_launcher(in_process, place):
    given = preset(place, LOG % "{(): evil.build}")
    status, _, err = in_process(train, "-m", *given[:2], "experiment=small_and_fast,x")
    assert (status, err.count("\n")) == (2, 1), err
    assert err.startswith("error: hydra.job_logging.handlers.x.() must be one of")
    assert is_untouched(place)


def test_a_real_process_exits_with_2_and_runs_nothing(place):
    """As typed, with the current folder first on the path."""
    arguments = preset(place, "hydra: {callbacks: {x: {_target_: evil.build}}}")
    done = preloaded.run(
        [sys.executable, "-m", "scratch_dl.train", *arguments], cwd=place, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "'evil.build' from " in done.stderr
    assert f"{Path('cfg', 'experiment', 'x.yaml')}; 'allowed_targets=[evil.]' permits it" in done.stderr
    assert is_untouched(place)


@pytest.mark.parametrize("flag", [[], ["--cfg", "job"], ["--help"]], ids=" ".join)
def test_a_place_to_search_in_is_not_imported_whatever_is_asked(in_process, place, flag):
    """Hydra imports a package that the primary configuration names while it composes."""
    (place / "cfg").mkdir()
    (place / "cfg" / "mine.yaml").write_text("defaults: [train, _self_]\nhydra: {searchpath: [pkg://evil]}\n")
    status, _, err = in_process(train, "--config-dir", "cfg", "--config-name", "mine", *flag)
    assert status == 2, err
    assert "hydra.searchpath must be given on the command line, but" in err
    assert is_untouched(place)


def test_a_pickle_of_an_earlier_run_is_not_loaded(in_process, place):
    status, _, err = in_process(train, "--experimental-rerun", "e.pkl")
    assert (status, err.count("\n")) == (2, 1)
    assert "--experimental-rerun is not supported" in err
    assert is_untouched(place)


def test_a_file_names_no_module_to_verify(in_process, place):
    (place / "cfg").mkdir()
    (place / "cfg" / "mine.yaml").write_text(
        "defaults: [verify, _self_]\nmodule: subprocess.Popen\nargs: {args: touch PWN, shell: true}\ninput: [1, 3]\n"
    )
    status, _, err = in_process(verify, "--config-dir", "cfg", "--config-name", "mine")
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("error: module must be given on the command line")
    assert is_untouched(place)


RECORD = """
model: {_target_: scratch_dl.models.paper}
data: {_target_: scratch_dl.data.Photos}
noise: {_target_: %s}
allowed_targets: [evil., subprocess.]
tracking: {experiment: x}
"""


@pytest.mark.parametrize(
    ("command", "given", "key"),
    [(train, "resume", "noise._target_"), (evaluate, "run", "noise._target_")],
    ids=["resume", "evaluate"],
)
def test_a_runs_folder_cannot_permit_what_it_names(in_process, place, command, given, key):
    (place / "run").mkdir()
    (place / "run" / "config.yaml").write_text(record(place))
    status, _, err = in_process(command, f"{given}=run")
    assert (status, err.count("\n")) == (2, 1), err
    assert err.startswith(f"error: {key} must begin with one of scratch_dl.data., but got 'evil.build'"), err
    assert not (place / "PWN").exists()
    assert "evil" not in sys.modules


def record(place, target="evil.build"):
    """A run's configuration that names a target and permits it."""
    from omegaconf import OmegaConf

    from scratch_dl.config.plain import plain

    config = plain(compose_config("train", [f"tracking.dir={place / 'mlruns'}"]))
    del config["resume"]
    config |= {"noise": {"_target_": target}, "allowed_targets": ["evil."]}
    return OmegaConf.to_yaml(OmegaConf.create(config))


def test_a_runs_folder_reads_no_environment_variable(in_process, place):
    """What resolves in it could be sent to a server that it names as well."""
    (place / "run").mkdir()
    text = record(place, "scratch_dl.data.Gaussian").replace("experiment: denoising", "experiment: ${oc.env:HOME}")
    (place / "run" / "config.yaml").write_text(text)
    status, _, err = in_process(train, "resume=run")
    assert (status, err.count("\n")) == (2, 1), err
    assert "must have every value written out, but tracking.experiment has a ${...}" in err


@pytest.mark.parametrize(
    "override", ["hydra.searchpath=[pkg://evil]", "+hydra.callbacks.x._target_=evil.build", "allowed_targets=[evil.]"]
)
def test_a_storage_says_nothing_that_a_command_line_alone_may_say(place, override):
    """A study's trials keep their overrides in a database that others may write to."""
    from types import SimpleNamespace

    from scratch_dl.search.study import Study

    trial = SimpleNamespace(number=0, user_attrs={"overrides": ["seed=1", override]})
    study = SimpleNamespace(
        optuna=SimpleNamespace(get_trials=lambda **_: [trial]),
        space=SimpleNamespace(fixed=()),
        settings=SimpleNamespace(storage="sqlite:///x.db"),
        compose=lambda given: compose_config("train", given),
    )
    with pytest.raises(ConfigError, match="must be given on the command line, but the storage says it"):
        Study.configuration(study, 0)
    assert is_untouched(place)


def test_a_file_gives_a_launcher_no_command():
    """As submitit's Slurm launcher, which is not installed here, puts one into a job's script."""
    from omegaconf import OmegaConf

    from scratch_dl.config.permission import check_permission

    config = compose_config("train", [])
    config.hydra.launcher = OmegaConf.create({"_target_": SLURM, "setup": ["touch PWN"], "partition": "main"})
    with pytest.raises(ConfigError, match=r"^hydra\.launcher\.setup\[0\] must be given on the command line"):
        check_permission(config, [])
    check_permission(config, ["hydra.launcher.setup=[touch PWN]"])
    config.hydra.launcher = OmegaConf.create({"_target_": SLURM, "partition": "main\ntouch PWN"})
    with pytest.raises(ConfigError, match=r"^hydra\.launcher\.partition must be given on the command line"):
        check_permission(config, [])


PERMITTED = [
    pytest.param("model: {_target_: mine.tiny}", ["allowed_targets=[mine.]"], id="a-target"),
    pytest.param("allowed_targets: [mine.]", ["allowed_targets=[mine.]"], id="a-file-says-so-too"),
    pytest.param("hydra: {callbacks: {x: {_target_: mine.Callback}}}", ["allowed_targets=[mine.]"], id="a-callback"),
    pytest.param("seed: 1", ["+hydra.job.env_set.A=b"], id="an-environment-variable"),
    pytest.param("defaults: [override /hydra/job_logging: default]", [], id="hydras-logging"),
    pytest.param("defaults: [override /hydra/launcher: joblib]", [], id="a-plugins-launcher"),
    pytest.param(LOG % "{class: logging.StreamHandler, stream: ext://sys.stderr}", [], id="stderr"),
]


@pytest.mark.parametrize(("content", "given"), PERMITTED)
def test_what_the_command_line_permits_is_composed(place, content, given, in_process):
    status, _, err = in_process(train, *preset(place, content), *given, "--cfg", "job")
    assert status == 0, err


def test_the_line_that_refuses_names_what_permits(in_process, place):
    """As printed, it works: then the file's own fault comes next."""
    given = preset(place, "allowed_targets: [evil.]\nmodel: {_target_: evil.nothing}")
    _, _, err = in_process(train, *given)
    permit = err.rpartition("add ")[2].strip().strip("'")
    assert permit == "allowed_targets=[evil.]"
    _, _, err = in_process(train, *given, permit)
    assert err.startswith("error: model._target_ must name a callable")


def test_what_other_modules_of_the_package_import_is_reached_by_no_target(in_process, place, monkeypatch):
    import scratch_dl.data.photos
    from scratch_dl.training import checkpoint

    monkeypatch.setattr(scratch_dl.data.photos, "checkpoint", checkpoint, raising=False)
    status, _, err = in_process(train, *preset(place, "data: {_target_: scratch_dl.data.photos.checkpoint.save}"))
    assert status == 2
    assert "data._target_ must name a callable" in err


def test_diagnose_reads_no_target_at_all(in_process, place):
    (place / "run").mkdir()
    (place / "run" / "config.yaml").write_text(record(place))
    in_process(diagnose, "run=run")
    assert not (place / "PWN").exists()
