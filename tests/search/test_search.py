"""A search from the command to its report, on sqlite: what is drawn, said and recorded; again, longer, and refused."""

import json
import re
import shlex
import time
from pathlib import Path

import pytest
import yaml

from scratch_dl.data.photos import Photos
from scratch_dl.evaluation import scoring

RATE, KERNEL = "optimizer.lr=tag(log,interval(0.5,20.0))", "model.kernel_size=interval(2,5)"
SPACE = (RATE, KERNEL)
LINE = re.compile(
    r" *(\d+) of (\d+) trained +#(\d+) (\w+) +(-?[\d.]+) \(best (-?[\d.]+)\) (.+): lr=(\S+) kernel_size=(\d+)"
)


@pytest.fixture(scope="module")
def looked():
    """Which pictures are asked for: (split, while what was going on)."""
    return []


@pytest.fixture(scope="module")
def searched(place, search, looked):
    """A search of four trials with all that belongs to it: its place and what the command said."""
    here = place()

    def watch(patch):
        photographs, scored = Photos.photographs, scoring.evaluate_photographs

        def looking(self, split):
            looked.append(split)
            return photographs(self, split)

        def score(data, network, split, *others):
            looked.append(f"{split} scored")
            return scored(data, network, split, *others)

        patch.setattr(Photos, "photographs", looking)
        patch.setattr(scoring, "evaluate_photographs", score)

    done = search(here, *SPACE, "diagnosis=default", "hydra.sweeper.n_trials=4", pictures=True, prepare=watch)
    assert done.returncode == 0, done.stderr
    return here, done


def test_a_search_ends_well_with_its_trials_complete(searched):
    here, done = searched
    assert done.stderr == ""
    assert here.states() == ["complete"] * 4
    assert [trial.state.name for trial in here.trials()] == ["COMPLETE"] * 4
    assert [trial.value for trial in here.trials()] == [max(here.history(number)) for number in range(4)]


def test_whole_bounds_give_whole_numbers_in_each_runs_configuration(searched):
    here = searched[0]
    drawn = []
    for number, trial in enumerate(here.trials()):
        model = yaml.safe_load((Path(here.results()[number]["folder"]) / "config.yaml").read_text())["model"]
        assert type(model["kernel_size"]) is int
        assert model["kernel_size"] == trial.params["model.kernel_size"]
        drawn.append(model["kernel_size"])
        assert here.runs()[1][number].data.params["model.kernel_size"] == str(model["kernel_size"])
    assert set(drawn) <= {2, 3, 4, 5}
    assert len(set(drawn)) > 1


def test_a_line_a_trial_is_printed_and_fits_what_is_recorded(searched):
    here, done = searched
    lines = [match for line in done.stdout.splitlines() if (match := LINE.fullmatch(line))]
    assert len(lines) == 4, done.stdout
    values = [trial.value for trial in here.trials()]
    for number, (match, trial) in enumerate(zip(lines, here.trials(), strict=True)):
        assert match.group(1, 2, 3, 4) == (str(number + 1), "4", str(number), "complete")
        assert match[5] == f"{trial.value:#.4g}"
        assert match[6] == f"{max(values[: number + 1]):#.4g}"
        assert float(match[8]) == pytest.approx(trial.params["optimizer.lr"], rel=5e-3)
        assert int(match[9]) == trial.params["model.kernel_size"]


def test_the_printed_end_fits_the_report(searched):
    here, done = searched
    best = here.study().best_trial
    report = (here.folder / "sweeps" / "custom" / "report.md").read_text()
    for text in (done.stdout, report):
        assert f"{best.value:#.4g}" in text
        commands = [
            line.strip() for line in text.splitlines() if line.strip().startswith("python -m scratch_dl.train ")
        ]
        assert len(commands) == 2, text
    assert f"trial {best.number} again, at full length:" in done.stdout
    assert re.search(rf"Trial \[?{best.number}\b.*{best.value:#.4g}", report)
    psnr = here.runs()[0].data.metrics["test/psnr_db"]
    assert re.search(rf"test PSNR, dB: .*\b{psnr:.2f}\b.*\bblur \d\d\.\d\d", done.stdout), done.stdout
    assert "| blur |" in report
    assert f"report: {here.folder}/sweeps/custom/report.html" in done.stdout


def test_mlflow_has_one_run_of_the_study_with_its_tags(searched):
    here = searched[0]
    parent, _ = here.runs()
    best = here.study().best_trial
    tags = parent.data.tags
    assert parent.info.status == "FINISHED"
    assert parent.info.end_time
    assert tags["study"] == "custom"
    assert tags["storage"] == f"sqlite:///{here.folder}/optuna.db"
    assert re.fullmatch(r"[0-9a-f]{12}", tags["space"])
    assert tags["best.trial"] == str(best.number)
    assert float(tags["best.value"]) == best.value
    assert float(tags["best.optimizer.lr"]) == best.params["optimizer.lr"]
    assert int(tags["best.model.kernel_size"]) == best.params["model.kernel_size"]
    assert tags["trials.complete"] == "4"
    assert f"{best.value:#.4g}" in tags["mlflow.note.content"]
    assert parent.data.params["space.model.kernel_size"] == "interval(2,5)"


def test_mlflow_has_a_nested_run_a_trial_with_its_number_state_and_verdicts(searched):
    here = searched[0]
    parent, nested = here.runs()
    assert sorted(nested) == [0, 1, 2, 3]
    for number, run in nested.items():
        tags, result = run.data.tags, here.results()[number]
        assert run.info.status == "FINISHED"
        assert run.info.run_id == result["run_id"]
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert tags["trial.state"] == "complete"
        assert float(tags["trial.value"]) == pytest.approx(here.trials()[number].value, rel=1e-5)
        assert run.data.metrics["objective"] == here.trials()[number].value
        assert tags["verification"] == "off"
        assert result["cause"]
        assert result["cause"] in " ".join(value for key, value in tags.items() if key.startswith("diagnosis"))
        assert f"/runs/{run.info.run_id}" in parent.data.tags["mlflow.note.content"]
    values = here.client().get_metric_history(parent.info.run_id, "trial/val/psnr_db")
    assert {point.step: point.value for point in values} == {n: trial.value for n, trial in enumerate(here.trials())}


def test_mlflow_has_the_reports_and_the_pictures(searched):
    here = searched[0]
    parent, _ = here.runs()
    names = {item.path for item in here.client().list_artifacts(parent.info.run_id)}
    wanted = {"report.md", "report.html", "trials.csv", "history.png", "parallel.png", "slice.png"}
    assert wanted <= names
    assert not [name for name in names if name.startswith("importance_")]  # four trials would only say what chance did
    report = (here.folder / "sweeps" / "custom" / "report.md").read_text()
    assert report.count("Not drawn: needs 10 complete trials at least, but there are 4.") == 2
    assert names == {path.name for path in (here.folder / "sweeps" / "custom").iterdir()}


def test_nothing_but_the_winners_last_evaluation_asks_for_the_test_photographs(searched, looked):
    """The baselines of the test photographs come with it, from the cache."""
    assert set(looked) == {"validation", "validation scored", "test", "test scored"}
    first = looked.index("test scored")
    assert looked.count("validation scored") == looked[:first].count("validation scored") == 4
    assert "test" not in looked[:first]
    assert looked.count("test scored") == 1
    parent, nested = searched[0].runs()
    assert "test/psnr_db" in parent.data.metrics
    for run in nested.values():
        assert not any(key.startswith("test/") for key in run.data.metrics)


def retrain(stdout, what):
    lines = stdout.splitlines()
    (place,) = [n for n, line in enumerate(lines) if what in line]
    return shlex.split(lines[place + 1])[3:]


def test_the_printed_command_gives_the_trials_value_bit_for_bit(searched, place, in_process):
    from scratch_dl import train
    from scratch_dl.tracking import Journal

    here, done = searched
    other = place().folder
    words = retrain(done.stdout, "at the trial's length, which gives its value bit for bit")
    status, _, error = in_process(train, *words, f"tracking.dir={other}")
    assert status == 0, error
    (folder,) = other.glob("hydra/*/*")
    best = here.study().best_trial
    assert [value for _, value in Journal(folder).history()["val/psnr_db"]] == here.history(best.number)
    assert json.loads((folder / "summary.json").read_text())["status"] == "FINISHED"


def test_the_command_at_full_length_leaves_only_the_length_to_the_presets(searched):
    """Of which debug=fast is none: full is the length of a training without it."""
    from scratch_dl.config.composing import compose_config

    here, done = searched
    config = compose_config("train", retrain(done.stdout, "at full length"))
    preset = compose_config("train", ["experiment=paper_sgd"])
    best = here.study().best_trial
    assert (config.trainer.epochs, config.trainer.patience) == (preset.trainer.epochs, preset.trainer.patience)
    assert config.data.crops_per_epoch == preset.data.crops_per_epoch > 80
    assert config.model.kernel_size == best.params["model.kernel_size"]
    assert config.optimizer.lr == best.params["optimizer.lr"]
    assert (config.data.downsample, list(config.model.channels)) == (4, [4, 4, 4])
    assert config.verification.enabled


@pytest.mark.exhaustive
def test_a_fresh_study_of_the_same_seed_has_the_same_parameters_and_values(searched, place, search):
    here = searched[0]
    other = place()
    done = search(other, *SPACE, "hydra.sweeper.study_name=other", "hydra.sweeper.n_trials=4")
    assert done.returncode == 0, done.stderr
    same = [(trial.params, trial.values) for trial in here.trials()]
    assert [(trial.params, trial.values) for trial in other.trials("other")] == same


def bytes_of(here):
    """Of every file that holds something of a trial: Optuna's and the runs' own."""
    return {path: path.stat().st_mtime_ns for path in here.folder.rglob("hydra/*/*/*/**/*") if path.is_file()}


def test_the_same_command_again_trains_nothing(searched, search):
    here, done = searched
    before, files = here.trials(), bytes_of(here)
    assert files
    again = search(here, *SPACE, "hydra.sweeper.n_trials=4", prepare=forbid_training)
    assert again.returncode == 0, again.stderr
    assert [(trial.number, trial.params, trial.values) for trial in here.trials()] == [
        (trial.number, trial.params, trial.values) for trial in before
    ]
    assert bytes_of(here) == files
    assert "goes on after 4 draws" in again.stdout
    assert not any(LINE.fullmatch(line) for line in again.stdout.splitlines())
    table = done.stdout[done.stdout.index("the best of 4 complete trials") : done.stdout.index("report: ")]
    assert table in again.stdout
    parent, nested = here.runs()
    assert parent.info.status == "FINISHED"
    assert len(nested) == 4


def forbid_training(patch):
    from scratch_dl.training.loop import Training

    def fit(_):
        raise AssertionError("something is trained")

    patch.setattr(Training, "fit", fit)


def test_another_objective_of_a_study_is_refused_and_nothing_is_lost(searched, search):
    """What else may not change: see test_study.py."""
    here = searched[0]
    arguments = (*SPACE, "hydra.sweeper.objective=val/loss", "hydra.sweeper.direction=minimize")
    before, parent = [trial.__dict__ for trial in here.trials()], here.runs()[0]
    done = search(here, *arguments, "hydra.sweeper.n_trials=9", prepare=forbid_training)
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("error: the study custom in sqlite:///"), done.stderr
    assert "objective was best val/psnr_db, is best val/loss; direction was maximize, is minimize" in done.stderr
    assert "choose another hydra.sweeper.study_name" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [trial.__dict__ for trial in here.trials()] == before
    after = here.runs()[0]
    assert (after.info.status, after.data.tags) == (parent.info.status, parent.data.tags)


def test_a_larger_total_goes_on_to_it(searched, search):
    """The last test of this study, which is longer afterwards."""
    here = searched[0]
    before = [(trial.params, trial.values) for trial in here.trials()]
    done = search(here, *SPACE, "hydra.sweeper.n_trials=5")
    assert done.returncode == 0, done.stderr
    assert [(trial.params, trial.values) for trial in here.trials()][:4] == before
    assert here.states() == ["complete"] * 5
    assert sum(LINE.fullmatch(line) is not None for line in done.stdout.splitlines()) == 1
    parent, nested = here.runs()
    assert (parent.info.status, sorted(nested)) == ("FINISHED", [0, 1, 2, 3, 4])
    assert parent.data.tags["best.trial"] == str(here.study().best_trial.number)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "error: a search needs something to search: give a key choice(2,3,4)"),
        ((RATE, "trainer.test=true"), "error: trainer.test must be false in a search"),
        (("optimizer.lrr=1,2",), "error: optimizer.lrr is not a setting here; did you mean 'optimizer.lr'?"),
        (("optimizer.lr=interval(2,1)",), "error: optimizer.lr must have an interval with "),
        ((RATE, "hydra.sweeper.n_trials=0"), "error: hydra.sweeper.n_trials must be >= 1, but got 0"),
        ((RATE, "hydra.sweeper.sampler=tpee"), "error: hydra.sweeper.sampler must be one of tpe, "),
        ((RATE, "hydra.sweeper.objective=val/psnr"), "error: hydra.sweeper.objective must be one of val/psnr_db"),
        ((RATE, "hydra.sweeper.objective=test/psnr_db"), "error: hydra.sweeper.objective must not be of the test"),
        (
            (RATE, "hydra.sweeper.sampler=grid"),
            "error: hydra.sweeper.sampler=grid takes choices and ranges, but optimizer.lr is",
        ),
        ((RATE, "model.kernel_size=4", "model.padding=0"), "error: model: the output must have the input's size"),
        (
            (
                RATE,
                "hydra.sweeper.sampler={name: tpe, multivariate: false}",
                "hydra.sweeper.conditions={optimizer.momentum: {optimizer=sgd: 'interval(0.0,0.9)'}}",
            ),
            "error: hydra.sweeper.sampler.multivariate must be true, or group false, where a setting depends on",
        ),
        (
            ("model.kernel_size=shuffle(2,3)",),
            "error: model.kernel_size: a search draws in its own order, so leave ",
        ),
        (("+model.foo=choice(1,2)",), "error: model.foo is not a setting; there are: channels, kernel_size, "),
        (
            ("optimizer=adam,sgd", "optimizer.betas=[0.5,0.9]"),
            "error: optimizer.betas=[0.5,0.9] is for optimizer=adam, and optimizer=sgd has no betas: leave it out, or ",
        ),
        (
            ("model=glob(*)", "model.kernel_size=choice(3,4)"),
            "error: model.kernel_size is for model=paper,unet, and model=sequential has no kernel_size: ",
        ),
        (("model.channels=glob(*)",), "error: model.channels must be a group with choices like glob(*), but there are"),
        (
            ("+tracking.tags.x=choice('http://u:secret@h',b)",),
            "error: tracking.tags.x cannot be searched, as a study keeps its choices, passwords included",
        ),
    ],
)
def test_what_is_no_search_is_refused_before_anything_is_written(tmp_path, search, arguments, message):
    from types import SimpleNamespace

    arguments = ["-m", "search=custom", "debug=fast", f"tracking.dir={tmp_path}/mlruns", *arguments]
    started = time.monotonic()
    done = search(SimpleNamespace(arguments=lambda: arguments))
    assert done.returncode == 2
    assert done.stderr.startswith(message), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert list(tmp_path.iterdir()) == []
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("values", ["interval(0.1,1.0)", "tag(log,interval(0.1,1.0))", "range(1,3)"])
@pytest.mark.parametrize("flags", [["-m"], []], ids=["grid", "single"])
def test_an_interval_without_a_search_says_what_to_add(tmp_path, search, flags, values):
    from types import SimpleNamespace

    arguments = [*flags, "debug=fast", f"tracking.dir={tmp_path}/mlruns", f"optimizer.lr={values}"]
    done = search(SimpleNamespace(arguments=lambda: arguments))
    assert done.returncode == 2
    assert "search=custom" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_each_point_is_composed_once(place, search):
    """To be checked and to be trained."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    composed, load = [], ConfigLoaderImpl.load_sweep_config

    def counting(self, whole, overrides):
        composed.extend(word for word in overrides if word.startswith("hydra.sweeper.trial="))
        return load(self, whole, overrides)

    done = search(
        place(), RATE, "hydra.sweeper.n_trials=2", "trainer.epochs=1",
        prepare=lambda patch: patch.setattr(ConfigLoaderImpl, "load_sweep_config", counting),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert composed == ["hydra.sweeper.trial=0", "hydra.sweeper.trial=1"]


def test_several_searches_at_once_are_refused(tmp_path, search):
    from types import SimpleNamespace

    arguments = ["-m", "search=custom,geometry", f"tracking.dir={tmp_path}/mlruns"]
    done = search(SimpleNamespace(arguments=lambda: arguments))
    message = "error: search must be one choice, but got search=custom,geometry; start each search by itself\n"
    assert (done.returncode, done.stderr) == (2, message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.exhaustive
def test_a_condition_as_a_refusal_shows_it_is_taken(place, search, tmp_path):
    """A fixed momentum of SGD alone, where the optimizer is drawn."""
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [custom, _self_]\n"
        "hydra: {sweeper: {conditions: {optimizer.momentum: {optimizer=sgd: choice(0.5)}}}}\n"
    )
    here = place()
    words = (f"--config-dir={tmp_path}", "search=mine", "optimizer=choice(sgd,adam)", "hydra.sweeper.sampler=grid")
    done = search(here, *words, "hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stderr
    params = [trial.params for trial in here.trials("mine")]
    assert params == [{"optimizer": "sgd", "optimizer.momentum[optimizer=sgd]": 0.5}, {"optimizer": "adam"}]


@pytest.mark.exhaustive
def test_every_way_to_name_a_setting_reaches_mlflow(place, search):
    """The choices of a group by a pattern, and a key that is to be there or not."""
    here = place()
    done = search(here, "schedule=glob(c*)", "++seed=choice(1,2)", "hydra.sweeper.n_trials=2")
    assert (done.returncode, done.stderr) == (0, "")
    parent, nested = here.runs()
    space = {key: value for key, value in parent.data.params.items() if key.startswith("space.")}
    assert space == {"space.schedule": "choice(constant,cosine)", "space.seed": "choice(1,2)"}
    for number, run in nested.items():
        assert int(run.data.params["seed"]) == here.trials()[number].params["seed"]


@pytest.mark.exhaustive
def test_what_hangs_on_a_condition_is_drawn_where_it_holds(place, search):
    """Momentum for SGD alone, and the learning rate's decades by optimizer, in the trials' own configurations."""
    here = place()
    sampler = ("hydra.sweeper.sampler=random", "hydra.sweeper.seed=3", "hydra.sweeper.n_trials=5")
    done = search(here, "search=optimisation", "tracking.experiment=custom", *sampler)
    assert done.returncode == 0, done.stderr
    assert here.numbers("complete", "failed", name="optimisation") == list(range(5))
    seen = set()
    for trial, result in zip(here.trials("optimisation"), here.results("optimisation"), strict=True):
        optimizer = yaml.safe_load((Path(result["folder"]) / "config.yaml").read_text())["optimizer"]
        name = trial.params["optimizer"]
        seen.add(name)
        assert optimizer["lr"] == trial.params[f"optimizer.lr[optimizer={name}]"]
        assert [key for key in trial.params if key.startswith("optimizer.lr[")] == [f"optimizer.lr[optimizer={name}]"]
        if name == "sgd":
            assert optimizer["momentum"] == trial.params["optimizer.momentum[optimizer=sgd]"]
            assert 0.02 <= optimizer["lr"] <= 20
        else:
            assert "momentum" not in optimizer
            assert not any("momentum" in key for key in trial.params)
            assert 0.0001 <= optimizer["lr"] <= 0.03
    assert {"sgd", "adam"} <= seen
    assert here.runs("optimisation")[0].data.tags["trials.complete"] >= "1"


@pytest.mark.exhaustive
def test_a_study_whose_run_was_deleted_goes_on_in_a_new_one(place, search):
    here = place()
    assert search(here, RATE, "hydra.sweeper.n_trials=1").returncode == 0
    parent, nested = here.runs()
    for run in (parent, *nested.values()):
        here.client().delete_run(run.info.run_id)
    again = search(here, RATE, "hydra.sweeper.n_trials=2")
    assert again.returncode == 0, again.stderr
    fresh, nested = here.runs()
    assert (fresh.info.status, sorted(nested)) == ("FINISHED", [1])
    assert fresh.info.run_id != parent.info.run_id
