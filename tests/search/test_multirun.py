"""A grid: every point is checked before the first is trained, and its end tells of the runs of this grid alone."""

import json
import re

import pytest

from scratch_dl import train

SMALL = ("debug=fast", "threads=1", "verification=off", "diagnosis=off", "model.channels=[2,2,2]", "trainer.epochs=1",
         "trainer.test=false", "data.downsample=8", "data.crop_size=16", "data.crops_per_epoch=8",
         "data.validation_crops=2", "tracking.detail=trial")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a store whose tables are made."""
    from scratch_dl import tracking

    folder = tmp_path_factory.mktemp("grids")
    tracking.open_store(folder / "mlruns", None)
    return folder


@pytest.fixture
def grid(folder, monkeypatch, in_process):
    """Runs a grid there: its exit status, the lines of its table (words apart), and stderr."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        status, out, err = in_process(train, "-m", *SMALL, *arguments)
        lines = out.partition(" runs in ")[2].splitlines()[2:]
        return status, [line.split() for line in lines], err

    return run


@pytest.mark.parametrize(
    ("subdir", "names"),
    [
        pytest.param("${hydra.job.num}", ["0", "1"], id="numbers", marks=pytest.mark.exhaustive),
        pytest.param("a/b-${seed}/c", ["a/b-2/c", "a/b-1/c"], id="nested"),
        pytest.param("${hydra.job.override_dirname}", [None, None], id="overrides", marks=pytest.mark.exhaustive),
    ],
)
def test_the_table_has_every_run_in_order_whatever_its_folder_is_called(grid, folder, subdir, names):
    where = f"mlruns/{abs(hash(subdir))}"
    exclude = f"hydra.job.config.override_dirname.exclude_keys={[word.partition('=')[0] for word in SMALL]}".replace(
        "'", ""
    )
    status, lines, err = grid("seed=2,1", f"hydra.sweep.dir={where}", f"hydra.sweep.subdir={subdir}", exclude)
    assert (status, err) == (0, "")
    assert [line[1:3] for line in lines[:2]] == [["seed=2", "FINISHED"], ["seed=1", "FINISHED"]]
    for line, name in zip(lines, names, strict=False):
        assert name in (None, line[0])
        summary = json.loads((folder / where / line[0] / "summary.json").read_text())
        assert f"{summary['scores']['val_whole/psnr_db']:.2f}" == line[4]
    assert [line[0] for line in lines[2:4]] == ["mean", "std"]
    assert not list(folder.rglob("multirun.yaml"))  # which would keep the command line, passwords included


def test_a_failed_run_is_told_by_the_exit_status_beside_older_results(grid):
    """Those that lie in the grid's folder are not of this grid."""
    where = ("hydra.sweep.dir=mlruns/again", "hydra.sweep.subdir=run-${seed}")
    assert grid("seed=1,2", *where)[0] == 0
    status, lines, err = grid("seed=2,3", *where)
    assert status == 1
    assert [line[:3] for line in lines[:2]] == [["run-2", "seed=2", "FAILED"], ["run-3", "seed=3", "FINISHED"]]
    assert re.fullmatch(r"error: .*/run-2 already contains a run; choose another folder or resume it\n", err)


def test_runs_that_would_share_a_folder_are_refused_before_the_first(grid, folder):
    status, _, err = grid("seed=1,2", "hydra.sweep.dir=mlruns/shared", "hydra.sweep.subdir=same")
    assert status == 2
    assert err == ("error: hydra.sweep.subdir must name another folder for each run, but same is that of the runs "
                   "0 and 1; add '/${hydra.job.num}' to it\n")  # fmt: skip
    assert not (folder / "mlruns" / "shared").exists()


def test_a_folder_named_by_a_password_is_refused(grid, folder):
    """As the overrides' names would be."""
    words = ("+tracking.tags.at='http://me:s3cret@host'", "hydra.sweep.dir=mlruns/secret")
    status, _, err = grid("seed=1,2", *words, "hydra.sweep.subdir=${hydra.job.override_dirname}")
    assert status == 2
    assert err.startswith("error: hydra.sweep.subdir must have no password in it, but is ")
    assert "s3cret" not in err
    assert not (folder / "mlruns" / "secret").exists()


@pytest.mark.exhaustive
def test_a_glob_is_every_choice_of_its_group(grid):
    status, lines, err = grid("schedule=glob(*,exclude=ramp*)", "hydra.sweep.dir=mlruns/glob")
    assert (status, err) == (0, "")
    assert [line[1] for line in lines[:2]] == ["schedule=constant", "schedule=cosine"]


@pytest.mark.parametrize("word", ["optimizer.lr=interval(0,1)", "seed=range(1,4)"])
def test_what_only_a_search_can_draw_is_refused_with_the_cure(grid, word):
    status, _, err = grid(word)
    assert (status, err) == (2, f"error: {word} is for a search: add search=custom; a grid has values a,b,c\n")


def test_a_run_that_mlflow_has_not_got_is_told_by_the_exit_status(grid, monkeypatch):
    from scratch_dl.tracking import Run

    finish = Run.finish
    monkeypatch.setattr(Run, "finish", lambda *arguments: finish(*arguments) and False)
    status, lines, err = grid("seed=1,2", "hydra.sweep.dir=mlruns/untracked")
    assert status == 3
    assert [line[2] for line in lines[:2]] == ["FINISHED"] * 2
    assert err.count("MLflow has not received everything; later: python -m scratch_dl.train resume=") == 2


@pytest.mark.exhaustive
def test_runs_may_be_launched_a_few_at_once(grid):
    status, lines, err = grid("seed=1,2,3", "hydra.sweep.dir=mlruns/few", "hydra.sweeper.max_batch_size=2")
    assert (status, err) == (0, "")
    assert [line[0] for line in lines[:3]] == ["0", "1", "2"]


def test_a_glob_that_fits_nothing_is_one_line_with_the_choices(grid):
    status, _, err = grid("model=glob(zzz*)")
    assert status == 2
    assert err == "error: model=glob(zzz*) matches no choice of model; it has: paper, sequential, unet\n"
