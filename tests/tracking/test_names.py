"""Keys of images: any name becomes one that MLflow takes, and each name another one."""

import os
import re

import pytest

from scratch_dl.tracking import image_key

NAMES = ["a.png", "a_.png", "a,.png", "A.png", "d/a.png", "d_a.png", "IMG (1).png", "Grün-2.png", "Gru_n-2.png", "\n",
         "%2e%2e%2fx.png", "+step+1+", "x" * 300, "x" * 301, os.fsdecode(b"\xff.png")]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_key_has_only_what_mlflow_takes_and_is_short(name):
    assert re.fullmatch(r"[A-Za-z0-9_.\- ]{1,100}", image_key(name))


def test_no_two_names_share_a_key_and_plain_ones_are_their_own():
    assert len({image_key(name) for name in NAMES}) == len(NAMES)
    assert image_key("val_whole_chelsea") == "val_whole_chelsea"
