"""Builds the objects of a composed Hydra configuration, and checks every value before any data is read.

A group with a `_target_` (model, loss, optimizer, schedule, data, noise) names a callable and its arguments, which the
callable checks; `metrics` has several of them, by name. The other groups (trainer, tracking, ...) and the top level are
the dataclasses of `schema.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf

from scratch_dl.config.loss import make_loss
from scratch_dl.config.metrics import make_metrics
from scratch_dl.config.plain import plain
from scratch_dl.config.schema import KEYS, DiagnosisSettings, Setup, Tracking, Trainer, Verification
from scratch_dl.config.targets import check_keys, check_targets, config_errors, make
from scratch_dl.config.yaml_files import CONF
from scratch_dl.system.checks import choice, integer
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import hidden, without_password

if TYPE_CHECKING:
    from scratch_dl.data import DataSet
    from scratch_dl.models import Denoiser

T = TypeVar("T")


def build(config: DictConfig | Mapping[str, Any]) -> Setup:
    """Check every setting and build the objects; reads no data and changes no global random state.

    Raises:
        ConfigError: if a setting cannot be used.
    """
    from scratch_dl.evaluation.scoring import check_photographs

    config = plain(config)
    check_keys("", config, list(KEYS))
    check_targets(config)
    top = _top_level(config)
    if isinstance(config.get("tracking"), Mapping):
        config["tracking"] = {**config["tracking"], "dir": _absolute(config["tracking"].get("dir"))}
    trainer = _settings("trainer", Trainer, config)
    verification = _settings("verification", Verification, config)
    diagnosis = _settings("diagnosis", DiagnosisSettings, config)
    tracking = tracking_settings(config)
    schedule = make("schedule", config)
    data = _data(config, trainer)
    network = build_network(config, data.crop_size)
    optimizer = make("optimizer", config, parameters=network.parameters())
    loss = make_loss(config, data.crop_size, top["device"])
    metrics = make_metrics(config, data.crop_size)
    if (fault := top["fault"]) is not None:
        data = fault.put_into_data(data)
        loss = fault.put_into_loss(loss)
        fault.put_into_optimizer(optimizer)
    with config_errors("", config):
        check_photographs(network, data, ("validation", *(["test"] if trainer.test else [])))
    return Setup(
        config=_recorded(config),
        data=data,
        network=network,
        loss=loss,
        optimizer=optimizer,
        schedule=schedule,
        trainer=trainer,
        verification=verification,
        diagnosis=diagnosis,
        tracking=tracking,
        metrics=metrics,
        **top,
    )


def _top_level(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a Setup that belong to no group, checked."""
    from scratch_dl import faults, kernels

    for name in ("seed", "dtype", "threads", "device", "backend", "fault"):
        if name not in config:
            raise ConfigError(f"{name} must be given, but it is missing")
    with config_errors("", config):
        kernels.check(config["backend"])
        threads = config["threads"]
        return {
            "seed": integer("seed", config["seed"], minimum=0, maximum=2**63 - 1),
            "dtype": choice("dtype", config["dtype"], ("float32", "float64")),
            "threads": threads if threads is None else integer("threads", threads, minimum=1),
            "device": _device(config["device"]),
            "backend": config["backend"],
            "fault": faults.find(config.get("fault")),
        }


def _data(config: Mapping[str, Any], trainer: Trainer) -> "DataSet":
    """Build the data set, and check that the trainer can use its crops.

    Raises:
        ConfigError: if a crop is too small for the scores, or an epoch has fewer crops than a batch.
    """
    from scratch_dl.data.metrics import SSIM_WINDOW

    data: DataSet = make("data", config, noise=make("noise", config))
    if min(data.crop_size) < SSIM_WINDOW:
        raise ConfigError(f"data.crop_size must be >= {SSIM_WINDOW}, the window of SSIM, but got {data.crop_size}")
    crops = getattr(data, "crops_per_epoch", None)
    if crops is not None and trainer.batch_size > crops:
        raise ConfigError(f"trainer.batch_size must be <= data.crops_per_epoch = {crops}, but got {trainer.batch_size}")
    return data


def build_network(config: Mapping[str, Any], size: tuple[int, int]) -> "Denoiser":
    """Build the network of the `model` group, including the configuration's fault if that affects the network.

    Its weights are drawn from the configuration's seed; it has the configuration's dtype and is on its device.
    """
    import torch

    from scratch_dl import faults
    from scratch_dl.models import check_size
    from scratch_dl.system.seeding import seeded

    generator = torch.Generator().manual_seed(config["seed"])
    network: Denoiser = make("model", config, size=size, generator=generator)
    with config_errors("model", config["model"]), seeded("check_size"):
        check_size(network, size)
    if (fault := faults.find(config.get("fault"))) is not None:
        fault.put_into_network(network)
    return network.to(dtype=getattr(torch, config["dtype"]), device=_device(config["device"]))


def tracking_settings(config: Mapping[str, Any]) -> Tracking:
    """Return the settings of the group `tracking`.

    Raises:
        ConfigError: if one is unknown, missing or cannot be used.
    """
    return _settings("tracking", Tracking, config)


def full_verification() -> Verification:
    """Return the settings of conf/verification/full.yaml."""
    return Verification(**plain(cast(DictConfig, OmegaConf.load(Path(CONF) / "verification" / "full.yaml"))))


def _settings(group: str, kind: type[T], config: Mapping[str, Any]) -> T:
    given = config.get(group)
    if not isinstance(given, Mapping):
        raise ConfigError(f"{group} must be one of the group's choices, but got {given!r}")
    items = fields(kind)  # type: ignore[arg-type]
    check_keys(group, given, [item.name for item in items])
    for item in items:
        if item.name not in given and item.default is MISSING:
            raise ConfigError(f"{group}.{item.name} must be given, but it is missing")
    with config_errors(group, given):
        return kind(**given)


def _recorded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration for files, checkpoints and MLflow: without passwords, and sufficient for resuming."""
    uri = config["tracking"]["uri"]
    tracking = {**config["tracking"], "uri": uri if uri is None else without_password(uri)}
    return {str(key): hidden(value) for key, value in {**config, "tracking": tracking}.items()}


def _absolute(folder: Any) -> Any:
    """Return an absolute path for a folder, because a run may be resumed from any working directory."""
    usable = isinstance(folder, str) and folder.strip() and "://" not in folder
    return str(Path(folder).expanduser().absolute()) if usable else folder


def _device(device: Any) -> str:
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not isinstance(device, str) or not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ValueError(f"device must be cpu, cuda, cuda:N or auto, but got {device!r}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device must be cpu here, where torch finds no CUDA GPU, but got {device!r}")
    return device
