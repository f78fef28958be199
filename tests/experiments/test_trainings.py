"""Many trainings in processes of their own: what is kept, what is trained again, and what has a row."""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

import _trainings
import preloaded
from _jobs import StudyError
from _trainings import Point, train_all

TINY = ("debug=fast", "verification=off", "trainer.epochs=1", "data.crops_per_epoch=16", "trainer.batch_size=8",
        "model.channels=[4,5,4]", "model.kernel_size=4", "optimizer=sgd", "tracking.detail=trial",
        "trainer.test=false")  # fmt: skip
GOOD = Point("good", TINY)
DIVERGING = Point("diverging", (*TINY, "trainer.epochs=5", "fault=sigmoid_gradient_at_upstream", "optimizer.lr=1e6"))
REFUSED = Point("refused", (*TINY, "model.upsampling=transposed", "model.padding=2"))


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A study of a training that ends well, one that does not, and one that is refused; the folder, and the lines."""
    folder, lines = tmp_path_factory.mktemp("study") / "mlruns", []
    return folder, train_all("small", [GOOD, DIVERGING, REFUSED], 1, folder, lines.append), lines


def lines_of(folder, study="small"):
    return (folder / "studies" / f"{study}.jsonl").read_bytes().splitlines()


def test_rows_come_in_the_points_order_with_history_and_progress(studied):
    folder, rows, lines = studied
    assert list(rows) == ["good", "diverging", "refused"]
    good = rows["good"]
    assert (good.status, good.reason, good.run_id) == ("FINISHED", None, good.summary["run_id"])
    assert good.folder == folder / "studies" / "small" / "good-1"
    assert [step for step, _ in good.history["train/loss"]] == [1, 2]
    assert good.seconds > 0
    assert lines[-1].startswith("small: 3 of 3, ")


def test_a_training_that_diverges_has_a_row(studied):
    diverging = studied[1]["diverging"]
    assert diverging.status == "FAILED"
    assert re.match(r"Diverged: (train|val)/loss became nan at step", diverging.reason)
    assert diverging.run_id == diverging.summary["run_id"]
    assert "val/psnr_db" in diverging.history


def test_a_refused_geometry_has_a_row_without_a_run(studied):
    refused = studied[1]["refused"]
    assert refused.status == "REFUSED"
    assert "the output must have the input's size" in refused.reason
    assert (refused.run_id, refused.history, refused.folder.exists()) == (None, {}, False)


def test_only_what_is_missing_or_different_is_trained(studied):
    folder, before, _ = studied
    train_all("small", [GOOD, DIVERGING, REFUSED], 2, folder)
    assert len(lines_of(folder)) == 3
    other = Point("good", (*TINY, "seed=7"))
    after = train_all("small", [other, DIVERGING, REFUSED, Point("more", TINY)], 2, folder)
    added = [json.loads(line)["name"] for line in lines_of(folder)[3:]]
    assert sorted(added) == ["good", "more"]
    assert after["diverging"] == before["diverging"]
    assert after["good"].folder.name == "good-2"
    assert after["good"].run_id != before["good"].run_id
    assert after["good"].overrides == other.overrides


def test_half_a_line_and_a_run_cut_off_are_trained_again(studied):
    folder = studied[0]
    line = lines_of(folder)[0]
    killed = json.dumps(json.loads(line) | {"name": "cut", "status": "KILLED"}).encode()
    (folder / "studies" / "again.jsonl").write_bytes(killed + b"\n" + line[:-20])
    rows = train_all("again", [GOOD, Point("cut", TINY)], 1, folder)
    assert [row.status for row in rows.values()] == ["FINISHED", "FINISHED"]
    assert [json.loads(each)["name"] for each in lines_of(folder, "again")] == ["cut", "good", "cut"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{}\n", "damaged at line 1"),
        (b"not JSON\n", "damaged at line 1"),
        (b'{"name": "good"}\n', "the line of 'good' is damaged"),
    ],
)
def test_a_damaged_file_is_reported_and_left_as_it_is(line, message, tmp_path):
    file = tmp_path / "studies" / "odd.jsonl"
    file.parent.mkdir()
    file.write_bytes(line)
    with pytest.raises(StudyError, match=message):
        train_all("odd", [GOOD], 1, tmp_path)
    assert file.read_bytes() == line


def test_names_are_unique_and_fit_for_folders(tmp_path):
    with pytest.raises(ValueError, match="'good' twice"):
        train_all("small", [GOOD, GOOD], 1, tmp_path)
    with pytest.raises(ValueError, match=r"but got '\.\./up'"):
        Point("../up", TINY)


SCRIPT = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(_trainings.__file__).parent)!r})
from _trainings import Point, train_all

if __name__ == "__main__":
    long = (*sys.argv[2:], "trainer.epochs=100000")
    train_all("stopped", [Point("short", tuple(sys.argv[2:])), Point("long", long)], 2, Path(sys.argv[1]))
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stop_ends_the_workers_and_leaves_the_file_good(number, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    study = tmp_path / "mlruns" / "studies"
    process = preloaded.Popen([sys.executable, script, tmp_path / "mlruns", *TINY], stderr=preloaded.PIPE)
    try:
        deadline = time.monotonic() + 60
        file, steps = study / "stopped.jsonl", study / "stopped" / "long-1" / "checkpoints"
        while not (file.is_file() and file.stat().st_size and steps.is_dir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        workers = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, number)
        process.communicate(timeout=60)
    finally:
        process.kill()
    alive = psutil.wait_procs(workers, timeout=30)[1]
    assert not alive, alive
    assert [json.loads(line)["name"] for line in lines_of(tmp_path / "mlruns", "stopped")] == ["short"]
    summary = json.loads((study / "stopped" / "long-1" / "summary.json").read_text())
    assert summary["status"] == "KILLED"
