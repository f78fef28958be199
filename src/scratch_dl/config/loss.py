"""Makes the loss of the group `loss`, and tries it once on a few pixels before anything is read or written."""

import contextlib
import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scratch_dl.config.protocols import example_of
from scratch_dl.config.targets import config_errors, make
from scratch_dl.system.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from scratch_dl.nn import Module

_CALLED = "forward(output, target) returns one number, backward() its gradient in the output's shape"


def make_loss(config: Mapping[str, Any], size: tuple[int, int], device: str) -> "Module":
    """Return the loss, with the configuration's dtype and on the device.

    Args:
        config: with the group, `dtype`, and `allowed_targets`.
        size: (height, width) of the crops.
        device: of the training.

    Raises:
        ConfigError: if it cannot be the loss of a training.
    """
    import torch

    from scratch_dl.nn import adapt
    from scratch_dl.system.seeding import seeded

    made, dtype = make("loss", config), getattr(torch, config["dtype"])
    with config_errors("loss", config["loss"]):
        loss = adapt(made, "_target_").to(dtype=dtype, device=device)
    generator = torch.Generator().manual_seed(0)
    output, target = torch.rand((2, 2, 3, *size), generator=generator).to(device, dtype)
    tried = loss
    with contextlib.suppress(Exception):  # what cannot be copied is tried itself
        tried = copy.deepcopy(loss)
    with seeded("loss"), torch.no_grad():
        why = _unfit(tried, output, target)
    if why:
        name = config["loss"]["_target_"]
        raise ConfigError(f"loss._target_ must be a loss: {_CALLED}; but {name!r} {why}; {example_of('loss')}")
    return loss


def _unfit(loss: "Module", output: "Tensor", target: "Tensor") -> str:
    """Return why an object cannot be a loss, from one forward and backward; "" if it can."""
    import torch

    value: Any
    grad: Any
    try:
        value = loss(output, target)
    except Exception as error:
        return f"fails in forward: {_line(error)}"
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        return f"returns {_kind(value)} from forward"
    if not bool(value.isfinite().all()):
        return f"is {float(value)} for random pixels"
    try:
        grad = loss.backward()
    except Exception as error:
        return f"fails in backward: {_line(error)}"
    if not isinstance(grad, torch.Tensor) or (grad.shape, grad.dtype) != (output.shape, output.dtype):
        return f"returns {_kind(grad)} from backward for an output that is {_kind(output)}"
    return ""


def _kind(value: Any) -> str:
    """Return what a value is, for a message."""
    shape = tuple(getattr(value, "shape", ()))
    return f"{value.dtype} of shape {shape}" if hasattr(value, "dtype") else f"a {type(value).__name__}"


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
