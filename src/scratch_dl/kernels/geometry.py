"""How a kernel lies over its input."""

from typing import NamedTuple

from scratch_dl.system.checks import Pair


class Geometry(NamedTuple):
    """How a kernel lies over its input: per axis (height, width), padding as (before, after).

    A negative padding after an axis leaves that many of its last pixels unread.
    """

    kernel_size: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair

    def output_size(self, size: Pair) -> Pair:
        """floor((H + padding - d (k - 1) - 1) / s) + 1 on each axis (the paper's equations 4 and 5, mended)."""
        (k0, k1), (s0, s1), ((top, bottom), (left, right)), (d0, d1) = self
        height, width = size[0] + top + bottom - d0 * (k0 - 1), size[1] + left + right - d1 * (k1 - 1)
        return (height - 1) // s0 + 1, (width - 1) // s1 + 1
