"""What the modules, the loss and the optimizers compute, in torch tensor arithmetic, on any device: the definition.

Axis letters: n sample, c input channel, o output channel, h w output pixel, H W input pixel, i j kernel offset.
Tensors come and go as (n, c, H, W); inside, the channels are last in memory, so that a pixel's channels lie side by
side, and so they stay from module to module. With X the zero-padded input, s the stride, d the dilation, G = dL/dZ:

    Z[n,o,h,w]     = b[o] + sum_cij W[o,c,i,j] X[n, c, hs+id, ws+jd]        (1)
    dL/db[o]       = sum_nhw G[n,o,h,w]                                     (2)
    dL/dW[o,c,i,j] = sum_nhw G[n,o,h,w] X[n, c, hs+id, ws+jd]               (3)
    dL/dX[n,c,p,q] = sum G[n,o,h,w] W[o,c,i,j] over hs+id = p, ws+jd = q    (4)

(1) is the paper's equation 6 with its summation index mended, (4) its equation 10.

A forward takes an `activation`, "relu" or "sigmoid", that is applied to its output. An input gradient takes `positive`,
the output of a ReLU that was the forward's input: the gradient is then that of the ReLU's input.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from scratch_dl.kernels.geometry import Geometry
from scratch_dl.system.checks import Pair, choice

# Patches of so many numbers are multiplied at a time: they then stay in a core's cache, and no large buffer is needed.
_CHUNK = 1 << 19


def convolution(
    input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, activation: str | None = None
) -> Tensor:
    """(n, c, H, W), (o, c, i, j), (o,) -> (n, o, h, w), by (1)."""
    turned = _turned(geometry)
    if turned is None or weight.shape[0] >= weight.shape[1]:
        return _activated(_gather(input, weight, bias, geometry), activation)
    size = geometry.output_size((input.shape[2], input.shape[3]))
    return _activated(_biased(_scatter(input, _turn(weight), size, turned), bias), activation)


def convolution_grad_bias(grad_output: Tensor) -> Tensor:
    """(n, o, h, w) -> (o,), by (2)."""
    return grad_output.sum(dim=(0, 2, 3))


def convolution_grad_weight(input: Tensor, grad_output: Tensor, geometry: Geometry) -> Tensor:
    """(n, c, H, W), (n, o, h, w) -> (o, c, i, j), by (3)."""
    turned = _turned(geometry)
    if turned is None or grad_output.shape[1] >= input.shape[1]:
        return _correlate(input, grad_output, geometry)
    return _turn(_correlate(grad_output, input, turned))


def convolution_grad_input(
    grad_output: Tensor, weight: Tensor, size: Pair, geometry: Geometry, positive: Tensor | None = None
) -> Tensor:
    """(n, o, h, w), (o, c, i, j) -> (n, c, H, W) for an input of `size` (H, W), by (4)."""
    turned = _turned(geometry)
    if turned is None or weight.shape[0] >= weight.shape[1]:
        return _masked(_scatter(grad_output, weight, size, geometry), positive)
    return _masked(_gather(grad_output, _turn(weight), None, turned), positive)


def convolution_transposed(
    input: Tensor, weight: Tensor, bias: Tensor | None, size: Pair, geometry: Geometry, activation: str | None = None
) -> Tensor:
    """(n, c, H, W), (c, o, i, j), (o,) -> (n, o, *size): (4) with the input for G, plus the bias."""
    return _activated(_biased(convolution_grad_input(input, weight, size, geometry), bias), activation)


def convolution_transposed_grad_input(
    grad_output: Tensor, weight: Tensor, geometry: Geometry, positive: Tensor | None = None
) -> Tensor:
    """(n, o, H, W), (c, o, i, j) -> (n, c, h, w): (1) of the gradient, without a bias."""
    return _masked(convolution(grad_output, weight, None, geometry), positive)


def upsampled_convolution(
    input: Tensor, weight: Tensor, bias: Tensor | None, scale: Pair, geometry: Geometry, activation: str | None = None
) -> Tensor:
    """(n, c, H, W), (o, c, i, j), (o,) -> (n, o, h, w): (1) of the input enlarged by repetition."""
    return convolution(upsample_nearest(input, scale), weight, bias, geometry, activation)


def upsampled_convolution_grad_input(
    grad_output: Tensor, weight: Tensor, size: Pair, scale: Pair, geometry: Geometry, positive: Tensor | None = None
) -> Tensor:
    """(n, o, h, w), (o, c, i, j) -> (n, c, H, W) for an input of `size`, before it is enlarged."""
    enlarged = size[0] * scale[0], size[1] * scale[1]
    grad = upsample_nearest_grad_input(convolution_grad_input(grad_output, weight, enlarged, geometry), scale)
    return _masked(grad, positive)


def upsampled_convolution_grad_weight(input: Tensor, grad_output: Tensor, scale: Pair, geometry: Geometry) -> Tensor:
    """(n, c, H, W), (n, o, h, w) -> (o, c, i, j): (3) of the input enlarged by repetition."""
    return convolution_grad_weight(upsample_nearest(input, scale), grad_output, geometry)


def upsample_nearest(input: Tensor, scale: Pair) -> Tensor:
    """(n, c, H, W) -> (n, c, s0 H, s1 W): each pixel repeated s0 times down and s1 times across."""
    n, c, h, w = input.shape
    repeated = input.permute(0, 2, 3, 1)[:, :, None, :, None].expand(n, h, scale[0], w, scale[1], c)
    # reshape would give a view of the input at scale 1 or 1x1 pixels; what is returned has memory of its own.
    own = repeated.clone(memory_format=torch.contiguous_format)
    return own.view(n, h * scale[0], w * scale[1], c).permute(0, 3, 1, 2)


def upsample_nearest_grad_input(grad_output: Tensor, scale: Pair) -> Tensor:
    """(n, c, s0 H, s1 W) -> (n, c, H, W): each pixel collects the sum of its copies."""
    n, c, h, w = grad_output.shape
    blocks = grad_output.permute(0, 2, 3, 1).reshape(n, h // scale[0], scale[0], w // scale[1], scale[1], c)
    return blocks.sum(dim=(2, 4)).permute(0, 3, 1, 2)


def relu(input: Tensor) -> Tensor:
    """max(X, 0)."""
    return input.clamp(min=0)


def relu_grad(output: Tensor, grad_output: Tensor) -> Tensor:
    """G where the output is positive (or no number), else 0."""
    return torch.where(output <= 0, 0.0, grad_output)


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-X)), as 1 / (1 + e) for X >= 0 and e / (1 + e) below, with e = exp(-|X|), which cannot overflow."""
    e = input.abs().neg_().exp_()
    return torch.where(input >= 0, 1.0, e).div_(e.add_(1.0))


def sigmoid_grad(output: Tensor, grad_output: Tensor) -> Tensor:
    """G Z (1 - Z), with Z the output."""
    grad: Tensor = output * (1 - output)
    return grad.mul_(grad_output)


def squared_error(input: Tensor, target: Tensor, factor: float, scale: float) -> tuple[Tensor, Tensor]:
    """The loss, factor sum (Y - T)^2, of shape (), and scale (Y - T), in the input's shape."""
    error = input - target
    return error.square().sum().mul_(factor), error.mul_(scale)


def sgd(
    values: Sequence[Tensor],
    grads: Sequence[Tensor],
    velocities: Sequence[Tensor] | None,
    lr: float,
    momentum: float,
    nesterov: bool,
) -> None:
    """In place: v <- momentum v + g, w <- w - lr v (nesterov: lr (g + momentum v)); without v, w <- w - lr g."""
    for k, (value, grad) in enumerate(zip(values, grads, strict=True)):
        change = grad
        if velocities is not None:
            velocity = velocities[k].mul_(momentum).add_(grad)
            change = grad.add(velocity, alpha=momentum) if nesterov else velocity
        value.sub_(change, alpha=lr)


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
    """Adam's update at its `step`-th step, from 1, in place; the equations stand in `scratch_dl.optim.Adam`."""
    b1, b2 = betas
    for value, grad, mean, square in zip(values, grads, means, squares, strict=True):
        mean.mul_(b1).add_(grad, alpha=1 - b1)
        square.mul_(b2).addcmul_(grad, grad, value=1 - b2)
        root = square.sqrt().div_(math.sqrt(1 - b2**step)).add_(eps)
        value.addcdiv_(mean, root, value=-lr / (1 - b1**step))


def _activated(output: Tensor, activation: str | None) -> Tensor:
    if activation is None:
        return output
    return {"relu": relu, "sigmoid": sigmoid}[choice("activation", activation, ("relu", "sigmoid"))](output)


def _masked(grad: Tensor, positive: Tensor | None) -> Tensor:
    return grad if positive is None else relu_grad(positive, grad)


def _biased(output: Tensor, bias: Tensor | None) -> Tensor:
    return output if bias is None else output.add_(bias[:, None, None])


def _turned(geometry: Geometry) -> Geometry | None:
    """The geometry in which, at stride 1, input and output change places; None where they cannot.

    With the kernels turned by 180 degrees, (4) is then a convolution (1) of G, and (1) has the form (4). So the side
    that has the fewer channels can be the one whose patches are laid out, which are k0 k1 times as large as it is.
    """
    (k0, k1), _, ((top, bottom), (left, right)), (d0, d1) = geometry
    height, width = d0 * (k0 - 1), d1 * (k1 - 1)
    padding = (height - top, height - bottom), (width - left, width - right)
    fits = geometry.stride == (1, 1) and min(*padding[0], *padding[1], *geometry.padding[0], *geometry.padding[1]) >= 0
    return geometry._replace(padding=padding) if fits else None


def _turn(weight: Tensor) -> Tensor:
    """(o, c, i, j) -> (c, o, i, j) with each kernel turned by 180 degrees."""
    return weight.flip(2, 3).transpose(0, 1)


def _gather(input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """(1) as matrix products: the patch of each output pixel, laid out as a row, times the kernels."""
    windows = _windows(input, geometry)
    n, h, w = windows.shape[:3]
    matrix = _matrix(weight)
    output = input.new_empty(n, h, w, weight.shape[0])
    for part in _chunks(n, h * w * matrix.shape[0]):
        patches = windows[part].reshape(-1, matrix.shape[0])
        rows = output[part].view(-1, matrix.shape[1])
        if bias is None:
            torch.mm(patches, matrix, out=rows)
        else:
            torch.addmm(bias, patches, matrix, out=rows)
    return output.permute(0, 3, 1, 2)


def _correlate(input: Tensor, grad_output: Tensor, geometry: Geometry) -> Tensor:
    """(3) as matrix products: the patches of each output pixel, transposed, times the gradients there."""
    windows = _windows(input, geometry)
    n, h, w, i, j, c = windows.shape
    grads = grad_output.permute(0, 2, 3, 1)
    grad = input.new_zeros(i * j * c, grads.shape[3])
    for part in _chunks(n, h * w * grad.shape[0]):
        grad.addmm_(windows[part].reshape(-1, grad.shape[0]).T, grads[part].reshape(-1, grad.shape[1]))
    return grad.view(i, j, c, -1).permute(3, 2, 0, 1).contiguous()


def _scatter(grad_output: Tensor, weight: Tensor, size: Pair, geometry: Geometry) -> Tensor:
    """(4) as matrix products: each output gradient times the kernels is a patch, added where its window lay."""
    (k0, k1), (s0, s1), ((top, bottom), (left, right)), (d0, d1) = geometry
    n, o, h, w = grad_output.shape
    c = weight.shape[1]
    matrix = _matrix(weight)
    grads = grad_output.permute(0, 2, 3, 1)
    padded = grad_output.new_zeros(n, size[0] + top + max(bottom, 0), size[1] + left + max(right, 0), c)
    for part in _chunks(n, h * w * matrix.shape[0]):
        patches = torch.mm(grads[part].reshape(-1, o), matrix.T).view(-1, h, w, k0, k1, c)
        for i in range(k0):
            for j in range(k1):
                rows = slice(i * d0, i * d0 + (h - 1) * s0 + 1, s0)
                columns = slice(j * d1, j * d1 + (w - 1) * s1 + 1, s1)
                # Windows overlap, so a pixel collects from several of them: add, never assign.
                padded[part, rows, columns] += patches[:, :, :, i, j]
    return padded[:, top : top + size[0], left : left + size[1]].permute(0, 3, 1, 2)


def _windows(input: Tensor, geometry: Geometry) -> Tensor:
    """(n, c, H, W) -> the view (n, h, w, i, j, c) of every window of the zero-padded input."""
    padded = _pad(input, geometry.padding)
    n, height, width, c = padded.shape
    h, w = geometry.output_size((input.shape[2], input.shape[3]))
    (s0, s1), (d0, d1) = geometry.stride, geometry.dilation
    sample, row = height * width * c, width * c
    return padded.as_strided((n, h, w, *geometry.kernel_size, c), (sample, s0 * row, s1 * c, d0 * row, d1 * c, 1))


def _pad(input: Tensor, padding: tuple[Pair, Pair]) -> Tensor:
    """(n, c, H, W) -> zero-padded (n, H', W', c), contiguous; the input's own memory where that is so already."""
    pixels = input.permute(0, 2, 3, 1)
    top, bottom, left, right = (max(0, side) for axis in padding for side in axis)
    if not top + bottom + left + right:
        return pixels.contiguous()
    n, h, w, c = pixels.shape
    padded = pixels.new_zeros(n, h + top + bottom, w + left + right, c)
    padded[:, top : top + h, left : left + w] = pixels
    return padded


def _matrix(weight: Tensor) -> Tensor:
    """(o, c, i, j) -> (i j c, o), contiguous."""
    return weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0])


def _chunks(samples: int, numbers: int) -> Iterator[slice]:
    """Slices of the first axis, each with about _CHUNK numbers, where a sample has `numbers`."""
    step = max(1, _CHUNK // max(1, numbers))
    return (slice(start, start + step) for start in range(0, samples, step))
