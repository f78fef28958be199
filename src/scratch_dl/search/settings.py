"""The settings of a search: `hydra.sweeper`, checked before anything is written."""

import inspect
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
from omegaconf import OmegaConf
from optuna import pruners, samplers

from scratch_dl.config.metrics import OURS
from scratch_dl.config.overrides import override_value
from scratch_dl.config.targets import config_errors
from scratch_dl.search.objectives import epoch_metrics, read_objectives
from scratch_dl.search.storage import GRPC, SafeCmaEs, quiet
from scratch_dl.search.trial_result import Objective
from scratch_dl.system.checks import choice, integer, nearest, real, text
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import hide

SAMPLERS: dict[str, Any] = {
    "tpe": samplers.TPESampler,
    "random": samplers.RandomSampler,
    "grid": samplers.RandomSampler,  # for what the points of the grid leave open
    "qmc": samplers.QMCSampler,
    "cmaes": SafeCmaEs,
    "gp": samplers.GPSampler,
    "nsgaii": samplers.NSGAIISampler,
}
ONE_OBJECTIVE = ("cmaes",)
FOR_NUMBERS = ("qmc", "cmaes")
"""Samplers that draw choices at random."""
CONDITIONAL = ("tpe", "random", "grid")
"""Samplers that draw a setting under a condition as they draw any other."""
PRUNERS: dict[str, Any] = {
    "median": pruners.MedianPruner,
    "hyperband": pruners.HyperbandPruner,
    "none": pruners.NopPruner,
}
STARTUP_TRIALS, GOOD_SHARE, CANDIDATES = 3, 0.2, 24
"""Random trials before TPE begins to learn, the share of trials that it calls good, and the points of which it takes
the most promising one. In Optuna the first two are 10 and 0.1; see experiments/005-geometry-sweep."""
STARTUP_PRUNER, WARMUP_SHARE = 5, 0.6
"""Trials, and the share of each one's epochs, that the median pruner leaves alone: at first a wide network is behind a
narrow one. See experiments/005-geometry-sweep."""
DATABASE = "optuna.db"
MAX_NAME = 200  # characters; folders and files are named by it, with something added
_GROUP = "hydra.sweeper"


@dataclass(frozen=True)
class Algorithm:
    """A sampler or a pruner: its name, and the arguments for Optuna's class."""

    name: str
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.arguments.items())])


@dataclass(frozen=True)
class SearchSettings:
    """The settings that `conf/hydra/sweeper/scratch_dl.yaml` documents; `n_trials` is None for a whole grid."""

    study_name: str
    storage: str
    n_trials: int | None
    workers: int
    objectives: tuple[Objective, ...]
    sampler: Algorithm
    pruner: Algorithm
    seed: int
    max_failure_rate: float = 1.0

    def make_sampler(self, seed: int, conditional: bool, refused: int = 0, repeats: int = 0) -> samplers.BaseSampler:
        """Make Optuna's sampler.

        Only trainings count for TPE's `gamma` and `n_startup_trials`: refused points, which may be many times as many,
        only say what is bad. After a point that has been tried it considers fewer candidates, so that it draws other
        ones.

        Args:
            seed: of its draws.
            conditional: whether some parameters have a condition; if so, TPE models each group of them separately.
            refused: how many points were refused.
            repeats: how many of the last draws were of points that had been tried.
        """
        own: dict[str, Any] = {"seed": seed}
        if self.sampler.name == "tpe":
            own |= {"multivariate": True, "group": conditional, "warn_independent_sampling": False}
            own |= {"n_startup_trials": STARTUP_TRIALS, "n_ei_candidates": CANDIDATES}
            # Optuna 6 will have no gamma.
            own["gamma"] = lambda trials: min(math.ceil((trials - refused) * GOOD_SHARE), 25)
        elif self.sampler.name == "qmc":
            # All workers take their points from one sequence, so its seed is the study's.
            own |= {"seed": self.seed, "scramble": True, "warn_asynchronous_seeding": False}
        if self.sampler.name in (*FOR_NUMBERS, "gp"):
            own |= {"warn_independent_sampling": False, "independent_sampler": samplers.RandomSampler(seed=seed)}
        own |= self.sampler.arguments
        if self.sampler.name == "tpe":
            own["n_startup_trials"] += refused
            if repeats:
                own["n_ei_candidates"] = max(1, own["n_ei_candidates"] >> repeats)
        return SAMPLERS[self.sampler.name](**own)  # type: ignore[no-any-return]

    def make_pruner(self, epochs: int) -> pruners.BasePruner:
        """Make Optuna's pruner for trials of so many epochs."""
        defaults = {
            "hyperband": {"max_resource": epochs},
            "median": {"n_startup_trials": STARTUP_PRUNER, "n_warmup_steps": math.ceil(WARMUP_SHARE * epochs)},
        }
        own: dict[str, Any] = defaults.get(self.pruner.name, {})
        return PRUNERS[self.pruner.name](**{**own, **self.pruner.arguments})  # type: ignore[no-any-return]


def read_settings(hydra: Any, directory: str, metrics: Iterable[str] = OURS) -> SearchSettings:
    """Read the settings in Hydra's part of a composed configuration.

    Args:
        hydra: that part.
        directory: `tracking.dir`, which contains the storage by default.
        metrics: the names in the group `metrics`.

    Raises:
        ConfigError: if one cannot be used. Nothing has been written by then.
    """
    given: dict[str, Any] = OmegaConf.to_container(hydra.sweeper, resolve=True)  # type: ignore[assignment]
    with config_errors(_GROUP, given):
        name = given["study_name"] or hydra.runtime.choices.get("search") or "custom"
        n_trials = given["n_trials"]
        if not re.fullmatch(r"[\w.\- ]*\w[\w.\- ]*", text("study_name", name)):  # it names a folder
            raise ValueError(f"study_name must be letters, digits, '_', '-', '.' and spaces, but got {name!r}")
        if len(name) > MAX_NAME:
            raise ValueError(f"study_name must have at most {MAX_NAME} characters, but got {len(name)}: {name[:40]}...")
        settings = SearchSettings(
            name,
            _storage(given["storage"], Path(directory).expanduser().absolute()),
            None if n_trials is None else integer("n_trials", n_trials, minimum=1),
            integer("workers", given["workers"], minimum=1),
            read_objectives(given["objective"], given["direction"], metrics),
            _algorithm("sampler", given["sampler"], SAMPLERS),
            _algorithm("pruner", given["pruner"], PRUNERS),
            integer("seed", given["seed"], minimum=0, maximum=2**32 - 1),
            real("max_failure_rate", given["max_failure_rate"], minimum=0.0, maximum=1.0),
        )
        if settings.n_trials is None and settings.sampler.name != "grid":
            raise ValueError(f"n_trials must be an integer >= 1 for sampler={settings.sampler.name}, but got null")
        if settings.pruner.name != "none":
            if len(settings.objectives) > 1:
                raise ValueError(f"pruner must be none for several objectives, but got {settings.pruner.name}")
            if settings.objectives[0].name not in epoch_metrics(metrics):
                raise ValueError(
                    f"pruner must be none for the objective {settings.objectives[0].name}, which the epochs "
                    f"do not have, but got {settings.pruner.name}"
                )
    return settings


def check_algorithms(settings: SearchSettings, conditional: bool) -> None:
    """Let Optuna refuse the arguments of sampler and pruner before there is a study.

    Args:
        settings: of the search.
        conditional: whether some parameters have a condition.

    Raises:
        ConfigError: if an argument, or the sampler for such a search, cannot be used.
    """
    given = settings.sampler.arguments
    if settings.sampler.name == "tpe" and given.get("group", conditional) and not given.get("multivariate", True):
        raise ConfigError(
            f"{_GROUP}.sampler.multivariate must be true, or group false, where a setting depends on another one "
            f"(hydra.sweeper.conditions), but got {override_value(given['multivariate'])}"
        )
    with quiet(), config_errors(f"{_GROUP}.sampler", {}):
        if len(settings.objectives) > 1 and settings.sampler.name in ONE_OBJECTIVE:
            several = ", ".join(name for name in SAMPLERS if name not in ONE_OBJECTIVE)
            raise ValueError(f"{settings.sampler.name} is for one objective; these take several: {several}")
        _try_sampler(settings, conditional)
    with quiet(), config_errors(f"{_GROUP}.pruner", {}):
        settings.make_pruner(epochs=1)


def _try_sampler(settings: SearchSettings, conditional: bool) -> None:
    """Draw a few points in memory: some samplers check their arguments only then.

    Raises:
        ValueError: with the sampler's message.
    """
    directions: list[Any] = [objective.direction for objective in settings.objectives]
    try:
        study = optuna.create_study(sampler=settings.make_sampler(settings.seed, conditional), directions=directions)
        for value in range(3):
            trial = study.ask()
            trial.suggest_float("number", 0, 1)
            trial.suggest_float("other", 0, 1)
            study.tell(trial, [float(value)] * len(directions))
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _storage(given: Any, directory: Path) -> str:
    """Return a database's address with an absolute path, or the absolute path of a journal file."""
    if given is None:
        return f"sqlite:///{directory / DATABASE}"
    where = text("storage", given)
    scheme = urlsplit(where).scheme.partition("+")[0] if "://" in where else ""
    if scheme == "sqlite" and where.partition(":///")[2] not in ("", ":memory:"):
        return f"sqlite:///{Path(where.partition(':///')[2]).expanduser().absolute()}"
    if scheme == "postgresql" or (where.startswith(GRPC) and re.fullmatch(r"[^/@]+:\d+", where.removeprefix(GRPC))):
        return where
    if scheme or where.endswith((".db", ".sqlite", ".sqlite3")):
        raise ValueError(
            f"storage must be like sqlite:///study.db, postgresql+psycopg://user@host/database, grpc://host:port or a "
            f"journal file's path such as study.journal, but got {hide(where)!r}"
        )
    return str(Path(where).expanduser().absolute())


def _algorithm(key: str, given: Any, known: Mapping[str, Any]) -> Algorithm:
    """Read a name, or a mapping with a name and arguments that Optuna's class accepts."""
    arguments = dict(given) if isinstance(given, Mapping) else {"name": given}
    name = arguments.pop("name", None)
    name = choice(key, "none" if name is None and key == "pruner" else name, known)
    if not arguments:
        return Algorithm(name, {})
    accepted = [parameter for parameter in inspect.signature(known[name]).parameters if parameter != "seed"]
    for argument in arguments:
        if argument not in accepted:
            raise ConfigError(f"{_GROUP}.{key}.{argument} is not a setting of {name}{nearest(argument, accepted)}")
    return Algorithm(name, arguments)
