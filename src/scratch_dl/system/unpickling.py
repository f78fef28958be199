"""Reading files of `torch.save` without running code from them, and why one cannot be read, in one line."""

import re
import warnings
from pathlib import Path
from typing import IO, Any

import torch


def load(source: Path | IO[bytes]) -> Any:
    """Tensors and plain values that `torch.save` wrote, on the CPU; torch's warnings about the file are not shown.

    Raises:
        Exception: of various kinds; `why` says in one line what is wrong.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a plain pickle torch says which protocols it prefers
        return torch.load(source, map_location="cpu", weights_only=True)


def why(error: Exception) -> str:
    """Why a file could not be read. torch's own words are many lines of advice on reading it without any safety."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    asked = re.search(r"GLOBAL (\S+)", str(error))
    return f"it asks for {asked[1]}, which tensors do not need" if asked else "torch cannot read it"
