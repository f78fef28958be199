"""How this process computes: set by each command for itself, and as it was afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def restored() -> Iterator[None]:
    """Torch's number of threads and the kernels' backend may be set within; afterwards they are what they were.

    For a notebook, where one call is not to change how the next one computes. Also a decorator.
    """
    import torch

    from scratch_dl import kernels

    threads, backend = torch.get_num_threads(), kernels.used()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        kernels.use(backend)
