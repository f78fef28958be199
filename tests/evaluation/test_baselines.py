"""The baselines: known values, the very pictures of the data set, and a cache that cannot spoil a score."""

import json
import os
from types import SimpleNamespace

import pytest
import torch

from scratch_dl.data import Photograph
from scratch_dl.data.metrics import psnr_db
from scratch_dl.evaluation import baselines
from scratch_dl.evaluation.baselines import BASELINES, baseline_psnr, denoise


@pytest.fixture
def data(generator):
    """Two smooth pictures with noise, as whole photographs and as crops."""
    ramp = torch.linspace(0, 1, 40).expand(2, 3, 36, 40) * torch.tensor([1.0, 0.5]).view(2, 1, 1, 1)
    noisy = ramp + 0.1 * torch.randn(ramp.shape, generator=generator)
    photographs = [Photograph(str(i), noisy[i], ramp[i]) for i in range(2)]
    return SimpleNamespace(validation=(noisy, ramp), photographs=lambda split: photographs)  # noqa: ARG005


@pytest.fixture
def calls(monkeypatch):
    """The names of the baselines computed so far."""
    names = []

    def spy(name, noisy):
        names.append(name)
        return denoise(name, noisy)

    monkeypatch.setattr(baselines, "denoise", spy)
    return names


def test_the_blur_is_the_binomial_kernel_with_its_border_repeated():
    impulse = torch.zeros(3, 4, 5)
    impulse[:, 0, 2] = 16
    expected = torch.tensor([[0, 3, 6, 3, 0], [0, 1, 2, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.float32)
    torch.testing.assert_close(denoise("blur", impulse), expected.expand(3, 4, 5))


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_keeps_shape_and_input(data, name):
    noisy = data.validation[0][0]
    before = noisy.clone()
    output = denoise(name, noisy)
    assert output.shape == noisy.shape
    assert output.dtype == torch.float32
    assert torch.equal(noisy, before)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("size", [(7, 7), (8, 300)], ids=["smallest", "oblong"])
def test_a_channel_without_any_detail_has_no_noise(generator, name, size):
    """As of a black picture, or one in which a colour is missing; no baseline warns of it or makes NaN of it."""
    picture = torch.rand(3, *size, generator=generator)
    picture[1:] = torch.tensor([0.0, 1.0]).view(2, 1, 1)
    for noisy in (picture, torch.zeros(3, *size)):
        assert torch.isfinite(denoise(name, noisy)).all()


def test_outputs_are_clamped_but_the_noisy_picture_is_not(data, tmp_path):
    noisy, clean = data.validation
    scores = baseline_psnr(data, "crops", tmp_path)
    assert scores["noisy"] == pytest.approx(psnr_db(noisy, clean), abs=1e-6)
    blurred = torch.stack([denoise("blur", image) for image in noisy])
    assert blurred.min() < 0
    assert scores["blur"] == pytest.approx(psnr_db(blurred.clamp(0, 1), clean), abs=1e-6)
    assert scores["tv"] > scores["blur"] > scores["noisy"]
    assert scores["nlm"] > scores["noisy"]


def test_the_second_time_comes_from_the_cache_and_other_pixels_do_not(data, tmp_path, calls):
    first = baseline_psnr(data, "crops", tmp_path)
    done = len(calls)
    assert baseline_psnr(data, "crops", tmp_path) == first
    assert len(calls) == done
    data.validation[0][0, 0, 0, 0] += 1
    assert baseline_psnr(data, "crops", tmp_path)["noisy"] != first["noisy"]


SPOILT = [
    pytest.param("", id="empty"),
    pytest.param('{"noisy": 2', id="cut"),
    pytest.param("[]", id="a-list"),
    pytest.param('{"noisy": 20.0}', id="a-baseline-missing"),
    pytest.param("null", id="null"),
    pytest.param(
        json.dumps(dict.fromkeys(BASELINES)), id="no-numbers",
    ),
]  # fmt: skip


@pytest.mark.parametrize("content", SPOILT)
def test_a_spoilt_cache_is_computed_again(data, tmp_path, content):
    first = baseline_psnr(data, "crops", tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    assert baseline_psnr(data, "crops", tmp_path) == first
    assert json.loads(file.read_text()) == first


def test_two_processes_may_write_the_same_scores(data, tmp_path, monkeypatch):
    """The other process writes and renames all of its own between this one's writing and renaming."""
    write = baselines.Path.write_text

    def overtaken(path, text):
        written = write(path, text)
        monkeypatch.setattr(baselines.Path, "write_text", write)
        monkeypatch.setattr(os, "getpid", lambda: 0)
        baseline_psnr(data, "crops", tmp_path)
        return written

    monkeypatch.setattr(baselines.Path, "write_text", overtaken)
    assert set(baseline_psnr(data, "crops", tmp_path)) == set(BASELINES)


def test_an_unknown_baseline_is_refused_with_the_choices(data):
    with pytest.raises(ValueError, match="noisy, blur, tv, nlm"):
        denoise("bm3d", data.validation[0][0])
