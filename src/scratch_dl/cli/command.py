"""What every command does: compose its configuration, check it before anything is written, run, and exit."""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from scratch_dl import __version__
from scratch_dl.cli import help as settings_help
from scratch_dl.cli.errors import exit_with
from scratch_dl.config.composing import Composer, command_composer, given_overrides, prepare_hydra
from scratch_dl.config.environment import from_environment
from scratch_dl.config.explaining import with_cause
from scratch_dl.config.overrides import expand, key_of, value_of
from scratch_dl.config.yaml_files import CONF
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.output import outlive_readers

_INFORMATION = ("help", "hydra_help", "shell_completion", "info")  # flags with which Hydra only prints

Check = Callable[[DictConfig], Any]


class Command:
    """A command that Hydra configures: `python -m scratch_dl.<name> [key=value ...]`.

    Args:
        name: of the command, and of its primary configuration in conf/.
        check: refuses a configuration by an exception, or returns what `run` needs; writes nothing.
        run: takes the configuration, the run's folder, and what `check` returned (None for a job of a grid or search).
            Returns the exit status, None for success, or, as a job of a grid or search, its outcome.
        expand: turns what the user typed into Hydra's overrides.
        grids: whether the command accepts `-m`.
        opening: returns the line that is printed before seconds of imports, given the composed configuration and
            whether it has several jobs.
    """

    def __init__(
        self,
        name: str,
        check: Check,
        run: Callable[[DictConfig, Path, Any], Any],
        expand: Callable[[Sequence[str]], list[str]] = expand,
        grids: bool = False,
        opening: Callable[[DictConfig, bool], str] | None = None,
    ) -> None:
        self.name = name
        self.check = check
        self.run = run
        self.expand = expand
        self.grids = grids
        self.opening = opening
        self.checked: Any = None

    def main(self) -> None:
        """Run the command. An error becomes one line on stderr and an exit status of 2 (usage) or 1.

        The configuration, or that of each point of a grid, is composed and checked before Hydra starts, because Hydra
        creates folders and starts callbacks and logging before it calls `run`. With HYDRA_FULL_ERROR=1 in the
        environment, a traceback is shown instead of the line.
        """
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing several lines of its own
        outlive_readers()
        task = functools.wraps(self.run)(lambda config: self._run(config))  # Hydra looks where it was defined
        try:
            sys.argv[1:] = self._arguments(sys.argv[1:])
            hydra.main(version_base="1.3", config_path=CONF, config_name=self.name)(task)()
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except Exception as error:
            exit_with(error)
        except BaseException as stop:  # training.signals.Interrupted, where no run can record it
            if (status := getattr(stop, "exit_status", None)) is None:
                raise
            raise SystemExit(status) from None

    def _run(self, config: DictConfig) -> Any:
        job = HydraConfig.get()
        try:
            outcome = self.run(config, Path(job.runtime.output_dir), self.checked)
        except Exception as error:
            if job.mode == RunMode.MULTIRUN:
                raise  # the sweeper decides
            exit_with(error)  # Hydra would print two lines of its own first
        if isinstance(outcome, int) and outcome:
            raise SystemExit(outcome)
        return outcome

    def _arguments(self, arguments: Sequence[str]) -> list[str]:
        """Return the arguments for Hydra, after checking the configuration that they result in."""
        if "fault=help" in arguments and self.name in ("train", "verify"):
            from scratch_dl import faults

            print(faults.help_text())
            raise SystemExit(0)
        if "--version" in arguments:  # Hydra would print its own
            print(f"scratch_dl {__version__}")
            raise SystemExit(0)
        prepare_hydra()
        options = get_args_parser().parse_intermixed_args(list(arguments))
        flags = [word for word in arguments if word not in options.overrides]  # Hydra expects flags before overrides
        self._check_flags(options)
        overrides = self.expand(options.overrides)
        own = options.config_dir is None and options.config_name is None  # otherwise only Hydra knows what there is
        if options.help and own and self.name in settings_help.COMMANDS:
            chosen = {key: str(value_of(key, overrides)) for key in map(key_of, overrides)}
            print(settings_help.settings_help(self.name, chosen))
            raise SystemExit(0)
        if any(getattr(options, flag) for flag in _INFORMATION):
            return [*flags, *overrides]
        composer = command_composer(self.run, self.name, options)
        if options.cfg:
            composer.compose(overrides)
            return [*flags, *overrides]
        mode, config = composer.typed(overrides, options.multirun)
        if variables := from_environment(overrides, self.name, several=mode == RunMode.MULTIRUN):
            overrides += variables
            config = composer.compose(overrides, mode)
        if self.opening is not None:
            print(self.opening(config, mode == RunMode.MULTIRUN), flush=True)
        self._check(composer, config, overrides, mode)
        return [*flags, *overrides]

    def _check_flags(self, options: Any) -> None:
        """Refuse flags that this command does not support.

        Raises:
            ConfigError: naming the flag.
        """
        if options.experimental_rerun is not None:
            raise ConfigError("--experimental-rerun is not supported, as a pickle can run any code; give the settings")
        modes = [word for word in ("run", "multirun", "cfg", "info", "shell_completion") if getattr(options, word)]
        if len(modes) > 1:
            given = ", ".join(f"--{word}" for word in modes)
            raise ConfigError(f"only one of these flags can be given, but got {given}")
        if options.multirun and not self.grids:
            raise ConfigError(f"{self.name} takes one configuration at a time, but got -m")

    def _check(self, composer: Composer, config: DictConfig, overrides: Sequence[str], mode: RunMode) -> None:
        if self.name != "train" and config.tracking.run_id is not None:
            raise ConfigError(
                f"tracking.run_id is only for trainings; leave it out, but got {config.tracking.run_id!r}"
            )
        if mode == RunMode.RUN:
            self.checked = check_given(self.check, config, overrides)
            return
        for point in composer.points(config):
            given = [*given_overrides(point.hydra, "hydra"), *given_overrides(point.hydra)]
            if point.get("tracking", {}).get("run_id") is not None:
                raise ConfigError("tracking.run_id must be null in a grid, whose runs are several, but got an id")
            check_given(self.check, point, given)


def check_given(check: Check, config: DictConfig, overrides: Sequence[str]) -> Any:
    """Return what `check` returns; an error about a setting also says where the setting comes from.

    Raises:
        ConfigError: if the configuration is refused.
    """
    try:
        return check(config)
    except ConfigError as error:
        raise ConfigError(with_cause(str(error), config, overrides)) from error
