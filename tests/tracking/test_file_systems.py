"""Real file systems: one that fills up in mid-run, one without hard links, one that is read-only; a closed terminal."""

import contextlib
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time

import pytest

import preloaded
from scratch_dl.training import checkpoint

TINY = ("model.channels=[8,8,8]", "data.downsample=4", "data.crop_size=16", "data.crops_per_epoch=64",
        "data.validation_crops=4", "trainer.batch_size=4", "trainer.test=false", "verification=off", "diagnosis=off",
        "threads=1")  # fmt: skip


def train(folder, *arguments):
    words = [sys.executable, "-m", "scratch_dl.train", *arguments]
    return preloaded.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def begin(folder, *arguments):
    words = [sys.executable, "-m", "scratch_dl.train", *TINY, *arguments]
    return preloaded.Popen(words, cwd=folder, stdout=preloaded.PIPE, stderr=preloaded.PIPE, text=True)


def wait_for(path, process):
    end = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def digest(home):
    return checkpoint.digest(checkpoint.load(home / "checkpoints" / "last.pt")["network"])


@pytest.mark.exhaustive
def test_a_full_disk_names_the_path_and_the_command_that_goes_on_to_the_same_bits(mounted, tmp_path):
    folder, home = mounted("tmpfs", "12m"), "mlruns/hydra/one"
    with begin(folder, "trainer.epochs=40", f"hydra.run.dir={home}") as process:
        wait_for(folder / home / "checkpoints" / "previous.pt", process)
        with (folder / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while process.poll() is None:
                ballast.write(b"\0" * 4096)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    error = said.strip().splitlines()[-1]
    assert error.startswith(f"error: {folder}/mlruns/"), said
    assert "No space left on device; free some space, then python -m scratch_dl.train resume=" in error
    (folder / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=60m", str(folder)], check=True)
    command = shlex.split(error.partition(", then ")[2])
    assert command[:3] == ["python", "-m", "scratch_dl.train"]
    done = train(folder, *command[3:])
    assert done.returncode == 0, done.stderr
    undisturbed = train(tmp_path, *TINY, "trainer.epochs=40", f"hydra.run.dir={home}")
    assert undisturbed.returncode == 0
    assert digest(folder / home) == digest(tmp_path / home)


def test_a_file_system_without_hard_links_keeps_two_checkpoints(mounted):
    folder = mounted("exfat", "64m")
    (folder / "file").touch()
    with pytest.raises(PermissionError):
        (folder / "link").hardlink_to(folder / "file")
    for step in (16, 32, 48):
        checkpoint.save_last(folder, {"step": step})
    assert [checkpoint.load(folder / name)["step"] for name in ("previous.pt", "last.pt")] == [32, 48]
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.exhaustive
def test_a_read_only_folder_can_be_looked_at_and_a_training_in_it_is_one_line(mounted):
    folder = mounted("tmpfs", "60m")
    assert train(folder, *TINY, "trainer.epochs=1", "hydra.run.dir=mlruns/hydra/one").returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    run_id = json.loads((folder / "mlruns" / "hydra" / "one" / "summary.json").read_text())["run_id"]
    words = [sys.executable, "-m", "scratch_dl.diagnose", f"run={run_id}"]
    looked_at = preloaded.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert (looked_at.stderr, "diagnosis" in looked_at.stdout) == ("", True)
    for arguments in (TINY, ("resume=mlruns/hydra/one", "trainer.epochs=2", "resume.allow=[trainer.epochs]")):
        done = train(folder, *arguments)
        assert done.returncode != 0
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        assert str(folder) in line
        assert "Read-only file system; make the file system writable, then run the same command again" in line


def test_a_closed_terminal_leaves_a_checkpoint_and_a_killed_run(tmp_path):
    """The kernel itself sends the signal, and every further word to the terminal is an error."""
    home = tmp_path / "mlruns" / "hydra" / "one"
    terminal, other = pty.openpty()
    program = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\nfrom scratch_dl import train; train.main()"
    words = [sys.executable, "-c", program, *TINY, "trainer.epochs=1000", f"hydra.run.dir={home}"]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), other)
    process = preloaded.Popen(words, cwd=tmp_path, start_new_session=True, **streams)
    os.close(other)
    end = time.monotonic() + 60
    os.set_blocking(terminal, False)
    while not (home / "checkpoints" / "previous.pt").exists():
        assert time.monotonic() < end
        try:
            os.read(terminal, 4096)
        except BlockingIOError:
            time.sleep(0.02)
    os.close(terminal)
    assert process.wait(60) == 128 + signal.SIGHUP
    assert '"status": "KILLED"' in (home / "summary.json").read_text()
    assert checkpoint.load_last(home / "checkpoints")["progress"]["step"] > 0


@pytest.mark.exhaustive
def test_a_pipe_whose_reader_has_ended_stops_no_training(tmp_path):
    """As of `python -m scratch_dl.train | head -1`."""
    with begin(tmp_path, "trainer.epochs=3", "hydra.run.dir=mlruns/hydra/one") as process:
        assert process.stdout.readline().startswith("model=")
        process.stdout.close()
        process.stdout = None
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
    assert '"status": "FINISHED"' in (tmp_path / "mlruns" / "hydra" / "one" / "summary.json").read_text()


@pytest.mark.exhaustive
def test_a_command_whose_output_was_closed_before_its_start_goes_on(tmp_path):
    words = shlex.join([sys.executable, "-m", "scratch_dl.train", *TINY, "trainer.epochs=1"])
    done = subprocess.run(
        ["bash", "-c", f"exec {words} >&-"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
