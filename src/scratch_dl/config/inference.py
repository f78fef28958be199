"""The settings of a command that uses trained networks: which checkpoint, by which kernels, on how many threads."""

from collections.abc import Mapping
from typing import Any

from scratch_dl.config.targets import config_errors
from scratch_dl.system.checks import choice, integer


def check_inference(settings: Mapping[str, Any]) -> None:
    """Check `checkpoint`, `backend` and `threads`.

    Raises:
        ConfigError: if one of them cannot be used.
    """
    from scratch_dl import kernels

    with config_errors("", settings):
        kernels.check(settings["backend"])
        choice("checkpoint", settings["checkpoint"], ("best", "last"))
        if settings["threads"] is not None:
            integer("threads", settings["threads"], minimum=1)


def use_inference(settings: Mapping[str, Any]) -> None:
    """Compute with the kernels and the threads of the settings, in this process."""
    import torch

    from scratch_dl import kernels

    if settings["threads"] is not None:
        torch.set_num_threads(settings["threads"])
    kernels.use(settings["backend"])
