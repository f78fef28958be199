"""Composes configurations as a Hydra command would, and checks them before anything that they name can run."""

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
    """Composes the configurations of one command.

    Attributes:
        name: of the primary configuration.
        loader: Hydra's loader of configurations.
        in_program: whether a program composes, not a command; messages then do not mention a command line.
    """

    name: str
    loader: ConfigLoaderImpl
    in_program: bool = False

    def compose(self, overrides: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
        """Return the configuration with `overrides`, including Hydra's own part.

        The configuration of a grid or a search omits the settings that have several values.

        Raises:
            ConfigError: in one line, if it cannot be composed, or would have Hydra run something that is not permitted.
        """
        return self._checked(overrides, lambda: self.load(overrides, mode), mode)

    def job(self, whole: DictConfig, overrides: Sequence[str]) -> DictConfig:
        """Return the configuration of one job of a grid or a search; `whole` is the configuration of all jobs.

        Raises:
            ConfigError: as for `compose`.
        """
        given = [*given_overrides(whole.hydra, "hydra"), *overrides]
        return self._checked(given, lambda: self.loader.load_sweep_config(whole, list(overrides)))

    def typed(self, overrides: Sequence[str], multirun: bool) -> tuple[RunMode, DictConfig]:
        """Return whether a command is one run or several, and its configuration; a search is several also without -m.

        Raises:
            ConfigError: as for `compose`.
        """
        if not multirun:
            config = self._checked(overrides, lambda: self.load(overrides, validate=False))
            if config.hydra.mode != RunMode.MULTIRUN:
                parsed = OverridesParser.create().parse_overrides(list(overrides))
                unfit = any(override.is_sweep_override() for override in parsed)
                return RunMode.RUN, self.compose(overrides) if unfit else config  # which then says what is wrong
        return RunMode.MULTIRUN, self.compose(overrides, RunMode.MULTIRUN)

    def points(self, whole: DictConfig) -> list[DictConfig]:
        """Return the configuration of each point of a grid; an empty list for a search, which draws its points.

        Raises:
            ConfigError: as for `compose`, or if a setting has a distribution, which only a search can draw from.
        """
        if not is_grid(whole):
            return []
        params: Any = OmegaConf.to_container(whole.hydra.sweeper.get("params") or OmegaConf.create({}), resolve=True)
        # In the same order as in the sweeper.
        words = [*(f"{key}={value}" for key, value in params.items()), *given_overrides(whole.hydra)]
        return [self.job(whole, point) for point in grid_points(words, self.loader)]

    def load(self, overrides: Sequence[str], mode: RunMode = RunMode.RUN, validate: bool = True) -> DictConfig:
        """Return the configuration as Hydra composes it, unchecked; errors are Hydra's own."""
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
            message = Explainer(self.load, overrides, self.in_program).explain(error)
            kind = UnknownKeyError if " is not a setting" in message else ConfigError
            raise kind(message) from error
        check_permission(config, overrides)
        return config


def command_composer(task: Callable[..., Any], name: str, arguments: Any) -> Composer:
    """Return a Composer that composes as Hydra will for the task function of a command and its parsed arguments.

    Raises:
        ConfigError: if the folder of `--config-dir` does not exist.
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
    """Return the configuration `name` of conf/ with `overrides`, including Hydra's part, for use outside a command.

    Raises:
        ConfigError: in one line, if it cannot be composed.
    """
    prepare_hydra()
    return Composer(name, ConfigLoaderImpl(create_config_search_path(CONF)), in_program=True).compose(overrides)


def grid_points(words: Sequence[str], loader: ConfigLoader) -> list[list[str]]:
    """Return the overrides of every point of a grid, in the order of its jobs; for a repeated key, the last one counts.

    Raises:
        ConfigError: if a value is a distribution, which only a search can draw from.
    """
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(words))
    for override in parsed:
        if override.key_or_group == "search":
            raise ConfigError(f"search must be one choice, but got {override.input_line}; start each search by itself")
        if override.is_interval_sweep() or override.is_range_sweep():
            raise ConfigError(f"{override.input_line} is for a search: add search=custom; a grid has values a,b,c")
        value: Any = override.value()  # the type that Hydra declares for it leaves a Glob out
        options = loader.get_group_options(override.key_or_group) if isinstance(value, Glob) else []
        if isinstance(value, Glob) and not value.filter(options):
            known = ", ".join(options) or "none"
            raise ConfigError(f"{override.input_line} matches no choice of {override.key_or_group}; it has: {known}")
    return BasicSweeper.split_arguments(parsed, None)[0]


def is_grid(config: DictConfig) -> bool:
    """Return whether a configuration belongs to a grid, not to a search."""
    return str(config.hydra.sweeper._target_) == GRID


def given_overrides(hydra: Any, kind: str = "task") -> list[str]:
    """Return the overrides in Hydra's part of a configuration, unresolved, because a ${...} may be a password."""
    overrides: Any = OmegaConf.to_container(hydra.overrides, resolve=False)
    return list(overrides[kind])


def register_resolvers() -> None:
    """Register `${process_id:}`, so that two runs that start in the same second get different folders."""
    OmegaConf.register_new_resolver("process_id", os.getpid, replace=True)


def prepare_hydra() -> None:
    """Let Hydra read files with our reader and run grids with our sweeper; call it before using anything of Hydra."""
    Plugins.instance()  # registers Hydra's own sweeper of grids, which ours then replaces, only in this process
    node = {"_target_": GRID, "max_batch_size": None, "params": None}
    ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=node, provider="scratch_dl")
    version.setbase("1.3")
    setup_globals()
    register_resolvers()
    use_checked_files()
