"""The loss of outputs outside of a training step, in words and as a number."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scratch_dl.config.plain import brief
from scratch_dl.nn import Module

_SQUARED = "scratch_dl.nn.MSELoss"
_WORDS = {_SQUARED: "mean squared error", "scratch_dl.nn.L1Loss": "mean absolute error"}


def loss_label(group: Mapping[str, Any]) -> str:
    """Return the name of a loss for people, from the settings of its group: "mean squared error", "MyLoss(scale=2)"."""
    if group.get("reduction", "mean") == "sum":
        return brief(group)
    arguments = {key: value for key, value in group.items() if key != "reduction"}
    return _WORDS.get(str(group["_target_"]), brief(arguments))


def is_squared_error(group: Mapping[str, Any]) -> bool:
    """Return whether the settings of the group `loss` name our squared error; another class may compute anything."""
    return group.get("_target_") == _SQUARED


def loss_of(loss: Module, output: Tensor, target: Tensor, batch_size: int) -> float:
    """Return the loss of some outputs, of which the module keeps nothing for a backward.

    Args:
        loss: of a training.
        output: (n, 3, h, w).
        target: like the output.
        batch_size: of the training. A sum is scaled to a batch of it, so that it can be compared with the training's.
    """
    loss.eval()
    try:
        with torch.no_grad():
            value = float(loss(output, target))
    finally:
        loss.train()
    return value * batch_size / len(output) if getattr(loss, "reduction", "mean") == "sum" else value
