"""A setting either works, or one line says why not, with a cure that works as printed; nothing is left behind."""

import re
import shlex
import subprocess
import sys
import textwrap

import pytest

from scratch_dl import diagnose, evaluate, train
from scratch_dl.config.overrides import check_readable
from scratch_dl.system.errors import ConfigError

FOLDER = "must be a run's folder (with a config.yaml), its id, latest or best"
GRID = "add -m for a grid of them, or search=custom to search them"
REFUSED = [
    pytest.param(["optimizer.lrr=1"], "optimizer.lrr is not a setting; did you mean 'optimizer.lr'?", id="misspelt"),
    pytest.param(["modle=unet"], "modle is not a setting; did you mean 'model'?", id="misspelt-group"),
    pytest.param(["hydra.run.dri=x"], "hydra.run.dri is not a setting; did you mean 'hydra.run.dir'?", id="of-hydra"),
    pytest.param(
        ["model=unett"], "model must be one of paper, sequential, unet, but got 'unett'; did you mean 'unet'?",
        id="choice"),
    pytest.param(["model=3"], "a group takes one of its choices, but got model=3", id="number-as-choice"),
    pytest.param(["+seed=1"], "seed is a setting already: leave out the +, seed=1", id="added-twice"),
    pytest.param(["hydra.mode=FOO"], "hydra.mode=FOO cannot be used: Invalid value 'FOO', expected one of", id="value"),
    pytest.param(
        ["optimizer=adam", "optimizer.momentum=0.5"],
        "optimizer.momentum is not a setting of optimizer=adam; it has lr, betas, eps, weight_decay",
        id="of-another-choice"),
    pytest.param(
        ["-m", "optimizer=sgd,adam", "optimizer.momentum=0.5"],
        "optimizer.momentum is not a setting of optimizer=adam_short_memory; it has lr, betas, eps, weight_decay",
        id="in-a-grid"),
    pytest.param(
        ["resume=abc", "model.residual=true"],
        "model.residual is not a setting of model=paper; it has channels, kernel_size, padding, upsampling, bias, "
        "init; if the run that is resumed has it, give it as +model.residual=...", id="of-the-resumed-model"),
    pytest.param(["model=paper,unet"], f"model=paper,unet is several values: {GRID}", id="grid-without-m"),
    pytest.param(["seed=1,2"], f"seed=1,2 is several values: {GRID}; a list is 'seed=[1,2]'", id="values-without-m"),
    pytest.param(["seed=range(1,3)"], "seed=range(1,3) is several values: add search=custom", id="range-without-m"),
    pytest.param(["-m", "seed=range(1,3)"], "seed=range(1,3) is for a search: add search=custom", id="range-in-a-grid"),
    pytest.param(
        ["-m", "search=custom", "hydra.sweeper.n_jobs=2", "seed=choice(1,2)"],
        "hydra.sweeper.n_jobs is not a setting; it is called hydra.sweeper.workers here", id="n_jobs"),
    pytest.param(
        ["hydra.sweeper.n_trials=2"], "hydra.sweeper.n_trials is a setting of a search: add search=custom",
        id="no-search"),
    pytest.param(
        ["-m", "search=geometry", "model=unet"],
        "search=geometry searches settings that model=unet does not have (model.padding): leave out model=unet, or "
        "take search=custom with settings of model=unet", id="search-of-another-model"),
    pytest.param(
        ["-m", "search=custom", "hydra.sweeper.params.seed=choice(1,2)"],
        "hydra.sweeper.params.seed=choice(1,2) is given as the setting itself: 'seed=choice(1,2)'",
        id="params-one-by-one"),
    pytest.param(
        ["-m", "search=custom", "seed=choice(1,2)", f"hydra.sweeper.study_name={'x' * 300}"],
        "hydra.sweeper.study_name must have at most 200 characters, but got 300", id="long-study-name"),
    pytest.param(["-m", "seed=1,2", "tracking.run_id=x"], "tracking.run_id must be null in a grid", id="id-in-a-grid"),
    pytest.param(
        ["-m", "search=custom", "seed=choice(1,2)", "tracking.run_id=x"], "tracking.run_id must be null in a search",
        id="id-in-a-search"),
    pytest.param(["-m", "--cfg", "job"], "only one of these flags can be given, but got --multirun", id="flags"),
    pytest.param(["--config-dir", "nowhere"], "--config-dir must be a folder, but there is none at /", id="config-dir"),
    pytest.param(["resume="], "resume must be a run's folder or id, but got ''", id="resume-nothing"),
    pytest.param(["resume.run=''"], "resume must be a run's folder or id, but got ''", id="resume-quoted-nothing"),
    pytest.param(["resume=/o'brien/run"], f"resume {FOLDER}, but got \"/o'brien/run\"", id="quote"),
    pytest.param(["resume=/a,b (1)/{c}=d/é"], f"resume {FOLDER}, but got '/a,b (1)/{{c}}=d/é'", id="path"),
    pytest.param(["tracking.uri=file:"], "tracking.uri must be like http://127.0.0.1:5000 or sqlite:////", id="file"),
    pytest.param(["tracking.uri=file:///a/b"], "tracking.uri must be like http://127.0.0.1:5000 or", id="file-path"),
    pytest.param(["tracking.uri=ftp://bob:SECRET@a"], "tracking.uri must be like http", id="unknown-scheme"),
    pytest.param(["tracking.dir=a%b"], "tracking.dir must be a folder without '%' in its whole path", id="percent"),
    pytest.param([f"tracking.dir={'x' * 300}"], "tracking.dir must be a folder whose name has at most 255", id="long"),
    pytest.param([f"tracking.dir={'x/' * 2500}"], "tracking.dir must be a folder whose name has at most", id="deep"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_cannot_work_is_one_line_and_exit_2_and_leaves_nothing(in_process, here, arguments, message):
    status, out, err = in_process(train, *arguments)
    assert (status, err.count("\n")) == (2, 1), err
    assert re.fullmatch(r"((model=|resume=|several trainings: ).*\n)?", out), "nothing but what was to be trained"
    assert err.startswith(f"error: {message}"), err
    assert "SECRET" not in out + err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("command", [evaluate, diagnose])
@pytest.mark.parametrize("run", ["a,b/run", "/o'brien/run", "/a (1)/{b}", "/é/=", "/a b", "~/c"])
def test_a_runs_folder_is_named_by_what_it_is_called(in_process, command, run):
    status, _, err = in_process(command, f"run={run}")
    assert (status, err.count("\n")) == (2, 1), err
    assert err == f"error: run must be a run's folder (with a config.yaml), its id, latest or best, but got {run!r}\n"


@pytest.mark.parametrize(
    "argument",
    ["tracking.run_name=李明", "tracking.dir=~/runs", "tracking.run_name=a=b", "data.path=/a/epoch=3.ckpt",
     "data.path=/a b/(c)", "hydra.sweeper.study_name=my study/é", "data.path=it's", 'data.path=a"b', "noise.std=(1)",
     "data.path=a:b}"],
)  # fmt: skip
def test_an_argument_that_cannot_be_read_is_printed_as_one_that_can(argument):
    """The correction is a word for a shell, and is read as the text that was meant."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    with pytest.raises(ConfigError, match=re.escape(repr(argument))) as refused:
        check_readable([argument])
    (corrected,) = shlex.split(str(refused.value).partition("quote the value for Hydra, ")[2])
    assert OverridesParser.create().parse_override(corrected).value() == argument.partition("=")[2]


def test_of_several_values_those_are_quoted_that_need_it():
    with pytest.raises(ConfigError, match=re.escape("""'tracking.run_name="é",b,"c=d"'""")):
        check_readable(["tracking.run_name=é,b,c=d"], multirun=True)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("trainer.epochs", "a setting is given as key=value, for example trainer.epochs=5"),
        ("=3", "'' is not the name of a setting"),
        ("a b=3", "'a b' is not the name of a setting"),
        ("input=[4, 3", "it begins with '[' and must end with ']'"),
        ("args={a: 1", "it begins with '{' and must end with '}'"),
    ],
)
def test_what_no_quotes_can_mend_is_named_with_the_rule(argument, message):
    with pytest.raises(ConfigError) as refused:
        check_readable([argument])
    assert str(refused.value).startswith(f"{argument!r} cannot be read: {message}")


def test_the_text_of_an_environment_variable_is_to_be_decoded(in_process, monkeypatch):
    monkeypatch.setenv("SEED", "7")
    status, _, err = in_process(train, "seed=${oc.env:SEED}")
    assert status == 2
    (corrected,) = shlex.split(err.partition("turns it into a value: ")[2])
    assert corrected == 'seed="${oc.decode:${oc.env:SEED}}"'
    status, out, err = in_process(train, corrected, "--cfg", "job", "--resolve")
    assert (status, err) == (0, "")
    assert "\nseed: 7\n" in out


@pytest.mark.parametrize(
    "arguments",
    [["tracking.tags={note: x}"], ["tracking.tags.note=x"], ["+tracking.tags.note=x"], ["++tracking.tags={note: x}"]],
)
def test_a_tag_is_given_as_any_other_setting(in_process, arguments):
    status, out, err = in_process(train, *arguments, "--cfg", "job")
    assert (status, err) == (0, "")
    assert "  tags:\n    note: x\n" in out


@pytest.mark.parametrize(
    "conditions",
    [
        "{optimizer.lr: {optimizer=sgd: tag(log,interval(0.1,1))}}",
        "{optimizer.lr: {'optimizer=sgd': 'tag(log,interval(0.1,1))'}}",
        r"{optimizer.lr: {optimizer\=sgd: 'tag(log,interval(0.1,1))'}}",
    ],
)
def test_a_search_takes_its_parameters_and_conditions_as_mappings(in_process, conditions):
    given = ["hydra.sweeper.params={seed: choice(1,2)}", f"hydra.sweeper.conditions={conditions}"]
    status, out, err = in_process(train, "search=custom", *given, "--cfg", "hydra")
    assert (status, err) == (0, "")
    wanted = "params:\n  seed: choice(1,2)\nconditions:\n  optimizer.lr:\n    optimizer=sgd: tag(log,interval(0.1,1))\n"
    assert textwrap.indent(wanted, "    ") in out


def test_a_grid_of_all_choices_of_a_group_is_checked_point_by_point(in_process):
    """Glob is of Hydra's grammar, and asks the loader for the choices."""
    status, _, err = in_process(train, "-m", "model=glob(*)", "model.kernel_size=5")
    assert status == 2
    assert err.startswith("error: model.kernel_size is not a setting of model=sequential; it has multiple, modules")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=1,2"], "a grid or a search is for the command line: python -m scratch_dl.train -m seed=1,2"),
        (["search=custom", "seed=choice(1,2)"], "python -m scratch_dl.train -m 'seed=choice(1,2)'"),
        (["search=custom"], "a grid or a search is for the command line: python -m scratch_dl.train -m search=custom"),
        (["tracking.run_name=é"], "quote the value for Hydra"),
    ],
)
def test_a_program_is_told_what_is_for_the_command_line(overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        train.train(overrides)


def test_hydras_flags_stand_before_or_after_the_settings(in_process):
    outputs = {in_process(train, *given) for given in (["--cfg", "job", "seed=3"], ["seed=3", "--cfg", "job"])}
    ((status, out, err),) = outputs
    assert (status, err) == (0, "")
    assert "\nseed: 3\n" in out


def test_other_hydra_programs_of_the_environment_keep_their_sources():
    """The checked files are this program's own, and no plugin."""
    program = (
        "from hydra._internal.sources_registry import SourcesRegistry\n"
        "from hydra.core.plugins import Plugins\n"
        "Plugins.instance()\n"
        "print(SourcesRegistry.instance().types['file'].__module__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "hydra._internal.core_plugins.file_config_source\n"


def test_a_recorded_command_is_seen_to_live(tmp_path):
    """A training that starts beside an evaluation must not close its run."""
    from scratch_dl import tracking
    from scratch_dl.tracking import tracked_run

    settings = {"tracking": {"dir": str(tmp_path), "uri": None, "experiment": "x", "run_name": None, "tags": {}}}
    with tracked_run(settings, tmp_path / "one", "evaluation"):
        assert tracking.close_orphans(tracking.open_store(tmp_path)) == ([], [])
