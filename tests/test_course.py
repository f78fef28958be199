"""What the course's test program does with a student's project, done with `scratch_dl.course` in the project's place.

The course's data are not here; pictures of this package with noise of the same kind stand in for them.
"""

import importlib
import sys
from pathlib import Path

import pytest
import torch
import yaml

from scratch_dl.course import Model
from scratch_dl.course.model import PRETRAINED
from scratch_dl.data import Photos, Pixelation
from scratch_dl.data.metrics import psnr_db

CONF = Path(__file__).parents[1] / "conf"
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The module `Miniproject_2.model` of a project folder, imported as the course's program does."""
    folder = tmp_path_factory.mktemp("Proj_111111_222222_333333")
    (folder / "Miniproject_2").mkdir()
    (folder / "Miniproject_2" / "__init__.py").touch()
    (folder / "Miniproject_2" / "model.py").write_text("from scratch_dl.course import *\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield importlib.import_module("Miniproject_2.model")
    for name in ("Miniproject_2.model", "Miniproject_2"):
        sys.modules.pop(name)


@pytest.fixture(scope="module")
def course_data():
    """As the two files: pairs of noisy images, and noisy images with clean ones, all (n, 3, 32, 32) uint8."""
    settings = yaml.safe_load((CONF / "data" / "photos.yaml").read_text())
    del settings["_target_"]
    photos = Photos(noise=Pixelation(), **{**settings, "downsample": 4, "validation_crops": 120})
    return [_bytes(*photos.batch(0, 640, 0)), _bytes(*photos.validation)]


def _bytes(*images):
    return tuple(each.mul(255).round().to(torch.uint8) for each in images)


def _predicted_psnr(model, noisy, clean):
    """Predicted in batches of 50, scored in [0, 1], in dB."""
    output = torch.cat([model.predict(noisy.narrow(0, first, 50)) for first in range(0, 100, 50)])
    return psnr_db(output.cpu() / 255, clean[:100].float() / 255)


def test_a_picture_of_512x512_comes_back_in_its_size_from_0_to_255(project):
    model = project.Model()
    for prepare in (lambda: None, model.load_pretrained_model):
        prepare()
        output = model.predict(torch.rand(1, 3, 512, 512) * 255)
        assert output.shape == (1, 3, 512, 512)
        assert output.min() >= 0
        assert 1 < output.max() <= 255


def test_the_pretrained_model_denoises(project, course_data):
    _, (noisy, clean) = course_data
    model = project.Model()
    model.load_pretrained_model()
    before = psnr_db(noisy[:100].float() / 255, clean[:100].float() / 255)
    assert _predicted_psnr(model, noisy, clean) > before + 1


def test_after_an_epoch_the_psnr_is_higher_than_that_of_the_noisy_images(project, course_data):
    (input, target), (noisy, clean) = course_data
    model = project.Model()
    model.load_pretrained_model()
    before = psnr_db(noisy[:100].float() / 255, clean[:100].float() / 255)
    model.train(input, target, num_epochs=1)
    assert _predicted_psnr(model, noisy, clean) > before


def test_an_epoch_raises_the_psnr_of_a_model_with_initial_weights(project, course_data):
    """The course's program only trains pretrained weights, of which an epoch may also make worse ones."""
    (input, target), (noisy, clean) = course_data
    model = project.Model()
    before = _predicted_psnr(model, noisy, clean)
    model.train(input, target, num_epochs=1)
    assert _predicted_psnr(model, noisy, clean) > before + 0.3


def test_the_blocks_match_pytorch(project, generator):
    """The convolution to float32's rounding: near 0, allclose's own 1e-8 is met only by summing in PyTorch's order."""
    x = torch.randn(1, 3, 32, 32, generator=generator)
    conv, sigmoid = project.Conv2d(3, 3, 3), project.Sigmoid()
    expected = torch.nn.functional.conv2d(x, conv.weight, conv.bias)
    assert torch.allclose(conv.forward(x), expected, atol=1e-6)
    assert torch.allclose(sigmoid.forward(x), torch.sigmoid(x))
    assert torch.allclose(project.Sequential(conv, sigmoid).forward(x), expected.sigmoid())


def test_every_name_of_the_course_is_there(project):
    names = "Conv2d TransposeConv2d NearestUpsampling Upsampling ReLU Sigmoid MSE SGD Sequential Model"
    assert not [name for name in names.split() if not hasattr(project, name)]


def test_the_weights_are_small_and_of_the_network_that_the_preset_trains(generator):
    from scratch_dl.config.build import build_network
    from scratch_dl.config.composing import compose_config
    from scratch_dl.config.plain import plain

    assert PRETRAINED.stat().st_size <= 2 * MEBIBYTE
    trained = build_network(plain(compose_config("train", ["experiment=course"])), (32, 32))
    model = Model()
    model.load_pretrained_model()
    for parameter, (value, _) in zip(trained.parameters(), model.network.param(), strict=True):
        parameter.value = value
    images = torch.rand(2, 3, 30, 41, generator=generator)
    assert torch.allclose(trained.predict(images) * 255, model.predict(images * 255), atol=0.01)


def test_the_weights_of_a_run_become_those_of_the_package(tmp_path, generator):
    import pretrained

    from scratch_dl.train import train

    small = ["trainer.epochs=1", "data.crops_per_epoch=8", "data.validation_crops=2", "trainer.test=false"]
    fast = ["verification=off", "diagnosis=off", "threads=1", "tracking.detail=trial", f"tracking.dir={tmp_path}"]
    result = train(["experiment=course", *small, *fast])
    pretrained.write(result.folder, tmp_path / "weights.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scratch_dl.course.model.PRETRAINED", tmp_path / "weights.pth")
        model = Model()
        model.load_pretrained_model()
    images = torch.rand(2, 3, 30, 41, generator=generator)
    assert torch.allclose(result.network.predict(images) * 255, model.predict(images * 255), atol=0.01)
