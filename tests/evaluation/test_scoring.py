"""Scores by their definitions, on pictures of any size, without a trace in the network."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scratch_dl.data import Photograph
from scratch_dl.evaluation.scoring import check_photographs, denoise, measure, score, score_photographs
from scratch_dl.models import paper


@pytest.fixture
def network(generator):
    return paper([3, 4, 3], 4, "same", "transposed", True, "pytorch", (8, 8), generator)


def test_the_output_is_clamped_for_the_scores(generator):
    clean = torch.rand(2, 3, 8, 8, generator=generator)
    output = clean + 2
    scores = score(output, clean, {"highest": lambda output, _: output.max()})
    expected = [-10 * math.log10(float((1 - image).square().mean())) for image in clean]
    assert scores.psnr_db == pytest.approx(sum(expected) / 2, abs=1e-4)
    assert scores.psnr_pooled_db == pytest.approx(-10 * math.log10(float((1 - clean).square().mean())), abs=1e-4)
    assert scores.others == {"highest": 1.0}
    assert list(scores.named) == ["psnr_db", "psnr_pooled_db", "highest"]


def test_pictures_of_unequal_size_are_averaged_by_picture_and_pooled_by_pixel(network, generator):
    pictures = []
    for height, width in ((9, 30), (16, 11)):
        clean = torch.rand(3, height, width, generator=generator)
        pictures.append(Photograph(f"{height}", clean + 0.1, clean))
    scores, outputs = score_photographs(network, pictures, {"width": lambda output, _: output.shape[-1]})
    assert scores.others == {"width": (30 + 11) / 2}
    assert [tuple(output.shape) for output in outputs] == [(3, 9, 30), (3, 16, 11)]
    errors = [(output.clamp(0, 1) - picture.clean).square() for output, picture in zip(outputs, pictures, strict=True)]
    mean = sum(-10 * math.log10(float(error.mean())) for error in errors) / 2
    pooled = -10 * math.log10(float(torch.cat([error.flatten() for error in errors]).mean()))
    assert scores.psnr_db == pytest.approx(mean, abs=1e-4)
    assert scores.psnr_pooled_db == pytest.approx(pooled, abs=1e-4)


@pytest.mark.parametrize("size", [(9, 30), (7, 7), (16, 11)])
def test_a_network_that_predicts_at_every_size_passes(network, size):
    before = torch.get_rng_state()
    data = SimpleNamespace(photograph_sizes=lambda split: {split: size})
    check_photographs(network, data, ["validation", "test"])
    assert torch.equal(torch.get_rng_state(), before)
    assert network.training


def test_a_network_that_cannot_predict_a_photograph_is_refused_by_its_name(network):
    data = SimpleNamespace(photograph_sizes=lambda split: {f"{split}_0": (8, 8), f"{split}_1": (9, 30)})
    network.multiple = 1
    with pytest.raises(ValueError, match=r"model must predict .* for 9x30 pixels, as 'test_1' has, its output has the"):
        check_photographs(network, data, ["test"])
    network.forward = lambda images: images.view(1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"for 9x30 pixels, as 'test_1' has, it fails: shape '\[1, 3, 8, 8\]'"):
        check_photographs(network, data, ["test"])


def test_denoising_in_parts_is_denoising_at_once_and_keeps_no_cache(network, generator):
    noisy = torch.rand(70, 3, 8, 8, generator=generator)
    output = denoise(network, noisy)
    assert torch.allclose(output, network.predict(noisy), atol=1e-6)
    assert network.training
    with pytest.raises(RuntimeError, match="needs a"):
        network.backward(torch.ones_like(output))


def test_a_network_in_float64_takes_and_gives_float32(network):
    assert denoise(network.to(dtype=torch.float64), torch.rand(1, 3, 8, 8)).dtype == torch.float32


def test_a_metric_that_fails_is_nan_with_a_warning_and_the_others_are_there(generator, caplog):
    def failing(_output, _clean):
        raise ZeroDivisionError("at last")

    clean = torch.rand(2, 3, 8, 8, generator=generator)
    scores = score(clean / 2, clean, {"mine": failing, "mean": lambda output, _: output.mean()})
    assert math.isnan(scores.others["mine"])
    assert scores.others["mean"] == pytest.approx(float(clean.mean()) / 2)
    assert "no metric mine: ZeroDivisionError: at last" in caplog.text


@pytest.mark.parametrize(
    "value",
    [0.5, torch.tensor(0.5), np.float32(0.5), np.array(0.5)],
    ids=["float", "tensor", "numpy", "array"],
)
def test_a_number_is_a_number_whatever_its_kind(value):
    measured = measure("mine", lambda *_: value, torch.ones(1), torch.ones(1))
    assert (type(measured), measured) == (float, 0.5)


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, "NoneType"), ("1", "str"), ([1.0], "list"), (torch.ones(2), r"Tensor of the shape \(2,\)")],
    ids=["nothing", "text", "list", "tensor"],
)
def test_what_is_no_number_is_refused(value, kind):
    with pytest.raises(TypeError, match=f"it must return a number, but returned a {kind}"):
        measure("mine", lambda *_: value, torch.ones(1), torch.ones(1))


def test_a_metric_draws_the_same_numbers_at_each_call_and_touches_no_random_state():
    before = torch.get_rng_state()
    first, again = (measure("mine", lambda *_: torch.rand(()), torch.ones(1), torch.ones(1)) for _ in range(2))
    assert first == again
    assert torch.equal(torch.get_rng_state(), before)


def test_a_metric_that_changes_the_pictures_changes_no_other_score(generator):
    output, clean = torch.rand(2, 2, 3, 8, 8, generator=generator)
    alone, before = score(output, clean), clean.clone()

    def spoils(given, wanted):
        wanted.zero_()
        given.zero_()
        return 1.0

    spoilt = score(output, clean, {"spoils": spoils})
    assert (spoilt.psnr_db, spoilt.psnr_pooled_db) == (alone.psnr_db, alone.psnr_pooled_db)
    assert torch.equal(clean, before)
