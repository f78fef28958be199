"""`python -m scratch_dl.train [overrides]`, and `from scratch_dl.train import train; train([...overrides])`.

Compose the configuration, build everything from it, train, and print the result.
"""

import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from scratch_dl.cli.command import Command, check_given
from scratch_dl.cli.errors import TRACEBACK, in_one_line
from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config, given_overrides
from scratch_dl.config.environment import from_environment
from scratch_dl.config.overrides import expand
from scratch_dl.system.errors import UNTRACKED, ConfigError
from scratch_dl.system.passwords import hidden

if TYPE_CHECKING:
    from scratch_dl.config.schema import Setup
    from scratch_dl.training.result import RunResult


def train(overrides: Sequence[str] = ()) -> "RunResult":
    """Train from a program or a notebook; the overrides are those of the command line.

    Returns:
        The result, including the network with its best weights.

    Raises:
        ConfigError: if a setting cannot be used; other errors as in `scratch_dl.training.run.train_run`.
    """
    if isinstance(overrides, str):
        raise TypeError(f"overrides must be a list of texts, but got {overrides!r}")
    given = expand(overrides)
    given += from_environment(given)
    config = compose_config("train", given)
    if config.hydra.mode == RunMode.MULTIRUN:
        words = shlex.join(overrides)
        raise ConfigError(f"a grid or a search is for the command line: python -m scratch_dl.train -m {words}")
    print(_opening(config), flush=True)
    setup = check_given(_check, config, given)
    return _train(config, Path(config.hydra.run.dir).absolute(), given, setup)


def _opening(config: DictConfig, several: bool = False) -> str:
    """Return the first line that is printed: what is trained, by the names of the groups' choices."""
    if several:
        return f"several trainings: {' '.join(hidden(given_overrides(config.hydra)))}"
    if config.resume.run is not None:
        return f"resume={config.resume.run}"
    choices = config.hydra.runtime.choices
    names = ("model", "loss", "optimizer", "schedule", "data", "noise", "experiment", "debug")
    own = dict(word.split("=", 1) for word in given_overrides(config.hydra) if "._target_=" in word)
    said = {name: own.get(f"{name}._target_", choices.get(name)) for name in names}
    return " ".join(f"{name}={value}" for name, value in said.items() if value)


def _check(config: DictConfig) -> "Setup | None":
    """Build what is to be trained; None for a resumed run, whose settings are the recorded ones.

    Raises:
        ConfigError: if a setting cannot be used.
        TrackingError: if the store cannot be used.
    """
    if config.resume.run is not None:
        return None
    from scratch_dl.tracking import check_store

    setup = build(config)
    where = setup.tracking
    check_store(where.dir, where.uri, where.experiment, where.run_id)
    return setup


def _run(config: DictConfig, folder: Path, setup: "Setup | None") -> int | dict[str, Any]:
    """Run one job: a single training, a point of a grid, or a trial of a search."""
    job = HydraConfig.get()
    if (number := job.sweeper.get("trial")) is not None:
        from scratch_dl.search.trial import run_trial

        return run_trial(config, folder, number)
    several = job.mode == RunMode.MULTIRUN
    try:
        result = _train(config, folder, given_overrides(job), setup)
    except Exception as error:
        if not several or TRACEBACK:
            raise
        print(f"error: {in_one_line(error)}", file=sys.stderr)
        return {"status": "FAILED", "scores": {}}  # the grid continues, and its table says what failed
    if not result.tracked:
        again = f"python -m scratch_dl.train {shlex.quote(f'resume={result.folder}')}"
        print(f"error: MLflow has not received everything; later: {again}", file=sys.stderr)
    if result.exit_status:
        raise SystemExit(result.exit_status)
    if several:
        return {"status": result.status, "scores": result.scores, "tracked": result.tracked}
    return 0 if result.tracked else UNTRACKED


def _train(config: DictConfig, folder: Path, overrides: list[str], setup: "Setup | None") -> "RunResult":
    from scratch_dl.kernels.restoring import restored
    from scratch_dl.training.result import attached_result
    from scratch_dl.training.resume import resume_run
    from scratch_dl.training.run import train_run
    from scratch_dl.training.summary import print_summary

    try:
        with restored():  # not as a decorator, because a launcher pickles this module's functions
            if config.resume.run is not None:
                result = resume_run(config, overrides)
            else:
                result = train_run(setup or build(config), folder, overrides)
    except Exception as error:
        if (failed := attached_result(error)) is not None:
            with contextlib.suppress(Exception):  # the error is what must be seen
                print_summary(failed, config)
        raise
    print_summary(result, config)
    if result.status == "FINISHED" and (config.tracking.register or _is_to_be_registered(result.folder)):
        _register(result)
    return result


def _is_to_be_registered(folder: Path) -> bool:
    """Return whether a run recorded that its network is to be registered, as a resumed one may have."""
    from scratch_dl.training.resume import recorded_config

    return bool(recorded_config(folder)["tracking"].get("register"))


def _register(result: "RunResult") -> None:
    """Register the network of a run that has ended, and print what became of it; an error is a warning."""
    from scratch_dl import tracking
    from scratch_dl.tracking.registry import register
    from scratch_dl.tracking.selection import get_run

    if not result.tracked:
        later = f"once it has: scratch-dl register run={result.run_id}"
        print(f"not registered, as MLflow has not received everything; {later}", file=sys.stderr)
        return
    try:
        store = tracking.open_store(*tracking.store_location(result.folder))
        print(register(store, get_run(store, result.run_id)).words)
    except tracking.TrackingError as error:
        print(f"not registered: {error}", file=sys.stderr)


def main() -> None:
    """Entry point of the command."""
    Command("train", _check, _run, grids=True, opening=_opening).main()


if __name__ == "__main__":
    main()
