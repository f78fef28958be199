"""Hydra's way to scratch_dl. Hydra imports this at every start: what is heavy is imported when a sweep begins."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper as HydraSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class _Prepared(HydraSweeper):
    """Keeps what Hydra hands over before `sweep`."""

    launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra calls before `sweep`."""
        self.context, self.task_function, self.whole = hydra_context, task_function, config

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration of a job, which may have nothing run that the command line does not permit."""
        from scratch_dl.config.composing import Composer

        loader: Any = self.context.config_loader
        return Composer(self.whole.hydra.job.config_name, loader).job(self.whole, overrides)

    def make_launcher(self) -> Launcher:
        """The one that starts the jobs."""
        return Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.task_function, config=self.whole
        )


class Grid(_Prepared):
    """Runs every point of a grid; the same settings as Hydra's own, which would keep passwords in multirun.yaml.

    Args:
        max_batch_size: how many jobs are launched at once; None: all.
        params: keys and values, as on the command line, which wins.
    """

    def __init__(self, max_batch_size: int | None = None, params: Mapping[str, str] | None = None) -> None:
        if max_batch_size is not None and max_batch_size < 1:
            raise ValueError(f"hydra.sweeper.max_batch_size must be >= 1 or null, but got {max_batch_size}")
        self.max_batch_size, self.params = max_batch_size, params or {}

    def sweep(self, arguments: list[str]) -> None:
        """Train each point and print their table; `arguments` are the command line's overrides, Hydra's left out."""
        from scratch_dl.config.composing import points_of
        from scratch_dl.search import grid

        words = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        points = points_of(words, self.context.config_loader)
        grid.run(self.whole, points, self.compose, self.make_launcher, self.max_batch_size)


class Sweeper(_Prepared):
    """Draws the overrides of jobs from Optuna; `conf/hydra/sweeper/scratch_dl.yaml` says what its settings mean."""

    def __init__(self, **_: Any) -> None:
        """Its settings are read from the configuration."""

    def sweep(self, arguments: list[str]) -> None:
        """Run the study to its end; `arguments` are the command line's overrides, Hydra's own left out."""
        from scratch_dl.search import run

        run(self.whole, arguments, self.compose, self.make_launcher)
