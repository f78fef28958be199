"""What an output has become: each class, on both sides of what divides it from its neighbour."""

import pytest
import torch

from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config
from scratch_dl.data import metrics
from scratch_dl.diagnosis.output_class import CLASSES, FLAT, NEAR, NEAR_HALF, NEAR_INPUT, classify
from scratch_dl.evaluation import baselines

E = 1e-3
SHAPE = (4, 3, 16, 12)


@pytest.fixture
def pictures(generator):
    """(noisy, clean, noise): clean ones vary by 0.2 around 0.4, the noise by 0.1."""
    clean = 0.4 + 0.2 * torch.randn(SHAPE, generator=generator)
    noise = 0.1 * torch.randn(SHAPE, generator=generator)
    return clean + noise, clean, noise


def constant(level):
    return torch.full(SHAPE, level)


def rms(tensor):
    return float(tensor.double().square().mean().sqrt())


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (0.0, "zeros"), (NEAR - E, "zeros"), (NEAR + E, "mean"),
        (1.0, "ones"), (1 - NEAR + E, "ones"), (1 - NEAR - E, "mean"),
        (0.5, "half"), (0.5 - NEAR_HALF + E, "half"), (0.5 - NEAR_HALF - E, "mean"),
        (0.5 + NEAR_HALF - E, "half"), (0.5 + NEAR_HALF + E, "mean"),
    ],
)  # fmt: skip
def test_a_constant_output_is_named_by_its_level(pictures, level, name):
    """Within the distances to 0, to 1 and to 0.5."""
    noisy, clean, _ = pictures
    assert classify(constant(level), noisy, clean, 20.0) == name


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_number_that_is_not_finite_is_enough(pictures, bad):
    """Whatever the rest is."""
    noisy, clean, _ = pictures
    output = clean.clone()
    output[0, 0, 0, 0] = bad
    assert classify(output, noisy, clean, 20.0) == "not_finite"


def test_an_output_is_flat_if_it_varies_less_than_a_part_of_what_the_clean_images_do(pictures):
    """Around each channel's own mean."""
    noisy, clean, _ = pictures
    means = clean.mean(dim=(2, 3), keepdim=True)
    assert classify(means + (FLAT - E) * (clean - means), noisy, clean, 20.0) == "mean"
    assert classify(means + (FLAT + E) * (clean - means), noisy, clean, 20.0) == "worse_than_blur"


def test_flat_clean_images_have_no_flat_outputs(pictures):
    """A flat output has lost nothing of them."""
    _, _, noise = pictures
    clean = constant(0.3)
    assert classify(clean, clean + noise, clean, 20.0) == "better_than_blur"


def test_an_output_is_the_input_if_it_is_nearer_to_it_than_a_part_of_the_noise(pictures):
    """On both sides; the other side is judged by the blur."""
    noisy, clean, noise = pictures
    assert classify(noisy, noisy, clean, 20.0) == "input"
    assert classify(noisy - (NEAR_INPUT - E) * noise, noisy, clean, 20.0) == "input"
    assert classify(noisy - (NEAR_INPUT + E) * noise, noisy, clean, 0.0) == "better_than_blur"


@pytest.mark.parametrize(("margin", "name"), [(-1e-6, "better_than_blur"), (1e-6, "worse_than_blur")])
def test_what_has_not_collapsed_is_worse_or_better_than_a_blur(pictures, margin, name):
    """By the PSNR of the clamped output; as good as a blur is not better."""
    noisy, clean, noise = pictures
    output = clean - 0.6 * noise
    blur = metrics.psnr_db(output.clamp(0, 1), clean)
    assert classify(output, noisy, clean, blur + margin) == name
    assert classify(output, noisy, clean, blur) == "worse_than_blur"


def test_every_class_can_be_reached(pictures):
    """Those that are listed, and no other one."""
    noisy, clean, noise = pictures
    outputs = [constant(float("nan")), constant(0.0), constant(1.0), constant(0.5), constant(0.3), noisy]
    named = [classify(output, noisy, clean, 20.0) for output in outputs]
    named += [classify(clean - 0.6 * noise, noisy, clean, blur) for blur in (99.0, 0.0)]
    assert tuple(named) == CLASSES


def test_signatures_of_a_collapsed_network_on_real_pictures():
    """The seven of the fault catalogue, on noisy photographs, in the order of their PSNR there.

    There, on 11 pairs: ones 3.5, zeros 7.8, half 11.7, mean 14.5, noisy 22.0, box blur 24.2, Gaussian blur 25.3 dB.
    """
    config = compose_config("train", ["debug=fast", "data.validation_crops=16"])
    data = build(config).data
    noisy, clean = data.validation
    blur = torch.stack([baselines.denoise("blur", picture) for picture in noisy])
    wide = torch.nn.functional.avg_pool2d(noisy, 9, 1, 4, count_include_pad=False)
    outputs = {
        "ones": torch.ones_like(clean),
        "zeros": torch.zeros_like(clean),
        "half": torch.full_like(clean, 0.5),
        "mean": clean.mean(dim=(2, 3), keepdim=True).expand_as(clean),
        "input": noisy,
        "worse_than_blur": wide,
        "better_than_blur": blur,
    }
    psnr = {name: metrics.psnr_db(output.clamp(0, 1), clean) for name, output in outputs.items()}
    between = (psnr["worse_than_blur"] + psnr["better_than_blur"]) / 2
    assert psnr["zeros"] < psnr["half"] < psnr["mean"] < psnr["input"] < psnr["better_than_blur"], psnr
    assert psnr["ones"] < psnr["half"], psnr
    for name, output in outputs.items():
        assert classify(output, noisy, clean, between) == name, f"{name} at {psnr[name]:.1f} dB"
