"""The photographs: what is refused before anything is read, and that every draw is a function of its seed."""

import json
import random

import numpy as np
import pytest
import torch

from scratch_dl.data import Gaussian, Pixelation, Poisson, Recorded, SaltPepper, pictures

REFUSED = [
    pytest.param({"train": ["astronaut", "chelsea"]}, "validation must share no .*'chelsea'", id="in-two-splits"),
    pytest.param({"train": ["cofee"]}, "did you mean 'coffee'", id="unknown-name"),
    pytest.param({"test": []}, "test must be a list", id="empty-split"),
    pytest.param({"test": "rocket"}, "test must be a list", id="a-word-for-a-list"),
    pytest.param({"target": "noisy"}, "target must be one of noise2noise, clean", id="target"),
    pytest.param({"crop_size": 0}, "crop_size must be >= 1", id="crop-0"),
    pytest.param({"crop_size": [8, 8, 8]}, r"\(h, w\) pair", id="crop-of-three"),
    pytest.param({"downsample": 0}, "downsample must be >= 1", id="downsample-0"),
    pytest.param({"crops_per_epoch": 0}, "crops_per_epoch must be >= 1", id="no-crops"),
    pytest.param({"validation_crops": 0}, "validation_crops must be >= 1", id="no-validation"),
    pytest.param({"seed": -1}, "seed must be >= 0", id="seed"),
    pytest.param({"noise": Pixelation(), "downsample": 1}, "downsample must be >= 2 for noise=pixelation", id="pixels"),
    pytest.param({"noise": Recorded()}, "noise=recorded", id="recorded"),
]
NOISES = [Gaussian(std=0.1), Pixelation(), Poisson(peak=30), SaltPepper(probability=0.1)]
SMALL = {"validation_crops": 4}


@pytest.fixture
def opened(monkeypatch):
    """The names of the photographs read so far."""
    names, read_all = [], pictures.read_all

    def spy(paths, *settings):
        names.extend(paths)
        return read_all(paths, *settings)

    monkeypatch.setattr(pictures, "read_all", spy)
    return names


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_a_bad_argument_is_refused_before_a_photograph_is_read(build, opened, changes, message):
    with pytest.raises(ValueError, match=message):
        build("photos", **changes)
    assert opened == []


def test_making_a_data_set_reads_nothing_and_only_the_test_split_reads_test(build, opened):
    data = build("photos", **SMALL)
    data.sizes, data.licence, data.steps_per_epoch(8)
    assert opened == []
    data.batch(0, 4, seed=0)
    data.validation, data.photographs("validation"), json.dumps(data.describe())
    assert sorted(opened) == ["astronaut", "chelsea", "china", "flower"]
    assert [photograph.name for photograph in data.photographs("test")] == ["coffee", "rocket"]


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_a_batch_is_a_function_of_seed_and_step_alone(build, noise):
    one, other = (build("photos", noise, **SMALL) for _ in range(2))
    for step in range(3):
        one.batch(step, 4, seed=5)
    for a, b in zip(one.batch(7, 4, seed=5), other.batch(7, 4, seed=5), strict=True):
        assert a.dtype == torch.float32
        assert a.shape == (4, 3, 32, 32)
        assert torch.equal(a, b)
    assert not torch.equal(one.batch(7, 4, seed=5)[0], one.batch(8, 4, seed=5)[0])
    assert not torch.equal(one.batch(7, 4, seed=5)[0], one.batch(7, 4, seed=6)[0])


def test_evaluation_is_fixed_by_the_data_seed(build):
    first, again, other = (build("photos", seed=seed, **SMALL) for seed in (1, 1, 2))
    assert torch.equal(first.validation[0], again.validation[0])
    assert not torch.equal(first.validation[0], other.validation[0])
    assert torch.equal(first.photographs("validation")[0].noisy, again.photographs("validation")[0].noisy)
    assert torch.equal(first.photographs("validation")[0].clean, other.photographs("validation")[0].clean)


def test_noise2noise_draws_twice_and_clean_gives_the_picture(build):
    noisy = build("photos", Gaussian(std=0.1), **SMALL)
    clean = build("photos", Gaussian(std=0.1), target="clean", **SMALL)
    (input, second), (same, picture) = (data.batch(3, 8, seed=0) for data in (noisy, clean))
    assert torch.equal(input, same)
    errors = torch.stack([(input - picture).flatten(), (second - picture).flatten()])
    assert torch.corrcoef(errors)[0, 1].abs() < 0.03
    torch.testing.assert_close(errors.std(dim=1), torch.full((2,), 0.1), atol=0.003, rtol=0)


DIGESTS = [
    pytest.param({"noise": Gaussian(std=0.2)}, True, id="noise"),
    pytest.param({"seed": 1}, True, id="seed"),
    pytest.param({"crop_size": 16}, True, id="crop_size"),
    pytest.param({"downsample": 3}, True, id="downsample"),
    pytest.param({"validation_crops": 5}, True, id="validation_crops"),
    pytest.param({"test": ["rocket"]}, True, id="test-names"),
    pytest.param({"target": "clean"}, False, id="target"),
    pytest.param({"augment": False}, False, id="augment"),
    pytest.param({"crops_per_epoch": 8}, False, id="crops_per_epoch"),
]


@pytest.mark.parametrize(("changes", "differs"), DIGESTS)
def test_the_digest_follows_what_evaluation_sees(build, changes, differs):
    few = {"train": ["flower"], **SMALL}
    assert (build("photos", **few).digest != build("photos", **{**few, **changes}).digest) is differs


def test_a_batch_larger_than_an_epoch_names_both_numbers(build):
    data = build("photos", crops_per_epoch=10)
    assert data.steps_per_epoch(4) == 2
    with pytest.raises(ValueError, match=r"trainer.batch_size must be <= .*= 10, but got 11"):
        data.steps_per_epoch(11)


def test_authors_of_cc_by_photographs_are_named(build):
    sources = str(build("photos").describe()["sources"])
    assert "danielbuechele" in sources
    assert "vultilion" in sources


def test_global_random_states_are_left_alone(build):
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    data = build("photos", **SMALL)
    data.batch(0, 4, seed=0), data.validation, data.photographs("validation"), data.photographs("test")
    after = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert repr(before[1]) == repr(after[1])
    assert before[2] == after[2]
