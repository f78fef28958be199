"""Denoises a picture in overlapping tiles, with the same result as in one piece, in little memory."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from scratch_dl.denoising.reach import UnknownReachError, input_span, period
from scratch_dl.models import Denoiser, reflect_to_multiple
from scratch_dl.system.checks import Pair

EDGE = 512
"""The usual edge of a tile without its overlap, in pixels: a network's activations then take some hundred MB."""


class Tiling(NamedTuple):
    """Per axis: tiles begin at multiples of `step`, and are read with `before` and `after` pixels more."""

    step: Pair
    before: Pair
    after: Pair


def tiling(network: Denoiser) -> Tiling | None:
    """Return how a picture may be cut for a network; None if one of its modules may look at the whole picture."""
    steps, before, after = [], [], []
    try:
        for axis in (0, 1):
            step = math.lcm(network.multiple, period(network, axis))
            first, last = input_span(network, (0, step - 1), axis)
            steps.append(step)
            # Rounded up to whole steps, so that a tile also begins where the network's strides do.
            before.append(-(first // step) * step)
            after.append(-((step - 1 - last) // step) * step)
    except UnknownReachError:
        return None
    return Tiling((steps[0], steps[1]), (before[0], before[1]), (after[0], after[1]))


def denoise_picture(
    network: Denoiser,
    picture: Tensor,
    edge: int = EDGE,
    ensemble: bool = False,
    on_tile: Callable[[int, int], object] | None = None,
) -> Tensor:
    """(3, H, W) -> (3, H, W), float32 on the CPU: what `network.predict` returns, but for rounding.

    Args:
        network: keeps no cache, and its mode.
        picture: in [0, 1], of any size.
        edge: of a tile, without its overlap; rounded up to what the network's strides divide.
        ensemble: whether to average over the eight flips and rotations of the picture.
        on_tile: is called with the number of finished tiles, and of all.
    """
    turns = list(range(8)) if ensemble else [0]
    training = network.training
    network.eval()
    try:
        total = torch.zeros_like(picture, dtype=torch.float32, device="cpu")
        for number, turn in enumerate(turns):

            def note(done: int, tiles: int, number: int = number) -> None:
                if on_tile is not None:
                    on_tile(number * tiles + done, len(turns) * tiles)

            total += _turned_back(_tiled(network, _turned(picture, turn), edge, note), turn)
    finally:
        network.train(training)
    return total / len(turns)


def _tiled(network: Denoiser, picture: Tensor, edge: int, note: Callable[[int, int], object]) -> Tensor:
    like = network.parameters()[0].value
    padded = reflect_to_multiple(picture[None], network.multiple)
    cut = tiling(network)
    tiles = list(_tiles(padded.shape[2], padded.shape[3], edge, cut)) if cut else []
    if len(tiles) <= 1:
        with torch.no_grad():
            output = network(padded.to(like)).to("cpu", torch.float32)[0]
        note(1, 1)
        return output[:, : picture.shape[1], : picture.shape[2]]
    output = torch.empty(padded.shape[1:], dtype=torch.float32)
    for number, (rows, columns, read_rows, read_columns) in enumerate(tiles):
        with torch.no_grad():
            part = network(padded[:, :, read_rows, read_columns].to(like)).to("cpu", torch.float32)[0]
        top, left = rows.start - read_rows.start, columns.start - read_columns.start
        height, width = rows.stop - rows.start, columns.stop - columns.start
        output[:, rows, columns] = part[:, top : top + height, left : left + width]
        note(number + 1, len(tiles))
    return output[:, : picture.shape[1], : picture.shape[2]]


def _tiles(height: int, width: int, edge: int, cut: Tiling) -> Iterator[tuple[slice, slice, slice, slice]]:
    """Yield rows and columns of each tile's output, and those of its input."""
    for rows, read_rows in _parts(height, edge, cut, 0):
        for columns, read_columns in _parts(width, edge, cut, 1):
            yield rows, columns, read_rows, read_columns


def _parts(length: int, edge: int, cut: Tiling, axis: int) -> Iterator[tuple[slice, slice]]:
    step = cut.step[axis]
    size = -(-edge // step) * step
    for start in range(0, length, size):
        end = min(length, start + size)
        yield slice(start, end), slice(max(0, start - cut.before[axis]), min(length, end + cut.after[axis]))


def _turned(picture: Tensor, turn: int) -> Tensor:
    """Return one of the eight flips and rotations; 0 is the picture itself."""
    picture = picture.flip(1) if turn & 1 else picture
    picture = picture.flip(2) if turn & 2 else picture
    return picture.transpose(1, 2) if turn & 4 else picture


def _turned_back(picture: Tensor, turn: int) -> Tensor:
    """Undo `_turned`."""
    picture = picture.transpose(1, 2) if turn & 4 else picture
    picture = picture.flip(2) if turn & 2 else picture
    return picture.flip(1) if turn & 1 else picture
