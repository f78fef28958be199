"""The sums themselves, where no module calls them so: uneven paddings, and batches cut into parts."""

from itertools import product

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scratch_dl.kernels import reference
from scratch_dl.kernels.geometry import Geometry

GEOMETRIES = [  # size of the input, kernel, stride, padding before and after, dilation
    pytest.param((4, 5), Geometry((3, 2), (1, 1), ((1, 0), (0, 2)), (1, 1)), id="padding-on-one-side"),
    pytest.param((4, 5), Geometry((2, 3), (1, 1), ((0, 1), (2, 0)), (2, 1)), id="padding-on-the-other-side"),
    pytest.param((5, 6), Geometry((2, 2), (1, 1), ((0, -1), (1, -2)), (1, 1)), id="last-pixels-unread"),
    pytest.param((6, 6), Geometry((2, 3), (2, 1), ((1, -1), (3, 3)), (1, 1)), id="unread-and-strided"),
    pytest.param((5, 4), Geometry((2, 2), (3, 2), ((0, 2), (1, 3)), (2, 1)), id="strided-dilated"),
    pytest.param((4, 4), Geometry((2, 2), (1, 1), ((2, 1), (0, 3)), (1, 1)), id="padding-above-the-kernel"),
]


def literal(x, w, size, geometry):
    """Equations (1), (3) and (4) as loops: every product of the sums, as (output, weight, input) indices."""
    (c_out, c_in, k0, k1), (_, _, height, width) = w.shape, x.shape
    for n, o, h, v, c, i, j in product(
        range(len(x)), range(c_out), range(size[0]), range(size[1]), range(c_in), range(k0), range(k1)
    ):
        p = h * geometry.stride[0] + i * geometry.dilation[0] - geometry.padding[0][0]
        q = v * geometry.stride[1] + j * geometry.dilation[1] - geometry.padding[1][0]
        if 0 <= p < height and 0 <= q < width:
            yield (n, o, h, v), (o, c, i, j), (n, c, p, q)


def assert_same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 150, 1 << 19], ids=lambda chunk: f"parts-of-{chunk}")
@pytest.mark.parametrize(("c", "o"), [(1, 2), (2, 1)], ids=["more-outputs", "fewer-outputs"])
@pytest.mark.parametrize(("size", "geometry"), GEOMETRIES)
def test_all_sums_are_those_of_the_loops(size, geometry, c, o, chunk, generator, monkeypatch):
    monkeypatch.setattr(reference, "_CHUNK", chunk)
    x = torch.randn(5, c, *size, generator=generator, dtype=torch.float64)
    w = torch.randn(o, c, *geometry.kernel_size, generator=generator, dtype=torch.float64)
    b = torch.randn(o, generator=generator, dtype=torch.float64)
    g = torch.randn(5, o, *geometry.output_size(size), generator=generator, dtype=torch.float64)
    z, grad_w, grad_x = b[:, None, None].expand_as(g).clone(), torch.zeros_like(w), torch.zeros_like(x)
    for at_z, at_w, at_x in literal(x, w, g.shape[2:], geometry):
        z[at_z] += w[at_w] * x[at_x]  # (1)
        grad_w[at_w] += g[at_z] * x[at_x]  # (3)
        grad_x[at_x] += g[at_z] * w[at_w]  # (4)
    assert_same(reference.convolution(x, w, b, geometry), z)
    assert_same(reference.convolution(x, w, None, geometry), z - b[:, None, None])
    assert_same(reference.convolution_grad_weight(x, g, geometry), grad_w)
    assert_same(reference.convolution_grad_input(g, w, size, geometry), grad_x)
    assert_same(reference.convolution_grad_bias(g), torch.stack([g[:, channel].sum() for channel in range(o)]))


@pytest.mark.parametrize("scale", [(1, 1), (2, 1), (1, 3), (2, 3)], ids=str)
def test_repeating_and_collecting_are_those_of_the_loops(scale, generator):
    x = torch.randn(2, 3, 2, 4, generator=generator, dtype=torch.float64)
    z = reference.upsample_nearest(x, scale)
    g = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    grad = torch.zeros_like(x)
    for p, q in product(range(z.shape[2]), range(z.shape[3])):
        assert torch.equal(z[:, :, p, q], x[:, :, p // scale[0], q // scale[1]])
        grad[:, :, p // scale[0], q // scale[1]] += g[:, :, p, q]
    assert_same(reference.upsample_nearest_grad_input(g, scale), grad)


class Count(TorchDispatchMode):
    """Counts the calls of torch's operators, views among them."""

    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


def test_no_part_of_the_sums_loops_over_pixels_or_samples(generator):
    """A tenfold batch of pictures of 25 times the pixels needs no more operator calls, but for a copy or two."""
    geometry = Geometry((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    w = torch.randn(2, 2, 3, 3, generator=generator)
    calls = []
    for n, side in ((1, 4), (10, 20)):
        x = torch.randn(n, 2, side, side, generator=generator)
        with Count() as count:
            reference.convolution(x, w, None, geometry)
            reference.convolution_grad_input(x, w, (side, side), geometry)
            reference.convolution_grad_weight(x, x, geometry)
            reference.upsample_nearest_grad_input(reference.upsample_nearest(x, (2, 2)), (2, 2))
        calls.append(count.calls)
    assert calls[1] <= calls[0] + 5, f"{calls[0]} operator calls for a small batch, {calls[1]} for a large one"
