"""The modules on geometries that Hypothesis draws: output and every gradient are those of torch.nn.functional.

The numbers come from a fixed seed; only the geometry varies, so that a failing example shrinks to the smallest one.
"""

from math import prod
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scratch_dl import nn

# The same examples each time, none kept on disk, and no clock, which on a busy machine says nothing of the code.
EXAMPLES = settings(
    max_examples=200, derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
FLOATS = [torch.float64, torch.float32]
MEMORY = ["as given", "strided", "transposed", "channels last", "expanded"]


class Layer(NamedTuple):
    """A module and its arguments."""

    kind: str
    arguments: dict[str, Any]


class Example(NamedTuple):
    """Layers, and the input that they are given."""

    layers: list[Layer]
    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: str


def eighths(shape, *, generator, dtype):
    """Multiples of 1/8 in [-1, 1]: their products and sums are exact in float32, even where they cancel."""
    return torch.randint(-8, 9, tuple(shape), generator=generator).to(dtype) / 8


def pairs(low, high):
    """One number, or one for each axis."""
    return st.integers(low, high) | st.tuples(st.integers(low, high), st.integers(low, high))


def both(value):
    return value if isinstance(value, tuple) else (value, value)


@st.composite
def convolutions(draw, channels, size):
    """A Conv2d, padded until its kernel fits into an input of `size`."""
    kernel, padding, dilation = draw(pairs(1, 4)), draw(pairs(0, 3)), draw(pairs(1, 3))
    extents = [d * (k - 1) + 1 for k, d in zip(both(kernel), both(dilation), strict=True)]
    least = [-(-(extent - h) // 2) for extent, h in zip(extents, size, strict=True)]
    if any(p < low for p, low in zip(both(padding), least, strict=True)):
        padding = tuple(map(max, both(padding), least))
    arguments = {"in_channels": channels, "out_channels": draw(st.integers(1, 4)), "kernel_size": kernel}
    rest = {"stride": draw(pairs(1, 3)), "padding": padding, "dilation": dilation, "bias": draw(st.booleans())}
    return Layer("Conv2d", {**arguments, **rest})


@st.composite
def transposed_convolutions(draw, channels, size):
    """A ConvTranspose2d whose padding leaves something of an input of `size`."""
    kernel, stride, dilation = both(draw(pairs(1, 4))), both(draw(pairs(1, 3))), both(draw(pairs(1, 3)))
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    most = [
        ((h - 1) * s + d * (k - 1) + e) // 2
        for h, s, d, k, e in zip(size, stride, dilation, kernel, extra, strict=True)
    ]
    padding = tuple(draw(st.integers(0, min(3, high))) for high in most)
    arguments = {"in_channels": channels, "out_channels": draw(st.integers(1, 4)), "kernel_size": kernel}
    rest = {"stride": stride, "padding": padding, "output_padding": extra, "dilation": dilation}
    return Layer("ConvTranspose2d", {**arguments, **rest, "bias": draw(st.booleans())})


@st.composite
def upsamplings(draw, channels, size):
    """The learnable block in one of its modes, padded "same" or by numbers that fit an input of `size`."""
    kernel, scale, mode = draw(pairs(1, 5)), draw(pairs(1, 3)), draw(st.sampled_from(["nearest", "transposed"]))
    axes = zip(size, both(scale), both(kernel), strict=True)
    if mode == "nearest":
        bounds = [(max(0, -(-(k - h * s) // 2)), 4) for h, s, k in axes]
    else:
        bounds = [(0, ((h - 1) * s + k - 1) // 2) for h, s, k in axes]
    padding = draw(st.just("same") | st.tuples(*(st.integers(low, min(high, 4)) for low, high in bounds)))
    arguments = {"in_channels": channels, "out_channels": draw(st.integers(1, 4)), "kernel_size": kernel}
    rest = {"scale_factor": scale, "padding": padding, "mode": mode, "bias": draw(st.booleans())}
    return Layer("Upsampling", {**arguments, **rest})


REPETITIONS = st.builds(lambda scale: Layer("UpsamplingNearest2d", {"scale_factor": scale}), pairs(1, 4))
ACTIVATIONS = st.sampled_from([Layer("ReLU", {}), Layer("Sigmoid", {})])
KINDS = {  # given the channels and the size of the input
    "activation": lambda _channels, _size: ACTIVATIONS,
    "repetition": lambda _channels, _size: REPETITIONS,
    "convolution": convolutions,
    "transposed convolution": transposed_convolutions,
    "learnable upsampling": upsamplings,
}


def build(layer):
    return getattr(nn, layer.kind)(**layer.arguments)


@st.composite
def examples(draw, *kinds, most=1, dtypes=FLOATS):
    """One layer of the kinds, or up to `most` in a row, each fitting what comes before it."""
    batch, channels = draw(st.integers(0, 3)), draw(st.integers(1, 4))
    size = draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
    shape, layers = (batch, channels, *size), []
    for _ in range(draw(st.integers(1, most))):
        layer = draw(st.one_of([kind(channels, size) for kind in kinds]))
        channels, size = layer.arguments.get("out_channels", channels), build(layer).output_size(size)
        layers.append(layer)
        if prod(size) > 600:  # large enough
            break
    return Example(layers, shape, draw(st.sampled_from(dtypes)), draw(st.sampled_from(MEMORY)))


def enlarged(x, scale):
    return F.interpolate(x, scale_factor=tuple(map(float, both(scale))), mode="nearest")


def block(x, weight, bias, mode, scale_factor, padding):
    """The learnable block: "same" pads by k - 1, or takes s H rows of all, from ceil((k - s) / 2) on, zeros below."""
    sides = []
    if mode == "nearest":
        for axis, k in enumerate(weight.shape[2:]):
            sides += [((k - 1) // 2, k // 2) if padding == "same" else (padding[axis], padding[axis])]
        return F.conv2d(F.pad(enlarged(x, scale_factor), (*sides[1], *sides[0])), weight, bias)
    whole = F.conv_transpose2d(x, weight, None, both(scale_factor))
    for axis, (k, s) in enumerate(zip(weight.shape[2:], both(scale_factor), strict=True)):
        first = max(0, -((s - k) // 2)) if padding == "same" else padding[axis]
        rest = whole.shape[2 + axis] - first - s * x.shape[2 + axis] if padding == "same" else padding[axis]
        sides += [(-first, -rest)]
    cropped = F.pad(whole, (*sides[1], *sides[0]))
    return cropped if bias is None else cropped + bias[:, None, None]


REFERENCES = {  # what a module computes, given its parameters and the rest of its arguments
    "Conv2d": F.conv2d,
    "ConvTranspose2d": F.conv_transpose2d,
    "Upsampling": block,
    "UpsamplingNearest2d": lambda x, _weight, _bias, scale_factor: enlarged(x, scale_factor),
    "ReLU": lambda x, _weight, _bias: F.relu(x),
    "Sigmoid": lambda x, _weight, _bias: torch.sigmoid(x),
}
IN_THE_PARAMETERS = ("in_channels", "out_channels", "kernel_size", "bias")


def check(agrees, example):
    """Compare the only layer, or a Sequential of the layers, with the references in a row."""
    modules = [build(layer) for layer in example.layers]
    module = (modules[0] if len(modules) == 1 else nn.Sequential(*modules)).to(example.dtype)
    generator = torch.Generator().manual_seed(20240607)
    for parameter in module.parameters():
        parameter.value = eighths(parameter.shape, generator=generator, dtype=example.dtype)

    def function(x, parameters):
        for position, (kind, arguments) in enumerate(example.layers):
            prefix = f"{position}." if len(modules) > 1 else ""
            weight, bias = (parameters.get(f"{prefix}{name}") for name in ("weight", "bias"))
            options = {name: value for name, value in arguments.items() if name not in IN_THE_PARAMETERS}
            x = REFERENCES[kind](x, weight, bias, **options)
        return x

    x = eighths(example.shape, generator=generator, dtype=example.dtype)
    agrees(module, function, x, "the example", layouts=[example.layout], draw=eighths)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "activation"])
@EXAMPLES
@given(data=st.data())
def test_a_module_of_any_geometry(agrees, kind, data):
    check(agrees, data.draw(examples(KINDS[kind])))


@EXAMPLES
@given(example=examples(*KINDS.values(), most=4, dtypes=[torch.float64]))
def test_modules_in_a_row(agrees, example):
    """Only in float64: after a sigmoid the numbers are no eighths any more, and sums that cancel are not exact."""
    check(agrees, example)


shapes = st.lists(st.integers(0, 4), max_size=5).map(tuple)


@EXAMPLES
@given(
    kind=st.sampled_from(["ReLU", "Sigmoid"]),
    shape=shapes,
    middle=st.integers(-40, 40),
    dtype=st.sampled_from(FLOATS),
    layout=st.sampled_from(MEMORY),
)
def test_activations_of_any_shape_and_size(agrees, kind, shape, middle, dtype, layout):
    """All numbers are about as large as one another, so that a small derivative hides behind no large one."""
    x = middle + eighths(shape, generator=torch.Generator().manual_seed(20240607), dtype=dtype)
    function = lambda x, _: REFERENCES[kind](x, None, None)  # noqa: E731
    agrees(getattr(nn, kind)(), function, x, "the example", saturates=kind == "Sigmoid", layouts=[layout])


@EXAMPLES
@given(
    kind=st.sampled_from(["MSELoss", "L1Loss"]),
    reduction=st.sampled_from(["mean", "sum"]),
    shape=shapes,
    dtype=st.sampled_from(FLOATS),
    layout=st.sampled_from(MEMORY),
)
def test_the_losses_of_any_shape(agrees, kind, reduction, shape, dtype, layout):
    generator = torch.Generator().manual_seed(20240607)
    y, t = (eighths(shape, generator=generator, dtype=dtype) for _ in range(2))
    compute = {"MSELoss": F.mse_loss, "L1Loss": F.l1_loss}[kind]
    function = lambda y, t, _: compute(y, t, reduction=reduction)  # noqa: E731
    agrees(getattr(nn, kind)(reduction), function, y, "the example", target=t, layouts=[layout])
