"""How a step's time and peak memory grow with the batch, the image's side and the channels."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

from scratch_dl.benchmarks.cases import BenchCase, own, pytorch
from scratch_dl.benchmarks.memory import beyond
from scratch_dl.benchmarks.part_result import PartResult, format_number
from scratch_dl.benchmarks.settings import BenchSettings
from scratch_dl.system.timing import Side, interleave
from scratch_dl.terminal.text_table import TextTable

_NAMES = ("own", "pytorch")
_QUANTITIES = {"time": "ms", "memory": "MiB"}
_FULL = {
    "batch": (16, 32, 64, 128, 256, 512, 1024),
    "side": (32, 64, 128, 256, 512),
    "channels": (8, 16, 32, 64, 128, 256),
}
_SMOKE = {"batch": (2, 4)}


def cases(axis: str, smoke: bool) -> list[tuple[int, BenchCase]]:
    """The points of an axis, and the network of each: nearest, kernel 3, c-2c-c channels."""
    side, c = (8, 2) if smoke else (32, 32)
    make: dict[str, Callable[[int], BenchCase]] = {
        "batch": lambda x: BenchCase("", f"batch {x}", x, (side, side), (c, 2 * c, c)),
        "side": lambda x: BenchCase("", f"side {x}", 2 if smoke else 8, (x, x), (c, 2 * c, c)),
        "channels": lambda x: BenchCase("", f"channels {x}", 2 if smoke else 8, (side, side), (x, 2 * x, x)),
    }
    return [(x, make[axis](x)) for x in (_SMOKE if smoke else _FULL)[axis]]


def exponent(points: Sequence[float], values: Sequence[float]) -> float:
    """The b of values ~ a points^b, by least squares between the logarithms; all must be above 0."""
    x, y = ([math.log(number) for number in numbers] for numbers in (points, values))
    return statistics.linear_regression(x, y).slope


def measure(settings: BenchSettings) -> PartResult:
    """A few rounds at every point, and one process a side for its memory."""
    figures: dict[str, float] = {}
    rows: list[tuple[str, ...]] = []
    records: list[dict[str, Any]] = []
    rounds = settings.few(5)
    for axis in _SMOKE if settings.smoke else _FULL:
        points = [{"at": x, **_point(case, settings, rounds)} for x, case in cases(axis, settings.smoke)]
        xs = [point["at"] for point in points]
        for quantity, unit in _QUANTITIES.items():
            cells = []
            for name in _NAMES:
                values = [point[f"{name}_{quantity}"] for point in points]
                figures[f"scaling/{axis}/{name}_{quantity}_exponent"] = b = exponent(xs, values)
                cells += [f"{b:.2f}", f"{format_number(values[0])} - {format_number(values[-1])}"]
            rows.append((axis if quantity == "time" else "", f"{xs[0]:g} - {xs[-1]:g}", unit, *cells))
        records.append({"axis": axis, "points": points})
    legend = f"{rounds} rounds; value ~ axis^exponent, by least squares; the first and the last value"
    head = ("axis", "from - to", "of", "own\nexponent", "own", "PyTorch\nexponent", "PyTorch")
    table = TextTable("Growth of a step: 32-64-32, nearest, PyTorch channels_last", legend, 3, head, rows)
    return PartResult("scaling", settings.threads, figures, table, records)


def _point(case: BenchCase, settings: BenchSettings, rounds: int) -> dict[str, float]:
    """Median milliseconds and MiB of both sides."""
    generator = settings.generator()
    network = case.build(generator)
    images, target = case.images(generator), case.images(generator)
    sides = [Side(own(network, images, target).step)]
    sides.append(Side(pytorch(network, images, target, channels_last=True).step, torch.enable_grad))
    (times,) = interleave([sides], rounds, 1)
    found = {f"{name}_time": statistics.median(values) / 1e3 for name, values in zip(_NAMES, times, strict=True)}
    return found | {f"{name}_memory": beyond(case, name, settings) / 2**20 for name in _NAMES}
