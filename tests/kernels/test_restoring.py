"""One call in a notebook does not change how the next one computes."""

import pytest
import torch

from scratch_dl import kernels
from scratch_dl.kernels.restoring import restored
from scratch_dl.system.errors import ConfigError
from scratch_dl.train import train


def test_threads_and_backend_are_as_before_whatever_happens_within():
    before = torch.get_num_threads(), kernels.used()

    @restored()
    def failing():
        torch.set_num_threads(before[0] + 1)
        kernels.use("reference")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert (torch.get_num_threads(), kernels.used()) == before


def test_a_training_in_a_program_leaves_both_as_they_were(tmp_path):
    before = torch.get_num_threads(), kernels.used()
    small = ["debug=fast", "verification=off", "diagnosis=off", "model.channels=[2,2,2]", "trainer.epochs=1",
             "data.crops_per_epoch=8", "data.downsample=8", "data.crop_size=16", "tracking.detail=trial"]  # fmt: skip
    here = [f"tracking.dir={tmp_path}", f"hydra.run.dir={tmp_path}/run"]
    result = train([*small, *here, f"threads={before[0] + 1}", "backend=reference"])
    assert (torch.get_num_threads(), kernels.used()) == before
    train([f"resume={result.folder}", f"tracking.dir={tmp_path}"])
    assert (torch.get_num_threads(), kernels.used()) == before
    with pytest.raises(ConfigError):
        train([*small, *here, "threads=3", "model.kernel_size=4", "model.padding=0"])
    assert (torch.get_num_threads(), kernels.used()) == before
