"""Whether two checkouts train the same weights, bit for bit: `python tests/same_weights.py OLD NEW`.

Trains paper and unet x sgd and adam x native and reference x 1 and 2 threads for two epochs in each checkout, and
compares the networks of the last checkpoints. Nothing is stored between calls, since the bits depend on the processor.
Each checkout needs its own built library (`python setup.py build_ext --inplace`), or native falls back to reference.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

SMALL = "trainer.epochs=2 data.crops_per_epoch=48 data.validation_crops=4 verification=off diagnosis=off"


def weights(checkout: Path, overrides: list[str], folder: Path) -> dict[str, torch.Tensor]:
    """Train in `folder` by the code of `checkout`, and return the network of the last checkpoint."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, "-m", "scratch_dl.train", *SMALL.split(), "trainer.test=false", *overrides]
    command += [f"tracking.dir={folder}", f"hydra.run.dir={folder}/run", "tracking.detail=trial"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "run" / "checkpoints" / "last.pt", weights_only=True)["content"]["network"]


def main() -> None:
    """Print a line for each training, and exit with 1 if two differ."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old", type=lambda text: Path(text).absolute())
    parser.add_argument("new", type=lambda text: Path(text).absolute())
    given = parser.parse_args()
    differ = 0
    choices = itertools.product(("paper", "unet"), ("sgd", "adam"), ("native", "reference"), (1, 2))
    for model, optimizer, backend, threads in choices:
        overrides = [f"model={model}", f"optimizer={optimizer}", f"backend={backend}", f"threads={threads}"]
        with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
            old, new = weights(given.old, overrides, Path(first)), weights(given.new, overrides, Path(second))
        same = old.keys() == new.keys() and all(torch.equal(old[key], new[key]) for key in old)
        differ += not same
        print(f"{'same     ' if same else 'DIFFERENT'} {' '.join(overrides)}", flush=True)
    raise SystemExit(1 if differ else 0)


if __name__ == "__main__":
    main()
