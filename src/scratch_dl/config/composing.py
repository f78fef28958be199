"""Composing a configuration as Hydra's command would, checked before anything that it names can run."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import (
    compute_search_path_dir,
    create_config_search_path,
    detect_calling_file_or_module_from_task_function,
)
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from scratch_dl.config.explaining import Explainer
from scratch_dl.config.overrides import check_readable
from scratch_dl.config.permission import check_permission
from scratch_dl.config.yaml_files import CONF, use_checked_files
from scratch_dl.system.errors import ConfigError, UnknownKeyError

GRID = "hydra_plugins.scratch_dl_sweeper.Grid"


@dataclass
class Composer:
    """Composes one command's configurations.

    Attributes:
        name: of the primary configuration.
        loader: Hydra's.
        in_program: whether a program calls this, so that messages do not speak of a command line.
    """

    name: str
    loader: ConfigLoaderImpl
    in_program: bool = False

    def compose(self, overrides: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
        """Return the configuration with `overrides`, Hydra's own part included.

        That of a grid or a search leaves out the settings that are to have several values.

        Raises:
            ConfigError: in one line, if it cannot be composed or has Hydra run what it may not.
        """
        return self._checked(overrides, lambda: self.load(overrides, mode), mode)

    def job(self, whole: DictConfig, overrides: Sequence[str]) -> DictConfig:
        """Return the configuration of one job of a grid or a search; `whole` is that of all its jobs.

        Raises:
            ConfigError: as for `compose`.
        """
        given = [*overrides_of(whole.hydra, "hydra"), *overrides]
        return self._checked(given, lambda: self.loader.load_sweep_config(whole, list(overrides)))

    def mode(self, overrides: Sequence[str], multirun: bool) -> RunMode:
        """Return whether this is one run or several: a search is several, with -m or without it.

        Raises:
            ConfigError: as for `compose`.
        """
        whole = self._checked(overrides, lambda: self.load(overrides, RunMode.MULTIRUN, validate=False))
        several = multirun or whole.hydra.mode == RunMode.MULTIRUN
        return RunMode.MULTIRUN if several else RunMode.RUN

    def points(self, whole: DictConfig) -> list[DictConfig]:
        """Return the configuration of each point of a grid; none of a search, which draws them.

        Raises:
            ConfigError: as for `compose`, or if a setting has a distribution of a search.
        """
        if not is_grid(whole):
            return []
        params: Any = OmegaConf.to_container(whole.hydra.sweeper.get("params") or OmegaConf.create({}), resolve=True)
        words = [
            *(f"{key}={value}" for key, value in params.items()),
            *overrides_of(whole.hydra),
        ]  # as the sweeper does
        return [self.job(whole, point) for point in points_of(words, self.loader)]

    def load(self, overrides: Sequence[str], mode: RunMode = RunMode.RUN, validate: bool = True) -> DictConfig:
        """Return the configuration as Hydra has it, its errors and all."""
        return self.loader.load_configuration(self.name, list(overrides), mode, not self.in_program, validate)

    def _checked(
        self, overrides: Sequence[str], load: Callable[[], DictConfig], mode: RunMode = RunMode.RUN
    ) -> DictConfig:
        check_readable(overrides, mode == RunMode.MULTIRUN)
        try:
            config = load()
        except ConfigError:
            raise
        except Exception as error:
            said = Explainer(self.load, overrides, self.in_program).explain(error)
            kind = UnknownKeyError if " is not a setting" in said else ConfigError
            raise kind(said) from error
        check_permission(config, overrides)
        return config


def command_composer(task: Callable[..., Any], name: str, arguments: Any) -> Composer:
    """Return what composes as Hydra will for the task function of a command and its parsed arguments.

    Raises:
        ConfigError: if the folder of `--config-dir` is not there.
    """
    path = compute_search_path_dir(
        *detect_calling_file_or_module_from_task_function(task), arguments.config_path or CONF
    )
    search_path = create_config_search_path(path)
    if arguments.config_dir is not None:
        folder = Path(arguments.config_dir).absolute()
        if not folder.is_dir():
            raise ConfigError(f"--config-dir must be a folder, but there is none at {folder}")
        search_path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    return Composer(arguments.config_name or name, ConfigLoaderImpl(search_path))


def compose_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """Return the configuration `name` of conf/ with `overrides`, Hydra's part included, for use outside a command.

    Raises:
        ConfigError: in one line, if it cannot be composed.
    """
    prepare_hydra()
    return Composer(name, ConfigLoaderImpl(create_config_search_path(CONF)), in_program=True).compose(overrides)


def points_of(words: Sequence[str], loader: ConfigLoader) -> list[list[str]]:
    """Return the overrides of every point of a grid, in the order of its jobs; of a key given twice the last values.

    Raises:
        ConfigError: if a value is one that only a search can draw.
    """
    given = OverridesParser.create(config_loader=loader).parse_overrides(list(words))
    for override in given:
        if override.is_interval_sweep() or override.is_range_sweep():
            raise ConfigError(f"{override.input_line} is for a search: add search=custom; a grid has values a,b,c")
        value: Any = override.value()  # the type that Hydra declares for it leaves a Glob out
        options = loader.get_group_options(override.key_or_group) if isinstance(value, Glob) else []
        if isinstance(value, Glob) and not value.filter(options):
            there = ", ".join(options) or "none"
            raise ConfigError(f"{override.input_line} fits no choice of {override.key_or_group}; there are: {there}")
    return BasicSweeper.split_arguments(given, None)[0]


def is_grid(config: DictConfig) -> bool:
    """Return whether a configuration is that of a grid, not of a search."""
    return str(config.hydra.sweeper._target_) == GRID


def overrides_of(hydra: Any, kind: str = "task") -> list[str]:
    """Return the overrides in Hydra's part of a configuration as given: a ${...} stays, which may be a password."""
    given: Any = OmegaConf.to_container(hydra.overrides, resolve=False)
    return list(given[kind])


def register_resolvers() -> None:
    """Make `${process_id:}` known: two runs that start in one second still get a folder each."""
    OmegaConf.register_new_resolver("process_id", os.getpid, replace=True)


def prepare_hydra() -> None:
    """Have Hydra read files by our reader and run grids by our sweeper; before anything else of Hydra's is used."""
    Plugins.instance()  # registers Hydra's own sweeper of grids; ours takes its place, in this process alone
    node = {"_target_": GRID, "max_batch_size": None, "params": None}
    ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=node, provider="scratch_dl")
    version.setbase("1.3")
    setup_globals()
    register_resolvers()
    use_checked_files()
