"""The same convolutions as in `reference`, by the C++ library of `cpp/`: float32 and float64, on the CPU.

A call whose result is not finite is done again by the reference: padding, merged kernel elements and lanes computed
side by side multiply numbers that the reference does not, which shows only where a number is infinite or NaN.
"""

from ctypes import addressof

import torch
from torch import Tensor

from scratch_dl.kernels import plans, reference
from scratch_dl.kernels.dense import channels_last, contiguous, fit
from scratch_dl.kernels.geometry import Geometry
from scratch_dl.kernels.library import FUNCTIONS
from scratch_dl.kernels.plans import Plan
from scratch_dl.system.checks import Pair

_ACTIVATIONS = {None: 0, "relu": 1, "sigmoid": 2}
_ONE = (1, 1)
_MOST_PHASES = 256  # a plan with more would take longer to make than it saves
_SERIAL = 1 << 17  # multiply-adds below which a second thread takes longer to wake than it saves


def convolution(
    input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, activation: str | None = None
) -> Tensor:
    """See `reference.convolution`."""
    size = geometry.output_size((input.shape[2], input.shape[3]))
    plan = _forward("convolution", geometry, _ONE, input, weight, size)
    output = _gather(plan, input, weight, bias, activation)
    return reference.convolution(input, weight, bias, geometry, activation) if output is None else output


def convolution_grad_input(
    grad_output: Tensor, weight: Tensor, size: Pair, geometry: Geometry, positive: Tensor | None = None
) -> Tensor:
    """See `reference.convolution_grad_input`."""
    plan = _backward("transposed", geometry, _ONE, grad_output, weight, size)
    grad = _gather(plan, grad_output, weight, None, None, positive)
    return reference.convolution_grad_input(grad_output, weight, size, geometry, positive) if grad is None else grad


def convolution_grad_weight(input: Tensor, grad_output: Tensor, geometry: Geometry) -> Tensor:
    """See `reference.convolution_grad_weight`."""
    c, o = input.shape[1], grad_output.shape[1]
    width = _width(input)
    # At stride 1 either side can be the one whose channels are lanes; those of the smaller one may leave most empty.
    either = geometry.stride == _ONE and not _only_padding(geometry)
    if either and plans.cost("nearest_grad", geometry, o, c, width) < plans.cost("convolution", geometry, c, o, width):
        grad = _correlate("nearest_grad", geometry, _ONE, grad_output, input, lanes_first=False)
    else:
        grad = _correlate("convolution", geometry, _ONE, input, grad_output, lanes_first=True)
    return reference.convolution_grad_weight(input, grad_output, geometry) if grad is None else grad


def convolution_grad_bias(grad_output: Tensor) -> Tensor:
    """See `reference.convolution_grad_bias`."""
    dense = channels_last(grad_output)
    n, o, h, w = dense.shape
    grad = dense.new_empty(o)
    function = FUNCTIONS[dense.dtype].channel_sums
    function(dense.data_ptr(), n * h * w, o, grad.data_ptr(), _threads(dense.numel()))
    return grad


def convolution_transposed(
    input: Tensor, weight: Tensor, bias: Tensor | None, size: Pair, geometry: Geometry, activation: str | None = None
) -> Tensor:
    """See `reference.convolution_transposed`."""
    plan = _backward("transposed", geometry, _ONE, input, weight, size)
    output = _gather(plan, input, weight, bias, activation)
    return (
        reference.convolution_transposed(input, weight, bias, size, geometry, activation) if output is None else output
    )


def convolution_transposed_grad_input(
    grad_output: Tensor, weight: Tensor, geometry: Geometry, positive: Tensor | None = None
) -> Tensor:
    """See `reference.convolution_transposed_grad_input`."""
    size = geometry.output_size((grad_output.shape[2], grad_output.shape[3]))
    plan = _forward("convolution", geometry, _ONE, grad_output, weight, size)
    grad = _gather(plan, grad_output, weight, None, None, positive)
    return (
        reference.convolution_transposed_grad_input(grad_output, weight, geometry, positive) if grad is None else grad
    )


def upsampled_convolution(
    input: Tensor, weight: Tensor, bias: Tensor | None, scale: Pair, geometry: Geometry, activation: str | None = None
) -> Tensor:
    """See `reference.upsampled_convolution`."""
    size = geometry.output_size((input.shape[2] * scale[0], input.shape[3] * scale[1]))
    plan = _forward("nearest", geometry, scale, input, weight, size)
    output = _gather(plan, input, weight, bias, activation)
    return (
        reference.upsampled_convolution(input, weight, bias, scale, geometry, activation) if output is None else output
    )


def upsampled_convolution_grad_input(
    grad_output: Tensor, weight: Tensor, size: Pair, scale: Pair, geometry: Geometry, positive: Tensor | None = None
) -> Tensor:
    """See `reference.upsampled_convolution_grad_input`."""
    plan = _backward("nearest_grad", geometry, scale, grad_output, weight, size)
    grad = _gather(plan, grad_output, weight, None, None, positive)
    if grad is None:
        return reference.upsampled_convolution_grad_input(grad_output, weight, size, scale, geometry, positive)
    return grad


def upsampled_convolution_grad_weight(input: Tensor, grad_output: Tensor, scale: Pair, geometry: Geometry) -> Tensor:
    """See `reference.upsampled_convolution_grad_weight`."""
    if _only_padding(geometry) and not grad_output.isfinite().all():
        return reference.upsampled_convolution_grad_weight(input, grad_output, scale, geometry)
    grad = _correlate("nearest_grad", geometry, scale, grad_output, input, lanes_first=False)
    return reference.upsampled_convolution_grad_weight(input, grad_output, scale, geometry) if grad is None else grad


def _width(tensor: Tensor) -> int:
    """How many of its numbers a vector holds."""
    width: int = FUNCTIONS[tensor.dtype].width
    return width


def _only_padding(geometry: Geometry) -> bool:
    """Whether some window may see nothing but padding.

    Seen from the input, as here, its gradient is multiplied by nothing; by the definition it is multiplied by zeros, of
    which an infinite one makes NaN.
    """
    return any(
        max(sides) >= d * (k - 1) + 1
        for k, d, sides in zip(geometry.kernel_size, geometry.dilation, geometry.padding, strict=True)
    )


def _threads(work: int) -> int:
    return torch.get_num_threads() if work >= _SERIAL else 1


def _forward(kind: str, geometry: Geometry, scale: Pair, input: Tensor, weight: Tensor, size: Pair) -> Plan | None:
    """Lanes are the first channels of the weight; None for more phases than are worth a plan."""
    if scale[0] * scale[1] > _MOST_PHASES:
        return None
    o, c, i, j = weight.shape
    return plans.gather(kind, geometry, scale, input.shape, size, o, (c * i * j, i * j), _width(input))


def _backward(kind: str, geometry: Geometry, scale: Pair, input: Tensor, weight: Tensor, size: Pair) -> Plan | None:
    """Lanes are the second channels of the weight; None as in `_forward`."""
    if max(scale[0] * scale[1], geometry.stride[0] * geometry.stride[1]) > _MOST_PHASES:
        return None
    _, c, i, j = weight.shape
    return plans.gather(kind, geometry, scale, input.shape, size, c, (i * j, c * i * j), _width(input))


def _gather(
    plan: Plan | None,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    positive: Tensor | None = None,
) -> Tensor | None:
    """The output, channels last; None where the reference is to be asked, also if a number in it is not finite."""
    if plan is None or activation not in _ACTIVATIONS or not fit(input, weight, bias, positive):
        return None
    input = input.resolve_neg()
    _, o, h, w = plan.shape
    output = torch.empty_strided(plan.shape, (h * w * o, 1, w * o, o), dtype=input.dtype)
    weight, bias = contiguous(weight), None if bias is None else contiguous(bias)
    mask = None if positive is None else channels_last(positive)
    where = plans.strides(input.stride())
    unsound = FUNCTIONS[input.dtype].gather(
        plan.address,
        input.data_ptr(),
        addressof(where),
        weight.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        0 if mask is None else mask.data_ptr(),
        _ACTIVATIONS[activation],
        output.data_ptr(),
        _threads(plan.work),
    )
    return None if unsound else output


def _correlate(
    kind: str, geometry: Geometry, scale: Pair, wide: Tensor, lanes: Tensor, lanes_first: bool
) -> Tensor | None:
    """The kernel's gradient, in which the channels of `lanes` come first or second; None as in `_gather`."""
    if not fit(wide, lanes):
        return None
    wide, lanes = wide.resolve_neg(), lanes.resolve_neg()
    c, o, area = wide.shape[1], lanes.shape[1], geometry.kernel_size[0] * geometry.kernel_size[1]
    stride = (c * area, area) if lanes_first else (area, o * area)
    shape = (o, c, *geometry.kernel_size) if lanes_first else (c, o, *geometry.kernel_size)
    plan = plans.correlate(kind, geometry, scale, wide.shape, lanes.shape, stride, shape)
    grad = wide.new_empty(shape)
    of_wide, of_lanes = plans.strides(wide.stride()), plans.strides(lanes.stride())
    unsound = FUNCTIONS[wide.dtype].correlate(
        plan.address,
        wide.data_ptr(),
        addressof(of_wide),
        lanes.data_ptr(),
        addressof(of_lanes),
        grad.data_ptr(),
        _threads(plan.work),
    )
    return None if unsound else grad
