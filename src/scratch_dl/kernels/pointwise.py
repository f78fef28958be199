"""The same activations, loss and optimizers as in `reference`, by the C++ library of `cpp/`."""

from collections.abc import Sequence
from ctypes import Array, addressof, c_int64, c_void_p
from math import sqrt

import torch
from torch import Tensor

from scratch_dl.kernels import plans, reference
from scratch_dl.kernels.dense import dense, fit
from scratch_dl.kernels.library import FUNCTIONS


def relu(input: Tensor) -> Tensor:
    """See `reference.relu`."""
    input, output = dense(input)
    count = input.numel()
    FUNCTIONS[input.dtype].relu(input.data_ptr(), output.data_ptr(), count, torch.get_num_threads())
    return output


def relu_grad(output: Tensor, grad_output: Tensor) -> Tensor:
    """See `reference.relu_grad`."""
    return _pointwise_grad("relu_grad", output, grad_output)


def sigmoid(input: Tensor) -> Tensor:
    """See `reference.sigmoid`."""
    input, output = dense(input)
    count = input.numel()
    FUNCTIONS[input.dtype].sigmoid(input.data_ptr(), output.data_ptr(), count, torch.get_num_threads())
    return output


def sigmoid_grad(output: Tensor, grad_output: Tensor) -> Tensor:
    """See `reference.sigmoid_grad`."""
    return _pointwise_grad("sigmoid_grad", output, grad_output)


def squared_error(input: Tensor, target: Tensor, factor: float, scale: float) -> tuple[Tensor, Tensor]:
    """See `reference.squared_error`."""
    if not fit(input, target):
        return reference.squared_error(input, target, factor, scale)
    target = target.resolve_neg()
    input, grad = dense(input)
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
        input.data_ptr(),
        target.data_ptr(),
        addressof(where),
        n,
        c,
        h,
        w,
        factor,
        scale,
        loss.data_ptr(),
        grad.data_ptr(),
        torch.get_num_threads(),
    )
    return loss, grad


def sgd(
    values: Sequence[Tensor],
    grads: Sequence[Tensor],
    velocities: Sequence[Tensor] | None,
    lr: float,
    momentum: float,
    nesterov: bool,
) -> None:
    """See `reference.sgd`."""
    tensors = (values, grads) if velocities is None else (values, grads, velocities)
    if not _flat(tensors):
        return reference.sgd(values, grads, velocities, lr, momentum, nesterov)
    at = _pointers(velocities) if velocities is not None else None
    FUNCTIONS[values[0].dtype].sgd(
        len(values),
        _pointers(values),
        _pointers(grads),
        at,
        _counts(values),
        lr,
        momentum,
        nesterov,
        torch.get_num_threads(),
    )
    _changed(values, velocities or ())
    return None


def adam(
    values: Sequence[Tensor],
    grads: Sequence[Tensor],
    means: Sequence[Tensor],
    squares: Sequence[Tensor],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    step: int,
) -> None:
    """See `reference.adam`."""
    if not _flat((values, grads, means, squares)):
        return reference.adam(values, grads, means, squares, lr, betas, eps, step)
    b1, b2 = betas
    FUNCTIONS[values[0].dtype].adam(
        len(values),
        _pointers(values),
        _pointers(grads),
        _pointers(means),
        _pointers(squares),
        _counts(values),
        lr / (1 - b1**step),
        1 / sqrt(1 - b2**step),
        b1,
        b2,
        eps,
        torch.get_num_threads(),
    )
    _changed(values, means, squares)
    return None


def _pointwise_grad(name: str, output: Tensor, grad_output: Tensor) -> Tensor:
    if not fit(output, grad_output):
        return getattr(reference, name)(output, grad_output)  # type: ignore[no-any-return]
    output, grad = dense(output)
    grad_output = grad_output.resolve_neg()
    if grad_output.stride() != grad.stride():
        grad_output = torch.empty_like(grad).copy_(grad_output)
    function = getattr(FUNCTIONS[output.dtype], name)
    function(output.data_ptr(), grad_output.data_ptr(), grad.data_ptr(), grad.numel(), torch.get_num_threads())
    return grad


def _flat(lists: Sequence[Sequence[Tensor]]) -> bool:
    """Whether the numbers of all tensors lie side by side in one order, and are of one type and on the CPU."""
    first = lists[0][0]
    tensors = [tensor for some in lists for tensor in some]
    return fit(first, *tensors) and all(tensor.is_contiguous() and not tensor.is_neg() for tensor in tensors)


def _changed(*lists: Sequence[Tensor]) -> None:
    """Count a change in place, as torch does for its own operations."""
    for tensors in lists:
        torch.autograd.graph.increment_version(tensors)  # noqa: TID251 (a counter; nothing is differentiated)


def _pointers(tensors: Sequence[Tensor]) -> "Array[c_void_p]":
    return (c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _counts(tensors: Sequence[Tensor]) -> "Array[c_int64]":
    return (c_int64 * len(tensors))(*(tensor.numel() for tensor in tensors))
