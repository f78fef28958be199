"""Peak memory of a training step beyond what the process used before the first, each side in a new process.

python -m scratch_dl.benchmarks.memory '<json>'    one measurement, as a number of bytes on the last line; see `beyond`
"""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from scratch_dl import kernels
from scratch_dl.benchmarks.cases import LARGE, NEAREST, SMALL, TRANSPOSED, BenchCase, own, pytorch
from scratch_dl.benchmarks.part_result import Comparison, ComparisonTable, PartResult
from scratch_dl.benchmarks.settings import BenchSettings
from scratch_dl.system.memory import keep_freed_memory

_STEPS = 5
_MIB = 1 / 2**20
_PROCESS = Path("/proc/self")
_TIMEOUT_S = 600.0


def measure(settings: BenchSettings) -> PartResult:
    """Measure each case in a few processes per side, in turn."""
    rounds, comparisons = 1 if settings.smoke else settings.few(3), []
    for case in SMALL[:1] if settings.smoke else (NEAREST, TRANSPOSED, LARGE):
        pairs = [[beyond(case, side, settings) for side in ("own", "pytorch")] for _ in range(rounds)]
        mine, theirs = zip(*pairs, strict=True)
        comparisons.append(Comparison.of(f"memory/{case.name}", case.label, "eager, channels_last", mine, theirs, _MIB))
    legend = f"beyond what is there before, {_STEPS} steps in a fresh process, {rounds} of each"
    table = ComparisonTable("memory", "Peak memory of a training step", legend, "MiB")
    return table.result(settings.threads, comparisons)


def beyond(case: BenchCase, side: str, settings: BenchSettings) -> int:
    """Bytes that the `side` "own" or "pytorch" needs, measured in a new process; at least one page.

    Raises:
        RuntimeError: if the process fails.
    """
    arguments = json.dumps({"case": asdict(case), "side": side, "settings": asdict(settings)})
    command = [sys.executable, "-m", "scratch_dl.benchmarks.memory", arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"memory of {case.label}, {side}: the process failed with {done.returncode}: {last}")
    return max(4096, int(done.stdout.split()[-1]))


def _measured(case: BenchCase, side: str, settings: BenchSettings) -> int:
    torch.set_num_threads(settings.threads)
    kernels.use(settings.backend)
    keep_freed_memory()  # as a training does, on both sides
    # Both libraries' threads and code are there before the count begins, in either process.
    tiny = SMALL[0]
    for make in (own, pytorch):
        _steps(tiny, make is own, settings)
    return _steps(case, side == "own", settings)


def _steps(case: BenchCase, by_hand: bool, settings: BenchSettings) -> int:
    generator = settings.generator()
    network = case.build(generator)
    images, target = case.images(generator), case.images(generator)
    rival = own(network, images, target) if by_hand else pytorch(network, images, target, channels_last=True)
    # Not ru_maxrss: it cannot be set back, and begins with what the parent process had.
    (_PROCESS / "clear_refs").write_text("5")
    before = _status("VmRSS")
    with torch.set_grad_enabled(not by_hand):
        for _ in range(_STEPS):
            rival.step()
    gradients = sum(p.grad.numel() * p.grad.element_size() for p in network.parameters()) if by_hand else 0
    return _status("VmHWM") - before + gradients  # which PyTorch allocates in its first step, and own code before it


def _status(name: str) -> int:
    """Bytes: VmRSS is the memory in use, VmHWM the most there was since clear_refs was written."""
    for line in (_PROCESS / "status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise RuntimeError(f"{_PROCESS / 'status'} has no {name}")


def main() -> None:
    """Entry point of the process."""
    arguments = json.loads(sys.argv[1])
    case: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in arguments["case"].items()
    }
    print(_measured(BenchCase(**case), arguments["side"], BenchSettings(**arguments["settings"])))


if __name__ == "__main__":
    main()
