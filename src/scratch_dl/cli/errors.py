"""An error as a user sees it: one line on stderr, and an exit status."""

import os
import sys
from typing import NoReturn

from omegaconf.errors import OmegaConfBaseException

from scratch_dl.system.errors import FAILURE, USAGE, ConfigError
from scratch_dl.system.files import in_words
from scratch_dl.system.passwords import hide

TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1"  # what the user wants, before `run_command` sets it for Hydra


def exit_with(error: BaseException) -> NoReturn:
    """Print the error in one line and leave with its status; raise it as it is if a traceback is wanted."""
    if TRACEBACK:
        raise error
    print(f"error: {in_one_line(error)}", file=sys.stderr)
    raise SystemExit(USAGE if is_usage(error) else FAILURE) from None


def is_usage(error: BaseException) -> bool:
    """Return whether an error is one of the command line or the configuration."""
    return isinstance(error, ConfigError | OmegaConfBaseException) or type(error).__module__.startswith("hydra.")


def in_one_line(error: BaseException) -> str:
    """Return an error in the user's words, without a password of theirs; `Composer` has put Hydra's into such words."""
    if isinstance(error, OSError):
        return hide(in_words(error))
    first = " ".join(str(error).splitlines()[:1]) or type(error).__name__
    if is_usage(error):
        of_hydra = type(error).__module__.startswith("hydra.")
        return hide(f"{first} (in the command line or conf/)" if of_hydra else first)
    known = type(error).__module__.startswith("scratch_dl.")
    return hide(first if known else f"{type(error).__name__}: {first} (HYDRA_FULL_ERROR=1 shows where)")
