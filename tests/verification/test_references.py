"""The oracle is held to a witness of its own: literal loops, formulas, and a module taken at its word."""

import itertools
import math

import pytest
import torch
from course import Linear

from scratch_dl import nn
from scratch_dl.nn import adapt
from scratch_dl.verification.passes import own_pass, reference_pass
from scratch_dl.verification.references import as_function, reference_for

CONV = {"in_channels": 2, "out_channels": 3, "kernel_size": (3, 2), "stride": (2, 1), "padding": 1, "dilation": (1, 2)}


def drawn(module, shape, generator):
    """An input of the shape, the module's parameters drawn anew, in float64."""
    for parameter in module.to(torch.float64).parameters():
        parameter.value = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def literal_upsampling(x, weight, bias, kernel, scale, mode):
    """(1, c, H, W) -> (1, o, s H, s W), pixel by pixel, by the definition in the module's docstring."""
    (_, c, height, width), (s0, s1) = x.shape, scale
    channels = weight.shape[0] if mode == "nearest" else weight.shape[1]
    output = torch.zeros(1, channels, s0 * height, s1 * width, dtype=x.dtype)
    first = [(k - 1) // 2 if mode == "nearest" else max(0, math.ceil((k - s) / 2)) for k, s in zip(kernel, scale)]  # noqa: B905
    pixels = itertools.product(range(channels), range(c), range(s0 * height), range(s1 * width))
    for (o, i, p, q), (a, b) in itertools.product(pixels, itertools.product(*map(range, kernel))):
        if mode == "nearest":
            row, column = p - first[0] + a, q - first[1] + b
            inside = 0 <= row < s0 * height and 0 <= column < s1 * width
            output[0, o, p, q] += weight[o, i, a, b] * x[0, i, row // s0, column // s1] if inside else 0
        else:
            (h, rest0), (w, rest1) = divmod(p + first[0] - a, s0), divmod(q + first[1] - b, s1)
            inside = not rest0 and not rest1 and 0 <= h < height and 0 <= w < width
            output[0, o, p, q] += weight[i, o, a, b] * x[0, i, h, w] if inside else 0
    return output + bias[:, None, None]


@pytest.mark.parametrize("mode", ["nearest", "transposed"])
@pytest.mark.parametrize(
    ("kernel", "scale"),
    [
        pytest.param((3, 3), (2, 2), id="odd"),
        pytest.param((4, 2), (2, 2), id="even"),
        pytest.param((1, 2), (3, 3), id="smaller-than-the-factor"),
        pytest.param((2, 5), (1, 1), id="factor-1"),
        pytest.param((1, 4), (3, 2), id="oblong"),
    ],
)
def test_the_upsampling_reference_is_the_definition(mode, kernel, scale, generator):
    """Loop by loop: its paddings are the oracle's own, so an error in them would be a false alarm, or a blind eye."""
    module = nn.Upsampling(2, 1, kernel, scale, mode=mode)
    x = drawn(module, (1, 2, 2, 3), generator)
    weight, bias = module.weight.value, module.bias.value
    got = reference_for(module)(x, weight, bias)
    torch.testing.assert_close(got, literal_upsampling(x, weight, bias, kernel, scale, mode))


def literal_correlation(x, weight, bias, stride, padding, dilation):
    """Equation (1) of Conv2d, output by output."""
    n, _, height, width = x.shape
    padded = torch.zeros(n, x.shape[1], height + 2 * padding, width + 2 * padding, dtype=x.dtype)
    padded[:, :, padding : padding + height, padding : padding + width] = x
    k0, k1 = weight.shape[2:]
    (s0, s1), (d0, d1) = stride, dilation
    rows = range(0, padded.shape[2] - d0 * (k0 - 1), s0)
    columns = range(0, padded.shape[3] - d1 * (k1 - 1), s1)

    def pixel(h, w):
        window = padded[:, :, h : h + d0 * (k0 - 1) + 1 : d0, w : w + d1 * (k1 - 1) + 1 : d1]
        return torch.einsum("ncij,ocij->no", window, weight)

    return torch.stack([torch.stack([pixel(h, w) for w in columns], -1) for h in rows], -2) + bias[:, None, None]


def test_the_convolution_reference_is_the_definition(generator):
    """With every setting at a value of its own."""
    module = nn.Conv2d(**CONV)
    x = drawn(module, (2, 2, 5, 7), generator)
    weight, bias = module.weight.value, module.bias.value
    expected = literal_correlation(x, weight, bias, (2, 1), 1, (1, 2))
    torch.testing.assert_close(reference_for(module)(x, weight, bias), expected)


def test_the_transposed_reference_is_the_convolutions_adjoint(generator):
    """<conv(x), y> = <x, transposed(y)>, the output padding making up for what the stride leaves."""
    settings = {"kernel_size": (3, 2), "stride": (2, 3), "padding": 1, "dilation": (1, 2), "bias": False}
    conv = nn.Conv2d(2, 3, **settings)
    x = drawn(conv, (2, 2, 6, 7), generator)
    weight = conv.weight.value
    z = reference_for(conv)(x, weight)
    y = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    back = nn.ConvTranspose2d(3, 2, output_padding=(1, 0), **settings)
    grad = reference_for(back)(y, weight)
    assert grad.shape == x.shape
    torch.testing.assert_close((grad * x).sum(), (z * y).sum())


@pytest.mark.parametrize(
    ("module", "inputs", "expected"),
    [
        pytest.param(nn.ReLU(), [[-1.0, 0.0, 2.0]], [0.0, 0.0, 2.0], id="relu"),
        pytest.param(nn.Sigmoid(), [[0.0, math.log(3)]], [0.5, 0.75], id="sigmoid"),
        pytest.param(nn.MSELoss(), [[1.0, 2.0], [0.0, 4.0]], 2.5, id="mse"),
        pytest.param(nn.MSELoss("sum"), [[1.0, 2.0], [0.0, 4.0]], 5.0, id="mse-sum"),
        pytest.param(nn.UpsamplingNearest2d((1, 2)), [[[[[1.0, 2.0]]]]], [[[[1.0, 1.0, 2.0, 2.0]]]], id="nearest"),
    ],
)
def test_references_by_formula(module, inputs, expected):
    """At numbers that can be seen through."""
    tensors = [torch.tensor(values, dtype=torch.float64) for values in inputs]
    torch.testing.assert_close(reference_for(module)(*tensors), torch.tensor(expected, dtype=torch.float64))


class Square(nn.Module):
    """Two parameters of one shape, told apart by their names or their order alone."""

    def __init__(self, names=("weight", "shift")):
        self.names = names
        for number, name in enumerate(names):
            setattr(self, name, nn.Parameter(torch.tensor([number + 2.0])))


class TorchSquare(torch.nn.Module):
    """x * weight - shift; `shift` is listed first."""

    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(1))
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x * self.weight - self.shift


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(("weight", "shift"), 10 * 2 - 3, id="by-name"),
        pytest.param(("shift", "weight"), 10 * 3 - 2, id="by-name-in-their-order"),
        pytest.param(("w", "s"), 10 * 3 - 2, id="by-order"),
    ],
)
def test_a_torch_modules_parameters_take_the_values_by_name_or_by_order(names, expected):
    """In the order of the module's own, whatever PyTorch's is."""
    module = Square(names)
    function = as_function(TorchSquare(), module)
    values = [parameter.value for parameter in module.parameters()]
    assert function(torch.tensor([10.0]), *values).item() == expected


def test_a_torch_module_is_copied_and_follows_the_dtype():
    """The user's own keeps its weights; buffers come along."""
    norm = torch.nn.BatchNorm1d(3).eval()
    module = nn.Module()
    module.weight, module.bias = nn.Parameter(torch.full((3,), 2.0)), nn.Parameter(torch.ones(3))
    function = as_function(norm, module)
    values = [parameter.value.double() for parameter in module.parameters()]
    assert function(torch.ones(2, 3, dtype=torch.float64), *values).dtype == torch.float64
    assert torch.equal(norm.weight.detach(), torch.ones(3))
    assert norm.running_mean.dtype == torch.float32


@pytest.mark.parametrize(
    ("reference", "error", "match"),
    [
        pytest.param(torch.nn.Linear(4, 2), ValueError, r"shapes .*\(2, 3\).*, but has .*\(2, 4\)", id="shape"),
        pytest.param(torch.nn.Linear(3, 2, bias=False), ValueError, "must have parameters of the shapes", id="fewer"),
        pytest.param(torch.nn.Linear(3, 2), ValueError, "must have parameters of the shapes", id="order"),
        pytest.param("torch.nn.Linear", TypeError, "must be a torch.nn.Module or a function, but got str", id="text"),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(reference, error, match):
    """Before anything is compared; both lists of shapes are in the message."""
    with pytest.raises(error, match=match):
        as_function(reference, adapt(Linear()))


class Brings(Linear):
    """Says itself what it is to be compared with."""

    def pytorch_reference(self):
        return lambda x, b, w: torch.nn.functional.linear(x, w, b)


def test_a_modules_own_reference_counts(generator):
    """Adapted or not; without one a foreign class has none."""
    assert reference_for(adapt(Linear())) is None
    module = adapt(Brings())
    x = drawn(module, (4, 3), generator)
    g = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    own, theirs = own_pass(module, [x], g), reference_pass(reference_for(module), module, [x], g, torch.float64)
    torch.testing.assert_close(own.output, theirs.output)
    assert own.gradients.keys() == theirs.gradients.keys()
    for name, expected in theirs.gradients.items():
        torch.testing.assert_close(own.gradients[name], expected)


def test_a_subclass_has_its_bases_reference():
    """Whoever changes the meaning says so by a reference of its own."""
    function, x = reference_for(type("MyReLU", (nn.ReLU,), {})()), torch.tensor([-1.0, 1.0])
    assert torch.equal(function(x), torch.tensor([0.0, 1.0]))
    assert reference_for(nn.Module()) is None


@pytest.mark.parametrize("join", ["concatenate", "add"])
def test_containers_have_the_reference_of_their_parts(join, generator):
    """With every parameter below as an argument."""
    module = nn.Sequential(nn.Skip(nn.Conv2d(2, 2, 3, padding=1), join), nn.ReLU())
    x = drawn(module, (2, 2, 4, 5), generator)
    inner = module[0].inner
    weight, bias = (parameter.value for parameter in inner.parameters())
    conv = torch.nn.functional.conv2d(x, weight, bias, padding=1)
    expected = (x + conv if join == "add" else torch.cat([x, conv], 1)).clamp(min=0)
    torch.testing.assert_close(reference_for(module)(x, weight, bias), expected)
