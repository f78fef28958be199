"""Checkpoints: written completely or not at all, checked by a digest when read, never running code from the file."""

import hashlib
import io
import logging
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scratch_dl.system import unpickling
from scratch_dl.system.files import link_or_copy, write_atomically

if TYPE_CHECKING:
    from scratch_dl.models import Denoiser

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
log = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read or written; the message is one line with its path."""


def digest(content: Any) -> str:
    """Return the sha256 of tensors (dtype, shape, bytes) and plain values, nested in dicts and lists."""
    sha = hashlib.sha256()

    def update(item: Any) -> None:
        if isinstance(item, Tensor):
            sha.update(f"{item.dtype}{tuple(item.shape)}".encode())
            sha.update(item.detach().cpu().contiguous().numpy().tobytes())
        elif isinstance(item, Mapping):
            for key in sorted(item):
                sha.update(f"{{{key!r}".encode())
                update(item[key])
        elif isinstance(item, list | tuple):
            sha.update(f"[{len(item)}".encode())
            for inner in item:
                update(inner)
        else:
            sha.update(repr(item).encode())

    update(content)
    return sha.hexdigest()


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` (tensors and plain values) to a temporary file, sync it, and rename it to `path`.

    Raises:
        CheckpointError: if it cannot be written; a previous file is then unchanged.
    """
    buffer = io.BytesIO()
    torch.save({"digest": digest(content), "content": dict(content)}, buffer)
    try:
        write_atomically(path, buffer.getbuffer())
    except OSError as error:
        raise CheckpointError(f"the checkpoint {path} cannot be written: {error.strerror or error}") from error


def save_last(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the last checkpoint, and keep the one before it in case the new one is damaged later.

    Raises:
        CheckpointError: if it cannot be written; the old one can still be read.
    """
    last = folder / LAST
    if last.exists():
        try:
            link_or_copy(last, folder / PREVIOUS)
        except OSError as error:
            raise CheckpointError(f"the checkpoint {last} cannot be kept: {error.strerror or error}") from error
    save(last, content)


def load(path: Path) -> dict[str, Any]:
    """Return the content that `save` wrote.

    Raises:
        CheckpointError: if the file is missing, damaged, or not a checkpoint; no code from it was run.
    """
    try:
        stored = unpickling.load(path)
        content, expected = stored["content"], stored["digest"]
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}") from error
    except (RuntimeError, OSError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        reason = unpickling.failure_reason(error)
        raise CheckpointError(f"the checkpoint {path} is damaged, or no checkpoint of scratch_dl ({reason})") from error
    if digest(content) != expected:
        raise CheckpointError(f"the checkpoint {path} is damaged: its content does not match its digest")
    return dict(content)


def load_last(folder: Path) -> dict[str, Any]:
    """Return the last checkpoint of a folder; if it is missing or damaged, the one before it, with a warning.

    Raises:
        CheckpointError: if neither can be read.
    """
    try:
        return load(folder / LAST)
    except CheckpointError as error:
        if not (folder / PREVIOUS).exists():
            raise
        content = load(folder / PREVIOUS)
        log.warning("%s; continuing from the previous one, %s", error, folder / PREVIOUS)
        return content


def load_network(path: Path | str, allowed_targets: Sequence[str] | None = ()) -> "Denoiser":
    """Build the network of a checkpoint from the configuration in it, load its weights, and return it, on the CPU.

    Args:
        path: of the checkpoint.
        allowed_targets: prefixes, besides the group's own, that the model's `_target_` may have. Those in the file are
            ignored, because it may come from someone else; None trusts the file.

    Raises:
        CheckpointError: if the checkpoint cannot be read.
        ConfigError: if its model is not permitted.
    """
    from scratch_dl.config.build import build_network

    content = load(Path(path))
    height, width = content["crop_size"]
    config = {**content["config"], "device": "cpu"}
    if allowed_targets is not None:
        config["allowed_targets"] = list(allowed_targets)
    network = build_network(config, (height, width))
    network.load_state_dict(content["network"])
    return network
