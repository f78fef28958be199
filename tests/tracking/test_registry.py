"""The registry: a version per run, and a champion that only a better run on the same validation replaces."""

import re
import sys
from pathlib import Path

import pytest

import preloaded
from scratch_dl import register as command
from scratch_dl.tracking import SettingError, open_store
from scratch_dl.tracking.registry import register
from scratch_dl.tracking.selection import get_run, select_run
from scratch_dl.tracking.store import client
from scratch_dl.train import train

SMALL = ("debug=fast", "threads=1", "verification=quick", "model.channels=[4,4,4]")
README = (Path(__file__).parents[2] / "README.md").read_text()
(LOAD,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "load_model" in block]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A store with a weak and a better run, one with another noise, and one without a model; the folder above it."""
    folder = tmp_path_factory.mktemp("registry")
    more = {
        "weak": ("optimizer.lr=1e-6",),
        "better": ("trainer.epochs=8", "model=unet", "model.channels=4"),
        "other": ("noise.std=0.02",),
        "small": ("tracking.detail=trial",),
    }
    made = {}
    for name, overrides in more.items():
        size = SMALL[:-1] if "model=unet" in overrides else SMALL
        where = (f"tracking.dir={folder}/mlruns", f"hydra.run.dir={folder}/mlruns/hydra/{name}")
        made[name] = train([*size, *overrides, *where]).run_id
    return open_store(folder / "mlruns"), made, folder


def aliases(store):
    return client(store).get_registered_model("denoiser").aliases


def test_the_champion_is_the_best_on_the_same_validation_and_loads_in_a_fresh_process(runs):
    store, made, folder = runs
    weak, better, other = (get_run(store, made[name]) for name in ("weak", "better", "other"))
    scores = [run.data.metrics["val/best_psnr_db"] for run in (weak, better)]
    assert scores[0] < scores[1]
    assert register(store, weak) == ("1", "denoiser version 1 is the champion")
    said = f"denoiser version 2 is the new champion: {scores[1]:.2f} dB, before {scores[0]:.2f} dB"
    assert register(store, better) == ("2", said)
    kept = f"denoiser version 1 is registered; kept the champion of run {made['better']}: {scores[1]:.2f} dB, this one"
    assert register(store, weak).words == f"{kept} {scores[0]:.2f} dB"  # and its version
    assert register(store, other).words.endswith("which was validated on other data or another noise")
    assert {name: str(version) for name, version in aliases(store).items()} == {"champion": "2"}
    assert select_run(store, "models:/denoiser@champion").info.run_id == made["better"]
    assert select_run(store, "models:/denoiser/1").info.run_id == made["weak"]
    version = client(store).get_model_version("denoiser", "2")
    assert version.description.startswith("unet channels=4 fast epochs=8; **FINISHED: ")
    assert (version.tags["model"], version.tags["noise"]) == ("unet", "Gaussian(std=0.098)")
    program = f"import numpy\nimages = numpy.zeros((1, 3, 20, 30), numpy.float32)\n{LOAD}\nprint(denoised.shape)"
    done = preloaded.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout == "(1, 3, 20, 30)\n", done.stderr


def test_what_cannot_be_a_champion_is_refused(runs, in_process):
    store, made, folder = runs
    with pytest.raises(SettingError, match=r"has logged no model, as it was trained with tracking\.detail=trial"):
        register(store, get_run(store, made["small"]))
    client(store).set_tag(made["other"], "verification", "failed")
    status, _, err = in_process(command, f"run={made['other'][:8]}", f"tracking.dir={folder}/mlruns")
    assert status == 2
    assert err == f"error: run={made['other']} must be a finished, verified training without a fault\n"


def test_a_training_registers_itself_if_it_is_asked_to(runs, capsys):
    folder = runs[2]
    where = (f"tracking.dir={folder}/mlruns", f"hydra.run.dir={folder}/mlruns/hydra/own")
    train([*SMALL, *where, "tracking.register=true", "optimizer.lr=1e-5"])
    assert "is registered; kept the champion of run" in capsys.readouterr().out.splitlines()[-1]
