"""What the native kernels are to do, worked out once for each shape.

`axes.py` says which numbers are multiplied along each axis. Phases that need few lanes are computed side by side, where
that costs fewer vectors.
"""

import ctypes
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from scratch_dl.kernels.axes import Axis, Taps, axes_of
from scratch_dl.kernels.geometry import Geometry
from scratch_dl.system.checks import Pair

_MOST_PLANAR = 8  # as in cpp/planar.h
# When planes are laid out: half vectors per position that this takes, and the share of the other cost below which it is
# faster. Estimates: no measurement of them is recorded.
_LAYING_OUT, _PLANAR_GAIN = 2, 0.75


class _Structure(ctypes.Structure):
    """A structure of whole numbers, with the names and the order of cpp/plan.h."""


def _fields(*names: str) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_int64) for name in names]


class _Run(_Structure):
    _fields_ = _fields("row", "column", "taps")


class _Segment(_Structure):
    _fields_ = _fields("lane", "length", "offset")


class _Sources(_Structure):
    _fields_ = (("begin", ctypes.c_void_p), ("source", ctypes.c_void_p))


class _Group(_Structure):
    _fields_ = (
        *_fields("grid_h", "grid_w", "out_offset", "out_row", "out_column", "blocks", "taps", "runs", "segments"),
        ("run", ctypes.c_void_p),
        ("segment", ctypes.c_void_p),
        ("sources", _Sources),
    )


_WINDOW = ("n", "c", "h", "w", "top", "left", "span_h", "span_w", "step_h", "step_w", "grid_h", "grid_w")


class _Gather(_Structure):
    _fields_ = (
        *_fields(*_WINDOW, "out_image", "out_channels", "lane_stride", "channel_stride", "planar", "groups"),
        ("group", ctypes.c_void_p),
    )


class _Correlate(_Structure):
    _fields_ = (
        *_fields(*_WINDOW, "lanes", "taps", "runs"),
        ("run", ctypes.c_void_p),
        *_fields("lane_stride", "channel_stride", "elements"),
        ("sources", _Sources),
    )


class Strides(_Structure):
    """The strides of a tensor (n, c, h, w), in numbers."""

    _fields_ = _fields("n", "c", "h", "w")


@dataclass(frozen=True)
class Plan:
    """A structure for the native kernels, where it lies, the output's shape, and how many multiply-adds it takes."""

    address: int
    shape: tuple[int, int, int, int]
    work: int
    kept: tuple[Any, ...]


@lru_cache(maxsize=1024)
def gather(
    kind: str,
    geometry: Geometry,
    scale: Pair,
    shape: tuple[int, ...],
    size: Pair,
    channels: int,
    stride: Pair,
    width: int,
) -> Plan:
    """Return the plan of a forward pass or an input gradient.

    Args:
        kind: one of AXES.
        geometry: of the convolution.
        scale: the factor of a nearest kind.
        shape: of the input (n, c, h, w).
        size: of the output (h, w).
        channels: of the output.
        stride: in the weight, from one output channel to the next, and from one input channel to the next.
        width: numbers in a vector.
    """
    axes = axes_of(kind, geometry, scale)
    choice = _cheapest(axes, size, channels, width)
    factors = len(axes[0].phases), len(axes[1].phases)
    first, columns = (axes[0].union[0], axes[1].union[0]), geometry.kernel_size[1]
    made = [_group(rows, cols, first, factors, size, channels, columns) for rows, cols in choice.groups]
    groups = (_Group * len(made))(*(group for group, _ in made))
    grid = tuple(-(-size[i] // factors[i]) for i in (0, 1))
    window = _window(shape, axes, grid)
    image = size[0] * size[1] * channels
    plan = _Gather(*window, image, channels, *stride, choice.planar, len(made), ctypes.addressof(groups))
    work = int(shape[0] * shape[1] * grid[0] * grid[1] * choice.cost * width / 2)
    return Plan(ctypes.addressof(plan), (shape[0], channels, *size), work, (plan, groups, made))


class _Choice(NamedTuple):
    """How the phases of a gather are computed: `cost` in half vectors per position, `planar` by cpp/planar.h."""

    cost: float
    groups: list[tuple[Any, ...]]
    planar: bool


def _cheapest(axes: tuple[Axis, Axis], size: Pair, channels: int, width: int) -> _Choice:
    """Join the phases of an axis, or not, or lay out planes: whatever costs least."""
    best: _Choice | None = None
    for joined in itertools.product((False, True), repeat=2):
        if any(join and size[i] % len(axes[i].phases) for i, join in enumerate(joined)):
            continue
        groups = list(itertools.product(*(_parts(axis, join) for axis, join in zip(axes, joined, strict=True))))
        cost = sum(
            len(_taps(rows)) * len(_taps(columns)) * _lane_cost(channels * len(rows) * len(columns), width)
            for rows, columns in groups
        )
        if best is None or (cost, len(groups)) < (best.cost, len(best.groups)):
            best = _Choice(cost, groups, planar=False)
    assert best is not None
    phases = list(itertools.product(*(_parts(axis, join=False) for axis in axes)))
    products = sum(len(_taps(rows)) * len(_taps(columns)) for rows, columns in phases) * channels
    # A lane of W positions needs no more products than there are, but planes have to be laid out.
    planar_cost = 2 * products / width
    steps = axes[0].step == axes[1].step == 1
    if channels <= _MOST_PLANAR and steps and planar_cost + _LAYING_OUT < _PLANAR_GAIN * best.cost:
        return _Choice(planar_cost, phases, planar=True)
    return best


@lru_cache(maxsize=1024)
def correlate(
    kind: str,
    geometry: Geometry,
    scale: Pair,
    shape: tuple[int, ...],
    lanes: tuple[int, ...],
    stride: Pair,
    weight: tuple[int, ...],
) -> Plan:
    """Return the plan of a kernel's gradient.

    Args:
        kind: "convolution" or "nearest_grad".
        geometry: of the convolution.
        scale: the factor of a nearest kind.
        shape: of the image whose windows are read (n, c, h, w).
        lanes: shape of the image of which each pixel multiplies a whole window.
        stride: in the weight, from one channel of `lanes` to the next, and from one of the windows' to the next.
        weight: its shape.
    """
    axes = axes_of(kind, geometry, scale)
    rows, columns = axes[0].phases[0], axes[1].phases[0]
    taps = [(row, column) for row in sorted(rows) for column in sorted(columns)]
    elements = geometry.kernel_size[0] * geometry.kernel_size[1]
    of_element: list[list[int]] = [[] for _ in range(elements)]
    for number, (row, column) in enumerate(taps):
        for i, j in itertools.product(rows[row], columns[column]):
            of_element[i * geometry.kernel_size[1] + j].append(number)
    sources, kept = _sources(of_element)
    runs = _runs(taps, (axes[0].union[0], axes[1].union[0]))
    grid = lanes[2], lanes[3]
    plan = _Correlate(
        *_window(shape, axes, grid), lanes[1], len(taps), len(runs), ctypes.addressof(runs), *stride, elements, sources
    )
    work = shape[0] * grid[0] * grid[1] * len(taps) * shape[1] * lanes[1]
    return Plan(ctypes.addressof(plan), (weight[0], weight[1], weight[2], weight[3]), work, (plan, runs, kept))


@lru_cache(maxsize=1024)
def cost(kind: str, geometry: Geometry, channels: int, lanes: int, width: int) -> int:
    """Half vectors multiplied and added at one position, where as many positions as pixels are alike."""
    rows, columns = (axis.union for axis in axes_of(kind, geometry, (1, 1)))
    return len(rows) * len(columns) * channels * _lane_cost(lanes, width)


@lru_cache(maxsize=1024)
def strides(stride: tuple[int, int, int, int]) -> Strides:
    """A tensor's strides as the kernels take them."""
    return Strides(*stride)


def _window(shape: Sequence[int], axes: tuple[Axis, Axis], grid: Sequence[int]) -> tuple[int, ...]:
    """The fields of _WINDOW."""
    rows, columns = axes[0].union, axes[1].union
    spans = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    return (*shape, rows[0], columns[0], *spans, axes[0].step, axes[1].step, *grid)


def _parts(axis: Axis, join: bool) -> list[dict[int, Taps]]:
    """The phases by number: one part for each, or one of all."""
    numbered = dict(enumerate(axis.phases))
    return [numbered] if join else [{number: phase} for number, phase in numbered.items()]


def _taps(part: Mapping[int, Taps]) -> list[int]:
    return sorted({tap for phase in part.values() for tap in phase})


def _group(
    rows: Mapping[int, Taps],
    columns: Mapping[int, Taps],
    first: Pair,
    factors: Pair,
    size: Pair,
    channels: int,
    area: int,
) -> tuple[_Group, Any]:
    """The phases of `rows` times those of `columns`, as blocks of lanes side by side."""
    phases = list(itertools.product(rows, columns))
    taps = list(itertools.product(_taps(rows), _taps(columns)))
    sources, kept = _sources(
        [
            [i * area + j for i in rows[p].get(row, []) for j in columns[q].get(column, [])]
            for row, column in taps
            for p, q in phases
        ]
    )
    p0, q0 = phases[0]
    line = size[1] * channels
    segments: list[list[int]] = []
    for block, (p, q) in enumerate(phases):
        offset = (p - p0) * line + (q - q0) * channels
        if segments and segments[-1][2] + segments[-1][1] == offset:
            segments[-1][1] += channels
        else:
            segments.append([block * channels, channels, offset])
    segment_array = (_Segment * len(segments))(*(_Segment(*segment) for segment in segments))
    runs = _runs(taps, first)
    group = _Group(
        -(-(size[0] - p0) // factors[0]),
        -(-(size[1] - q0) // factors[1]),
        p0 * line + q0 * channels,
        factors[0] * line,
        factors[1] * channels,
        len(phases),
        len(taps),
        len(runs),
        len(segments),
        ctypes.addressof(runs),
        ctypes.addressof(segment_array),
        sources,
    )
    return group, (runs, segment_array, kept)


def _runs(taps: Sequence[Pair], first: Pair) -> "ctypes.Array[_Run]":
    """Taps, row by row, cut where they do not lie side by side."""
    runs: list[list[int]] = []
    for row, column in taps:
        row, column = row - first[0], column - first[1]
        if runs and runs[-1][0] == row and runs[-1][1] + runs[-1][2] == column:
            runs[-1][2] += 1
        else:
            runs.append([row, column, 1])
    return (_Run * len(runs))(*(_Run(*run) for run in runs))


def _sources(lists: Sequence[Sequence[int]]) -> tuple[_Sources, Any]:
    """Lists of numbers, one after another, with where each begins; and what has to be kept for it."""
    begins = [0, *itertools.accumulate(map(len, lists))]
    begin = (ctypes.c_int32 * len(begins))(*begins)
    source = (ctypes.c_int32 * max(1, begins[-1]))(*itertools.chain.from_iterable(lists))
    return _Sources(ctypes.addressof(begin), ctypes.addressof(source)), (begin, source)


def _lane_cost(lanes: int, width: int) -> int:
    """Half vectors that hold so many lanes."""
    whole, rest = divmod(lanes, width)
    return 2 * whole + (rest > 0) + (rest > width // 2)
