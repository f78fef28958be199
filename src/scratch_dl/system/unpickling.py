"""Reads files of `torch.save` without running code from them, and explains in one line why one cannot be read."""

import re
import warnings
from pathlib import Path
from typing import IO, Any

import torch


def load(source: Path | IO[bytes]) -> Any:
    """Return the tensors and plain values that `torch.save` wrote, on the CPU; torch's warnings are not shown.

    Raises:
        Exception: of various kinds; `failure_reason` explains it in one line.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about the protocol of a plain pickle
        return torch.load(source, map_location="cpu", weights_only=True)


def failure_reason(error: Exception) -> str:
    """Return why `load` failed, in one line; torch's own message is many lines of advice on unsafe loading."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    refused = re.search(r"GLOBAL (\S+)", str(error))
    return f"it asks for {refused[1]}, which tensors do not need" if refused else "torch cannot read it"
