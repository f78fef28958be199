"""From a composed Hydra configuration to objects, every value checked on the way, before any data is read.

A group with a `_target_` (model, optimizer, schedule, data, noise) names a callable and its arguments; the callable
checks them. A group without one (trainer, tracking) and the top level are the dataclasses here.
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf

from scratch_dl.checks import boolean, choice, integer, real, text
from scratch_dl.cli.yaml_files import CONF
from scratch_dl.passwords import hidden, without_password
from scratch_dl.system.addresses import check_directory, check_uri
from scratch_dl.targets import ConfigError, check_keys, check_targets, make, naming

if TYPE_CHECKING:
    from scratch_dl.data import DataSet
    from scratch_dl.faults import Fault
    from scratch_dl.models import Denoiser
    from scratch_dl.nn import Module
    from scratch_dl.optim import Optimizer
    from scratch_dl.schedule import Schedule

T = TypeVar("T")
GROUPS = ("model", "optimizer", "schedule", "data", "noise")
KEYS = (*GROUPS, "trainer", "verification", "diagnosis", "tracking", "resume", "seed", "device", "dtype", "backend",
        "fault", "threads", "allowed_targets", "experiment", "debug")  # fmt: skip


@dataclass(frozen=True)
class Trainer:
    """How long and how to train; `conf/trainer/default.yaml` says what each setting means."""

    epochs: int
    batch_size: int
    clip_norm: float | None
    max_minutes: float | None
    checkpoint_every_steps: int | None
    patience: int | None
    repeat_first_batch: bool
    pictures: int
    test: bool

    def __post_init__(self) -> None:
        integer("epochs", self.epochs, minimum=1)
        integer("batch_size", self.batch_size, minimum=1)
        integer("pictures", self.pictures, minimum=1)
        boolean("repeat_first_batch", self.repeat_first_batch)
        boolean("test", self.test)
        if self.clip_norm is not None:
            real("clip_norm", self.clip_norm, above=0)
        if self.max_minutes is not None:
            real("max_minutes", self.max_minutes, above=0)
        for name in ("patience", "checkpoint_every_steps"):
            if getattr(self, name) is not None:
                integer(name, getattr(self, name), minimum=1)


@dataclass(frozen=True)
class Tracking:
    """Where a run is recorded; `conf/tracking/default.yaml` says what each setting means."""

    dir: str
    uri: str | None
    experiment: str
    run_name: str | None
    run_id: str | None
    tags: Mapping[str, str]
    detail: str

    def __post_init__(self) -> None:
        if "://" in text("dir", self.dir):
            raise ValueError(f"dir must be a folder (uri takes an address), but got {self.dir!r}")
        check_directory("dir", self.dir, holds_database=self.uri is None)
        text("experiment", self.experiment)
        choice("detail", self.detail, ("full", "trial"))
        for name in ("uri", "run_name", "run_id"):
            if getattr(self, name) is not None:
                text(name, getattr(self, name))
        if self.uri is not None:
            check_uri("uri", self.uri)
        if not isinstance(self.tags, Mapping):
            raise TypeError(f"tags must be a mapping of names and texts, but got {self.tags!r}")


@dataclass(frozen=True)
class Verification:
    """What is verified before the first step; `conf/verification/full.yaml` says what each setting means."""

    enabled: bool
    on_failure: str
    oracle: bool
    float32: bool
    geometries: bool
    lockstep_steps: int
    lockstep_max_s: float

    def __post_init__(self) -> None:
        choice("on_failure", self.on_failure, ("stop", "warn"))
        for name in ("enabled", "oracle", "float32", "geometries"):
            boolean(name, getattr(self, name))
        integer("lockstep_steps", self.lockstep_steps, minimum=0)
        real("lockstep_max_s", self.lockstep_max_s, above=0)


@dataclass(frozen=True)
class DiagnosisSettings:
    """How a training is watched; `conf/diagnosis/default.yaml` says what each setting means."""

    enabled: bool
    every: int

    def __post_init__(self) -> None:
        boolean("enabled", self.enabled)
        integer("every", self.every, minimum=1)


@dataclass(frozen=True)
class Resume:
    """Which run to go on with, and which of its settings may differ from what it recorded."""

    run: str | None = None
    allow: list[str] = field(default_factory=list)


@dataclass
class Setup:
    """Everything a training needs, built from one configuration.

    `config` is what is recorded, without passwords; `tracking` may contain one. `fault` is a deliberate mistake
    that has been put into one of the parts, or None.
    """

    config: dict[str, Any]
    seed: int
    device: str
    dtype: str
    backend: str
    threads: int | None
    data: "DataSet"
    network: "Denoiser"
    loss: "Module"
    optimizer: "Optimizer"
    schedule: "Schedule"
    trainer: Trainer
    verification: Verification
    diagnosis: DiagnosisSettings
    tracking: Tracking
    fault: "Fault | None"


def plain(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as dictionaries and lists, interpolations resolved, Hydra's own part left out.

    Raises:
        ConfigError: if a value is missing.
    """
    if isinstance(config, DictConfig):
        config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        missing = sorted(map(str, OmegaConf.missing_keys(config)))
        if missing:
            raise ConfigError(f"{missing[0]} must be given, for example {missing[0]}=..., but it is missing")
        try:
            config = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
        except RecursionError:
            raise ConfigError("a ${...} refers to itself, perhaps by way of others") from None
    return {str(key): value for key, value in config.items()}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and their values, for MLflow's parameters."""
    found: dict[str, Any] = {}
    for key, value in plain(config).items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{name}.")
        elif name != "resume.run":
            found[name] = value
    return found


def build(config: DictConfig | Mapping[str, Any]) -> Setup:
    """Check every setting and build the objects; reads no data and touches no global random state.

    Raises:
        ConfigError: if a setting cannot be used.
    """
    from scratch_dl import faults, kernels
    from scratch_dl.evaluation import check_photographs
    from scratch_dl.metrics import SSIM_WINDOW
    from scratch_dl.nn import MSELoss

    config = plain(config)
    check_keys("", config, list(KEYS))
    check_targets(config)
    with naming("", config):
        seed = integer("seed", config["seed"], minimum=0, maximum=2**63 - 1)
        dtype = choice("dtype", config["dtype"], ("float32", "float64"))
        threads = config["threads"] if config["threads"] is None else integer("threads", config["threads"], minimum=1)
        device = _device(config["device"])
        kernels.check(config["backend"])
        fault = faults.find(config.get("fault"))
    if isinstance(config.get("tracking"), Mapping):
        config["tracking"] = {**config["tracking"], "dir": _absolute(config["tracking"].get("dir"))}
    trainer = _settings("trainer", Trainer, config)
    verification = _settings("verification", Verification, config)
    diagnosis = _settings("diagnosis", DiagnosisSettings, config)
    tracking = tracking_of(config)
    schedule = make("schedule", config)
    data = make("data", config, noise=make("noise", config))
    if min(data.crop_size) < SSIM_WINDOW:
        raise ConfigError(f"data.crop_size must be >= {SSIM_WINDOW}, the window of SSIM, but got {data.crop_size}")
    crops = getattr(data, "crops_per_epoch", None)
    if crops is not None and trainer.batch_size > crops:
        raise ConfigError(f"trainer.batch_size must be <= data.crops_per_epoch = {crops}, but got {trainer.batch_size}")
    network = build_network(config, data.crop_size)
    optimizer = make("optimizer", config, parameters=network.parameters())
    loss: Module = MSELoss()
    if fault is not None:
        data = fault.put_into_data(data)
        loss = fault.put_into_loss(loss)
        fault.put_into_optimizer(optimizer)
    with naming("", config):
        check_photographs(network, data, ("validation", *(["test"] if trainer.test else [])))
    return Setup(
        _recorded(config), seed, device, dtype, config["backend"], threads, data, network, loss, optimizer, schedule,
        trainer, verification, diagnosis, tracking, fault,
    )  # fmt: skip


def build_network(config: Mapping[str, Any], size: tuple[int, int]) -> "Denoiser":
    """The network of the `model` group, its weights drawn from the seed, on the device and of the dtype asked for.

    With the configuration's fault, if it is one of the network's.
    """
    import torch

    from scratch_dl import faults
    from scratch_dl.models import check_size
    from scratch_dl.seeding import seeded

    generator = torch.Generator().manual_seed(config["seed"])
    network: Denoiser = make("model", config, size=size, generator=generator)
    with naming("model", config["model"]), seeded("check_size"):
        check_size(network, size)
    if (fault := faults.find(config.get("fault"))) is not None:
        fault.put_into_network(network)
    return network.to(dtype=getattr(torch, config["dtype"]), device=_device(config["device"]))


def tracking_of(config: Mapping[str, Any]) -> Tracking:
    """The settings of the group `tracking`.

    Raises:
        ConfigError: if one is unknown, missing or cannot be used.
    """
    return _settings("tracking", Tracking, config)


def full_verification() -> Verification:
    """What conf/verification/full.yaml says."""
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
    with naming(group, given):
        return kind(**given)


def _recorded(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as files, checkpoints and MLflow have it: without a password, and fit for going on with a run."""
    uri = config["tracking"]["uri"]
    tracking = {**config["tracking"], "uri": uri if uri is None else without_password(uri)}
    return {str(key): hidden(value) for key, value in {**config, "tracking": tracking}.items()}


def _absolute(folder: Any) -> Any:
    """A run is resumed from anywhere, so what it records is no path relative to where it began."""
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
