"""What a step frees is kept for the next one."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, in glibc's malloc.h
_MOST = 1 << 25  # bytes; the largest threshold that glibc takes


def keep_freed_memory() -> None:
    """Tell glibc's allocator not to give freed memory back to the system; elsewhere, do nothing.

    A training step frees tens of megabytes at its end and asks for them again at once; the system would hand them out
    anew page by page, filled with zeros.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_MMAP_THRESHOLD, _MOST)
            mallopt(_TRIM_THRESHOLD, 1 << 30)
