"""Megapixels per second of `network.predict`, compared with the twin under `torch.inference_mode`."""

import statistics
from dataclasses import replace
from functools import partial

import torch

from scratch_dl.benchmarks.cases import DEFAULT, UNET
from scratch_dl.benchmarks.part_result import Comparison, ComparisonTable, PartResult
from scratch_dl.benchmarks.settings import BenchSettings
from scratch_dl.system.timing import Quartiles, Side, interleave
from scratch_dl.verification.counterparts import check_equal, in_channels_last, pytorch_twin


def measure(settings: BenchSettings) -> PartResult:
    """Time a large image and a batch of crops, with the network of `experiment=paper_sgd` and the U-Net."""
    generator = settings.generator()
    comparisons = []
    sizes = (
        [("image", 1, (16, 16)), ("crops", 2, (8, 8))]
        if settings.smoke
        else [
            ("image", 1, (512, 512)),
            ("crops", 64, (32, 32)),
        ]
    )
    for model in (DEFAULT, UNET):
        for kind, batch, size in sizes:
            case = replace(model, batch=batch, size=size)
            network, images = case.build(generator), case.images(generator)
            models = {"eager": (pytorch_twin(network), images)}
            models["eager, channels_last"] = (
                in_channels_last(pytorch_twin(network)),
                images.contiguous(memory_format=torch.channels_last),
            )
            sides = [Side(partial(network.predict, images))]
            sides += [Side(partial(made, given), torch.inference_mode) for made, given in models.values()]
            label = f"{model.label.partition(',')[0]}, {batch} x {size[0]}x{size[1]}"
            with torch.no_grad():
                for name, (made, given) in models.items():
                    check_equal(f"{label}, {name}", (network.predict(images), []), (made(given), []))
            ((mine, *rivals),) = interleave([sides], settings.rounds, 1)
            name, times = min(zip(models, rivals, strict=True), key=lambda pair: statistics.median(pair[1]))
            own, theirs = (
                Quartiles.from_values([batch * size[0] * size[1] / time for time in values]) for values in (mine, times)
            )
            ratio = Quartiles.from_ratios(mine, times)
            comparisons.append(Comparison(f"prediction/{model.name}_{kind}", label, name, own, theirs, ratio))
    legend = f"{settings.rounds} rounds; PyTorch: the faster of NCHW and channels_last; the ratio is of times"
    table = ComparisonTable("prediction", "Prediction", legend, "MP/s", ratio="time, own / PyTorch")
    return table.result(settings.threads, comparisons)
