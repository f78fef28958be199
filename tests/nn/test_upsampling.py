"""Upsampling: "same" multiplies the size exactly, and both blocks equal PyTorch's compositions."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name)
from variants import DTYPES

from scratch_dl.nn import Upsampling, UpsamplingNearest2d

MODES = ["nearest", "transposed"]


def repeat(x, factor):
    """Nearest-neighbour upsampling by PyTorch's index arithmetic, exact for whole factors."""
    return F.interpolate(x, scale_factor=tuple(float(f) for f in factor), mode="nearest")


def composition(mode, k, s, padding):
    """The block as a composition of PyTorch's operators, a function of input and parameters; k and s are pairs."""

    def nearest(x, p):
        if padding == "same":  # F.pad takes the last axis first
            sides = [side for axis in (1, 0) for side in ((k[axis] - 1) // 2, k[axis] - 1 - (k[axis] - 1) // 2)]
        else:
            sides = [padding[1], padding[1], padding[0], padding[0]]
        return F.conv2d(F.pad(repeat(x, s), sides), p["weight"], p.get("bias"))

    def transposed(x, p):
        crop, extra = padding, (0, 0)
        if padding == "same":
            crop = [max(0, -((s[axis] - k[axis]) // 2)) for axis in (0, 1)]  # max(0, ceil((k - s) / 2))
            extra = [2 * crop[axis] - (k[axis] - s[axis]) for axis in (0, 1)]
        # PyTorch refuses an output padding that is not below the stride, but this is what one means.
        sides = [-crop[1], extra[1] - crop[1], -crop[0], extra[0] - crop[0]]
        z = F.pad(F.conv_transpose2d(x, p["weight"], stride=s), sides)
        return z if p.get("bias") is None else z + p["bias"][:, None, None]

    return nearest if mode == "nearest" else transposed


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factor", [1, 2, 3, (1, 4), (3, 2)], ids=str)
def test_repeating_pixels_matches_pytorch(factor, dtype, draw, assert_matches_autograd):
    pair = factor if isinstance(factor, tuple) else (factor, factor)
    assert_matches_autograd(UpsamplingNearest2d(factor), lambda x, _: repeat(x, pair), draw(2, 3, 4, 5, dtype=dtype))


def test_the_gradient_of_a_repeated_pixel_is_the_sum_of_its_copies():
    """The course's fault F4: an average makes it s0 s1 times too small."""
    module = UpsamplingNearest2d((2, 3))
    z = module(torch.zeros(1, 1, 2, 2))
    assert torch.equal(module.backward(torch.ones_like(z)), torch.full((1, 1, 2, 2), 6.0))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("s", [1, 2, 3, 4, (2, 3), (4, 1)], ids=lambda s: f"factor-{s}")
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6, (2, 5), (6, 1)], ids=lambda k: f"kernel-{k}")
def test_same_multiplies_the_size_exactly(k, s, mode):
    module = Upsampling(1, 1, k, s, mode=mode)
    s0, s1 = s if isinstance(s, tuple) else (s, s)
    assert module.output_size((3, 5)) == (3 * s0, 5 * s1)
    z = module(torch.ones(1, 1, 3, 5))
    assert z.shape == (1, 1, 3 * s0, 5 * s1)
    assert module.backward(z).shape == (1, 1, 3, 5)


SETTINGS = [  # in, out, kernel, factor, padding
    pytest.param(2, 3, 1, 2, "same", id="pointwise"),
    pytest.param(2, 3, 3, 2, "same", id="odd-kernel"),
    pytest.param(3, 2, 4, 2, "same", id="even-kernel-fewer-outputs"),
    pytest.param(2, 3, 2, 3, "same", id="kernel-below-factor"),
    pytest.param(3, 2, 5, 3, "same", id="factor-3-fewer-outputs"),
    pytest.param(2, 3, 6, 1, "same", id="factor-1"),
    pytest.param(2, 3, (2, 5), (3, 2), "same", id="pairs"),
    pytest.param(4, 2, (5, 2), (1, 4), "same", id="pairs-fewer-outputs"),
    pytest.param(2, 3, 3, 2, 0, id="unpadded"),
    pytest.param(3, 2, 3, 2, 1, id="padding-int"),
    pytest.param(2, 3, (4, 3), (2, 3), (2, 0), id="padding-pair"),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("c", "o", "k", "s", "padding"), SETTINGS)
def test_block_and_every_gradient_match_pytorchs_composition(
    c, o, k, s, padding, mode, dtype, generator, draw, assert_matches_autograd
):
    module = Upsampling(c, o, k, s, padding, mode, generator=generator).to(dtype)
    pairs = [value if isinstance(value, tuple | str) else (value, value) for value in (k, s, padding)]
    assert_matches_autograd(module, composition(mode, *pairs), draw(2, c, 3, 4, dtype=dtype))


@pytest.mark.parametrize(("k", "s"), [(4, 2), (3, 2), (6, 2), (5, 4), (3, 3)])
def test_transposed_same_is_pytorchs_module_with_an_output_padding(k, s, generator, draw, assert_near):
    module = Upsampling(2, 3, k, s, mode="transposed", generator=generator).to(torch.float64)
    padding = max(0, (k - s + 1) // 2)
    twin = torch.nn.ConvTranspose2d(2, 3, k, s, padding, 2 * padding - (k - s)).double()
    twin.load_state_dict(module.state_dict())
    x = draw(2, 2, 3, 4)
    assert_near(module(x), twin(x))


@pytest.mark.parametrize("mode", MODES)
def test_the_block_without_a_bias_has_one_parameter(mode, generator, draw, assert_matches_autograd):
    module = Upsampling(2, 3, 3, 2, mode=mode, bias=False, generator=generator).to(torch.float64)
    assert module.bias is None
    assert [name for name, _ in module.named_parameters()] == ["weight"]
    assert_matches_autograd(module, composition(mode, (3, 3), (2, 2), "same"), draw(2, 2, 3, 4))


@pytest.mark.parametrize(("mode", "shape"), [("nearest", (3, 2, 4, 5)), ("transposed", (2, 3, 4, 5))])
def test_weight_has_the_shape_of_the_convolution_it_is(mode, shape):
    assert Upsampling(2, 3, (4, 5), mode=mode).weight.shape == shape
    assert Upsampling(2, 3, (4, 5), mode=mode).bias.shape == (3,)


@pytest.mark.parametrize("mode", MODES)
def test_zero_grad_clears_the_inner_convolution(mode, generator, draw):
    """The course's fault F5: the gradient of all past steps stays in the inner convolution."""
    module = Upsampling(2, 3, 3, mode=mode, generator=generator).to(torch.float64)
    module.backward(module(draw(2, 2, 3, 4)))
    assert module.weight.grad.any()
    assert module.bias.grad.any()
    module.zero_grad()
    assert not module.weight.grad.any()
    assert not module.bias.grad.any()


@pytest.mark.parametrize("size", [(3, 4), (1, 1), (1, 3)], ids=str)
@pytest.mark.parametrize("factor", [1, 2, (1, 2)], ids=str)
def test_the_repeated_pixels_have_memory_of_their_own(factor, size, draw):
    """A caller may reuse the input's buffer, or write into the output, without changing the other."""
    x = draw(2, 3, *size).contiguous(memory_format=torch.channels_last)
    z = UpsamplingNearest2d(factor)(x)
    kept_x, kept_z = x.clone(), z.clone()
    x.zero_()
    assert torch.equal(z, kept_z)
    x.copy_(kept_x)
    z.zero_()
    assert torch.equal(x, kept_x)


REFUSED = [
    pytest.param({"in_channels": 0}, ValueError, r"in_channels must be >= 1, but got 0", id="in-channels"),
    pytest.param(
        {"out_channels": "3"}, TypeError, r"out_channels must be an integer >= 1, but got '3'", id="out-channels"
    ),
    pytest.param({"kernel_size": 0}, ValueError, r"kernel_size must be >= 1, but got 0", id="kernel"),
    pytest.param(
        {"kernel_size": (1, 2, 3)}, ValueError, r"kernel_size must be .*pair, but got \(1, 2, 3\)", id="kernel-triple"
    ),
    pytest.param({"scale_factor": 0}, ValueError, r"scale_factor must be >= 1, but got 0", id="factor-zero"),
    pytest.param(
        {"scale_factor": 1.5}, TypeError, r"scale_factor must be an integer >= 1, but got 1\.5", id="factor-float"
    ),
    pytest.param({"padding": "valid"}, ValueError, r"padding must be .*same.*, but got 'valid'", id="padding-word"),
    pytest.param({"padding": (0, -1)}, ValueError, r"padding must be >= 0, but got -1", id="padding-negative"),
    pytest.param({"padding": None}, TypeError, r"padding must be an integer >= 0, but got None", id="padding-none"),
    pytest.param(
        {"mode": "bilinear"}, ValueError, r"mode must be one of nearest, transposed, but got 'bilinear'", id="mode"
    ),
    pytest.param({"bias": "no"}, TypeError, r"bias must be true or false, but got 'no'", id="bias"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED)
def test_a_bad_argument_is_named_with_its_value_and_the_rule(arguments, error, message):
    with pytest.raises(error, match=message):
        Upsampling(**{"in_channels": 2, "out_channels": 3, "kernel_size": 3, **arguments})


@pytest.mark.parametrize(
    ("factor", "error", "message"),
    [
        pytest.param(0, ValueError, r"scale_factor must be >= 1, but got 0", id="zero"),
        pytest.param((2, 0), ValueError, r"scale_factor must be >= 1, but got 0", id="pair-with-zero"),
        pytest.param((2, 2, 2), ValueError, r"scale_factor must be .*pair, but got \(2, 2, 2\)", id="triple"),
        pytest.param(2.0, TypeError, r"scale_factor must be an integer >= 1, but got 2\.0", id="float"),
    ],
)
def test_a_bad_factor_is_refused(factor, error, message):
    with pytest.raises(error, match=message):
        UpsamplingNearest2d(factor)


def test_a_wrong_input_or_gradient_is_refused():
    with pytest.raises(ValueError, match=r"\(n, c, h, w\), but got \(2, 3\)"):
        UpsamplingNearest2d(2)(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"\(n, 2, h, w\), but got \(1, 3, 4, 4\)"):
        Upsampling(2, 3, 3)(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"padding=\(5, 5\) leaves nothing of an input of 2x3 pixels"):
        Upsampling(1, 1, 3, padding=5, mode="transposed")(torch.zeros(1, 1, 2, 3))
    with pytest.raises(ValueError, match=r"must fit into the padded input"):
        Upsampling(1, 1, 7, padding=0)(torch.zeros(1, 1, 3, 4))
    for module in (UpsamplingNearest2d(2), Upsampling(2, 2, 3), Upsampling(2, 2, 3, mode="transposed")):
        module(torch.zeros(2, 2, 3, 4))
        with pytest.raises(ValueError, match=r"output's shape \(2, 2, 6, 8\), but got \(2, 2, 3, 4\)"):
            module.backward(torch.zeros(2, 2, 3, 4))
