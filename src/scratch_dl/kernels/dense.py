"""Tensors as the C++ library takes them: on the CPU, of one type, their numbers side by side."""

import torch
from torch import Tensor


def fit(first: Tensor, *others: Tensor | None) -> bool:
    """Return whether all tensors lie on the CPU and have one dtype; the reference computes any other."""
    return all(other is None or (other.is_cpu and other.dtype == first.dtype) for other in others)


def contiguous(tensor: Tensor) -> Tensor:
    """Return the tensor with its numbers in the order of its axes."""
    return tensor.resolve_neg().contiguous()


def channels_last(images: Tensor) -> Tensor:
    """Return images (n, c, h, w) with the channels of a pixel side by side."""
    return images.resolve_neg().contiguous(memory_format=torch.channels_last)


def dense(input: Tensor) -> tuple[Tensor, Tensor]:
    """Return the input, copied if its numbers do not lie side by side, and an empty output in its order."""
    input = input.resolve_neg()
    output = torch.empty_like(input)
    return (input, output) if output.stride() == input.stride() else (output.copy_(input), torch.empty_like(output))
