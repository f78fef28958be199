"""Convolution and its transpose: against PyTorch's autograd, and against literals of the paper's equations."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name)
from variants import DTYPES

from scratch_dl.nn import Conv2d, ConvTranspose2d

# (in, out, settings, size of the input): each row is a way to get the sums wrong. At stride 1 the sums change roles
# with the side that has the fewer channels, so that geometries come with more outputs and with fewer.
CONVOLUTIONS = [
    pytest.param(2, 3, {"kernel_size": 1}, (5, 4), id="pointwise"),
    pytest.param(1, 1, {"kernel_size": 3}, (5, 4), id="one-channel"),
    pytest.param(2, 3, {"kernel_size": 3, "padding": 1}, (5, 7), id="padded-oblong"),
    pytest.param(4, 2, {"kernel_size": 3, "padding": 1}, (5, 7), id="fewer-outputs"),
    pytest.param(4, 2, {"kernel_size": (2, 3)}, (5, 7), id="fewer-outputs-unpadded"),
    pytest.param(2, 3, {"kernel_size": (2, 3), "dilation": (2, 1)}, (7, 8), id="oblong-dilated"),
    pytest.param(
        4, 2, {"kernel_size": (2, 4), "dilation": (3, 1), "padding": (1, 2)}, (7, 8), id="fewer-outputs-dilated"
    ),
    pytest.param(2, 3, {"kernel_size": (3, 2), "padding": (0, 1)}, (6, 5), id="padding-pair"),
    pytest.param(2, 3, {"kernel_size": 3, "stride": 2, "padding": 1}, (6, 7), id="stride-leaves-a-rest"),
    pytest.param(4, 2, {"kernel_size": 3, "stride": 2, "padding": 1}, (6, 7), id="fewer-outputs-strided"),
    pytest.param(2, 3, {"kernel_size": 2, "stride": 3}, (8, 9), id="stride-skips-pixels"),
    pytest.param(2, 3, {"kernel_size": 1, "stride": 2}, (5, 6), id="pointwise-strided"),
    pytest.param(2, 3, {"kernel_size": 3, "stride": (1, 3)}, (6, 8), id="stride-on-one-axis"),
    pytest.param(2, 3, {"kernel_size": 3, "stride": 2, "dilation": 2, "padding": 2}, (7, 8), id="stride-and-dilation"),
    pytest.param(
        3, 2, {"kernel_size": (3, 2), "stride": (2, 3), "padding": (2, 1), "dilation": (1, 3)}, (9, 11), id="all-pairs"
    ),
    pytest.param(2, 3, {"kernel_size": 2, "padding": 3}, (3, 4), id="padding-above-kernel"),
    pytest.param(3, 2, {"kernel_size": 2, "padding": (3, 0)}, (3, 4), id="fewer-outputs-padding-above-kernel"),
    pytest.param(2, 3, {"kernel_size": (4, 5)}, (4, 5), id="kernel-of-the-inputs-size"),
    pytest.param(2, 3, {"kernel_size": 5, "padding": 2}, (3, 2), id="kernel-above-the-input"),
    pytest.param(2, 3, {"kernel_size": 3, "padding": 1, "bias": False}, (5, 7), id="no-bias"),
    pytest.param(4, 2, {"kernel_size": 3, "padding": 1, "bias": False}, (5, 7), id="fewer-outputs-no-bias"),
]

TRANSPOSED = [
    pytest.param(2, 3, {"kernel_size": 1}, (5, 4), id="pointwise"),
    pytest.param(1, 1, {"kernel_size": 3}, (5, 4), id="one-channel"),
    pytest.param(2, 4, {"kernel_size": (2, 3)}, (5, 7), id="more-outputs"),
    pytest.param(4, 2, {"kernel_size": (2, 3)}, (5, 7), id="fewer-outputs"),
    pytest.param(2, 4, {"kernel_size": 3, "padding": 1}, (5, 7), id="more-outputs-padded"),
    pytest.param(4, 2, {"kernel_size": 3, "padding": (1, 2)}, (5, 7), id="fewer-outputs-padded"),
    pytest.param(2, 3, {"kernel_size": 4, "stride": 2, "padding": 1}, (3, 4), id="doubles"),
    pytest.param(3, 2, {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}, (3, 4), id="output-padding"),
    pytest.param(2, 3, {"kernel_size": 2, "stride": 3}, (3, 4), id="stride-leaves-gaps"),
    pytest.param(2, 3, {"kernel_size": 2, "stride": 3, "output_padding": 2}, (3, 4), id="output-padding-unreached"),
    pytest.param(
        2,
        3,
        {"kernel_size": 2, "stride": 3, "padding": 1, "output_padding": 2},
        (3, 4),
        id="output-padding-above-padding",
    ),
    pytest.param(
        2, 3, {"kernel_size": 2, "dilation": 3, "output_padding": 2}, (3, 4), id="output-padding-below-dilation"
    ),
    pytest.param(
        4,
        2,
        {"kernel_size": 2, "dilation": 3, "padding": 2, "output_padding": 2},
        (4, 3),
        id="fewer-outputs-both-paddings",
    ),
    pytest.param(2, 4, {"kernel_size": (2, 3), "dilation": (3, 2)}, (5, 4), id="dilated"),
    pytest.param(
        3,
        2,
        {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0), "output_padding": (0, 2), "dilation": (2, 1)},
        (4, 5),
        id="all-pairs",
    ),
    pytest.param(2, 3, {"kernel_size": 2, "padding": 3}, (9, 8), id="padding-above-kernel"),
    pytest.param(2, 3, {"kernel_size": 3, "stride": 2, "bias": False}, (3, 4), id="no-bias"),
]

REFUSED = [  # arguments, error, message
    pytest.param({"in_channels": 0}, ValueError, r"in_channels must be >= 1, but got 0", id="no-input-channel"),
    pytest.param({"out_channels": -1}, ValueError, r"out_channels must be >= 1, but got -1", id="negative-outputs"),
    pytest.param(
        {"in_channels": 2.0}, TypeError, r"in_channels must be an integer >= 1, but got 2\.0", id="float-channels"
    ),
    pytest.param(
        {"out_channels": True}, TypeError, r"out_channels must be an integer >= 1, but got True", id="bool-channels"
    ),
    pytest.param({"kernel_size": 0}, ValueError, r"kernel_size must be >= 1, but got 0", id="no-kernel"),
    pytest.param(
        {"kernel_size": "3"}, TypeError, r"kernel_size must be an integer >= 1, but got '3'", id="kernel-text"
    ),
    pytest.param(
        {"kernel_size": (3, 3, 3)}, ValueError, r"kernel_size must be .*pair, but got \(3, 3, 3\)", id="kernel-triple"
    ),
    pytest.param({"kernel_size": (3,)}, ValueError, r"kernel_size must be .*pair, but got \(3,\)", id="kernel-single"),
    pytest.param({"kernel_size": (3, 0)}, ValueError, r"kernel_size must be >= 1, but got 0", id="kernel-pair-zero"),
    pytest.param(
        {"kernel_size": (3, 2.5)}, TypeError, r"kernel_size must be an integer >= 1, but got 2\.5", id="kernel-half"
    ),
    pytest.param(
        {"kernel_size": None}, TypeError, r"kernel_size must be an integer >= 1, but got None", id="kernel-none"
    ),
    pytest.param({"stride": 0}, ValueError, r"stride must be >= 1, but got 0", id="stride-zero"),
    pytest.param({"stride": (1, -2)}, ValueError, r"stride must be >= 1, but got -2", id="stride-negative"),
    pytest.param({"padding": -1}, ValueError, r"padding must be >= 0, but got -1", id="padding-negative"),
    pytest.param({"padding": "same"}, TypeError, r"padding must be an integer >= 0, but got 'same'", id="padding-text"),
    pytest.param({"dilation": 0}, ValueError, r"dilation must be >= 1, but got 0", id="dilation-zero"),
    pytest.param({"bias": 1}, TypeError, r"bias must be true or false, but got 1", id="bias-number"),
    pytest.param({"bias": None}, TypeError, r"bias must be true or false, but got None", id="bias-none"),
    pytest.param(
        {"generator": 7}, TypeError, r"generator.* must be .*Generator.* got int|not int", id="generator-seed"
    ),
]

OUTPUT_PADDINGS_REFUSED = [
    pytest.param({"output_padding": -1}, r"output_padding must be >= 0, but got -1", id="negative"),
    pytest.param(
        {"output_padding": 1}, r"output_padding must be below max\(stride, dilation\) = 1, .*\(1, 1\)", id="stride-1"
    ),
    pytest.param(
        {"output_padding": (1, 2), "stride": 2},
        r"output_padding must be below .* = 2, but got \(1, 2\)",
        id="second-axis",
    ),
    pytest.param(
        {"output_padding": 3, "stride": 2, "dilation": 3}, r"output_padding must be below .* = 3", id="dilation"
    ),
]


def build(kind, c, o, settings, generator, dtype):
    return kind(c, o, generator=generator, **settings).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("c", "o", "settings", "size"), CONVOLUTIONS)
def test_convolution_and_every_gradient_match_pytorch(
    c, o, settings, size, dtype, generator, draw, assert_matches_autograd
):
    module = build(Conv2d, c, o, settings, generator, dtype)
    options = {name: settings[name] for name in ("stride", "padding", "dilation") if name in settings}
    function = lambda x, p: F.conv2d(x, p["weight"], p.get("bias"), **options)  # noqa: E731
    assert_matches_autograd(module, function, draw(3, c, *size, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("c", "o", "settings", "size"), TRANSPOSED)
def test_transposed_convolution_and_every_gradient_match_pytorch(
    c, o, settings, size, dtype, generator, draw, assert_matches_autograd
):
    module = build(ConvTranspose2d, c, o, settings, generator, dtype)
    options = {n: settings[n] for n in ("stride", "padding", "output_padding", "dilation") if n in settings}
    function = lambda x, p: F.conv_transpose2d(x, p["weight"], p.get("bias"), **options)  # noqa: E731
    assert_matches_autograd(module, function, draw(3, c, *size, dtype=dtype))


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize("settings", [{"stride": 1}, {"stride": 2}], ids=["stride-1", "stride-2"])
@pytest.mark.parametrize(("c", "o"), [(6, 9), (9, 6)], ids=["more-outputs", "fewer-outputs"])
def test_a_batch_too_large_for_one_matrix_product_matches_pytorch(
    kind, settings, c, o, generator, draw, assert_matches_autograd
):
    """The sums are computed in parts of the batch; its last part is a smaller one."""
    module = build(kind, c, o, {"kernel_size": 3, "padding": 1, **settings}, generator, torch.float64)
    function = F.conv2d if kind is Conv2d else F.conv_transpose2d
    assert_matches_autograd(
        module, lambda x, p: function(x, p["weight"], p["bias"], padding=1, **settings), draw(11, c, 31, 33)
    )


@pytest.mark.parametrize(("kind", "twin"), [(Conv2d, torch.nn.Conv2d), (ConvTranspose2d, torch.nn.ConvTranspose2d)])
def test_weights_are_named_and_shaped_as_pytorchs(kind, twin):
    ours, theirs = kind(2, 5, (3, 4)), twin(2, 5, (3, 4))
    assert {name: value.shape for name, value in ours.state_dict().items()} == {
        name: value.shape for name, value in theirs.state_dict().items()
    }
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours.weight.value, theirs.weight.detach())
    assert kind(2, 5, 3, bias=False).bias is None
    assert list(kind(2, 5, 3, bias=False).state_dict()) == ["weight"]


# The paper's equations, word for word. Sizes: (padding, stride, dilation) of both axes.

LITERALS = [
    pytest.param((2, 3, (2, 3)), (4, 5), ((0, 0), (1, 1), (1, 1)), id="plain-oblong"),
    pytest.param((3, 2, (3, 2)), (3, 4), ((1, 2), (1, 1), (1, 1)), id="padding-pair"),
    pytest.param((2, 2, (2, 3)), (5, 6), ((1, 1), (2, 3), (1, 1)), id="stride-pair"),
    pytest.param((2, 2, (2, 2)), (5, 6), ((1, 2), (1, 1), (3, 2)), id="dilation-pair"),
    pytest.param((2, 2, (3, 2)), (6, 7), ((2, 1), (3, 2), (2, 3)), id="stride-does-not-divide-dilation"),
    pytest.param((1, 2, (2, 2)), (5, 5), ((0, 0), (3, 3), (1, 1)), id="stride-skips-pixels"),
]


def equation_6(x, w, out, padding, stride, dilation):
    """Z[a,b,g,d] = sum over i, j, m of W[b,i,j,m] X[a,i,r0,r1], with m where the paper sums over l."""
    (batch, c_in, h, width), (c_out, _, k0, k1) = x.shape, w.shape
    z = torch.zeros(batch, c_out, *out, dtype=x.dtype)
    for a, b, g, d in product(range(batch), range(c_out), range(out[0]), range(out[1])):
        for i, j, m in product(range(c_in), range(k0), range(k1)):
            r0 = -padding[0] + stride[0] * g + dilation[0] * j  # (7)
            r1 = -padding[1] + stride[1] * d + dilation[1] * m  # (8)
            if 0 <= r0 < h and 0 <= r1 < width:
                z[a, b, g, d] += w[b, i, j, m] * x[a, i, r0, r1]
    return z


def equation_10(g, w, size, padding, stride, dilation):
    """dL/dX[i,j,k,l] = sum of dL/dZ[i,b,g,d] W[b,j,k',l'], where the divisions in k' and l' are exact."""
    (batch, c_out, h, width), (_, c_in, k0, k1) = g.shape, w.shape
    grad = torch.zeros(batch, c_in, *size, dtype=g.dtype)
    for i, j, k, l in product(range(batch), range(c_in), range(size[0]), range(size[1])):  # noqa: E741 (the paper's)
        for b, gamma, delta in product(range(c_out), range(h), range(width)):
            k_, rest0 = divmod(k + padding[0] - stride[0] * gamma, dilation[0])
            l_, rest1 = divmod(l + padding[1] - stride[1] * delta, dilation[1])
            if rest0 == 0 and rest1 == 0 and 0 <= k_ < k0 and 0 <= l_ < k1:
                grad[i, j, k, l] += g[i, b, gamma, delta] * w[b, j, k_, l_]
    return grad


@pytest.mark.parametrize(("kernel", "size", "lie"), LITERALS)
def test_convolution_is_equation_6_and_its_input_gradient_equation_10(kernel, size, lie, generator, draw, assert_near):
    (c, o, k), (padding, stride, dilation) = kernel, lie
    module = Conv2d(c, o, k, stride, padding, dilation, bias=False, generator=generator).to(torch.float64)
    x, w = draw(2, c, *size), module.weight.value
    z = module(x)
    assert_near(z, equation_6(x, w, z.shape[2:], padding, stride, dilation), "equation 6")
    g = draw(*z.shape)
    assert_near(module.backward(g), equation_10(g, w, size, padding, stride, dilation), "equation 10")


@pytest.mark.parametrize(("kernel", "size", "lie"), LITERALS)
def test_transposed_convolution_is_equation_10_and_its_input_gradient_equation_6(
    kernel, size, lie, generator, draw, assert_near
):
    (c, o, k), (padding, stride, dilation) = kernel, lie
    module = ConvTranspose2d(c, o, k, stride, padding, 0, dilation=dilation, bias=False, generator=generator).to(
        torch.float64
    )
    x, w = draw(2, c, *size), module.weight.value
    z = module(x)
    assert_near(z, equation_10(x, w, z.shape[2:], padding, stride, dilation), "equation 10")
    g = draw(*z.shape)
    assert_near(module.backward(g), equation_6(g, w, size, padding, stride, dilation), "equation 6")


def test_the_size_formula_is_that_of_the_output(generator):
    """The paper prints equations 4 and 5 with the 1 on the wrong side of the floor."""
    for padding, stride, dilation, k in product((0, 2), (1, 2, 3), (1, 2), (1, 2, 3)):
        module = Conv2d(1, 1, (k, 2), (stride, 1), padding, dilation, generator=generator)
        assert module.output_size((8, 9)) == tuple(module(torch.zeros(1, 1, 8, 9)).shape[2:])
        module = ConvTranspose2d(1, 1, (k, 3), (stride, 2), padding // 2, 0, dilation=dilation, generator=generator)
        assert module.output_size((5, 6)) == tuple(module(torch.zeros(1, 1, 5, 6)).shape[2:])


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED)
def test_a_bad_argument_is_named_with_its_value_and_the_rule(kind, arguments, error, message):
    with pytest.raises(error, match=message):
        kind(**{"in_channels": 2, "out_channels": 3, "kernel_size": 3, **arguments})


@pytest.mark.parametrize(("arguments", "message"), OUTPUT_PADDINGS_REFUSED)
def test_an_output_padding_that_no_input_row_can_owe_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConvTranspose2d(2, 3, 3, **arguments)


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize(
    ("input", "error", "message"),
    [
        pytest.param(torch.zeros(1, 3, 6, 6), ValueError, r"\(n, 2, h, w\), but got \(1, 3, 6, 6\)", id="channels"),
        pytest.param(torch.zeros(2, 6, 6), ValueError, r"\(n, 2, h, w\), but got \(2, 6, 6\)", id="no-batch-axis"),
        pytest.param(
            torch.zeros(1, 2, 6, 6).double(), TypeError, r"input must be torch.float32.*got torch.float64", id="dtype"
        ),
        pytest.param(
            torch.zeros(1, 2, 6, 6).int(), TypeError, r"input must be torch.float32.*got torch.int32", id="integers"
        ),
        pytest.param([[1.0]], TypeError, r"input must be a torch.Tensor, but got list", id="list"),
    ],
)
def test_a_wrong_input_is_refused_with_both_shapes(kind, input, error, message):
    with pytest.raises(error, match=message):
        kind(2, 3, 3)(input)


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        pytest.param(
            lambda z: z[:1], ValueError, r"grad_output must have the output's shape .*but got \(1, 3", id="batch"
        ),
        pytest.param(lambda z: z[..., :1], ValueError, r"grad_output must have the output's shape", id="width"),
        pytest.param(lambda z: z[:, :1], ValueError, r"grad_output must have the output's shape", id="channels"),
        pytest.param(lambda z: z.double(), TypeError, r"grad_output must be torch.float32.*torch.float64", id="dtype"),
        pytest.param(lambda z: z.tolist(), TypeError, r"grad_output must be a torch.Tensor, but got list", id="list"),
    ],
)
def test_a_wrong_upstream_gradient_is_refused_and_changes_nothing(kind, change, error, message):
    module = kind(2, 3, 3)
    z = module(torch.ones(2, 2, 6, 6))
    with pytest.raises(error, match=message):
        module.backward(change(z))
    assert all(not parameter.grad.any() for parameter in module.parameters())


def test_a_kernel_that_does_not_fit_is_refused_with_the_sizes():
    with pytest.raises(ValueError, match=r"3x3, dilation \(4, 4\).*must fit .*got 8x9 pixels"):
        Conv2d(1, 1, 3, dilation=4)(torch.zeros(1, 1, 8, 9))
    with pytest.raises(ValueError, match=r"padding=\(5, 5\) leaves nothing of an input of 2x3 pixels"):
        ConvTranspose2d(1, 1, 3, padding=5)(torch.zeros(1, 1, 2, 3))


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
def test_bias_gradients_belong_to_the_instance(kind, generator, draw):
    """The course's fault F3: a gradient written to the class reaches every instance, or none."""
    first, second = (kind(2, 3, 3, generator=generator).to(torch.float64) for _ in range(2))
    z = first(draw(2, 2, 5, 5))
    first.backward(torch.ones_like(z))
    assert torch.equal(first.bias.grad, torch.full((3,), float(z[:, 0].numel()), dtype=torch.float64))
    assert not second.bias.grad.any()


def test_arguments_whose_place_pytorch_gives_to_others_go_by_name():
    """PyTorch's seventh argument is `groups`: taken silently for a dilation or a bias, it would mean another module."""
    with pytest.raises(TypeError, match="positional"):
        ConvTranspose2d(4, 4, 3, 2, 1, 1, 2)
    with pytest.raises(TypeError, match="positional"):
        Conv2d(4, 4, 3, 1, 0, 1, 2)
