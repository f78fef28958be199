"""Time a training step of the hand-written network beside PyTorch's, in one process, interleaved.

python experiments/000-step-time/run.py [--smoke]    prints a table and writes results.json beside this file
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch

from scratch_dl import nn, optim
from scratch_dl.models import paper

# (name, batch, channels, kernel size, upsampling)
CASES = [
    ("issue size, nearest", 100, (32, 64, 32), 3, "nearest"),
    ("issue size, transposed", 100, (32, 64, 32), 4, "transposed"),
    ("default run", 8, (24, 32, 24), 4, "transposed"),
]


def twin(channels, kernel_size, upsampling):
    """The same network of torch.nn, in channels_last."""
    c1, c2, c3 = channels
    k, t = kernel_size, torch.nn

    def up(before, after):
        if upsampling == "nearest":
            return [t.UpsamplingNearest2d(scale_factor=2), t.Conv2d(before, after, k, padding="same")]
        padding = max(0, (k - 1) // 2)
        return [t.ConvTranspose2d(before, after, k, 2, padding, 2 * padding - (k - 2))]

    half = (k - 1) // 2
    layers = [t.Conv2d(3, c1, k, 2, half), t.ReLU(), t.Conv2d(c1, c2, k, 2, half), t.ReLU(), *up(c2, c3), t.ReLU()]
    return t.Sequential(*layers, *up(c3, 3), t.Sigmoid()).to(memory_format=torch.channels_last)


def steps(batch, channels, kernel_size, upsampling):
    """Two functions that do one step each, own and PyTorch's, on the same batch."""
    images, target = torch.rand(2, batch, 3, 32, 32)
    network = paper(channels, kernel_size, "same", upsampling, True, "pytorch")
    optimizer, loss = optim.SGD(network.parameters(), 0.1, momentum=0.9), nn.MSELoss()

    def own():
        with torch.no_grad():
            optimizer.zero_grad()
            loss(network(images), target)
            network.backward(loss.backward())
            optimizer.step()

    reference = twin(channels, kernel_size, upsampling)
    reference_optimizer = torch.optim.SGD(reference.parameters(), 0.1, momentum=0.9)
    reference_loss, last = torch.nn.MSELoss(), images.contiguous(memory_format=torch.channels_last)

    def pytorch():
        reference_optimizer.zero_grad()
        reference_loss(reference(last), target).backward()
        reference_optimizer.step()

    return own, pytorch


def measure(own, pytorch, rounds):
    """Milliseconds of each, and their ratio pair by pair: median and quartiles, after three rounds of warm-up."""
    pairs = []
    for _ in range(rounds + 3):
        pair = []
        for step in (own, pytorch):
            start = time.perf_counter()
            step()
            pair.append(1e3 * (time.perf_counter() - start))
        pairs.append(pair)
    mine, theirs = zip(*pairs[3:], strict=True)
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {"own_ms": statistics.median(mine), "pytorch_ms": statistics.median(theirs),
            "ratio": middle, "ratio_quartiles": [low, high]}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="few rounds, nothing written")
    smoke = parser.parse_args().smoke
    results = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cases": {},
    }
    for name, batch, channels, kernel_size, upsampling in CASES:
        rounds = 3 if smoke else 30 if batch > 8 else 300
        case = measure(*steps(batch, channels, kernel_size, upsampling), rounds)
        results["cases"][name] = {"batch": batch, "channels": channels, "kernel_size": kernel_size, **case}
        low, high = case["ratio_quartiles"]
        print(f"{name:24} own {case['own_ms']:6.1f} ms  PyTorch channels_last {case['pytorch_ms']:6.1f} ms  "
              f"ratio {case['ratio']:.2f} ({low:.2f} to {high:.2f})")  # fmt: skip
    if not smoke:
        Path(__file__).with_name("results.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
