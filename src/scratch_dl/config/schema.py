"""The groups without a `_target_` as dataclasses, and `Setup`, the objects built from a whole configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scratch_dl.system.addresses import check_directory, check_uri
from scratch_dl.system.checks import boolean, choice, integer, real, text

if TYPE_CHECKING:
    from scratch_dl.data import DataSet
    from scratch_dl.evaluation.scoring import Metric
    from scratch_dl.faults import Fault
    from scratch_dl.models import Denoiser
    from scratch_dl.nn import Module
    from scratch_dl.optim import Optimizer
    from scratch_dl.schedule import Schedule

GROUPS = ("model", "loss", "optimizer", "schedule", "data", "noise")
KEYS = (
    *GROUPS,
    "metrics",
    "trainer",
    "verification",
    "diagnosis",
    "tracking",
    "resume",
    "seed",
    "device",
    "dtype",
    "backend",
    "fault",
    "threads",
    "allowed_targets",
    "experiment",
    "debug",
)


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
    every: int | None = None
    register: bool = False

    def __post_init__(self) -> None:
        if "://" in text("dir", self.dir):
            raise ValueError(f"dir must be a folder (uri takes an address), but got {self.dir!r}")
        check_directory("dir", self.dir, holds_database=self.uri is None)
        text("experiment", self.experiment)
        choice("detail", self.detail, ("full", "trial"))
        boolean("register", self.register)
        if self.every is not None:
            integer("every", self.every, minimum=1)
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


@dataclass
class Setup:
    """Everything a training needs, built from one configuration.

    `config` is what is recorded, without passwords; `tracking` may contain one. `fault` is a deliberate mistake
    that has been put into one of the parts, or None. `metrics` are those beside PSNR, by name.
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
    metrics: "Mapping[str, Metric]" = field(default_factory=dict)
