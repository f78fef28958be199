"""The global random states: decided by the words within, untouched outside."""

import random

import numpy as np
import torch

from scratch_dl.system.seeding import seeded


def draws():
    return float(torch.rand(1)), float(np.random.rand()), random.random()  # noqa: NPY002


def test_the_words_decide_and_outside_nothing_changes():
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    undisturbed = draws()
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    inside = []
    for words in ((0, "a"), (0, "a"), (0, "b"), (1, "a")):
        with seeded(*words):
            inside.append(draws())
    assert inside[0] == inside[1]
    assert all(len({drawn[i] for drawn in inside}) == 3 for i in range(3))
    assert draws() == undisturbed


def test_an_error_inside_leaves_them_as_they_were():
    before = torch.get_rng_state()
    try:
        with seeded(0):
            draws()
            raise KeyError
    except KeyError:
        pass
    assert torch.equal(torch.get_rng_state(), before)
