"""MLflow's environment variables as settings: the command line overrides them; they override presets and defaults."""

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from scratch_dl.config.overrides import key_of
from scratch_dl.system.addresses import check_uri
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import hide

URI, EXPERIMENT, RUN_ID = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"
_EXPERIMENT_ID = "MLFLOW_EXPERIMENT_ID"
WORKER = "SCRATCH_DL_SWEEP_WORKER"  # set in the worker processes of a search
_KEYS = {URI: "tracking.uri", EXPERIMENT: "tracking.experiment", RUN_ID: "tracking.run_id"}
_NO_EXPERIMENT = {
    "evaluate": "an evaluation is recorded in its run's experiment",
    "compare": "a comparison is recorded in the experiment of its first run",
    "diagnose": "it records nothing",
    "delete": "a run is named by its id",
}
_PRINTS_DATA = ("runs",)  # commands whose output programs read: the lines about variables go to stderr


def from_environment(overrides: Sequence[str], name: str = "train", several: bool = False) -> list[str]:
    """Return overrides for the variables that are set and apply here; print for each whether it is used.

    The overrides contain the variable's name, not its value, so that no password or special character gets into them.

    Args:
        overrides: of the command line, which take precedence.
        name: of the command.
        several: whether it trains several times.

    Raises:
        ConfigError: if the address cannot be used.
    """
    given = set(map(key_of, overrides))
    used = []
    file = sys.stderr if name in _PRINTS_DATA else sys.stdout
    for variable, key in _KEYS.items():
        value = os.environ.get(variable, "")
        if not value.strip() or given & {key, "tracking"}:
            continue
        reason = _ignored_because(variable, name, several, "resume.run" in given)
        if reason is None:
            if variable == URI:
                check_variable(value)
            used.append(_override(variable))
        if WORKER not in os.environ:  # the process that started this one has printed it
            _print(variable, value, f"used as {key}" if reason is None else f"ignored: {reason}", file)
    if os.environ.get(_EXPERIMENT_ID, "").strip() and WORKER not in os.environ:
        use = "ignored: tracking.experiment chooses one by its name"
        _print(_EXPERIMENT_ID, os.environ[_EXPERIMENT_ID], use, file)
    return used


def check_variable(uri: str) -> None:
    """Check an address from MLFLOW_TRACKING_URI.

    Raises:
        ConfigError: if it cannot be used.
    """
    try:
        check_uri(URI, uri)
    except ValueError as error:
        raise ConfigError(f"{error}; unset {URI}, or give tracking.uri=... on the command line") from None


def print_used(variable: str, value: str, key: str) -> None:
    """Print that a variable is used as a setting."""
    _print(variable, value, f"used as {key}", sys.stdout)


def is_from_environment(override: str) -> bool:
    """Return whether an override comes from a variable; the same command would find it in the environment again."""
    return override in {_override(variable) for variable in _KEYS}


def _override(variable: str) -> str:
    return f"{_KEYS[variable]}='${{oc.env:{variable}}}'"  # quoted, because the points of a grid keep quotes


def _ignored_because(variable: str, name: str, several: bool, resumed: bool) -> str | None:
    if variable == EXPERIMENT:
        if resumed:
            return "a resumed run stays in its experiment"
        return _NO_EXPERIMENT.get(name)
    if variable == RUN_ID and (name != "train" or several or resumed):
        return "it is for a single new training"
    return None


def _print(variable: str, value: str, use: str, file: TextIO) -> None:
    print(f"{variable}={hide(value)} is {use}", file=file, flush=True)
