"""A run's own report: what stands in it, that it needs no network, and that no run fails by it."""

import re

import pytest

from scratch_dl.train import train
from scratch_dl.training import run_report
from scratch_dl.training.loop import Training
from scratch_dl.training.run_report import last_pictures

SMALL = ("debug=fast", "threads=1", "verification=quick", "model.channels=[4,4,4]", "trainer.epochs=1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run, and the folder of runs."""
    folder = tmp_path_factory.mktemp("report") / "mlruns"
    return train([*SMALL, f"tracking.dir={folder}", f"hydra.run.dir={folder}/hydra/one"]), folder


def note_of(result, folder):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{folder}/mlflow.db").get_run(result.run_id).data.tags["mlflow.note.content"]


def test_the_report_has_result_curves_pictures_verdicts_and_commands(trained):
    result, folder = trained
    page = (result.folder / "artifacts" / "report.html").read_text()
    assert f"<strong>FINISHED: {result.scores['test/psnr_db']:.2f} dB on the test photographs</strong>" in page
    assert "<li>verification: passed</li>" in page
    assert [name for name in re.findall(r'alt="(.*?)"', page) if name] == [
        *run_report.FIGURES.values(), "samples", "val_whole_chelsea", "test_coffee", "test_rocket"
    ]  # fmt: skip
    assert "<td>conv1 (Conv2d)</td>" in page
    where = f"{result.run_id} tracking.dir={folder}"
    for command in ("train resume=", "evaluate run=", "denoise photo.png run="):
        assert f"scratch_dl.{command}{where}\n" in page.replace("scratch-dl denoise", "scratch_dl.denoise")
    assert f"python -m scratch_dl.train {' '.join(SMALL[:3])} 'model.channels=[4,4,4]'" in page


def test_the_report_needs_no_network_and_the_note_links_it(trained):
    result, folder = trained
    page = (result.folder / "artifacts" / "report.html").read_text()
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in re.findall(r'src="(.*?)"', page))
    assert not re.search(r"https?://|<script|<link|href=", page)
    address = f"#/experiments/1/runs/{result.run_id}/artifacts/report.html?workflowType=machine_learning"
    assert f"Look at: [report]({address}), [PSNR]" in note_of(result, folder)
    assert (folder / "artifacts" / result.run_id / "artifacts" / "report.html").read_text() == page


def test_a_failed_run_has_one_and_a_trial_of_a_search_has_none(tmp_path, monkeypatch):
    words = [*SMALL, f"tracking.dir={tmp_path}"]
    train([*words, "tracking.detail=trial", f"hydra.run.dir={tmp_path}/trial"])
    assert not (tmp_path / "trial" / "artifacts" / "report.html").exists()

    def fail(*_):
        raise RuntimeError("no <b>such</b> *luck*")

    monkeypatch.setattr(Training, "take_step", fail)
    with pytest.raises(RuntimeError, match="such"):
        train([*words, f"hydra.run.dir={tmp_path}/failed"])
    page = (tmp_path / "failed" / "artifacts" / "report.html").read_text()
    assert "<strong>FAILED" in page
    assert "Ended early: RuntimeError: no &lt;b&gt;such&lt;/b&gt; *luck*" in page
    assert 'alt="samples"' in page
    assert "scratch_dl.evaluate" in page  # the checkpoint of the first validation is there


def test_an_error_of_the_report_is_a_warning_and_the_run_is_finished(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise KeyError("model")

    monkeypatch.setattr(run_report, "run_report", fail)
    result = train([*SMALL, f"tracking.dir={tmp_path}", f"hydra.run.dir={tmp_path}/one"])
    assert result.status == "FINISHED"
    assert "no report.html: KeyError: 'model'" in caplog.text
    note = note_of(result, tmp_path)
    assert "[PSNR]" in note
    assert "[report]" not in note


def test_the_last_samples_come_first_then_the_whole_photographs(tmp_path):
    names = [
        "samples+step+9+timestamp+1+a",
        "samples+step+10+timestamp+2+b",
        "test_x+step+10+timestamp+3+c",
        "val_whole_y+step+10+timestamp+4+d",
        "val_whole_y+step+10+timestamp+5+e",
        "m+step+1+timestamp+1+f",
    ]
    for name in names:
        (tmp_path / f"{name}.png").touch()
        (tmp_path / f"{name}+compressed.webp").touch()
    assert {key: path.stem[-1] for key, path in last_pictures(tmp_path).items()} == {
        "samples": "b", "val_whole_y": "e", "test_x": "c"
    }  # fmt: skip
