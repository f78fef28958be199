"""`scratch-dl compare`: a page, a table, an MLflow run; and what cannot be compared."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest

from scratch_dl import __main__, compare
from scratch_dl.comparison import pictures
from scratch_dl.train import train

SMALL = ("debug=fast", "threads=1", "verification=quick", "trainer.pictures=1")
TINY = "model.channels=[4,4,4]"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with mlruns: two seeds of one network, and another learning rate, noise and name."""
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        results = [
            train([*SMALL, TINY, "hydra.run.dir=mlruns/hydra/zero"]),
            train([*SMALL, TINY, "seed=1", "hydra.run.dir=mlruns/hydra/one"]),
            train([*SMALL, TINY, "noise=poisson", "optimizer.lr=0.3", "tracking.run_name='50%_of a&b <i>'",
                   "tracking.detail=trial", "verification=off", "hydra.run.dir=mlruns/hydra/other"]),
        ]  # fmt: skip
    return folder, results


@pytest.fixture
def compared(trained, monkeypatch, in_process, tmp_path):
    """Runs the command where the runs are, with outputs elsewhere."""
    monkeypatch.chdir(trained[0])

    def run(*words):
        # Comparisons of one process in one second would share a folder.
        where = [] if any(word.startswith("format=") for word in words) else [
            f"hydra.run.dir=mlruns/comparisons/{time.monotonic_ns()}"]  # fmt: skip
        own = [] if any(word.startswith("output=") for word in words) or not where else [f"output={tmp_path}/x.html"]
        status, out, err = in_process(compare, *words, *where, *own, "threads=1")
        return status, out, err, tmp_path / "x.html"

    return run


def client():
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{Path('mlruns').absolute()}/mlflow.db")


def text_of(page):
    return re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page.read_text(), flags=re.DOTALL))


def test_the_page_has_what_differs_and_stands_on_its_own(compared, trained):
    zero, one, _ = trained[1]
    status, out, err, page = compared("mlruns/hydra/zero", one.run_id[:8], "latest")
    assert status == 0, err
    html = page.read_text()
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in re.findall(r'src="(.*?)"', html))
    assert not re.search(r"https?://|<script|<link|href=|<i>", html)
    assert re.findall(r'alt="(.*?)"', html) == [
        "PSNR on the validation crops, dB", "mean squared error on the validation crops", "validation crop 1",
        "test photograph coffee"
    ]  # fmt: skip
    rows = dict(re.findall(r"<tr>\n<td>(.*?)</td>\n(.*?)</tr>", html, re.DOTALL))
    cells = {name: re.findall(r"<td.*?>(.*?)</td>", row) for name, row in rows.items()}
    assert cells["seed"] == ["0", "1", "0"]
    assert cells["noise"] == ["Gaussian", "Gaussian", "Poisson"]
    assert cells["noise.peak"] == ["", "", "30"]
    assert not [name for name in cells if name.startswith(("tracking", "resume", "verification", "trainer", "model"))]
    assert "C: different noise from A" in text_of(page)
    assert "50%_of a&amp;b &lt;i&gt;" in html
    best = [result.scores["test/psnr_db"] for result in (zero, one)]
    assert f"{best[1]:.2f} ({best[1] - best[0]:+.2f})" in html
    assert f"{sum(best) / 2:.2f}±{abs(best[0] - best[1]) / 2**0.5:.2f}" in html
    assert max(map(len, out.split("page      ")[0].splitlines())) <= 80


def test_it_is_recorded_in_the_experiment_of_the_first_run(compared, trained):
    zero, one, _ = trained[1]
    status, out, err, page = compared("mlruns/hydra/zero", "mlruns/hydra/one")
    assert status == 0, err
    run_id = re.search(r"recorded  (\w+) \(experiment debug\)", out)[1]
    run = client().get_run(run_id)
    assert (run.info.status, run.data.tags["compares"]) == ("FINISHED", f"{zero.run_id} {one.run_id}")
    recorded = Path("mlruns/artifacts", run_id, "artifacts/compare.html")
    assert recorded.read_text() == page.read_text()


def test_each_picture_has_the_psnr_that_was_recorded(compared, trained, monkeypatch):
    """Of all eight crops and both photographs, so that their mean is the metric."""
    drawn, grid = [], pictures.grid

    def seen(heads, columns, captions, scale):
        drawn.append((heads, captions))
        return grid(heads, columns, captions, scale)

    monkeypatch.setattr(pictures, "grid", seen)
    settings = Path("mlruns/hydra/zero/config.yaml")
    before = settings.read_text()
    settings.write_text(before.replace("pictures: 1", "pictures: 8"))
    try:
        assert compared("mlruns/hydra/zero", "mlruns/hydra/one")[0] == 0
    finally:
        settings.write_text(before)
    assert all(heads[0] == "noisy" and heads[-1] == "clean" for heads, _ in drawn)
    for column, result in zip((1, 2), trained[1][:2], strict=True):
        psnr = [float(captions[column][0].removesuffix(" dB")) for _, captions in drawn]
        assert sum(psnr[:8]) / 8 == pytest.approx(result.progress.best_psnr_db, abs=0.01)
        assert sum(psnr[8:]) / 2 == pytest.approx(result.scores["test/psnr_db"], abs=0.01)
    assert drawn[-1][1][-1] == ["", "white is 0.25"]


def test_a_run_without_a_checkpoint_has_a_note_in_place_of_pictures(compared):
    shutil.copytree("mlruns/hydra/one", "mlruns/hydra/bare")
    shutil.rmtree("mlruns/hydra/bare/checkpoints")
    status, out, err, page = compared("mlruns/hydra/zero", "mlruns/hydra/bare")
    shutil.rmtree("mlruns/hydra/bare")
    assert status == 0, err
    note = "B has no pictures: there is no checkpoint "
    assert note in out
    assert note in text_of(page)
    assert 'alt="test photograph coffee"' in page.read_text()


def test_code_environment_and_data_are_named_only_where_they_differ(compared):
    shutil.copytree("mlruns/hydra/one", "mlruns/hydra/moved")
    file = Path("mlruns/hydra/moved/artifacts/environment.json")
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "cpu": "another", "packages": {**content["packages"], "torch": "9.9"}}))
    status, out, err, _ = compared("mlruns/hydra/zero", "mlruns/hydra/moved")
    shutil.rmtree("mlruns/hydra/moved")
    assert status == 0, err
    table = out.partition("Code, environment and data that differ")[2]
    assert re.search(r"torch .* 9\.9", table)
    assert "another" in table
    assert "python" not in table
    assert "digest " not in table.partition("─")[2]


def test_markdown_and_latex_are_printed_escaped_and_nothing_is_recorded(compared, trained):
    before = {path for path in trained[0].rglob("*") if "processes" not in path.parts}
    status, out, err, _ = compared("mlruns/hydra/one", "mlruns/hydra/other", "format=latex")
    assert status == 0, err
    assert r"B 50\%\_of a\&b \textless{}i\textgreater{} & " in out
    assert r"optimizer.lr & 0.004 & 0.3 \\" in out
    assert re.search(r"\(\$-\$\d|\(\+\d", out)
    status, out, err, _ = compared("mlruns/hydra/one", "mlruns/hydra/other", "format=markdown")
    assert status == 0, err
    assert r"| B 50%\_of a&b \<i\> | " in out
    assert "| optimizer.lr | 0.004 | 0.3 |" in out
    after = {path for path in trained[0].rglob("*") if "processes" not in path.parts}
    assert {path.name for path in after - before} <= {"mlflow.db-wal", "mlflow.db-shm"}


def test_output_takes_a_table_as_well(compared, tmp_path):
    status, out, err, _ = compared(
        "mlruns/hydra/one", "mlruns/hydra/other", "format=markdown", f"output={tmp_path}/new/t.md"
    )
    assert (status, out) == (0, ""), err
    assert (tmp_path / "new" / "t.md").read_text().startswith("**Scores** (")


def test_an_experiments_best_runs_are_its_sound_ones(compared, trained):
    """The third one was not verified."""
    status, out, err, _ = compared("experiment=debug", "best=5", "format=markdown")
    assert status == 0, err
    best = sorted(trained[1][:2], key=lambda result: -result.progress.best_psnr_db)
    values = re.findall(r"^\| ([A-Z]\b).*? \| ([\d.]+)", out, re.MULTILINE)
    assert values[:2] == [(mark, f"{each.progress.best_psnr_db:.2f}") for mark, each in zip("AB", best, strict=True)]
    assert values[2][0] == "A"  # the mean over both seeds
    assert len(values) == 3


def test_the_baseline_is_the_one_that_is_named(compared, trained):
    one = trained[1][1]
    status, out, err, _ = compared(
        "mlruns/hydra/zero", "mlruns/hydra/one", f"baseline={one.run_id[:6]}", "format=latex"
    )
    assert status == 0, err
    assert "the difference to B" in out
    assert re.search(rf"^B .*& {one.scores['test/psnr_db']:.2f} &", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "runs must be at least two different runs, but got none; for example: scratch-dl compare latest best"),
        (("latest",), "runs must be at least two different runs, but got 1 (other)"),
        (("latest", "mlruns/hydra/other"), "runs must be at least two different runs, but got 1 (other)"),
        (("latest", "0123456789abcdef"), "runs=0123456789abcdef is not in tracking.uri="),
        (("latest", "mlruns/nowhere"), "runs must be a run's folder (with a config.yaml), its id, latest or best"),
        (("latest", "mlruns/hydra/zero", "baseline=mlruns/hydra/one"), "baseline=mlruns/hydra/one must be one of"),
        (("latest", "mlruns/hydra/zero", "output=mlruns"), "mlruns would be overwritten; choose another file: output="),
        (("latest", "mlruns/hydra/zero", "format=pdf"), "format must be one of html, markdown, latex, but got 'pdf'"),
        (("experiment=dbug",), "experiment='dbug' is not in tracking.uri="),
        (("experiment=debug", "best=1"), "best must be >= 2, but got 1"),
        (("experiment=Default",), "experiment=Default, but none of its runs is finished, verified and without fault"),
        (("latest", "mlruns/hydra/zero", "formt=html"), "formt is not a setting; did you mean 'format'?"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_writes_nothing(compared, words, said):
    before = sorted(map(str, Path().rglob("*.html")))
    status, out, err, page = compared(*words)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {said}"), err
    assert err.count("\n") == 1
    assert not page.exists()
    assert sorted(map(str, Path().rglob("*.html"))) == before


def test_a_folder_without_a_journal_is_no_run_to_compare(compared):
    folder = Path("mlruns/hydra/evaluation")
    shutil.copytree("mlruns/hydra/one", folder)
    (folder / "journal.jsonl").unlink()
    status, _, err, _ = compared("mlruns/hydra/zero", str(folder))
    shutil.rmtree(folder)
    assert status == 2
    assert "contains no journal.jsonl: it is not the folder of a run; leave it out\n" in err


def test_without_runs_the_message_has_the_command_that_trains_one(in_process, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = in_process(compare, "latest", "best")
    assert status == 2
    assert err.startswith("error: tracking.dir=mlruns holds no runs, so there is no run 'latest'; train one: python -m")
    assert list(tmp_path.iterdir()) == []
    assert "compare" in __main__.COMMANDS
