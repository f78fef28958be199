"""The same functions as `reference`, by the C++ library of `cpp/`: float32 and float64, on the CPU.

A call whose result is not finite is done again by the reference: padding, merged kernel elements and lanes computed
side by side multiply numbers that the reference does not, which shows only where a number is infinite or NaN.
"""

from collections.abc import Sequence
from ctypes import Array, addressof, c_int64, c_void_p
from math import sqrt

import torch
from torch import Tensor

from scratch_dl.kernels import plans, reference
from scratch_dl.kernels.library import FUNCTIONS
from scratch_dl.kernels.plans import Plan
from scratch_dl.kernels.reference import Geometry
from scratch_dl.system.checks import Pair

_ACTIVATIONS = {None: 0, "relu": 1, "sigmoid": 2}
_ONE = (1, 1)
_PHASES = 256
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
    dense = _channels_last(grad_output)
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


def relu(input: Tensor) -> Tensor:
    """See `reference.relu`."""
    input, output = _dense(input)
    count = input.numel()
    FUNCTIONS[input.dtype].relu(input.data_ptr(), output.data_ptr(), count, torch.get_num_threads())
    return output


def relu_grad(output: Tensor, grad_output: Tensor) -> Tensor:
    """See `reference.relu_grad`."""
    return _elementwise_grad("relu_grad", output, grad_output)


def sigmoid(input: Tensor) -> Tensor:
    """See `reference.sigmoid`."""
    input, output = _dense(input)
    count = input.numel()
    FUNCTIONS[input.dtype].sigmoid(input.data_ptr(), output.data_ptr(), count, torch.get_num_threads())
    return output


def sigmoid_grad(output: Tensor, grad_output: Tensor) -> Tensor:
    """See `reference.sigmoid_grad`."""
    return _elementwise_grad("sigmoid_grad", output, grad_output)


def squared_error(input: Tensor, target: Tensor, factor: float, scale: float) -> tuple[Tensor, Tensor]:
    """See `reference.squared_error`."""
    if not _fit(input, target):
        return reference.squared_error(input, target, factor, scale)
    target = target.resolve_neg()
    input, grad = _dense(input)
    stride, loss = grad.stride(), torch.empty((), dtype=input.dtype)
    n, c, h, w = input.shape if input.ndim == 4 else (0, 0, 0, 0)
    if stride == (h * w * c, 1, w * c, c):
        where = plans.strides(target.stride())
    else:
        if target.stride() != stride:
            target = torch.empty_like(grad).copy_(target)
        n, c, h, w = 1, 1, 1, input.numel()
        where = plans.strides((w, 1, w, 1))
    FUNCTIONS[input.dtype].squared_error(
        input.data_ptr(), target.data_ptr(), addressof(where), n, c, h, w, factor, scale, loss.data_ptr(),
        grad.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return loss, grad


def sgd(
    values: Sequence[Tensor], grads: Sequence[Tensor], velocities: Sequence[Tensor] | None, lr: float, momentum: float,
    nesterov: bool,
) -> None:  # fmt: skip
    """See `reference.sgd`."""
    tensors = (values, grads) if velocities is None else (values, grads, velocities)
    if not _flat(tensors):
        return reference.sgd(values, grads, velocities, lr, momentum, nesterov)
    at = _pointers(velocities) if velocities is not None else None
    FUNCTIONS[values[0].dtype].sgd(
        len(values), _pointers(values), _pointers(grads), at, _counts(values), lr, momentum, nesterov,
        torch.get_num_threads(),
    )  # fmt: skip
    _changed(values, velocities or ())
    return None


def adam(
    values: Sequence[Tensor], grads: Sequence[Tensor], means: Sequence[Tensor], squares: Sequence[Tensor], lr: float,
    betas: tuple[float, float], eps: float, step: int,
) -> None:  # fmt: skip
    """See `reference.adam`."""
    if not _flat((values, grads, means, squares)):
        return reference.adam(values, grads, means, squares, lr, betas, eps, step)
    b1, b2 = betas
    FUNCTIONS[values[0].dtype].adam(
        len(values), _pointers(values), _pointers(grads), _pointers(means), _pointers(squares), _counts(values),
        lr / (1 - b1**step), 1 / sqrt(1 - b2**step), b1, b2, eps, torch.get_num_threads(),
    )  # fmt: skip
    _changed(values, means, squares)
    return None


def _width(tensor: Tensor) -> int:
    """How many of its numbers a vector holds."""
    width: int = FUNCTIONS[tensor.dtype].width
    return width


def _fit(first: Tensor, *others: Tensor | None) -> bool:
    """Whether all lie on the CPU and are of one type; what else there may be is the reference's."""
    return all(other is None or (other.is_cpu and other.dtype == first.dtype) for other in others)


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
    if scale[0] * scale[1] > _PHASES:
        return None
    o, c, i, j = weight.shape
    return plans.gather(kind, geometry, scale, input.shape, size, o, (c * i * j, i * j), _width(input))


def _backward(kind: str, geometry: Geometry, scale: Pair, input: Tensor, weight: Tensor, size: Pair) -> Plan | None:
    """Lanes are the second channels of the weight; None as in `_forward`."""
    if max(scale[0] * scale[1], geometry.stride[0] * geometry.stride[1]) > _PHASES:
        return None
    _, c, i, j = weight.shape
    return plans.gather(kind, geometry, scale, input.shape, size, c, (i * j, c * i * j), _width(input))


def _gather(
    plan: Plan | None, input: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None,
    positive: Tensor | None = None,
) -> Tensor | None:  # fmt: skip
    """The output, channels last; None where the reference is to be asked, also if a number in it is not finite."""
    if plan is None or activation not in _ACTIVATIONS or not _fit(input, weight, bias, positive):
        return None
    input = input.resolve_neg()
    _, o, h, w = plan.shape
    output = torch.empty_strided(plan.shape, (h * w * o, 1, w * o, o), dtype=input.dtype)
    weight, bias = _contiguous(weight), None if bias is None else _contiguous(bias)
    mask = None if positive is None else _channels_last(positive)
    where = plans.strides(input.stride())
    unsound = FUNCTIONS[input.dtype].gather(
        plan.address, input.data_ptr(), addressof(where), weight.data_ptr(),
        0 if bias is None else bias.data_ptr(), 0 if mask is None else mask.data_ptr(),
        _ACTIVATIONS[activation], output.data_ptr(), _threads(plan.work),
    )  # fmt: skip
    return None if unsound else output


def _correlate(
    kind: str, geometry: Geometry, scale: Pair, wide: Tensor, lanes: Tensor, lanes_first: bool
) -> Tensor | None:
    """The kernel's gradient, in which the channels of `lanes` come first or second; None as in `_gather`."""
    if not _fit(wide, lanes):
        return None
    wide, lanes = wide.resolve_neg(), lanes.resolve_neg()
    c, o, area = wide.shape[1], lanes.shape[1], geometry.kernel_size[0] * geometry.kernel_size[1]
    stride = (c * area, area) if lanes_first else (area, o * area)
    shape = (o, c, *geometry.kernel_size) if lanes_first else (c, o, *geometry.kernel_size)
    plan = plans.correlate(kind, geometry, scale, wide.shape, lanes.shape, stride, shape)
    grad = wide.new_empty(shape)
    of_wide, of_lanes = plans.strides(wide.stride()), plans.strides(lanes.stride())
    unsound = FUNCTIONS[wide.dtype].correlate(
        plan.address, wide.data_ptr(), addressof(of_wide), lanes.data_ptr(), addressof(of_lanes), grad.data_ptr(),
        _threads(plan.work),
    )  # fmt: skip
    return None if unsound else grad


def _contiguous(tensor: Tensor) -> Tensor:
    return tensor.resolve_neg().contiguous()


def _dense(input: Tensor) -> tuple[Tensor, Tensor]:
    """The input, copied if its numbers do not lie side by side, and an empty output in its order."""
    input = input.resolve_neg()
    output = torch.empty_like(input)
    return (input, output) if output.stride() == input.stride() else (output.copy_(input), torch.empty_like(output))


def _elementwise_grad(name: str, output: Tensor, grad_output: Tensor) -> Tensor:
    if not _fit(output, grad_output):
        return getattr(reference, name)(output, grad_output)  # type: ignore[no-any-return]
    output, grad = _dense(output)
    grad_output = grad_output.resolve_neg()
    if grad_output.stride() != grad.stride():
        grad_output = torch.empty_like(grad).copy_(grad_output)
    function = getattr(FUNCTIONS[output.dtype], name)
    function(output.data_ptr(), grad_output.data_ptr(), grad.data_ptr(), grad.numel(), torch.get_num_threads())
    return grad


def _channels_last(images: Tensor) -> Tensor:
    return images.resolve_neg().contiguous(memory_format=torch.channels_last)


def _flat(lists: Sequence[Sequence[Tensor]]) -> bool:
    """Whether the numbers of all tensors lie side by side in one order, and are of one type and on the CPU."""
    first = lists[0][0]
    tensors = [tensor for some in lists for tensor in some]
    return _fit(first, *tensors) and all(tensor.is_contiguous() and not tensor.is_neg() for tensor in tensors)


def _changed(*lists: Sequence[Tensor]) -> None:
    """Count a change in place, as torch does for its own operations."""
    for tensors in lists:
        torch.autograd.graph.increment_version(tensors)  # noqa: TID251 (a counter; nothing is differentiated)


def _pointers(tensors: Sequence[Tensor]) -> "Array[c_void_p]":
    return (c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _counts(tensors: Sequence[Tensor]) -> "Array[c_int64]":
    return (c_int64 * len(tensors))(*(tensor.numel() for tensor in tensors))
