"""Which numbers a convolution multiplies, along one axis.

Along one axis, a window lies over the input at every `step` pixels, and each of its taps multiplies a number by a sum
of kernel elements. With k the kernel's size, s a stride or factor, d the dilation, t the padding before:

    convolution             one phase, step s: tap i d - t has element i
    transposed              out[s a + p], step 1: tap (p + t - i d) / s has element i, where that is a whole number
    nearest, convolution    out[s a + p], step 1: tap floor((p + i d - t) / s) has the sum of such elements i
    its gradient            step s: tap r - i d + t has the sum of the elements i, r in [0, s)

The second is also the input gradient of the first, and the last with s = 1 is its weight gradient with input and
gradient exchanged.
"""

from dataclasses import dataclass
from typing import Any

from scratch_dl.kernels.geometry import Geometry
from scratch_dl.system.checks import Pair

Taps = dict[int, list[int]]
"""Along one axis: tap -> the kernel elements whose sum it multiplies."""


@dataclass(frozen=True)
class Axis:
    """One axis of a gather: the phases of the output, `step` input pixels from position to position."""

    phases: tuple[Taps, ...]
    step: int

    @property
    def union(self) -> list[int]:
        """The taps of any phase."""
        return sorted({tap for phase in self.phases for tap in phase})


def convolution_axis(k: int, s: int, t: int, d: int) -> Axis:
    """Of a convolution; see the head of the file."""
    return Axis(({i * d - t: [i] for i in range(k)},), s)


def transposed_axis(k: int, s: int, t: int, d: int) -> Axis:
    """Of a transposed convolution, and of a convolution's input gradient."""
    return Axis(tuple({(p + t - i * d) // s: [i] for i in range(k) if (p + t - i * d) % s == 0} for p in range(s)), 1)


def nearest_axis(k: int, s: int, t: int, d: int) -> Axis:
    """Of repetition s times, then a convolution of stride 1."""
    return Axis(tuple(_merged(((p + i * d - t) // s, i) for i in range(k)) for p in range(s)), 1)


def nearest_grad_axis(k: int, s: int, t: int, d: int) -> Axis:
    """Of the gradient of that; with s = 1 of a convolution's with respect to its kernel, seen from the input."""
    return Axis((_merged((r - i * d + t, i) for r in range(s) for i in range(k)),), s)


AXES = {
    "convolution": convolution_axis,
    "transposed": transposed_axis,
    "nearest": nearest_axis,
    "nearest_grad": nearest_grad_axis,
}


def axes_of(kind: str, geometry: Geometry, scale: Pair) -> tuple[Axis, Axis]:
    """Return the axes of height and width.

    Args:
        kind: one of AXES.
        geometry: of the convolution.
        scale: the factor of a nearest kind.
    """
    factor = scale if kind.startswith("nearest") else geometry.stride
    rows, columns = (
        AXES[kind](geometry.kernel_size[i], factor[i], geometry.padding[i][0], geometry.dilation[i]) for i in (0, 1)
    )
    return rows, columns


def _merged(pairs: Any) -> Taps:
    taps: Taps = {}
    for tap, element in pairs:
        taps.setdefault(tap, []).append(element)
    return taps
