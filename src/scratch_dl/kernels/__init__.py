"""How the sums are computed, apart from what the modules are: the same functions in two backends.

    reference    torch's tensor arithmetic: the definition, on any device (reference.py)
    native       a C++ library, on the CPU (compiled.py, pointwise.py, plans.py, cpp/)

`use` chooses between them. The functions here call the chosen backend; `reference` has their docstrings.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from scratch_dl.kernels import compiled, pointwise, reference
from scratch_dl.kernels.geometry import Geometry
from scratch_dl.kernels.library import DTYPES, VECTOR_BYTES, Library, load
from scratch_dl.system.checks import choice

__all__ = [
    "BACKENDS",
    "Geometry",
    "adam",
    "check",
    "convolution",
    "convolution_grad_bias",
    "convolution_grad_input",
    "convolution_grad_weight",
    "convolution_transposed",
    "convolution_transposed_grad_input",
    "peak_gflops",
    "relu",
    "relu_grad",
    "sgd",
    "sigmoid",
    "sigmoid_grad",
    "squared_error",
    "upsample_nearest",
    "upsample_nearest_grad_input",
    "upsampled_convolution",
    "upsampled_convolution_grad_input",
    "upsampled_convolution_grad_weight",
    "use",
    "used",
    "why_not_native",
]

BACKENDS = ("auto", "reference", "native", *(f"native {name}" for name in VECTOR_BYTES))
F = TypeVar("F", bound=Callable[..., Any])
_native = False


def check(backend: str) -> None:
    """Refuse a backend that does not exist, or that cannot be used here.

    Raises:
        ValueError: with the reason, and the backends that can be used.
    """
    choice("backend", backend, BACKENDS)
    kind, _, instructions = backend.partition(" ")
    if kind == "native":
        library = load()
        if isinstance(library, str):
            raise ValueError(f"backend must be auto or reference here, but got {backend!r}: {library}")
        if instructions and instructions not in library.offered:
            offered = ", ".join(f"native {name}" for name in library.offered)
            raise ValueError(f"backend must be auto, reference, {offered} on this processor, but got {backend!r}")


def use(backend: str = "auto") -> None:
    """Compute on this backend from now on.

    Args:
        backend: "reference"; "native", with the widest instruction set that the processor has, or one of them, as
            "native avx2"; "auto" is native where that can be used.

    Raises:
        ValueError: if it cannot be used here.
    """
    global _native
    check(backend)
    library = load()
    _native = isinstance(library, Library) and backend != "reference"
    if isinstance(library, Library):
        library.choose(backend.partition(" ")[2] or library.offered[0])


def used(device: str = "cpu") -> str:
    """Return the backend in use on a device, as `use` takes it: "reference", or "native" and its instruction set."""
    library = load()
    on_cpu = device.startswith("cpu")
    return f"native {library.instructions}" if _native and on_cpu and isinstance(library, Library) else "reference"


def why_not_native() -> str:
    """Return why the native backend cannot be used here; empty if it can."""
    library = load()
    return library if isinstance(library, str) else ""


def peak_gflops(threads: int) -> float | None:
    """Return how many billion float32 operations per second so many threads do at most; None without the library."""
    library = load()
    return library.peak_gflops(threads) if isinstance(library, Library) else None


def _dispatched(function: F) -> F:
    """Return a call of the function of that name of the backend in use, or of `function` for any other tensor."""
    name = function.__name__
    other = getattr(compiled, name, None) or getattr(pointwise, name)

    @functools.wraps(function)
    def call(first: Any, *others: Any, **named: Any) -> Any:
        tensor = first[0] if isinstance(first, list | tuple) else first
        chosen = other if _native and tensor.is_cpu and tensor.dtype in DTYPES else function
        return chosen(first, *others, **named)

    return cast(F, call)


adam = _dispatched(reference.adam)
convolution = _dispatched(reference.convolution)
convolution_grad_bias = _dispatched(reference.convolution_grad_bias)
convolution_grad_input = _dispatched(reference.convolution_grad_input)
convolution_grad_weight = _dispatched(reference.convolution_grad_weight)
convolution_transposed = _dispatched(reference.convolution_transposed)
convolution_transposed_grad_input = _dispatched(reference.convolution_transposed_grad_input)
relu = _dispatched(reference.relu)
relu_grad = _dispatched(reference.relu_grad)
sgd = _dispatched(reference.sgd)
sigmoid = _dispatched(reference.sigmoid)
sigmoid_grad = _dispatched(reference.sigmoid_grad)
squared_error = _dispatched(reference.squared_error)
upsample_nearest = reference.upsample_nearest
upsample_nearest_grad_input = reference.upsample_nearest_grad_input
upsampled_convolution = _dispatched(reference.upsampled_convolution)
upsampled_convolution_grad_input = _dispatched(reference.upsampled_convolution_grad_input)
upsampled_convolution_grad_weight = _dispatched(reference.upsampled_convolution_grad_weight)

use("auto")
