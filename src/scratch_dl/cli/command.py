"""What every command shares: its configuration, refused before anything is written if bad, and one-line errors."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.types import RunMode
from omegaconf import DictConfig

from scratch_dl.cli.errors import exit_with
from scratch_dl.config.composing import Composer, command_composer, overrides_of, prepare_hydra
from scratch_dl.config.environment import from_environment
from scratch_dl.config.explaining import with_cause
from scratch_dl.config.overrides import expand
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.output import outlive_readers

_LOOKING = ("help", "hydra_help", "shell_completion", "info")  # flags by which nothing is run

Check = Callable[[DictConfig], Any]


def run_command(
    command: Callable[[], Any],
    name: str,
    check: Check,
    prepare: Callable[[Sequence[str]], list[str]] = expand,
    several: bool = True,
) -> None:
    """Run a Hydra command; an error is one line on stderr and an exit status of 2 (usage) or 1.

    Its configuration, or that of each point of a grid, is composed and checked before Hydra's own command begins, which
    makes folders, callbacks and logging before it calls ours. HYDRA_FULL_ERROR=1 in the environment shows the traceback
    instead of the line.

    Args:
        command: decorated by `hydra.main`.
        name: of the command and its primary configuration.
        check: refuses a configuration by an exception; it writes nothing.
        prepare: what the user typed -> overrides.
        several: whether the command takes grids.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing several lines of its own
    outlive_readers()
    try:
        sys.argv[1:] = _checked(command, name, check, prepare, several)
        command()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        exit_with(error)
    except BaseException as stop:  # training.Interrupted, outside of what a run can record
        if (status := getattr(stop, "exit_status", None)) is None:
            raise
        raise SystemExit(status) from None


def check_given(check: Check, config: DictConfig, overrides: Sequence[str]) -> None:
    """Check a configuration; what is said of a setting, is said with where it comes from.

    Raises:
        ConfigError: if it is refused.
    """
    try:
        check(config)
    except ConfigError as error:
        raise ConfigError(with_cause(str(error), config, overrides)) from error


def _checked(
    command: Callable[[], Any],
    name: str,
    check: Check,
    prepare: Callable[[Sequence[str]], list[str]],
    several: bool,
) -> list[str]:
    """The arguments for Hydra, once the configuration that they make has been checked."""
    arguments = sys.argv[1:]
    if "fault=help" in arguments and name in ("train", "verify"):
        from scratch_dl import faults

        print(faults.help_text())
        raise SystemExit(0)
    prepare_hydra()
    options = get_args_parser().parse_intermixed_args(arguments)
    flags = [word for word in arguments if word not in options.overrides]  # first: Hydra takes them in this order only
    if options.experimental_rerun is not None:
        raise ConfigError("--experimental-rerun is not taken, as a pickle runs what it says; give the settings")
    modes = [word for word in ("run", "multirun", "cfg", "info", "shell_completion") if getattr(options, word)]
    if len(modes) > 1:
        raise ConfigError(f"only one of -m and the like is taken, but got {', '.join(f'--{word}' for word in modes)}")
    if options.multirun and not several:
        raise ConfigError(f"{name} takes one configuration at a time, but got -m")
    overrides = prepare(options.overrides)
    if any(getattr(options, one) for one in _LOOKING):
        return [*flags, *overrides]
    composer = command_composer(command, name, options)
    if options.cfg:
        composer.compose(overrides)
        return [*flags, *overrides]
    mode = composer.mode(overrides, options.multirun)
    overrides += from_environment(overrides, name, several=mode == RunMode.MULTIRUN)
    _check(composer, name, check, overrides, mode)
    return [*flags, *overrides]


def _check(composer: Composer, name: str, check: Check, overrides: Sequence[str], mode: RunMode) -> None:
    config = composer.compose(overrides, mode)
    if name != "train" and config.tracking.run_id is not None:
        raise ConfigError(f"tracking.run_id is for a training, so leave it out, but got {config.tracking.run_id!r}")
    if mode == RunMode.RUN:
        check_given(check, config, overrides)
        return
    for point in composer.points(config):
        given = [*overrides_of(point.hydra, "hydra"), *overrides_of(point.hydra)]
        if point.get("tracking", {}).get("run_id") is not None:
            raise ConfigError("tracking.run_id must be null in a grid, whose runs are several, but got an id")
        check_given(check, point, given)
