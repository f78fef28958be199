"""`python -m scratch_dl.train [overrides]`, and `from scratch_dl.train import train; train([...overrides])`.

Compose the configuration, build everything from it, train, and say what came of it.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from scratch_dl.cli.command import check_given, run_command
from scratch_dl.cli.errors import TRACEBACK, exit_with, in_one_line
from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config, overrides_of
from scratch_dl.config.environment import from_environment
from scratch_dl.config.overrides import expand
from scratch_dl.config.yaml_files import CONF
from scratch_dl.kernels.restoring import restored
from scratch_dl.system.errors import UNTRACKED, ConfigError

if TYPE_CHECKING:
    from scratch_dl.training.run import Result


def train(overrides: Sequence[str] = ()) -> "Result":
    """Train from a program or a notebook: the overrides are those of the command line.

    Returns:
        What came of it, the network with its best weights included.

    Raises:
        ConfigError: if a setting cannot be used; others as in `scratch_dl.training.run.train_run`.
    """
    if isinstance(overrides, str):
        raise TypeError(f"overrides must be a list of texts, but got {overrides!r}")
    given = expand(overrides)
    given += from_environment(given)
    config = compose_config("train", given)
    if config.hydra.mode == RunMode.MULTIRUN:
        words = shlex.join(overrides)
        raise ConfigError(f"a grid or a search is for the command line: python -m scratch_dl.train -m {words}")
    check_given(check, config, given)
    return _train(config, Path(config.hydra.run.dir).absolute(), given)


def check(config: DictConfig) -> None:
    """Build everything once, and throw it away; a resumed run's settings are the recorded ones.

    Raises:
        ConfigError: if a setting cannot be used.
        TrackingError: if the store cannot be used.
    """
    if config.resume.run is None:
        where = build(config).tracking
        from scratch_dl.tracking import check_store

        check_store(where.dir, where.uri, where.experiment, where.run_id)


@hydra.main(version_base="1.3", config_path=CONF, config_name="train")
def command(config: DictConfig) -> dict[str, Any] | None:
    """One job: of a single run, or of a grid or a search, which are told the outcome."""
    job = HydraConfig.get()
    if (number := job.sweeper.get("trial")) is not None:
        from scratch_dl.search.trial import run_trial

        return run_trial(config, Path(job.runtime.output_dir), number)
    try:
        result = _train(config, Path(job.runtime.output_dir), overrides_of(job))
    except Exception as error:
        if job.mode == RunMode.MULTIRUN and not TRACEBACK:
            print(f"error: {in_one_line(error)}", file=sys.stderr)
            return {"status": "FAILED", "scores": {}}  # the grid goes on, and its end says what failed
        # Hydra would print two lines of its own before ours; this goes past it.
        exit_with(error)
    if not result.tracked:
        again = f"python -m scratch_dl.train {shlex.quote(f'resume={result.folder}')}"
        print(f"error: MLflow has not got everything; later: {again}", file=sys.stderr)
    if result.exit_status:
        raise SystemExit(result.exit_status)
    if job.mode == RunMode.MULTIRUN:
        return {"status": result.status, "scores": result.scores, "tracked": result.tracked}
    if not result.tracked:
        raise SystemExit(UNTRACKED)
    return None


def _train(config: DictConfig, folder: Path, overrides: list[str]) -> "Result":
    from scratch_dl.training.resume import resume_run
    from scratch_dl.training.run import train_run
    from scratch_dl.training.summary import show

    with restored():  # no decorator: a launcher pickles this module's functions
        if config.resume.run is not None:
            result = resume_run(config, overrides)
        else:
            result = train_run(build(config), folder, overrides)
    show(result, config)
    return result


def main() -> None:
    """Entry point of the command."""
    run_command(command, "train", check)


if __name__ == "__main__":
    main()
