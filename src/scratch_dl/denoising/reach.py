"""Which inputs an output depends on, derived from the geometry of the modules."""

import math
from fractions import Fraction

from scratch_dl.nn import (
    Conv2d,
    ConvTranspose2d,
    Module,
    ReLU,
    Sequential,
    Sigmoid,
    Skip,
    Upsampling,
    UpsamplingNearest2d,
)

Span = tuple[int, int]
"""First and last index along an axis."""
_POINTWISE = (ReLU, Sigmoid)


class UnknownReachError(ValueError):
    """A module is of a class whose reach is not known here, for example one of a user's own."""


def input_span(module: Module, span: Span, axis: int) -> Span:
    """Return the inputs on which the outputs of `span` depend; indices outside of the picture are counted on.

    Args:
        module: whose inputs and outputs.
        span: of outputs.
        axis: 0 for rows, 1 for columns.

    Raises:
        UnknownReachError: naming the class.
    """
    first, last = span
    if isinstance(module, Sequential) and type(module).forward is Sequential.forward:
        for _, child in reversed(list(module.children())):
            span = input_span(child, span, axis)
        return span
    if type(module) is Skip:
        inner = input_span(module.inner, span, axis)
        return min(first, inner[0]), max(last, inner[1])
    if type(module) in _POINTWISE:
        return span
    if type(module) is UpsamplingNearest2d:
        return first // module.scale_factor[axis], last // module.scale_factor[axis]
    if not isinstance(module, Conv2d | ConvTranspose2d | Upsampling) or type(module).forward not in _FORWARDS:
        raise UnknownReachError(f"the reach of {type(module).__name__} is not known")
    geometry = module.geometry
    stride, before = geometry.stride[axis], geometry.padding[axis][0]
    width = geometry.dilation[axis] * (geometry.kernel_size[axis] - 1)
    if isinstance(module, ConvTranspose2d) or (isinstance(module, Upsampling) and module.mode == "transposed"):
        return -((width - first - before) // stride), (last + before) // stride
    first, last = first * stride - before, last * stride - before + width
    if isinstance(module, Upsampling):
        return first // module.scale_factor[axis], last // module.scale_factor[axis]
    return first, last


def period(module: Module, axis: int) -> int:
    """Return by how many inputs a picture must be shifted so that all outputs are shifted, and otherwise the same.

    Raises:
        UnknownReachError: as for `input_span`.
    """
    scales = [Fraction(1)]
    _collect(module, axis, scales)
    return math.lcm(*((1 / scale).numerator for scale in scales))


def _collect(module: Module, axis: int, scales: list[Fraction]) -> None:
    """Append the size after each module as a fraction of the input's size, as long as the last one is that before."""
    if isinstance(module, Sequential | Skip):
        before = scales[-1]
        for _, child in module.children():
            _collect(child, axis, scales)
        if isinstance(module, Skip):
            scales.append(before)
        return
    input_span(module, (0, 0), axis)  # raises an error if the class is not known
    scale = scales[-1]
    if isinstance(module, Conv2d):
        scale /= module.stride[axis]
    elif isinstance(module, ConvTranspose2d):
        scale *= module.geometry.stride[axis]
    elif isinstance(module, Upsampling | UpsamplingNearest2d):
        scale *= module.scale_factor[axis]
    scales.append(scale)


_FORWARDS = (Conv2d.forward, ConvTranspose2d.forward, Upsampling.forward)
