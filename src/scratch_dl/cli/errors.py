"""Errors as a user sees them: one line on stderr, and an exit status."""

import os
import sys
from typing import NoReturn

from omegaconf.errors import OmegaConfBaseException

from scratch_dl.system.errors import FAILURE, USAGE, ConfigError
from scratch_dl.system.files import os_error_message
from scratch_dl.system.passwords import hide

TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1"  # set by the user; later `Command.main` sets it for Hydra


def exit_with(error: BaseException) -> NoReturn:
    """Print the error in one line and exit with its status; if the user wants a traceback, raise it unchanged."""
    if TRACEBACK:
        raise error
    print(f"error: {in_one_line(error)}", file=sys.stderr)
    raise SystemExit(USAGE if is_usage(error) else FAILURE) from None


def is_usage(error: BaseException) -> bool:
    """Return whether an error is in the command line or the configuration."""
    return isinstance(error, ConfigError | OmegaConfBaseException) or type(error).__module__.startswith("hydra.")


def in_one_line(error: BaseException) -> str:
    """Return an error's message as one line without passwords; `Composer` has already rewritten Hydra's messages."""
    if isinstance(error, OSError):
        return hide(os_error_message(error))
    first = " ".join(str(error).splitlines()[:1]) or type(error).__name__
    if is_usage(error):
        of_hydra = type(error).__module__.startswith("hydra.")
        return hide(f"{first} (in the command line or conf/)" if of_hydra else first)
    known = type(error).__module__.startswith("scratch_dl.")
    return hide(first if known else f"{type(error).__name__}: {first} (HYDRA_FULL_ERROR=1 shows where)")
