"""Turns the best checkpoint of a training into the weights that `scratch_dl.course` brings.

FOLDER is that of the run:

    python -m scratch_dl.train experiment=course threads=1 hydra.run.dir=FOLDER
    python docs/pretrained.py FOLDER
"""

import sys
from pathlib import Path

import torch

from scratch_dl.course.model import PRETRAINED
from scratch_dl.training import checkpoint


def write(folder: Path, path: Path = PRETRAINED) -> None:
    """Write the parameters of the best checkpoint in a run's folder, in the order of `param()`."""
    network = checkpoint.load_network(folder / "checkpoints" / checkpoint.BEST)
    torch.save([parameter.value for parameter in network.parameters()], path)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    print(f"{PRETRAINED}: {PRETRAINED.stat().st_size:,} bytes")
