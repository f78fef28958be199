"""The C++ library: where it is, which instructions it uses, and its functions."""

import ctypes
import os
import re
import time
from ctypes import c_double, c_int, c_int64, c_void_p
from functools import cache
from hashlib import sha256
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

DTYPES = {torch.float32: "f32", torch.float64: "f64"}
VECTOR_BYTES = {"avx512": 64, "avx2": 32, "portable": 16}

_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "gather": (c_int, (*[c_void_p] * 6, c_int, c_void_p, c_int)),
    "correlate": (c_int, (*[c_void_p] * 6, c_int)),
    "channel_sums": (None, (c_void_p, c_int64, c_int64, c_void_p, c_int)),
    "relu": (None, (c_void_p, c_void_p, c_int64, c_int)),
    "relu_grad": (None, (c_void_p, c_void_p, c_void_p, c_int64, c_int)),
    "sigmoid": (None, (c_void_p, c_void_p, c_int64, c_int)),
    "sigmoid_grad": (None, (c_void_p, c_void_p, c_void_p, c_int64, c_int)),
    "squared_error": (None, (*[c_void_p] * 3, *[c_int64] * 4, c_double, c_double, c_void_p, c_void_p, c_int)),
    "sgd": (None, (c_int64, *[c_void_p] * 4, c_double, c_double, c_int, c_int)),
    "adam": (None, (c_int64, *[c_void_p] * 5, *[c_double] * 5, c_int)),
}


FUNCTIONS: dict[torch.dtype, SimpleNamespace] = {}
"""Once the library is loaded, its functions for each type of number, and `width`, how many of these a vector holds."""


class Library:
    """The loaded library; its functions are in FUNCTIONS.

    Attributes:
        sources: the digest of what it was built from.
        offered: the instruction sets that it has for this processor, the widest first.
        instructions: the one in use.
    """

    def __init__(self, path: Path) -> None:
        _share_openmp()
        # RTLD_NOW: what is missing is found out here, not in the midst of a training.
        self._loaded = ctypes.CDLL(str(path), mode=os.RTLD_NOW)
        self._loaded.scratch_dl_sources.restype = ctypes.c_char_p
        self.sources: str = self._loaded.scratch_dl_sources().decode()
        self._loaded.scratch_dl_offers.restype = ctypes.c_char_p
        self._loaded.scratch_dl_offers.argtypes = (ctypes.c_char_p,)
        self._loaded.scratch_dl_choose.restype = None
        self._loaded.scratch_dl_choose.argtypes = (ctypes.c_char_p,)
        self._loaded.scratch_dl_peak.restype = c_double
        self._loaded.scratch_dl_peak.argtypes = (c_int64, c_int)
        for dtype, suffix in DTYPES.items():
            FUNCTIONS[dtype] = SimpleNamespace()
            for name, (result, arguments) in _SIGNATURES.items():
                function = self._loaded[f"scratch_dl_{name}_{suffix}"]
                function.restype, function.argtypes = result, arguments
                setattr(FUNCTIONS[dtype], name, function)
        self.offered = tuple(name for name in VECTOR_BYTES if self._loaded.scratch_dl_offers(name.encode()))
        self.choose(self.offered[0])

    def choose(self, instructions: str) -> None:
        """Use one of the `offered` instruction sets from now on."""
        self._loaded.scratch_dl_choose(instructions.encode())
        self.instructions = instructions
        for dtype, functions in FUNCTIONS.items():
            functions.width = VECTOR_BYTES[instructions] // dtype.itemsize

    def peak_gflops(self, threads: int) -> float:
        """Billions of additions and multiplications a second of so many threads that do nothing else; float32."""
        best = 0.0
        for _ in range(5):
            start = time.perf_counter()
            operations = self._loaded.scratch_dl_peak(4_000_000, threads)
            best = max(best, operations / (time.perf_counter() - start) / 1e9)
        return best


@cache
def load() -> Library | str:
    """The library, or why there is none; SCRATCH_DL_NATIVE names another file than the installed one."""
    named = os.environ.get("SCRATCH_DL_NATIVE")
    beside = [Path(__file__).with_name(f"_native{suffix}") for suffix in EXTENSION_SUFFIXES]
    for path in [Path(named)] if named else beside:
        if path.exists():
            try:
                library = Library(path)
                if named or library.sources == sources_digest():
                    return library
            except (OSError, AttributeError) as error:
                return f"{path.name} cannot be loaded: {error}"
            return f"{path.name} was built from other sources than these; install scratch_dl again"
    return "it was not built, which takes a C++17 compiler when scratch_dl is installed"


def sources_digest() -> str:
    """Of the C++ sources beside this file; the library's structures must fit `plans.py`."""
    files = sorted(path for path in Path(__file__).with_name("cpp").iterdir() if path.suffix in (".h", ".cpp"))
    return sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def _share_openmp() -> None:
    """Let the library use the threads of torch's OpenMP: those of a second one would wait for the same cores."""
    maps = Path("/proc/self/maps")
    names = re.findall(r"\S*/lib(?:gomp|iomp5|omp)\S*\.so\S*", maps.read_text()) if maps.exists() else []
    for name in dict.fromkeys([*names, "libgomp.so.1"]):
        try:
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return
