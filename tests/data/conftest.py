"""Data sets as conf/ describes them, with a few arguments changed."""

from pathlib import Path

import pytest
import yaml

from scratch_dl import data

CONF = Path(__file__).parents[2] / "conf" / "data"


@pytest.fixture
def build():
    """Makes the data set of conf/data/<choice>.yaml, with some arguments changed."""

    def build(choice, noise=None, **changes):
        arguments = yaml.safe_load((CONF / f"{choice}.yaml").read_text())
        kind = arguments.pop("_target_").rpartition(".")[2]
        return getattr(data, kind)(noise=noise or data.Gaussian(std=0.1), **{**arguments, **changes})

    return build
