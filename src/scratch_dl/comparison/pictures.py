"""The outputs of several networks on the same pictures, side by side, with PSNR and grey error maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scratch_dl.comparison.runs import ComparedRun
from scratch_dl.config.targets import make
from scratch_dl.data.dataset import DataError
from scratch_dl.data.metrics import psnr_per_image
from scratch_dl.evaluation import scoring
from scratch_dl.system.errors import ConfigError
from scratch_dl.training import checkpoint
from scratch_dl.training.pictures import ERROR_SCALE, grid

if TYPE_CHECKING:
    from scratch_dl.data import DataSet
    from scratch_dl.models import Denoiser

_CROP_PX = 160  # about the edge of a crop as it is shown
_LETTER_PX = 6  # about the width of a letter above it
CROP = "validation crop"


@dataclass
class Networks:
    """The networks by label of the run, the data of the first run (None if it cannot be built), and what is missing."""

    data: "DataSet | None" = None
    trained: dict[str, "Denoiser"] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def load_networks(runs: Sequence[ComparedRun], name: str, allowed: Sequence[str]) -> Networks:
    """Build the data of the first run, and every network from its checkpoint `name`.

    What cannot be built is noted, with the cure, because everything else can be compared nevertheless.
    """
    networks = Networks()
    sources = {**runs[0].config, "allowed_targets": list(allowed)}
    try:
        networks.data = make("data", sources, noise=make("noise", sources))
    except (ConfigError, OSError) as error:
        networks.notes.append(f"There are no pictures, as the data of {runs[0].mark} cannot be used: {_line(error)}")
        return networks
    for run in runs:
        try:
            networks.trained[run.label] = checkpoint.load_network(run.folder / "checkpoints" / f"{name}.pt", allowed)
        except (checkpoint.CheckpointError, ConfigError) as error:
            networks.notes.append(f"{run.mark} has no pictures: {_line(error)}")
    return networks


def draw_pictures(networks: Networks, first: ComparedRun) -> dict[str, bytes]:
    """Return a PNG for each picture, by its title: validation crops, then whole photographs.

    The photographs are the test ones, unless the first run was not to look at them (trainer.test=false). What cannot
    be read or predicted is added to `networks.notes`.
    """
    count = int(first.config["trainer"]["pictures"])
    drawn: dict[str, bytes] = {}
    if networks.data is None or not networks.trained:
        return drawn
    split = "test" if first.config["trainer"]["test"] else "validation"
    if split != "test":
        networks.notes.append(f"The photographs are of the validation set, as {first.mark} has trainer.test=false.")
    try:
        noisy, clean = (images[:count].detach().float().cpu() for images in networks.data.validation)
        photographs = networks.data.photographs(split)[:count]
    except (DataError, ConfigError, OSError) as error:
        networks.notes.append(f"There are no pictures: {_line(error)}")
        return drawn
    scale = max(1, round(_CROP_PX / clean.shape[-1]))
    for number in range(len(clean)):
        outputs = _outputs(networks, noisy[number])
        drawn[f"{CROP} {number + 1}"] = _png(noisy[number], outputs, clean[number], scale)
    for photograph in photographs:
        outputs = _outputs(networks, photograph.noisy)
        drawn[f"{split} photograph {photograph.name}"] = _png(photograph.noisy, outputs, photograph.clean, 1)
    return drawn


def _outputs(networks: Networks, noisy: Tensor) -> dict[str, Tensor]:
    """Return each network's output, (3, h, w) in [0, 1], by label; a network that cannot is noted and left out."""
    outputs = {}
    for label, network in list(networks.trained.items()):
        try:
            outputs[label] = scoring.denoise(network, noisy[None])[0].clamp(0, 1)
        except Exception as error:
            networks.notes.append(f"{label[0]} is left out of the other pictures: {_line(error)}")
            del networks.trained[label]
    return outputs


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _png(noisy: Tensor, outputs: Mapping[str, Tensor], clean: Tensor, scale: int) -> bytes:
    """Return noisy, outputs, clean as one row, with PSNR, above their error maps on one scale."""
    from PIL import Image

    shown = {"noisy": noisy, **outputs, "clean": clean}
    columns, captions = [], []
    for name, image in shown.items():
        error = (image - clean).abs().mean(dim=0, keepdim=True).expand_as(clean) * ERROR_SCALE
        columns.append(torch.stack([image, error if name != "clean" else torch.ones_like(clean)]))
        psnr = float(psnr_per_image(image[None], clean[None]))
        captions.append([f"{psnr:.2f} dB", "|error|"] if name != "clean" else ["", f"white is {1 / ERROR_SCALE:g}"])
    with BytesIO() as file:
        length = clean.shape[-1] * scale // _LETTER_PX
        heads = [name if len(name) <= length else f"{name[: length - 3]}..." for name in shown]
        Image.fromarray(grid(heads, columns, captions, scale)).save(file, format="PNG")
        return file.getvalue()
