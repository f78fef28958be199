"""Keeps the memory that a training step frees for the next step."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in glibc's malloc.h
_LARGEST_MMAP_THRESHOLD = 1 << 25  # bytes; DEFAULT_MMAP_THRESHOLD_MAX of glibc on 64 bits
_KEPT_BYTES = 1 << 30  # more than any step frees


def keep_freed_memory() -> None:
    """Tell glibc's allocator not to return freed memory to the system; do nothing if there is no glibc.

    A training step frees tens of megabytes at its end and allocates them again at once; the system would map them page
    by page and fill them with zeros each time.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
            mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
