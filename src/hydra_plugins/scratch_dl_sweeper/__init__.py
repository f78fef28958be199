"""Hydra's entry to scratch_dl. Hydra imports this at every start, so heavy modules are imported when a sweep begins."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper as HydraSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class _Loader:
    """Hydra's loader of configurations; a job that has just been composed and checked is not composed again to run."""

    _MOST = 64  # configurations kept: those of the points that are launched at once, and of refused ones

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.composed: dict[tuple[str, ...], DictConfig] = {}

    def load_sweep_config(self, whole: DictConfig, overrides: Sequence[str]) -> DictConfig:
        """Return a job's configuration: at the second call the object of the first one, which only read it."""
        key = tuple(overrides)
        if (known := self.composed.pop(key, None)) is not None:
            return known
        while len(self.composed) >= self._MOST:
            self.composed.pop(next(iter(self.composed)))
        config: DictConfig = self.loader.load_sweep_config(whole, list(overrides))
        self.composed[key] = config
        return config

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a launcher pickles it
            raise AttributeError(name)
        return getattr(self.loader, name)


class _Prepared(HydraSweeper):
    """Keeps what Hydra passes before it calls `sweep`."""

    launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep Hydra's context; Hydra calls this before `sweep`."""
        loader: Any = _Loader(hydra_context.config_loader)
        self.context = HydraContext(config_loader=loader, callbacks=hydra_context.callbacks)
        self.task_function, self.whole = task_function, config

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Return the configuration of a job, which may run nothing that the command line does not permit."""
        from scratch_dl.config.composing import Composer

        loader: Any = self.context.config_loader
        return Composer(self.whole.hydra.job.config_name, loader).job(self.whole, overrides)

    def make_launcher(self) -> Launcher:
        """Return the launcher that starts the jobs."""
        return Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.task_function, config=self.whole
        )


class Grid(_Prepared):
    """Run every point of a grid. Hydra's own sweeper has the same settings, but keeps passwords in multirun.yaml.

    Args:
        max_batch_size: how many jobs are launched at once; None: all of them.
        params: keys and values as on the command line, which wins.
    """

    def __init__(self, max_batch_size: int | None = None, params: Mapping[str, str] | None = None) -> None:
        if max_batch_size is not None and max_batch_size < 1:
            raise ValueError(f"hydra.sweeper.max_batch_size must be >= 1 or null, but got {max_batch_size}")
        self.max_batch_size, self.params = max_batch_size, params or {}

    def sweep(self, arguments: list[str]) -> None:
        """Train each point and print the table; `arguments` are the command line's overrides except Hydra's own."""
        from scratch_dl.config.composing import grid_points
        from scratch_dl.search import multirun

        words = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        points = grid_points(words, self.context.config_loader)
        multirun.run_grid(self.whole, points, self.compose, self.make_launcher, self.max_batch_size)


class Sweeper(_Prepared):
    """Draw the overrides of jobs by Optuna; `conf/hydra/sweeper/scratch_dl.yaml` documents the settings."""

    def __init__(self, **_: Any) -> None:
        """Accept and ignore the settings: they are read from the configuration."""

    def sweep(self, arguments: list[str]) -> None:
        """Run the study to its end; `arguments` are the command line's overrides except Hydra's own."""
        from scratch_dl.search.run import run_search

        run_search(self.whole, arguments, self.compose, self.make_launcher)
