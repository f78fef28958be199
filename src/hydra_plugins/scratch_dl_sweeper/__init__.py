"""Hydra's way to scratch_dl.sweep. Hydra imports this at every start: what is heavy is imported when a sweep begins."""

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper as HydraSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Sweeper(HydraSweeper):
    """Draws the overrides of jobs from Optuna; `conf/hydra/sweeper/scratch_dl.yaml` says what its settings mean."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra calls before `sweep`."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Run the study to its end; `arguments` are the command line's overrides, Hydra's own left out."""
        from scratch_dl.composing import Composer
        from scratch_dl.sweep import run

        context, config = self.hydra_context, self.config
        assert context is not None
        assert config is not None

        def launcher() -> Launcher:
            return Plugins.instance().instantiate_launcher(
                hydra_context=context, task_function=self.task_function, config=config
            )

        loader: Any = context.config_loader
        composer = Composer(config.hydra.job.config_name, loader)
        run(config, arguments, lambda given: composer.job(config, given), launcher)
