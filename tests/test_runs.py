"""`python -m scratch_dl.runs` on a store of runs that were never trained: what is listed, how, and in which order."""

import csv
import io
import time
from datetime import UTC, datetime

import pytest

from scratch_dl import runs
from scratch_dl.tracking import Run, open_store

FAULT = "sigmoid_gradient_at_upstream"
PSNR = 28.041234567890123


def trained(store, name, psnr, experiment="denoising", params=None, metrics=None, status="FINISHED", **tags):
    tags = {"model": "paper", "noise": "Gaussian(std=0.098)", "verification": "passed", "diagnosis": "healthy", **tags}
    run = Run.create(store, store.directory / name, experiment, name, tags)
    run.params({"trainer.epochs": 12, "parameters": 9, "fault": tags.get("fault", "none"), **(params or {})})
    run.metrics({**({} if psnr is None else {"val/psnr_db": psnr}), **(metrics or {})}, 10)
    if status is not None:
        assert run.finish(status)
    else:
        assert run.flush()
    return run.run_id


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two experiments; a verification, a study and a trial besides."""
    store = open_store(tmp_path_factory.mktemp("runs") / "mlruns")
    trained(store, "middle", 27.5, metrics={"train/loss": 0.01, "val/ssim": 0.8})
    trained(store, "Best of all", PSNR, metrics={"train/loss": 0.03})
    trained(store, "worst", 9.25, model="unet", metrics={"train/loss": 0.02})
    trained(store, "other", 20.0, "another one")
    trained(store, "trial 3", 31.0, study="geometry", trial="3")
    for name in ("verification", "study"):
        run = Run.create(store, store.directory / name, "denoising", name)
        run.params({"trainer.epochs": 12})  # a verification has all settings of a training
        run.metric("val/psnr_db", 40.0, 0)
        assert run.finish("FINISHED")
    return store


@pytest.fixture
def command(tmp_path, monkeypatch, in_process):
    """The command in an empty folder, on a terminal of 80 columns: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return lambda store, *arguments: in_process(runs, f"tracking.dir={store.directory}", *arguments)


def names(out):
    return [row["name"] for row in csv.DictReader(io.StringIO(out))]


def test_trainings_are_listed_with_the_best_first_and_nothing_else_is(store, command, tmp_path):
    status, out, err = command(store)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    shown = [name for line in lines for name in ("Best of all", "middle", "other", "worst", "evaluation", "study",
                                                 "trial 3") if f" {name} " in line]  # fmt: skip
    assert shown == ["Best of all", "middle", "other", "worst"]
    assert lines[-1] == "not listed: trials of searches (1); trials=true lists them, too"
    assert list(tmp_path.iterdir()) == []


def test_a_row_has_what_tells_runs_apart(store, command):
    _, out, _ = command(store)
    (best,) = [line for line in out.splitlines() if "Best of all" in line]
    run_id = next(row["id"] for row in csv.DictReader(io.StringIO(command(store, "format=csv")[1])))
    assert best.split() == [run_id[:8], "Best", "of", "all", "paper", "12", "28.04", "passed", "FINISHED"]
    under = out.splitlines()[out.splitlines().index(best) + 1]
    assert under.split()[:2] == ["Gaussian(std=0.098)", "healthy"]
    assert under.split()[3:] in (["s"], ["min"])


def test_the_table_fits_80_columns_with_long_names_folded_and_no_number_cut(tmp_path, command):
    store = open_store(tmp_path / "mlruns")
    name = f"fault={FAULT} paper fast epochs=1000 optimizer.lr=0.00012"
    run_id = trained(store, name, 15.612, params={"trainer.epochs": 1000}, status="FAILED", fault=FAULT,
                     noise="SaltPepper(probability=0.05)", verification="failed", diagnosis=FAULT)  # fmt: skip
    trained(store, "n" * 90, None, status=None)
    status, out, err = command(store)
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80, out
    for whole in (run_id[:8], "15.61", "1000", "FAILED", "RUNNING", "failed", "0.05)", "0.00012", "upstream"):
        assert whole in out, out
    assert sum(line.count("n" * 4) * 4 for line in out.splitlines()) > 60  # all of the name, in several lines
    head = out.partition("───")[0]
    assert head.split() == ["model", "noise", "PSNR,", "verification", "status", "id", "name", "fault", "epochs", "dB",
                            "diagnosis", "age"]  # fmt: skip


@pytest.mark.parametrize(("terminal", "widest"), [("40", 80), ("200", 200)])
def test_a_wide_terminal_is_used_and_a_narrow_one_does_not_cut(store, command, monkeypatch, terminal, widest):
    monkeypatch.setenv("COLUMNS", terminal)
    _, out, _ = command(store)
    assert max(map(len, out.splitlines())) <= widest
    assert "28.04" in out
    if terminal == "200":  # each run in one line
        assert "Gaussian(std=0.098)" in next(line for line in out.splitlines() if "Best of all" in line)


def test_a_column_that_is_empty_for_every_run_is_left_out(store, command, tmp_path):
    assert "fault" not in command(store)[1]
    bare = open_store(tmp_path / "mlruns")
    trained(bare, "bare", None, model="", noise="", verification="", diagnosis="")
    out = command(bare)[1]
    assert out.split()[:5] == ["id", "name", "epochs", "status", "age"]


def test_csv_has_whole_ids_and_numbers_and_the_time_of_the_start(store, command):
    status, out, err = command(store, "format=csv")
    assert (status, err) == (0, "")
    first = next(csv.DictReader(io.StringIO(out)))
    start = datetime.fromisoformat(first.pop("start"))
    assert abs((datetime.now(UTC) - start).total_seconds()) < 600
    assert len(first.pop("id")) == 32
    assert first == {
        "name": "Best of all", "model": "paper", "noise": "Gaussian(std=0.098)", "fault": "", "epochs": "12",
        "val/psnr_db": str(PSNR), "verification": "passed", "diagnosis": "healthy", "status": "FINISHED",
    }  # fmt: skip


def test_a_moved_store_is_reported_beside_the_csv_not_in_it(tmp_path, command):
    trained(open_store(tmp_path / "before"), "one", 20.0)
    (tmp_path / "before").rename(tmp_path / "mlruns")
    status, out, err = command(open_later(tmp_path / "mlruns"), "format=csv")
    assert (status, names(out)) == (0, ["one"])
    assert "was moved from" in err


def open_later(directory):
    """A store as far as the command needs it, which nothing has opened yet."""
    from scratch_dl.tracking import Store

    return Store(directory, f"sqlite:///{directory}/mlflow.db")


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("name", ["Best of all", "middle", "other", "worst"]),
        ("age", ["other", "worst", "Best of all", "middle"]),
        ("val/psnr_db", ["Best of all", "middle", "other", "worst"]),
        ("train/loss", ["middle", "worst", "Best of all", "other"]),  # the smallest first; who has none last
        ("val/ssim", ["middle", "other", "worst", "Best of all"]),
    ],
)
def test_runs_are_sorted_by_name_age_or_any_metric(store, command, sort, expected):
    status, out, _ = command(store, "format=csv", f"sort={sort}")
    assert (status, names(out)) == (0, expected)


def test_a_metric_that_runs_are_sorted_by_is_a_column(store, command):
    assert "0.03" in command(store, "sort=train/loss")[1]
    assert next(csv.DictReader(io.StringIO(command(store, "sort=train/loss", "format=csv")[1])))["train/loss"] == "0.01"


def test_one_experiment_is_listed_by_its_name_and_trials_on_request(store, command):
    assert names(command(store, "format=csv", "experiment=another one")[1]) == ["other"]
    assert names(command(store, "format=csv", "tracking.experiment=another one")[1]) == ["other"]
    assert names(command(store, "format=csv", "trials=true")[1])[:2] == ["trial 3", "Best of all"]


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (
            "sort=val/psnr",
            "sort must be name, age or a metric of a listed run, but got 'val/psnr'; did you mean 'val/psnr_db'?",
        ),
        ("sort=zzz", "but got 'zzz'; there are: name, age, train/loss, val/psnr_db, val/ssim"),
        ("sort=''", "sort must be a non-empty string, but got ''"),
        ("experiment=denoise", "experiment='denoise' is not in tracking.uri=sqlite:///"),
        ("experiment=denoise", "; did you mean 'denoising'?"),
        ("experiment=?", "; there are: "),
        ("format=json", "format must be one of table, csv, but got 'json'"),
        ("trials=maybe", "trials must be true or false, but got 'maybe'"),
        ("tracking.experimnt=x", "tracking.experimnt is not a setting; did you mean 'tracking.experiment'?"),
    ],
)
def test_what_cannot_be_listed_is_one_line_and_exit_2(store, command, argument, said):
    status, out, err = command(store, argument)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("error: ")
    assert said in err


def test_without_any_run_the_message_has_the_command_that_makes_one(tmp_path, command):
    status, out, err = command(open_later(tmp_path / "mlruns"))
    assert (status, out) == (2, "")
    assert err == f"error: tracking.dir={tmp_path}/mlruns holds no runs; train one: python -m scratch_dl.train\n"
    assert list(tmp_path.iterdir()) == []
    store = open_store(tmp_path / "mlruns")
    status, out, err = command(store)
    assert (status, out) == (1, "")
    assert err.endswith("mlflow.db; train one: python -m scratch_dl.train\n")
    trained(store, "trial 0", 20.0, study="geometry", trial="0")
    status, _, err = command(store)
    assert status == 1
    assert err.endswith("has only trials of searches (1); trials=true lists them\n")
    status, _, err = command(store, "experiment=Default")
    assert (status, err) == (
        1,
        "error: no network was trained in experiment='Default'; train one: python -m scratch_dl.train\n",
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (86399, "23 h"), (86400 * 5, "5 d")],
)
def test_an_age_is_given_in_its_largest_unit(seconds, text):
    assert runs.age(seconds) == text


def test_the_age_is_counted_from_now(store, command, monkeypatch):
    later = time.time() + 3 * 3600 + 60
    monkeypatch.setattr(time, "time", lambda: later)
    assert " 3 h" in command(store)[1]
