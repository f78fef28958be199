"""The C++ library beside the definition in float64: every function, instruction set and dtype, whatever the geometry.

A sum is compared number by number, and its error weighed by the same sum of absolute values: rounding is a small part
of that even where terms cancel, and a term that is missing or doubled is not.
"""

from decimal import Decimal, localcontext
from functools import cache
from itertools import product
from math import log, nan
from threading import Thread
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scratch_dl import kernels, nn
from scratch_dl.kernels import Geometry, compiled, pointwise, reference
from scratch_dl.kernels.library import load
from scratch_dl.system.checks import Pair

FLOATS = [pytest.param(torch.float32, id="float32"), pytest.param(torch.float64, id="float64")]
BAND = {torch.float32: 4e-6, torch.float64: 1e-14}  # of the sum of absolute values: some 40 roundings
OFFERED = [f"native {name}" for name in getattr(load(), "offered", ())] or ["native"]
EXAMPLES = settings(
    max_examples=60, derandomize=True, database=None, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip


class Refused:
    """Stands for the reference where nothing should be done again by it."""

    def __getattr__(self, name):
        pytest.fail(f"reference.{name} was called, though every number is finite")


def use_instead(monkeypatch, instead):
    """Let the native functions ask `instead` where they would ask the reference."""
    for module in (compiled, pointwise):
        monkeypatch.setattr(module, "reference", instead)


@pytest.fixture(params=[*OFFERED[:1], *(pytest.param(name, marks=pytest.mark.exhaustive) for name in OFFERED[1:])])
def backend(request, monkeypatch):
    """Each instruction set of this processor, and nothing but it."""
    if isinstance(load(), str):
        pytest.fail(f"no native library to test ({load()}): build it by `python setup.py build_ext --inplace`")
    before = kernels.used()
    kernels.use(request.param)
    use_instead(monkeypatch, Refused())
    yield SimpleNamespace(**{**vars(pointwise), **vars(compiled)})
    kernels.use(before)


@pytest.fixture
def threads():
    """torch.set_num_threads, undone afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class Case(NamedTuple):
    """A kind of convolution, the size of its input and of its output."""

    kind: str
    size: Pair
    to: Pair
    geometry: Geometry
    scale: Pair = (1, 1)


def both(value):
    return value if isinstance(value, tuple) else (value, value)


def sides(padding):
    """An int, an int an axis, or before and after of each axis."""
    return tuple(both(side) for side in both(padding))


def convolution(size, kernel, stride=1, padding=0, dilation=1):
    geometry = Geometry(both(kernel), both(stride), sides(padding), both(dilation))
    return Case("convolution", size, geometry.output_size(size), geometry)


def transposed(size, kernel, stride=1, padding=0, dilation=1):
    """A negative padding after an axis is an output padding."""
    geometry = Geometry(both(kernel), both(stride), sides(padding), both(dilation))
    (k, s, p, d) = geometry
    to = tuple((size[i] - 1) * s[i] + d[i] * (k[i] - 1) + 1 - sum(p[i]) for i in (0, 1))
    return Case("transposed", size, to, geometry)


def upsampled(size, kernel, scale=2, padding=0, dilation=1):
    geometry, scale = Geometry(both(kernel), (1, 1), sides(padding), both(dilation)), both(scale)
    return Case("upsampled", size, geometry.output_size((size[0] * scale[0], size[1] * scale[1])), geometry, scale)


CASES = {  # each a way to get an index wrong
    "pointwise": convolution((5, 7), 1),
    "pointwise-one-pixel": convolution((1, 1), 1),
    "one-output-pixel": convolution((3, 4), (3, 4)),
    "padded-oblong": convolution((5, 9), (3, 2), padding=((1, 1), (0, 1))),
    "padded-kernel-4-stride-2": convolution((8, 10), 4, 2, 1),
    "stride-leaves-a-rest": convolution((7, 8), 3, 2, 1),
    "stride-skips-pixels": convolution((8, 9), 2, 3),
    "stride-skips-rows-only": convolution((9, 6), (1, 3), (2, 1), ((0, 0), (1, 1))),
    "oblong-dilated": convolution((9, 8), (2, 3), 1, (2, 1), (2, 1)),
    "dilated-strided": convolution((11, 9), (3, 2), (2, 3), ((2, 1), (1, 2)), 2),
    "padding-above-the-kernel": convolution((3, 4), 2, 1, ((3, 2), (2, 4))),
    "last-pixels-unread": convolution((6, 7), 2, (1, 2), ((0, -1), (1, -2))),
    "kernel-5-wide-rows": convolution((6, 45), 5, 1, 2),
    "kernel-larger-than-the-input": convolution((2, 3), 5, 1, 2),
    "transposed-kernel-4-stride-2": transposed((4, 5), 4, 2, 1),
    "transposed-kernel-3-output-padding": transposed((4, 3), 3, 2, ((1, 0), (1, 0))),
    "transposed-kernel-below-stride": transposed((3, 4), (1, 2), 3),
    "transposed-last-pixels-bare": transposed((3, 3), 2, 3, ((0, -2), (0, -1))),
    "transposed-dilated": transposed((4, 3), (3, 2), (1, 2), ((1, 1), (0, -1)), 2),
    "transposed-stride-1": transposed((5, 4), 3, 1, 1),
    "transposed-cropped-to-one-pixel": transposed((2, 2), 3, 2, ((2, 2), (1, 3))),
    "transposed-stride-3-one-pixel": transposed((1, 1), 5, 3, 2),
    "nearest-kernel-3": upsampled((4, 5), 3, 2, 1),
    "nearest-kernel-4": upsampled((3, 5), 4, 2, ((1, 2), (1, 2))),
    "nearest-odd-output": upsampled((4, 3), 2, 2, 0),
    "nearest-oblong": upsampled((3, 4), (1, 5), (3, 2), ((0, 0), (2, 2))),
    "nearest-dilated": upsampled((4, 4), 3, (2, 3), ((2, 1), (0, 3)), 2),
    "nearest-unread": upsampled((3, 4), 2, (3, 1), ((0, -1), (1, -1))),
    "nearest-scale-1": upsampled((5, 4), 3, 1, 1),
    "nearest-one-pixel": upsampled((1, 1), 3, 2, 1),
}
CHANNELS = [(1, 1), (3, 24), (5, 17), (8, 12), (16, 33), (70, 3), (1, 70), (33, 5), (24, 16), (12, 1), (17, 8)]
FEW = [(3, 5), (8, 16)]
ONE_OF_EACH = [  # inside of the input and beyond it: those are read in place and from a padded copy
    pytest.param(convolution((6, 5), (3, 2)), id="inside"),
    pytest.param(convolution((6, 5), 3, 2, ((1, 0), (2, 1))), id="padded"),
    pytest.param(transposed((3, 4), 3, 2, ((1, 0), (1, 0))), id="transposed"),
    pytest.param(upsampled((3, 4), 3, 2, ((1, 1), (0, 2))), id="nearest"),
]


class Tensors(NamedTuple):
    """Input, weight, bias, gradient of the output, and the output of a ReLU that was the input."""

    x: torch.Tensor
    w: torch.Tensor
    b: torch.Tensor
    g: torch.Tensor
    positive: torch.Tensor

    def changed(self, function):
        return Tensors(*map(function, self))


def computed(backend, case, t, activation=None, positive=None):
    """The output and all gradients, by name."""
    (kind, size, to, geometry, scale), (x, w, b, g, _) = case, t
    if kind == "convolution":
        output = backend.convolution(x, w, b, geometry, activation)
        grad_input = backend.convolution_grad_input(g, w, size, geometry, positive)
        grad_weight = backend.convolution_grad_weight(x, g, geometry)
    elif kind == "transposed":
        output = backend.convolution_transposed(x, w, b, to, geometry, activation)
        grad_input = backend.convolution_transposed_grad_input(g, w, geometry, positive)
        grad_weight = backend.convolution_grad_weight(g, x, geometry)
    else:
        output = backend.upsampled_convolution(x, w, b, scale, geometry, activation)
        grad_input = backend.upsampled_convolution_grad_input(g, w, size, scale, geometry, positive)
        grad_weight = backend.upsampled_convolution_grad_weight(x, g, scale, geometry)
    grad_bias = backend.convolution_grad_bias(g)
    return {"output": output, "grad_input": grad_input, "grad_weight": grad_weight, "grad_bias": grad_bias}


def drawn(case, c, o, dtype, n=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    channels = (c, o) if case.kind == "transposed" else (o, c)
    shapes = (n, c, *case.size), (*channels, *case.geometry.kernel_size), (o,), (n, o, *case.to), (n, c, *case.size)
    t = Tensors(*(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes))
    return t._replace(positive=t.positive.clamp(min=0))


def expected_of(case, t, activation=None, positive=None):
    """By the reference in float64; and the sums of absolute values."""
    exact = t.changed(torch.Tensor.double)
    positive = None if positive is None else positive.double()
    return computed(reference, case, exact, activation, positive), computed(reference, case, exact.changed(torch.abs))


@cache
def example(case, c, o, dtype, n=2):
    t = drawn(case, c, o, dtype, n)
    return t, *expected_of(case, t)


def assert_near(actual, expected, sizes, dtype, what=""):
    for name, value in expected.items():
        got = actual[name]
        assert got.shape == value.shape, f"{what} {name}: {tuple(got.shape)} is not {tuple(value.shape)}"
        assert got.dtype == dtype, f"{what} {name}: {got.dtype} is not {dtype}"
        error, limit = (got.double() - value).abs(), BAND[dtype] * sizes[name]
        wrong = ~(error <= limit)
        if wrong.any():
            worst = int((error / limit).nan_to_num(torch.inf, torch.inf).argmax())
            pytest.fail(
                f"{what} {name}: {int(wrong.sum())} of {wrong.numel()} numbers are wrong, the worst "
                f"{float(got.reshape(-1)[worst]):g} and not {float(value.reshape(-1)[worst]):g}"
            )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_all_sums_are_the_references(case, dtype, backend):
    """At every number of channels that ends inside, at or beyond a vector."""
    for c, o in CHANNELS:
        t, expected, sizes = example(case, c, o, dtype)
        assert_near(computed(backend, case, t), expected, sizes, dtype, f"{c} -> {o} channels")


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def drawn_cases(draw):
    """Any kernel, stride, dilation and uneven padding, at the least size that it fits, or up to 8 pixels above."""
    kind = draw(st.sampled_from(["convolution", "transposed", "upsampled"]))
    kernel, dilation = draw(pairs(1, 5)), draw(pairs(1, 2))
    stride = draw(pairs(1, 3))
    before, after = draw(pairs(0, 3)), draw(pairs(-2, 3))
    padding = tuple(zip(before, after, strict=True))
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    more = draw(pairs(0, 8))
    if kind == "transposed":  # (size - 1) s + extent - padding >= 1
        least = [max(1, 1 - (extent[i] - sum(padding[i]) - 1) // stride[i]) for i in (0, 1)]
        case = transposed((least[0] + more[0], least[1] + more[1]), kernel, stride, padding, dilation)
    else:
        factor = stride if kind == "upsampled" else (1, 1)
        least = [max(1, -((sum(padding[i]) - extent[i]) // factor[i])) for i in (0, 1)]
        size = least[0] + more[0], least[1] + more[1]
        make = upsampled if kind == "upsampled" else convolution
        case = make(size, kernel, stride, padding, dilation)
    channels = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 33])
    return case, draw(channels), draw(channels), draw(st.integers(1, 3))


@pytest.mark.parametrize("dtype", FLOATS)
@EXAMPLES
@given(drawn=drawn_cases())
def test_all_sums_are_the_references_at_any_geometry(drawn, dtype, backend):
    case, c, o, n = drawn
    t, expected, sizes = example(case, c, o, dtype, n)
    assert_near(computed(backend, case, t), expected, sizes, dtype)


def products(case):
    """Every product of the sums for one pair of channels: pixel of the output, kernel element, pixel of the input."""
    (k0, k1), (s0, s1), ((top, _), (left, _)), (d0, d1) = case.geometry
    grid = case.size if case.kind == "transposed" else case.to
    for h, w, i, j in product(range(grid[0]), range(grid[1]), range(k0), range(k1)):
        p, q = h * s0 + i * d0 - top, w * s1 + j * d1 - left
        height, width = case.to if case.kind == "transposed" else case.size
        if not (0 <= p < height * case.scale[0] and 0 <= q < width * case.scale[1]):
            continue
        other = p // case.scale[0], q // case.scale[1]
        yield (other, (i, j), (h, w)) if case.kind == "transposed" else ((h, w), (i, j), other)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(convolution((5, 6), (2, 3), (2, 1), ((1, 0), (2, -1)), (2, 1)), id="convolution"),
        pytest.param(transposed((3, 2), (3, 2), (2, 3), ((1, 0), (0, -1)), (1, 2)), id="transposed"),
        pytest.param(upsampled((3, 2), (3, 2), (2, 3), ((1, 2), (0, 1)), (2, 1)), id="upsampled"),
    ],
)
def test_all_sums_are_those_of_seven_loops(case, backend):
    """In plain Python numbers: no tensor arithmetic, and so no reference, has a part in them."""
    n, c, o = 2, 3, 5
    t = drawn(case, c, o, torch.float64, n)
    x, w, b, g = (tensor.tolist() for tensor in t[:4])
    z, grad_w, grad_x, grad_b = (torch.zeros_like(tensor).tolist() for tensor in (t.g, t.w, t.x, t.b))
    for m, v in product(range(n), range(o)):
        for h, q in product(range(case.to[0]), range(case.to[1])):
            z[m][v][h][q] = b[v]
            grad_b[v] += g[m][v][h][q]
    for m, v, u in product(range(n), range(o), range(c)):
        first, second = (u, v) if case.kind == "transposed" else (v, u)
        for (h, q), (i, j), (y, r) in products(case):
            z[m][v][h][q] += w[first][second][i][j] * x[m][u][y][r]
            grad_w[first][second][i][j] += g[m][v][h][q] * x[m][u][y][r]
            grad_x[m][u][y][r] += w[first][second][i][j] * g[m][v][h][q]
    expected = {"output": z, "grad_input": grad_x, "grad_weight": grad_w, "grad_bias": grad_b}
    for name, got in computed(backend, case, t).items():
        torch.testing.assert_close(got, torch.tensor(expected[name], dtype=torch.float64), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_an_activation_computed_along_is_that_of_the_output(case, activation, dtype, backend):
    for c, o in CHANNELS:
        t = example(case, c, o, dtype)[0]
        expected, sizes = expected_of(case, t, activation)
        sizes["output"] = sizes["output"] + 1  # the sigmoid's own rounding
        assert_near(computed(backend, case, t, activation), expected, sizes, dtype, f"{c} -> {o} channels")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_an_input_gradient_through_a_relu_is_zero_exactly_where_its_output_is_not_positive(case, dtype, backend):
    """0 and -0 are not; a NaN lets the gradient pass, as in the reference."""
    for c, o in CHANNELS:
        t, expected, sizes = example(case, c, o, dtype)
        positive = t.positive.clone()
        positive.view(-1)[::7] = nan
        positive.view(-1)[1::7] = -0.0
        got = computed(backend, case, t, positive=positive)
        masked = expected["grad_input"].where(~(positive <= 0), 0.0)
        assert_near(got, {**expected, "grad_input": masked}, sizes, dtype, f"{c} -> {o} channels")
        assert not got["grad_input"][positive <= 0].any()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_without_a_bias_none_is_added(case, dtype, backend):
    """Nor that of a call before."""
    t, expected, sizes = example(case, 3, 5, dtype)
    computed(backend, case, t)
    got = computed(backend, case, t._replace(b=None))
    without = expected["output"] - t.b.double()[:, None, None]
    assert_near(got, {**expected, "output": without}, sizes, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_of_no_samples_outputs_are_empty_and_gradients_zero(case, dtype, backend):
    t = drawn(case, 3, 5, dtype, n=0)
    got = computed(backend, case, t, "relu", t.positive)
    assert got["output"].shape == (0, 5, *case.to)
    assert got["grad_input"].shape == t.x.shape
    assert torch.equal(got["grad_weight"], torch.zeros_like(t.w))
    assert torch.equal(got["grad_bias"], torch.zeros_like(t.b))


def strided(t, *steps):
    """Every so many numbers of an axis, with NaN between them and around."""
    room = t.new_full([2 + n * step for n, step in zip(t.shape, steps, strict=True)], nan)
    view = room[tuple(slice(1, 1 + n * step, step) for n, step in zip(t.shape, steps, strict=True))]
    return view.copy_(t)


def in_order(t, *axes):
    """The axes in that order in memory."""
    return t.permute(axes).contiguous().permute([axes.index(axis) for axis in range(len(axes))])


def cropped(t):
    """Channels last in memory, a part of an image with NaN around it."""
    return strided(t.permute(0, 2, 3, 1), 1, 1, 1, 1).permute(0, 3, 1, 2)


def cropped_columns(t):
    """The same with no channels left out: a pixel's numbers lie beside the next one's."""
    n, c, h, w = t.shape
    room = t.new_full((n + 1, h + 3, w + 2, c), nan)
    return room[:n, 2 : 2 + h, 1 : 1 + w].copy_(t.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def expanded(axis):
    return lambda t: t.narrow(axis, 0, 1).expand_as(t)


LAYOUTS = {
    "contiguous": lambda t: t.contiguous(),
    "channels-last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "strided": lambda t: strided(t, 1, 1, 2, 3),
    "strided-channels": lambda t: strided(t, 2, 3, 1, 1),
    "cropped": cropped,
    "cropped-columns": cropped_columns,
    "channels-last-strided": lambda t: strided(t.permute(0, 2, 3, 1), 2, 2, 2, 1).permute(0, 3, 1, 2),
    "rows-and-columns-swapped": lambda t: in_order(t, 0, 1, 3, 2),
    "samples-last": lambda t: in_order(t, 3, 1, 2, 0),
    "rows-first": lambda t: in_order(t, 2, 0, 3, 1),
    "one-sample-repeated": expanded(0),
    "one-channel-repeated": expanded(1),
    "one-row-repeated": expanded(2),
    "one-column-repeated": expanded(3),
    "one-row-repeated-channels-last": lambda t: expanded(2)(t.contiguous(memory_format=torch.channels_last)),
    "one-number-repeated": lambda t: t[:1, :1, :1, :1].expand_as(t),
}
VECTORS = {"strided": lambda t: strided(t, 3), "repeated": expanded(0)}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_however_the_numbers_lie_in_memory_the_sums_are_the_same(case, layout, dtype, backend):
    """Of each tensor alone, and of all; a NaN between the numbers would be seen."""
    for c, o in [(1, 2), (3, 8), (17, 16)]:
        t = example(case, c, o, dtype)[0]
        laid = t._replace(**{name: LAYOUTS[layout](getattr(t, name)) for name in ("x", "w", "g", "positive")})
        laid = laid._replace(b=VECTORS["repeated" if "repeated" in layout else "strided"](t.b))
        for some in (*(t._replace(**{name: getattr(laid, name)}) for name in t._fields), laid):
            expected, sizes = expected_of(case, some, None, some.positive)
            got = computed(backend, case, some, None, some.positive)
            assert_near(got, expected, sizes, dtype, f"{c} -> {o} channels")


def negated_on_reading(t):
    """A view of which torch keeps the opposite numbers in memory, as of a conjugate's imaginary part."""
    view = torch.complex(torch.zeros_like(t), -t).conj().imag
    assert view.is_neg()
    return view


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_view_that_torch_negates_on_reading_is_read_as_torch_does(dtype, backend):
    case = convolution((6, 5), (3, 2))
    t = example(case, 3, 5, dtype)[0]
    for name in t._fields:
        some = t._replace(**{name: negated_on_reading(getattr(t, name))})
        expected, sizes = expected_of(case, t, None, t.positive)
        assert_near(computed(backend, case, some, None, some.positive), expected, sizes, dtype, f"{name} negated:")
    x, g = t.x, negated_on_reading(t.x)
    assert torch.equal(backend.relu(g), backend.relu(x))
    assert torch.equal(backend.relu_grad(x, g), backend.relu_grad(x, x))
    assert torch.equal(backend.squared_error(x, g, 1.0, 1.0)[1], torch.zeros_like(x))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_a_number_that_is_not_finite_comes_out_where_the_reference_has_it(case, value, dtype, backend, monkeypatch):
    """One in the input, the weight, the bias or the gradient, at its ends and in its middle."""
    use_instead(monkeypatch, reference)
    t = example(case, 5, 17, dtype)[0]
    for name, activation in [("x", None), ("x", "relu"), ("w", "sigmoid"), ("w", "relu"), ("b", "relu"), ("g", None)]:
        tensor = getattr(t, name)
        for at in (0, tensor.numel() // 2, tensor.numel() - 1):
            one = tensor.clone()
            one.view(-1)[at] = value
            spoilt = t._replace(**{name: one})
            for positive in (None, t.positive):
                expected = computed(reference, case, spoilt, activation, positive)
                for what, got in computed(backend, case, spoilt, activation, positive).items():
                    tolerance = {torch.float32: 1e-5, torch.float64: 1e-13}[dtype]
                    torch.testing.assert_close(
                        got, expected[what], rtol=tolerance, atol=10 * tolerance, equal_nan=True,
                        msg=lambda text, place=f"{what} with {value} at {at} of {name}": f"{place}: {text}",
                    )  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_sum_that_overflows_is_infinite(dtype, backend, monkeypatch):
    """Also where only kernel elements that are added beforehand overflow, and the sum of all terms does not."""
    use_instead(monkeypatch, reference)
    most = torch.finfo(dtype).max
    case = upsampled((2, 2), 2, 2, ((0, 1), (0, 1)))
    t = drawn(case, 1, 1, dtype)
    over = t._replace(w=torch.full_like(t.w, most), x=torch.full_like(t.x, 2.0))
    assert computed(backend, case, over)["output"].isposinf().all()
    within = t._replace(w=torch.full_like(t.w, most / 2), x=torch.full_like(t.x, 0.25), b=torch.zeros_like(t.b))
    got, expected = (computed(kind, case, within)["output"] for kind in (backend, reference))
    assert bool(expected.isfinite().all())
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_inputs_are_never_changed_and_outputs_are_the_callers(case, dtype, backend):
    """What a call returned is the same after others of the same shape, and shares no memory with what it was given."""
    t = drawn(case, 8, 16, dtype, seed=1)
    before = t.changed(torch.Tensor.clone)
    first = computed(backend, case, t, "relu", t.positive)
    kept = {name: value.clone() for name, value in first.items()}
    second = computed(backend, case, drawn(case, 8, 16, dtype, seed=2), "relu")
    for name, tensor in t._asdict().items():
        assert torch.equal(tensor, getattr(before, name)), f"{name} was changed"
    memories = [tensor.untyped_storage().data_ptr() for tensor in (*t, *first.values(), *second.values())]
    assert len(set(memories)) == len(memories)
    for name, value in first.items():
        assert torch.equal(value, kept[name]), f"{name} was changed by a later call"


LARGE = [  # many bands, and each with many samples or one
    pytest.param(convolution((700, 40), 3, 1, 1), 1, 3, 8, id="one-tall-image"),
    pytest.param(convolution((700, 40), (4, 3), 2, 1), 1, 8, 5, id="one-tall-image-strided"),
    pytest.param(convolution((300, 40), (3, 2)), 1, 8, 16, id="one-tall-image-inside"),
    pytest.param(transposed((350, 20), 4, 2, 1), 1, 8, 3, id="one-tall-image-transposed"),
    pytest.param(upsampled((351, 21), 3, 2, 1), 1, 8, 3, id="one-tall-image-nearest"),
    pytest.param(convolution((3, 9000), 3, 1, 1), 1, 5, 3, id="a-row-above-a-band"),
    pytest.param(convolution((21, 19), 3, 1, 1), 5, 16, 24, id="five-samples"),
    pytest.param(transposed((13, 11), 4, 2, 1), 5, 16, 24, id="five-samples-transposed"),
    pytest.param(upsampled((13, 11), 4, 2, ((1, 2), (1, 2))), 5, 16, 24, id="five-samples-nearest"),
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("case", "n", "c", "o"), LARGE)
def test_many_parts_make_the_whole_whatever_the_number_of_threads(case, n, c, o, dtype, backend, threads):
    """Outputs and input gradients to the last bit; a weight's and bias's gradient to the last bit if repeated."""
    t, expected, sizes = example(case, c, o, dtype, n)
    single = {}
    for count in (1, 2, 3):
        threads(count)
        got = computed(backend, case, t, None, None)
        assert_near(got, expected, sizes, dtype, f"{count} threads")
        single = single or got
        for name in ("output", "grad_input"):
            assert torch.equal(got[name], single[name]), f"{name} has other bits with {count} threads"
        again = computed(backend, case, t, None, None) if count > 1 else got
        for name, value in again.items():
            assert torch.equal(value, got[name]), f"{name} has other bits the second time with {count} threads"


def test_calls_from_several_threads_at_once_do_not_disturb_each_other(backend):
    case = convolution((30, 31), 3, 1, 1)
    t = drawn(case, 8, 12, torch.float32, n=3)
    expected = computed(backend, case, t, "sigmoid", t.positive)
    wrong = []

    def work():
        for _ in range(5):
            for name, value in computed(backend, case, t, "sigmoid", t.positive).items():
                if not torch.equal(value, expected[name]):
                    wrong.append(name)

    workers = [Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


# Number by number.

SHAPES = [(), (0,), (1,), (7,), (70,), (3, 5), (2, 3, 4, 5), (0, 3, 4, 4), (2, 1, 3, 2, 3), (40_001,), (2, 3, 90, 91)]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_activations_and_their_gradients_are_the_references_at_any_shape(shape, dtype, backend, generator, threads):
    x, g = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    exact = x.double(), g.double()
    tolerance = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 0.0}
    for count in (1, 2):
        threads(count)
        for name in ("relu", "sigmoid"):
            output = getattr(backend, name)(x)
            torch.testing.assert_close(output.double(), getattr(reference, name)(exact[0]), **tolerance)
            grad = getattr(backend, f"{name}_grad")(output, g)
            right = getattr(reference, f"{name}_grad")(output.double(), exact[1])
            # Near 1 a rounding of 1 - Z is all of it.
            torch.testing.assert_close(grad.double(), right, rtol=tolerance["rtol"], atol=tolerance["rtol"])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("one", LAYOUTS)
def test_element_by_element_every_pair_of_layouts_is_right(one, dtype, backend, generator):
    """Activations' gradients and the squared error, whose two tensors may lie in memory each in its way."""
    eps = torch.finfo(dtype).eps
    for shape, other in product([(2, 3, 4, 5), (1, 1, 3, 1), (2, 8, 1, 1)], LAYOUTS.values()):
        x, y = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
        a, b = LAYOUTS[one](x), other(y)
        for name in ("relu_grad", "sigmoid_grad"):
            got, expected = getattr(backend, name)(a, b), getattr(reference, name)(a.double(), b.double())
            torch.testing.assert_close(got.double(), expected, rtol=20 * eps, atol=20 * eps)
        got, expected = (kind.squared_error(one, two, 0.3, 0.7) for kind, one, two in
                         ((backend, a, b), (reference, a.double(), b.double())))  # fmt: skip
        for value, right in zip(got, expected, strict=True):
            assert value.dtype == dtype
            torch.testing.assert_close(value.double(), right, rtol=20 * eps, atol=4 * eps)
        torch.testing.assert_close(backend.relu(a), reference.relu(a))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize("shape", [*SHAPES, (1, 3, 1000, 1000)], ids=str)
def test_the_squared_error_is_the_references_at_any_shape(shape, layout, dtype, backend, generator, threads):
    """Of three million numbers too, where a single float32 sum would have lost digits."""
    x, y = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    if len(shape) == 4:
        x = LAYOUTS[layout](x)
    loss, grad = reference.squared_error(x.double(), y.double(), 0.3, 0.7)
    for count in (1, 2):
        threads(count)
        got = backend.squared_error(x, y, 0.3, 0.7)
        assert got[0].shape == ()
        torch.testing.assert_close(got[0].double(), loss, rtol=1e-6 if dtype == torch.float32 else 1e-13, atol=0.0)
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(got[1].double(), grad, rtol=4 * eps, atol=4 * eps)
        again = backend.squared_error(x, y, 0.3, 0.7)
        assert torch.equal(again[0], got[0]), f"the loss has other bits the second time with {count} threads"


def test_of_nothing_the_squared_error_is_factor_times_zero(backend):
    loss, grad = backend.squared_error(torch.empty(0, 3, 2, 2), torch.empty(0, 3, 2, 2), nan, 1.0)
    assert loss.isnan()
    assert grad.shape == (0, 3, 2, 2)


SPECIAL = [0.0, -0.0, 1e-30, -1e-30, 1e-8, -1e-8, 0.5, -0.5, 15.9, 16.7, -17.0, 37.0, -37.0, 87.3, -87.3, -87.34,
           -88.0, -88.5, 89.0, -90.5, -95.0, -100.0, -103.0, -103.9, -104.1, -105.0, 110.0, -110.0, -110.5, 120.0,
           -200.0, 1e30, -1e30]  # fmt: skip
BEYOND = [-700.0, -708.3, -709.5, -720.0, -740.0, -745.1, -746.0, 760.0, -760.0, -761.0, 1e300, -1e300]


def sigmoid_exactly(x):
    """1 / (1 + exp(-x)) to 60 digits."""
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 60, 10**17, -(10**17)
        e = (-abs(Decimal(x)) if abs(x) < 1e5 else Decimal(-100_000)).exp()
        return float((1 if x >= 0 else e) / (1 + e))


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_sigmoid_is_exact_to_a_few_last_digits_over_the_whole_range(dtype, backend, generator):
    """Where its value is no normal number any more it has fewer digits; the last of these may be wrong by one."""
    span = 110.0 if dtype == torch.float32 else 760.0
    drawn = [span * (2 * torch.rand(150, generator=generator, dtype=torch.float64) - 1),
             torch.randn(150, generator=generator, dtype=torch.float64)]  # fmt: skip
    special = SPECIAL if dtype == torch.float32 else SPECIAL + BEYOND
    # Between two powers of 2 the series has its largest argument.
    special = special + [(half + end) * log(2) for half in range(-40, 3) for end in (0.499, 0.501)]
    x = torch.cat([torch.tensor(special, dtype=torch.float64), *drawn]).to(dtype)
    got = backend.sigmoid(x).double()
    right = torch.tensor([sigmoid_exactly(float(value)) for value in x], dtype=torch.float64)
    number = torch.finfo(dtype)
    last = torch.maximum(right * number.eps, torch.tensor(number.tiny * number.eps, dtype=torch.float64))
    error = (got - right).abs() / last
    worst = int(error.argmax())
    assert float(error.max()) <= 2, f"{float(error[worst])} last digits at {float(x[worst])}: {float(got[worst])}"


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_sigmoid_of_what_is_no_ordinary_number(dtype, backend):
    x = torch.tensor([torch.inf, -torch.inf, nan, -nan, 0.0, -0.0], dtype=dtype)
    assert backend.sigmoid(x).tolist()[:2] == [1.0, 0.0]
    assert backend.sigmoid(x)[2:4].isnan().all()
    assert backend.sigmoid(x).tolist()[4:] == [0.5, 0.5]


@pytest.mark.parametrize("dtype", FLOATS)
def test_each_numbers_activation_is_the_same_wherever_it_stands(dtype, backend, generator):
    """In a whole vector or in the rest after the last one."""
    x = 5 * torch.randn(70, generator=generator, dtype=dtype)
    for name in ("relu", "sigmoid"):
        whole = getattr(backend, name)(x)
        for count in range(70):
            assert torch.equal(getattr(backend, name)(x[:count]), whole[:count]), f"{name} of {count} numbers"


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("count", [8, 100])
def test_the_relu_keeps_a_nan_and_its_gradient_passes_there(count, dtype, backend):
    x = torch.tensor([nan, -1.0, 0.0, -0.0, 2.0, torch.inf, -torch.inf, 1e-40], dtype=dtype)
    x = x.repeat(count // 8 + 1)[:count]
    output, g = backend.relu(x), torch.arange(1.0, count + 1, dtype=dtype)
    assert torch.equal(output.isnan(), x.isnan())
    assert torch.equal(output.nan_to_num(5.0, 6.0), x.clamp(min=0).nan_to_num(5.0, 6.0))
    assert torch.equal(backend.relu_grad(output, g), torch.where(output <= 0, 0.0, g))


@pytest.mark.parametrize("dtype", FLOATS)
def test_element_by_element_nothing_given_is_changed(dtype, backend, generator):
    x, g = (torch.randn(2, 3, 4, 5, generator=generator, dtype=dtype) for _ in range(2))
    kept = x.clone(), g.clone()
    for got in (backend.relu(x), backend.sigmoid(x), backend.relu_grad(x, g), backend.sigmoid_grad(x, g),
                backend.squared_error(x, g, 1.0, 1.0)[1]):  # fmt: skip
        got.fill_(nan)
    assert torch.equal(x, kept[0])
    assert torch.equal(g, kept[1])


# The optimizers.

SIZES = [(1,), (5, 3, 2, 2), (7,), (), (0,), (17, 3), (40_001,)]


def groups(count, dtype, generator):
    """Lists of tensors of SIZES, the last of them of squares; the same in float64."""
    lists = [[torch.randn(size, generator=generator, dtype=dtype) for size in SIZES] for _ in range(count)]
    return lists, [[tensor.double() for tensor in tensors] for tensors in lists]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("momentum", "nesterov"),
    [pytest.param(None, False, id="plain"), pytest.param(0.9, False, id="momentum"),
     pytest.param(0.9, True, id="nesterov"), pytest.param(0.0, False, id="momentum-0")],
)  # fmt: skip
def test_sgd_is_the_references(momentum, nesterov, dtype, backend, generator, threads):
    """Three steps; a small number beside a large one, so that the change itself is compared."""
    for count in (1, 2):
        threads(count)
        (values, grads, velocities), exact = groups(3, dtype, generator)
        for _ in range(3):
            backend.sgd(values, grads, None if momentum is None else velocities, 0.1, momentum or 0.0, nesterov)
            reference.sgd(exact[0], exact[1], None if momentum is None else exact[2], 0.1, momentum or 0.0, nesterov)
        eps = torch.finfo(dtype).eps
        for got, right in zip(values + velocities + grads, exact[0] + exact[2] + exact[1], strict=True):
            torch.testing.assert_close(got.double(), right, rtol=4 * eps, atol=8 * eps)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.5), (0.5, 0.9999), (0.99, 0.0)], ids=str)
def test_adam_is_the_references(betas, dtype, backend, generator, threads):
    """Step by step from 1: the change and both averages, each to its own last digits."""
    for count in (1, 2):
        threads(count)
        (_, grads, _, _), exact = groups(4, dtype, generator)
        values, means, squares = ([torch.zeros_like(grad) for grad in grads] for _ in range(3))
        exact = [[tensor.double() for tensor in tensors] for tensors in (values, grads, means, squares)]
        for step in (1, 2, 3):
            backend.adam(values, grads, means, squares, 1e-3, betas, 1e-8, step)
            reference.adam(*exact, 1e-3, betas, 1e-8, step)
        tolerance = 1e-6 if dtype == torch.float32 else 1e-13
        for name, got, right in zip(("values", "grads", "means", "squares"), (values, grads, means, squares), exact,
                                    strict=True):  # fmt: skip
            for one, other in zip(got, right, strict=True):
                torch.testing.assert_close(
                    one.double(), other, rtol=tolerance, atol=0.0, msg=lambda text, name=name: f"{name}: {text}"
                )


@pytest.mark.parametrize("dtype", FLOATS)
def test_tensors_that_do_not_lie_side_by_side_are_updated_all_the_same(dtype, backend, generator, monkeypatch):
    """By the reference; the numbers between them stay as they are."""
    use_instead(monkeypatch, reference)
    value, grad = (strided(torch.randn(4, 3, generator=generator, dtype=dtype), 2, 1) for _ in range(2))
    expected = value - 0.5 * grad
    backend.sgd([value], [grad], None, 0.5, 0.0, False)
    torch.testing.assert_close(value, expected)
    mean, square = torch.zeros(4, 3, dtype=dtype), torch.zeros(4, 3, dtype=dtype)
    backend.adam([value], [grad], [mean], [square], 0.5, (0.9, 0.99), 0.0, 1)
    torch.testing.assert_close(value, expected - 0.5 * grad.sign())


def test_an_update_counts_as_a_change_in_place(backend):
    """By which a module sees that what it kept is not what it was."""
    values, grads, means, squares = ([torch.ones(3)] for _ in range(4))
    backend.sgd(values, grads, means, 0.1, 0.9, False)
    backend.adam(values, grads, means, squares, 0.1, (0.9, 0.99), 1e-8, 1)
    assert [tensor._version for tensor in (values[0], means[0], squares[0], grads[0])] == [2, 2, 1, 0]


@pytest.mark.parametrize(("c", "w"), [(4, 1024), (32, 128), (1, 4096)])
def test_rows_as_long_as_a_part_of_a_line_are_taken_as_they_lie(c, w, backend, generator):
    """Channels last beside channels first, where a row has as many numbers as a part of numbers that are one line."""
    input, target = torch.randn(2, 2, c, 3, w, generator=generator)
    last = input.contiguous(memory_format=torch.channels_last)
    loss, grad = backend.squared_error(last, target, 1.0, 2.0)
    expected, expected_grad = reference.squared_error(input.double(), target.double(), 1.0, 2.0)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 0, 5), (2, 3, 5, 0)], ids=["no-rows", "no-columns"])
@pytest.mark.parametrize("make", [nn.Conv2d, nn.Upsampling])
@pytest.mark.usefixtures("backend")
def test_images_without_pixels_have_gradients_without_pixels(make, shape):
    module = make(3, 8, 3, padding=2)
    output = module(torch.zeros(shape))
    assert module.backward(torch.ones_like(output)).shape == shape
    assert float(module.weight.grad.abs().sum()) == 0


@pytest.mark.parametrize("value", [float("inf"), nan])
def test_an_infinite_gradient_of_a_window_of_padding_alone_is_multiplied_by_zeros(
    value, backend, generator, monkeypatch
):
    """As the definition does: 0 times infinity is no number."""
    use_instead(monkeypatch, reference)
    geometry = Geometry((3, 3), (1, 1), ((4, 4), (4, 4)), (1, 1))
    input, grad = torch.randn(1, 16, 5, 5, generator=generator), torch.randn(1, 2, 11, 11, generator=generator)
    grad[0, 0, 0, 0] = value
    assert backend.convolution_grad_weight(input, grad, geometry)[0].isnan().all()
    grad = torch.randn(1, 2, 16, 16, generator=generator)
    grad[0, 0, 0, 0] = value
    assert backend.upsampled_convolution_grad_weight(input, grad, (2, 2), geometry)[0].isnan().all()


def test_many_bands_lose_no_digits_of_a_kernels_gradient(backend, generator):
    """All numbers are positive, so that one long sum of them would swallow the small ones."""
    pair = [torch.rand(2, c, 256, 256, generator=generator) for c in (3, 16)]
    geometry = Geometry((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    got = backend.convolution_grad_weight(*pair, geometry)
    expected = backend.convolution_grad_weight(*(tensor.double() for tensor in pair), geometry)
    error = float((got - expected).norm() / expected.norm())
    assert error < 2e-6, f"relative error {error:.1e}"
