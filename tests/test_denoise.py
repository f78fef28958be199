"""`scratch-dl denoise`: pictures in, pictures out, nothing overwritten."""

import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import preloaded
from scratch_dl import __main__, denoise
from scratch_dl.denoising.tiles import denoise_picture
from scratch_dl.train import train
from scratch_dl.training import checkpoint

SMALL = ("debug=fast", "threads=1", "verification=quick", "tracking.detail=trial")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of runs with one that was verified, and its result."""
    folder = tmp_path_factory.mktemp("denoise") / "mlruns"
    return folder, train([*SMALL, f"tracking.dir={folder}", f"hydra.run.dir={folder}/hydra/one"])


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """The current folder, with a picture in colours and a folder of two more."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more").mkdir()
    rng = np.random.default_rng(0)
    for name, shape in (("photo.png", (61, 83, 3)), ("more/a=1.png", (20, 31)), ("more/b.png", (40, 30, 4))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def run(in_process, trained):
    def denoised(*words):
        return in_process(denoise, *words, f"tracking.dir={trained[0]}", "threads=1")

    return denoised


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_picture_gets_one_beside_it_and_the_line_says_what_the_network_is_for(run, pictures, trained):
    status, out, err = run("photo.png")
    assert status == 0, err
    result = trained[1]
    first, second = out.splitlines()
    assert first == (
        f"paper of run {result.run_id}, {result.progress.best_psnr_db:.2f} dB on its validation crops, "
        "trained for Gaussian(std=0.098)"
    )
    assert second.startswith("photo.png -> photo.denoised.png (83x61, ")
    network = checkpoint.load_network(result.folder / "checkpoints" / "best.pt")
    noisy = torch.from_numpy(pixels("photo.png").transpose(2, 0, 1).astype(np.float32) / 255)
    expected = network.predict(noisy[None])[0].clamp(0, 1).mul(255).round().permute(1, 2, 0).numpy()
    assert np.abs(pixels("photo.denoised.png") - expected).max() <= 1
    assert sorted(path.name for path in pictures.iterdir()) == ["more", "photo.denoised.png", "photo.png"]


def test_nothing_is_overwritten(run, pictures):
    (pictures / "photo.denoised.png").write_text("mine")
    status, _, err = run("photo.png")
    assert status == 2
    assert err == "error: photo.denoised.png would be overwritten; choose another place: output=...\n"
    assert (pictures / "photo.denoised.png").read_text() == "mine"
    status, _, err = run("photo.png", "output=photo.png")
    assert (status, err) == (2, "error: photo.png would be overwritten; choose another place: output=...\n")


def test_a_folder_is_denoised_file_by_file_also_into_another_one(run, pictures):
    """A file's name may have an equals sign in it."""
    status, out, err = run("more")
    assert status == 0, err
    assert len(out.splitlines()) == 3
    assert sorted(path.name for path in (pictures / "more").iterdir()) == [
        "a=1.denoised.png", "a=1.png", "b.denoised.png", "b.png"
    ]  # fmt: skip
    assert pixels("more/a=1.denoised.png").shape == (20, 31)
    assert np.array_equal(pixels("more/b.denoised.png")[:, :, 3], pixels("more/b.png")[:, :, 3])
    status, out, err = run("more", "photo.png", "more/a=1.png", "output=new/one")
    assert status == 0, err
    assert sorted(path.name for path in (pictures / "new" / "one").iterdir()) == ["a=1.png", "b.png", "photo.png"]


@pytest.mark.usefixtures("pictures")
def test_ensemble_and_checkpoint_are_what_they_say(run, trained):
    status, out, err = run("photo.png", "ensemble=true", "checkpoint=last", "tile=16", f"run={trained[1].run_id[:6]}")
    assert status == 0, err
    assert out.startswith(f"paper of run {trained[1].run_id}, last checkpoint, trained for ")
    network = checkpoint.load_network(trained[1].folder / "checkpoints" / "last.pt")
    noisy = torch.from_numpy(pixels("photo.png").transpose(2, 0, 1).astype(np.float32) / 255)
    expected = denoise_picture(network, noisy, ensemble=True).clamp(0, 1).mul(255).permute(1, 2, 0).numpy()
    assert np.abs(pixels("photo.denoised.png") - expected).max() <= 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "inputs must be pictures or folders, for example scratch-dl denoise photo.png; none was given"),
        (("nothing.png",), "there is no picture nothing.png"),
        (("empty",), "the folder empty has no pictures"),
        (("photo.png", "run=worst"), "run=worst is not in tracking.uri="),
        (("photo.png", "run=models:/denoiser@champion"), "run=models:/denoiser@champion is not a registered model of"),
        (("photo.png", "tile=0"), "tile must be >= 1, but got 0"),
        (("photo.png", "max_pixels=100"), "photo.png (its 83x61 = 5063 pixels are more than max_pixels=100)"),
        (("photo.png", "output=new.txt"), "output must end with one of .png, .jpg"),
        (("more", "output=photo.png"), "output must be a folder for 2 pictures, but photo.png is a file"),
        (("more/b.png", "more/../more/b.png", "output=new"), "new/b.png would be overwritten"),
        (("photo.png", "tiel=3"), "tiel is not a setting; did you mean 'tile'?"),
    ],
)
def test_what_cannot_work_is_one_line_and_writes_nothing(run, pictures, words, said):
    (pictures / "empty").mkdir()
    before = sorted(map(str, pictures.rglob("*")))
    status, out, err = run(*words)
    assert status == 2
    assert out == ""
    assert said in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sorted(map(str, pictures.rglob("*"))) == before


def test_a_damaged_picture_is_named_and_the_others_are_denoised(run, pictures):
    """Only headers are read before; an alpha channel that the output cannot have is seen before the computing."""
    whole = (pictures / "photo.png").read_bytes()
    (pictures / "more" / "damaged.png").write_bytes(whole[: len(whole) // 2])
    status, out, err = run("more", "photo.png")
    assert status == 1
    assert err.startswith("error: more/damaged.png: image file is truncated")
    assert err.count("\n") == 1
    assert len(out.splitlines()) == 4
    assert not (pictures / "more" / "damaged.denoised.png").exists()
    status, out, err = run("more/b.png", "output=b.jpg")
    said = "error: more/b.png: a .jpg file cannot have its alpha channel; choose another suffix\n"
    assert (status, err) == (1, said)


@pytest.mark.usefixtures("pictures")
def test_without_a_network_the_message_has_the_command_that_trains_one(in_process):
    status, _, err = in_process(denoise, "photo.png")
    assert status == 2
    assert err.startswith(
        "error: tracking.dir=mlruns holds no runs, so there is no run 'best'; train one: python -m scr"
    )


@pytest.mark.usefixtures("pictures")
def test_a_network_with_a_fault_says_so(in_process, trained):
    folder = trained[0]
    train([*SMALL, f"tracking.dir={folder}", f"hydra.run.dir={folder}/hydra/faulty", "fault=conv_bias_gradient_mean"])
    status, out, err = in_process(denoise, "photo.png", f"run={folder}/hydra/faulty", "output=x.png")
    assert status == 0, err
    assert "; it was trained with fault=conv_bias_gradient_mean\nphoto.png -> x.png" in out


def test_the_script_has_the_command(trained, pictures):
    words = [sys.executable, "-m", "scratch_dl", "denoise", "photo.png", f"tracking.dir={trained[0]}"]
    done = preloaded.run(words, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert (pictures / "photo.denoised.png").is_file()
    assert "denoise" in __main__.COMMANDS
