"""How a search is done: `hydra.sweeper`, checked before anything is written."""

import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from omegaconf import OmegaConf

from scratch_dl.config.targets import naming
from scratch_dl.search.outcomes import Objective
from scratch_dl.search.storage import quiet
from scratch_dl.system.checks import choice, integer, nearest, text
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import hide

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler", "grid": "RandomSampler", "qmc": "QMCSampler",
            "cmaes": "CmaEsSampler"}  # fmt: skip
PRUNERS = {"median": "MedianPruner", "hyperband": "HyperbandPruner", "none": "NopPruner"}
DIRECTIONS = ("maximize", "minimize")
DATABASE = "optuna.db"
LONGEST_NAME = 200  # it names folders and files, with something added
OF_EPOCHS = ("val/psnr_db", "val/psnr_pooled_db", "val/ssim", "val/gain_db", "val/loss")
OF_RUNS = (
    "val/best_psnr_db",
    "val/best_step",
    "train/loss",
    "train/grad_norm",
    "train/lr",
    "images_per_s",
    "training_s",
    "parameters",
)
_SMALL = ("loss", "grad_norm", "training_s", "parameters")  # the smaller, the better
_MORE = ("val_whole/", "watch/", "verify/")  # whose names depend on the configuration
_GROUP = "hydra.sweeper"


@dataclass(frozen=True)
class Choice:
    """A sampler or a pruner: its name, and arguments of Optuna's class."""

    name: str
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.arguments.items())])


@dataclass(frozen=True)
class Settings:
    """What `conf/hydra/sweeper/scratch_dl.yaml` lists; `n_trials` is None for the whole of a grid."""

    study_name: str
    storage: str
    n_trials: int | None
    workers: int
    objectives: tuple[Objective, ...]
    sampler: Choice
    pruner: Choice
    seed: int

    def make_sampler(self, seed: int, conditional: bool, untrained: int = 0) -> "BaseSampler":
        """A sampler of Optuna's.

        Args:
            seed: of its draws.
            conditional: whether some parameters are; TPE looks at each group of them by itself then.
            untrained: how many trials ended without a training, refused or copied; TPE's `n_startup_trials` are
                trainings.
        """
        from optuna import samplers

        own: dict[str, Any] = {"seed": seed}
        if self.sampler.name == "tpe":
            own |= {"multivariate": True, "group": conditional, "warn_independent_sampling": False}
            own["n_startup_trials"] = 10
        elif self.sampler.name == "qmc":
            # The sequence is the study's; every worker takes its next point from there.
            own |= {"seed": self.seed, "scramble": True, "warn_asynchronous_seeding": False,
                    "warn_independent_sampling": False}  # fmt: skip
            own["independent_sampler"] = samplers.RandomSampler(seed=seed)
        elif self.sampler.name == "cmaes":
            own |= {"warn_independent_sampling": False, "independent_sampler": samplers.RandomSampler(seed=seed)}
        own |= self.sampler.arguments
        if self.sampler.name == "tpe" and untrained:
            own["n_startup_trials"] += untrained
        if self.sampler.name == "cmaes":
            from scratch_dl.search.cma_es import SafeCmaEs

            return SafeCmaEs(**own)
        return getattr(samplers, SAMPLERS[self.sampler.name])(**own)  # type: ignore[no-any-return]

    def make_pruner(self, epochs: int, copies: int = 0) -> "BasePruner":
        """A pruner of Optuna's for trials of so many epochs; the median's startup trials are trainings, not copies."""
        from optuna import pruners

        # The first epochs say little: a wide network begins behind a narrow one.
        known = {"hyperband": {"max_resource": epochs}, "median": {"n_startup_trials": 5, "n_warmup_steps": 3}}
        own: dict[str, Any] = dict(known.get(self.pruner.name, {}))
        own |= self.pruner.arguments
        if self.pruner.name == "median" and copies:
            own["n_startup_trials"] += copies
        return getattr(pruners, PRUNERS[self.pruner.name])(**own)  # type: ignore[no-any-return]


def read_settings(hydra: Any, directory: str) -> Settings:
    """The settings in Hydra's part of a composed configuration.

    Args:
        hydra: that part.
        directory: `tracking.dir`, where the storage is by default.

    Raises:
        ConfigError: if one cannot be used; nothing has been written then.
    """
    given: dict[str, Any] = OmegaConf.to_container(hydra.sweeper, resolve=True)  # type: ignore[assignment]
    with naming(_GROUP, given):
        name = given["study_name"] or hydra.runtime.choices.get("search") or "custom"
        n_trials = given["n_trials"]
        if not re.fullmatch(r"[\w.\- ]*\w[\w.\- ]*", text("study_name", name)):  # it names a folder
            raise ValueError(f"study_name must be letters, digits, '_', '-', '.' and spaces, but got {name!r}")
        if len(name) > LONGEST_NAME:
            raise ValueError(
                f"study_name must have at most {LONGEST_NAME} characters, but got {len(name)}: {name[:40]}..."
            )
        settings = Settings(
            name,
            _storage(given["storage"], Path(directory).expanduser().absolute()),
            None if n_trials is None else integer("n_trials", n_trials, minimum=1),
            integer("workers", given["workers"], minimum=1),
            _objectives(given["objective"], given["direction"]),
            _choice("sampler", given["sampler"], SAMPLERS, "optuna.samplers"),
            _choice("pruner", given["pruner"], PRUNERS, "optuna.pruners"),
            integer("seed", given["seed"], minimum=0, maximum=2**32 - 1),
        )
        if settings.n_trials is None and settings.sampler.name != "grid":
            raise ValueError(f"n_trials must be an integer >= 1 for sampler={settings.sampler.name}, but got null")
        if settings.pruner.name != "none":
            if len(settings.objectives) > 1:
                raise ValueError(f"pruner must be none for several objectives, but got {settings.pruner.name}")
            if settings.objectives[0].name not in OF_EPOCHS:
                raise ValueError(
                    f"pruner must be none for the objective {settings.objectives[0].name}, which the epochs "
                    f"do not have, but got {settings.pruner.name}"
                )
    # What Optuna says of an argument, it is to say before there is a study.
    with quiet(), naming(f"{_GROUP}.sampler", {}):
        _try(settings.make_sampler(settings.seed, conditional=False))
        if settings.sampler.name == "cmaes" and len(settings.objectives) > 1:
            raise ValueError("cmaes is for one objective; tpe, random, grid and qmc take several")
    with quiet(), naming(f"{_GROUP}.pruner", {}):
        settings.make_pruner(epochs=1)
    return settings


def _try(sampler: "BaseSampler") -> None:
    """Draw a few points in memory: some samplers look at their arguments only then.

    Raises:
        ValueError: with what the sampler says.
    """
    import optuna

    study = optuna.create_study(sampler=sampler)
    try:
        for value in range(3):
            trial = study.ask()
            trial.suggest_float("number", 0, 1)
            trial.suggest_float("other", 0, 1)
            study.tell(trial, value)
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _storage(given: Any, directory: Path) -> str:
    """A database's address with an absolute path, or the absolute path of a journal file."""
    if given is None:
        return f"sqlite:///{directory / DATABASE}"
    where = text("storage", given)
    scheme = urlsplit(where).scheme.partition("+")[0] if "://" in where else ""
    if scheme == "sqlite" and where.partition(":///")[2] not in ("", ":memory:"):
        return f"sqlite:///{Path(where.partition(':///')[2]).expanduser().absolute()}"
    if scheme == "postgresql":
        return where
    if scheme or where.endswith((".db", ".sqlite", ".sqlite3")):
        raise ValueError(
            f"storage must be like sqlite:///study.db, postgresql+psycopg://user@host/database or a journal file's "
            f"path such as study.journal, but got {hide(where)!r}"
        )
    return str(Path(where).expanduser().absolute())


def _objectives(given: Any, directions: Any) -> tuple[Objective, ...]:
    words = given if isinstance(given, list) else [given]
    ways = directions if isinstance(directions, list) else [directions] * (1 if directions else len(words))
    if not words:
        raise ValueError("objective must name a metric, but got none")
    if len(words) != len(ways):
        raise ValueError(
            f"direction must have one of {', '.join(DIRECTIONS)} for each of the {len(words)} objectives, "
            f"but got {directions!r}"
        )
    objectives = []
    for word, way in zip(words, ways, strict=True):
        *at, name = text("objective", word).split()
        if len(at) > 1 or (at and at[0] not in ("best", "last")):
            raise ValueError(f"objective must be like 'best val/psnr_db' or 'last train/loss', but got {word!r}")
        if name.startswith("test/"):
            raise ValueError(f"objective must not be of the test photographs, which no trial may see, but got {word!r}")
        if name not in (*OF_EPOCHS, *OF_RUNS) and not name.startswith(_MORE):
            raise ValueError(
                f"objective must be one of {', '.join((*OF_EPOCHS, *OF_RUNS))} or begin with {', '.join(_MORE)}, "
                f"but got {name!r}{nearest(name, (*OF_EPOCHS, *OF_RUNS))}"
            )
        usual = "minimize" if name.rpartition("/")[2] in _SMALL else "maximize"
        objectives.append(
            Objective(name, at[0] if at else "best", choice("direction", usual if way is None else way, DIRECTIONS))
        )
    if double := next((str(one) for one in objectives if objectives.count(one) > 1), None):
        raise ValueError(f"objective must be given once each, but got {double} twice")
    return tuple(objectives)


def _choice(key: str, given: Any, known: Mapping[str, str], package: str) -> Choice:
    """A name, or a mapping with one and arguments that the class of Optuna's takes."""
    arguments = dict(given) if isinstance(given, Mapping) else {"name": given}
    name = arguments.pop("name", None)
    name = choice(key, "none" if name is None and key == "pruner" else name, known)
    if not arguments:
        return Choice(name, {})
    made = getattr(importlib.import_module(package), known[name])
    takes = [one for one in inspect.signature(made).parameters if one != "seed"]
    for argument in arguments:
        if argument not in takes:
            raise ConfigError(f"{_GROUP}.{key}.{argument} is no setting of {name}{nearest(argument, takes)}")
    return Choice(name, arguments)
