"""A picture in tiles is the picture in one piece, for every network whose reach is known."""

import pytest
import torch

from scratch_dl import nn
from scratch_dl.denoising.reach import input_span, period
from scratch_dl.denoising.tiles import Tiling, denoise_picture, tiling
from scratch_dl.models import Denoiser, paper, sequential, unet


def generator():
    return torch.Generator().manual_seed(0)


def small_paper(kernel_size, upsampling, padding="same", channels=(4, 5, 6)):
    return paper(channels, kernel_size, padding, upsampling, True, "xavier", generator=generator())


def mixed():
    """Strides and dilations of several sizes, a transposed convolution, and a skip connection around a deeper part."""
    g = generator()
    inner = nn.Sequential(nn.Conv2d(4, 5, (3, 5), stride=(1, 3), padding=(1, 1), generator=g), nn.ReLU(),
                          nn.ConvTranspose2d(5, 4, (3, 3), stride=(1, 3), padding=(1, 0), generator=g))  # fmt: skip
    return sequential({
        "conv": nn.Conv2d(3, 4, 3, stride=2, padding=2, dilation=2, generator=g),
        "skip": nn.Skip(inner, "add"), "relu": nn.ReLU(), "up": nn.UpsamplingNearest2d(2),
        "last": nn.Conv2d(4, 3, 5, padding=2, generator=g), "sigmoid": nn.Sigmoid(),
    }, multiple=12, size=(24, 24))  # fmt: skip


NETWORKS = [
    *(
        pytest.param(small_paper(k, mode), id=f"paper-{k}-{mode}")
        for k in (2, 3, 5, 6)
        for mode in ("nearest", "transposed")
    ),
    pytest.param(small_paper([6, 4, 4, 6], "transposed"), id="paper-6446"),
    pytest.param(small_paper([4, 4, 3, 5], "nearest", [1, 1, 1, 2]), id="paper-padded"),
    *(
        pytest.param(unet(4, 3, mode, True, "he", generator=generator()), id=f"unet-{mode}")
        for mode in ("nearest", "transposed")
    ),
    pytest.param(mixed(), id="mixed"),
]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("size", [(61, 83), (48, 144), (1, 37)])
def test_tiles_give_what_the_whole_picture_gives(network, size):
    picture = torch.rand(3, *size, generator=generator())
    whole = network.predict(picture[None])[0]
    for edge in (1, 17, 40):
        seen = []
        tiled = denoise_picture(network, picture, edge, on_tile=lambda *counts, seen=seen: seen.append(counts))
        assert tiled.shape == whole.shape
        assert float((tiled - whole).abs().max()) <= 1e-6, edge
        assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))
    assert len(seen) == seen[-1][1] > 1 or size[0] == 1


@pytest.mark.parametrize("network", NETWORKS)
def test_the_overlap_is_needed_and_suffices(network):
    """A pixel just inside of the reach changes the output, by central differences; none outside of it does."""
    cut = tiling(network)
    step = cut.step[0]
    first, last = input_span(network, (0, step - 1), 0)
    size, start = 24 * step, 12 * step
    picture = torch.rand(1, 3, size, 4 * cut.step[1], dtype=torch.float64, generator=generator())
    network = Denoiser(dict(network.children()), network.multiple, (24, 24)).to(dtype=torch.float64)
    changed = {}
    for row in range(max(0, start + first - 2 * step), min(size, start + last + 2 * step)):
        other = picture.clone()
        other[:, :, row] += 0.5
        difference = (network.predict(other) - network.predict(picture))[:, :, start : start + step].abs().max()
        changed[row - start] = float(difference) > 0
    touched = [row for row, is_changed in changed.items() if is_changed]
    assert first <= min(touched)
    assert max(touched) <= last
    assert min(touched) - first <= step  # a ReLU may hide the outermost pixel, but not a whole step
    assert last - max(touched) <= step
    network.to(dtype=torch.float32)


def test_the_reach_of_the_papers_network_by_hand():
    """Kernel 3, stride 2, padding 1, twice; then nearest upsampling and a convolution of kernel 3, twice."""
    network = small_paper(3, "nearest")
    assert (period(network, 0), period(network, 1)) == (4, 4)
    # Back from [0, 3]: [-1, 4] // 2 = [-1, 2]; [-2, 3] // 2 = [-1, 1]; 2 [-1, 1] + [-1, 1] = [-3, 3]; [-7, 7].
    assert input_span(network, (0, 3), 0) == (-7, 7)
    assert tiling(network) == Tiling((4, 4), (8, 8), (4, 4))


class Mean(nn.Module):
    """Looks at the whole picture."""

    def forward(self, input):
        return input - input.mean()

    def backward(self, grad_output):
        return grad_output


def test_a_module_of_ones_own_is_computed_in_one_piece():
    network = sequential({"conv": nn.Conv2d(3, 3, 3, padding=1, generator=generator()), "mean": Mean()}, 1, (16, 16))
    assert tiling(network) is None
    picture = torch.rand(3, 40, 30, generator=generator())
    seen = []
    output = denoise_picture(network, picture, 8, on_tile=lambda done, total: seen.append((done, total)))
    assert torch.equal(output, network.predict(picture[None])[0])
    assert seen == [(1, 1)]


def test_the_ensemble_is_the_mean_of_the_eight_flips_and_rotations():
    network = small_paper(3, "nearest")
    picture = torch.rand(3, 20, 33, generator=generator())
    expected = torch.zeros_like(picture)
    for quarters in range(4):
        for flipped in (False, True):
            turned = torch.rot90(picture, quarters, (1, 2))
            turned = turned.flip(2) if flipped else turned
            output = network.predict(turned[None])[0]
            output = output.flip(2) if flipped else output
            expected += torch.rot90(output, -quarters, (1, 2)) / 8
    assert float((denoise_picture(network, picture, ensemble=True) - expected).abs().max()) < 1e-6
    tiled = denoise_picture(network, picture, edge=8, ensemble=True)
    assert float((tiled - expected).abs().max()) < 1e-6


def test_a_network_keeps_its_mode():
    network = small_paper(3, "nearest")
    for training in (True, False):
        network.train(training)
        denoise_picture(network, torch.rand(3, 9, 9))
        assert network.training is training
