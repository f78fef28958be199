"""How the sums are computed, apart from what the modules are: one file a backend, all with the same functions."""

from scratch_dl.kernels.reference import (
    convolution,
    convolution_grad_bias,
    convolution_grad_input,
    convolution_grad_weight,
    convolution_transposed,
    upsample_nearest,
    upsample_nearest_grad_input,
)

__all__ = [
    "convolution",
    "convolution_grad_bias",
    "convolution_grad_input",
    "convolution_grad_weight",
    "convolution_transposed",
    "upsample_nearest",
    "upsample_nearest_grad_input",
]
