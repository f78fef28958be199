"""The slips in the paper's printed equations, each demonstrated: what is printed fails where what is meant holds.

Letters as in the paper (section II.C): X (B, C_in, H_in, W_in), W (C_out, C_in, K0, K1), Z (B, C_out, H_out, W_out);
alpha sample, beta output channel, gamma delta output pixel, i input channel, j m kernel offset (the paper's l is m),
P padding, S stride, D dilation. PyTorch in float64 says what is right.
"""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name)
from torch import Tensor

from scratch_dl.faults.modules import sigmoid_gradient_at_upstream
from scratch_dl.system.checks import Pair

_EXACT = 1e-12  # relative; sums of under a hundred products in float64


@dataclass(frozen=True)
class Slip:
    """What the paper prints, what it means, and how far each is from the truth.

    Attributes:
        equation: its number in the paper, or the section of a claim.
        printed: what the paper prints.
        mended: what is meant.
        measure: what the two errors are, "share wrong" (of output sizes) or "relative error" (norm-wise).
        error_printed: of the most favourable reading where there are several.
        error_mended: of the mended form.
        shown: whether the printed form fails and the mended one holds.
    """

    equation: str
    printed: str
    mended: str
    measure: str
    error_printed: float
    error_mended: float
    shown: bool

    def row(self) -> tuple[str, ...]:
        """Equation, printed, mended and the two errors."""
        style = ".0%" if self.measure == "share wrong" else ".1e"
        errors = (f"{error:{style}}" for error in (self.error_printed, self.error_mended))
        return self.equation, self.printed, self.mended, *errors


@dataclass(frozen=True)
class Note:
    """A slip with nothing to measure: the place in the paper, what is printed there, and what is meant."""

    place: str
    printed: str
    mended: str


NOTES = (
    Note("II.A", "the gradients from the forward pass", "the backward pass computes them"),
    Note("II.A", "(2) and (3) are products", "sums over the elements of Z"),
    Note("II.C.2", "(6) has no bias", "+ b_beta: Table II measures dL/db"),
    Note("II.C.2", "(6) reads X at r0 < 0 and r0 >= H_in", "X counts as 0 outside, likewise for r1"),
    Note("II.C.3", "dL/dZ comes from the previous layer", "from the layer after it, as II.A says"),
    Note("II.C.3", "compute dO/dX", "dZ/dX: there is no O"),
    Note("II.C.3", "(9) has no condition on k' and l'", "the indicator of (10): W has no entry outside"),
    Note("II.C.3", "delta is an output column and Kronecker's symbol", "two letters"),
    Note("II.C.3", "(10) has dL/dS", "dL/dZ: there is no S but the stride"),
    Note("II.C.3", "only dL/dX is derived", "Table II measures dL/dW and dL/db too"),
    Note("III.A.2", "no dL/dX of the ReLU: not differentiable", "at 0 alone; else dL/dZ where X > 0, or 0"),
    Note("III.A.2", "dimensions (100, 100, 3, 10, 10)", "(100, 3, 10, 10): five axes are no batch"),
    Note("Table II", "MSE 0.00, without a power of ten", "dL/dX = 2 (Y - T) / 30000 is 0.00 to two digits anyway"),
)


def slips() -> list[Slip]:
    """Every slip that can be measured, in the paper's order; deterministic, under a second."""
    return [*_output_size(), _forward(), _input_gradient(), _rounding()]


# (H_in, W_in), (K0, K1), (S0, S1), (P0, P1), (D0, D1)
_GEOMETRIES: tuple[tuple[Pair, Pair, Pair, Pair, Pair], ...] = (
    ((10, 10), (3, 3), (1, 1), (0, 0), (1, 1)),  # the paper's test
    ((32, 32), (3, 3), (2, 2), (1, 1), (1, 1)),  # the paper's network
    ((7, 9), (1, 2), (1, 3), (0, 1), (1, 1)),
    ((8, 11), (3, 2), (3, 2), (2, 0), (1, 2)),
    ((9, 8), (2, 3), (2, 1), (1, 2), (3, 2)),
    ((12, 7), (4, 3), (3, 2), (1, 3), (2, 1)),
    ((5, 6), (5, 6), (1, 1), (0, 0), (1, 1)),  # a single pixel is left
)


def _output_size() -> list[Slip]:
    """(4) and (5), each over the geometries above, against the size of what PyTorch returns."""
    found = []
    for axis in (0, 1):
        wrong_printed = wrong_mended = 0
        for size, kernel, stride, padding, dilation in _GEOMETRIES:
            images, weight = torch.zeros(1, 1, *size), torch.zeros(1, 1, *kernel)
            truth = F.conv2d(images, weight, None, stride, padding, dilation).shape[2 + axis]
            room = size[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1
            # The 1 is whole, so it may as well be taken after rounding down.
            wrong_printed += room // stride[axis] - 1 != truth
            wrong_mended += room // stride[axis] + 1 != truth
        shares = wrong_printed / len(_GEOMETRIES), wrong_mended / len(_GEOMETRIES)
        form = f"floor((...) / S{axis} {{}} 1)"
        shown = shares[0] > 0 and shares[1] == 0
        found.append(Slip(f"({4 + axis})", form.format("-"), form.format("+"), "share wrong", *shares, shown))
    return found


# The cases of (6) and (10): oblong throughout, and no two of the settings of an axis alike.
_PADDING, _STRIDE, _DILATION = (2, 1), (1, 2), (2, 3)


def _tensors() -> tuple[Tensor, Tensor, Tensor]:
    """X (2, 2, 6, 7), W (3, 2, 3, 2), and G = dL/dZ (2, 3, 6, 3) for the settings above, normal, in float64."""
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 2, 6, 7), (3, 2, 3, 2), (2, 3, 6, 3)
    x, w, g = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return x, w, g


def _forward() -> Slip:
    """(6) sums over l but reads W and r1 at m, which no sum binds."""
    x, w, g = _tensors()
    truth = F.conv2d(x, w, None, _STRIDE, _PADDING, _DILATION)
    columns = range(w.shape[3])
    mended = _relative(_seven_loops(x, w, g, tuple(columns)), truth)
    # As printed, m is whatever one takes it for, and the sum over l adds the same term K1 times.
    printed = min(_relative(_seven_loops(x, w, g, (m,) * len(columns)), truth) for m in columns)
    shown = printed > 0.1 and mended < _EXACT
    return Slip("(6)", "sum over l, W and r1 at m", "sum over m", "relative error", printed, mended, shown)


def _seven_loops(x: Tensor, w: Tensor, like: Tensor, columns: tuple[int, ...]) -> Tensor:
    """Z of the shape of `like`, by (6) to (8) loop by loop, with m running over `columns`."""
    pixels, weights = x.tolist(), w.tolist()
    z = torch.zeros_like(like)
    for alpha, beta, gamma, delta in itertools.product(*map(range, z.shape)):
        total = 0.0
        for i, j, m in itertools.product(range(x.shape[1]), range(w.shape[2]), columns):
            r0 = -_PADDING[0] + _STRIDE[0] * gamma + _DILATION[0] * j
            r1 = -_PADDING[1] + _STRIDE[1] * delta + _DILATION[1] * m
            if 0 <= r0 < x.shape[2] and 0 <= r1 < x.shape[3]:
                total += weights[beta][i][j][m] * pixels[alpha][i][r0][r1]
        z[alpha, beta, gamma, delta] = total
    return z


def _input_gradient() -> Slip:
    """The divisions by D in (10) must be exact: rounded down, k' and l' count pixels that no window has read.

    Over the rational numbers the equation is right as printed, because a fraction is not in A. What is tested here is
    the printed form with integer division, as an index needs it.
    """
    x, w, g = _tensors()
    twin = x.clone().requires_grad_()
    with torch.enable_grad():
        output = F.conv2d(twin, w, None, _STRIDE, _PADDING, _DILATION)
    (truth,) = torch.autograd.grad(output, twin, g)
    printed, mended = (_relative(_equation_10(x, w, g, exact=exact), truth) for exact in (False, True))
    shown = printed > 0.1 and mended < _EXACT
    return Slip("(10)", "k' = ... / D0, as integers", "only where D0 divides", "relative error", printed, mended, shown)


def _equation_10(x: Tensor, w: Tensor, g: Tensor, *, exact: bool) -> Tensor:
    """dL/dX of the shape of `x`; `exact` leaves out what D does not divide, else it is rounded down."""
    gradients, weights = g.tolist(), w.tolist()
    grad = torch.zeros_like(x)
    for i, j, k, l in itertools.product(*map(range, x.shape)):  # noqa: E741 (the paper's letters)
        total = 0.0
        for beta, gamma, delta in itertools.product(*map(range, g.shape[1:])):
            k_prime, k_rest = divmod(k + _PADDING[0] - _STRIDE[0] * gamma, _DILATION[0])
            l_prime, l_rest = divmod(l + _PADDING[1] - _STRIDE[1] * delta, _DILATION[1])
            if exact and (k_rest or l_rest):
                continue
            if 0 <= k_prime < w.shape[2] and 0 <= l_prime < w.shape[3]:
                total += gradients[i][beta][gamma][delta] * weights[beta][j][k_prime][l_prime]
        grad[i, j, k, l] = total
    return grad


def _rounding() -> Slip:
    """Section IV takes the Sigmoid's 0.249991 for rounding between two formulas; it is sigma' at dL/dZ.

    Both errors are distances from the printed figure, relative to it. The paper's own protocol in small: X from
    U(0, 1) and targets from N(0, 1), (100, 3, 10, 10), under a mean squared error.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(100, 3, 10, 10, generator=generator)
    target = torch.randn(x.shape, generator=generator)
    printed_figure, printed_std = 0.249991, 0.000001

    def derivative(output: Tensor) -> Tensor:
        return output * (1 - output)

    one, other = 1 / (1 + (-x).exp()), x.exp() / (1 + x.exp())
    grad_output = 2 * (one - target) / x.numel()
    right = grad_output * derivative(one)
    rounding = float((grad_output * derivative(other) - right).abs().max())
    at_upstream = float((sigmoid_gradient_at_upstream(grad_output) - right).abs().mean())
    printed, mended = (abs(figure - printed_figure) / printed_figure for figure in (rounding, at_upstream))
    shown = printed > 0.1 and mended < printed_std / printed_figure
    return Slip("IV", "0.249991 by rounding", "sigma'(dL/dZ)", "relative error", printed, mended, shown)


def _relative(value: Tensor, truth: Tensor) -> float:
    return float((value - truth).norm() / truth.norm())
