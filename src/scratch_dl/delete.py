"""`python -m scratch_dl.delete RUN... [yes=true]`: delete runs, with everything that they have stored.

MLflow keeps the settings and metrics of a deleted run, hidden; its folder, artifacts and models are removed.
"""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from scratch_dl.cli.command import Command
from scratch_dl.config.build import tracking_settings
from scratch_dl.config.overrides import expand as expand_paths
from scratch_dl.config.overrides import override_value
from scratch_dl.config.plain import plain
from scratch_dl.config.targets import check_keys, config_errors
from scratch_dl.runs import PSNR, SHORT
from scratch_dl.system.checks import boolean
from scratch_dl.system.errors import FAILURE, ConfigError

if TYPE_CHECKING:
    from scratch_dl.tracking import Store
    from scratch_dl.tracking.deletion import Deletion


def _run(config: DictConfig, _folder: Path, settings: dict[str, Any]) -> int:
    """Delete runs after showing them and asking; exit status 1 if the answer is no.

    Raises:
        ConfigError: if there is no store, a run is not named as it must be, or nobody can be asked.
        TrackingError: if a run must not be deleted, or could not be; the message says which ones were deleted.
    """
    from scratch_dl.tracking.deletion import plan_deletions
    from scratch_dl.tracking.store import open_existing_store

    where = settings["tracking"]
    store = open_existing_store(where)
    deletions = plan_deletions(store, settings["runs"])
    for deletion in deletions:
        print(_shown(deletion))
    if not settings["yes"]:
        if not sys.stdin.isatty():
            raise ConfigError(
                "yes must be true where no terminal can answer, but got false; nothing was deleted, and this deletes: "
                f"{_command(config, deletions)}"
            )
        if not _is_confirmed(len(deletions)):
            print("nothing was deleted")
            return FAILURE
    _delete(store, deletions, config)
    return 0


def _shown(deletion: "Deletion") -> str:
    run = deletion.run
    psnr = run.data.metrics.get(PSNR)
    score = "no PSNR" if psnr is None else f"{psnr:.2f} dB"
    place = deletion.folder or "no folder here"
    note = "" if deletion.is_shown else "; deleted in MLflow already, and these files are left"
    return f"{_short(deletion)}  {score:>8}  {run.info.run_name} ({place}{note})"


def _is_confirmed(number: int) -> bool:
    try:
        answer = input(f"delete {number} {'run' if number == 1 else 'runs'}? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


def _delete(store: "Store", deletions: "Sequence[Deletion]", config: DictConfig) -> None:
    """Delete runs one by one.

    Raises:
        TrackingError: at the first that cannot be deleted; the message says what has been deleted and what has not.
        KeyboardInterrupt: after printing the same.
    """
    from scratch_dl.tracking import TrackingError
    from scratch_dl.tracking.deletion import delete_run

    for number, deletion in enumerate(deletions):
        try:
            delete_run(store, deletion)
        except TrackingError as error:
            raise TrackingError(_stopped(deletions, number, str(error), config)) from error
        except KeyboardInterrupt:
            print(f"error: {_stopped(deletions, number, 'this was interrupted', config)}", file=sys.stderr)
            raise
        print(f"deleted {_short(deletion)} ({deletion.run.info.run_name})", flush=True)
        if deletion.remote is not None:
            print(f"its artifacts stay at {deletion.remote}, which is not below the artifacts of tracking.dir")


def _stopped(deletions: "Sequence[Deletion]", number: int, reason: str, config: DictConfig) -> str:
    """Return one line that says why deleting stops at the run of this number, and how far it came."""
    ids = [_short(deletion) for deletion in deletions]
    done, left = (", ".join(part) or "none" for part in (ids[:number], ids[number + 1 :]))
    return (
        f"{ids[number]} is not deleted completely: {reason}; deleted before it: {done}; not deleted: {left}; "
        f"this continues: {_command(config, deletions[number:])}"
    )


def _short(deletion: "Deletion") -> str:
    return str(deletion.run.info.run_id)[:SHORT]


def _command(config: DictConfig, deletions: "Sequence[Deletion]") -> str:
    """Return the command that deletes runs without asking."""
    from scratch_dl.training.summary import where_flags

    ids = [str(deletion.run.info.run_id) for deletion in deletions]
    return shlex.join(["python", "-m", "scratch_dl.delete", *ids, "yes=true"]) + where_flags(config)


def expand(arguments: Sequence[str]) -> list[str]:
    """Expand the arguments as for any command; the words without `=` become the list `runs`."""
    names = [argument for argument in arguments if "=" not in argument]
    others = [argument for argument in arguments if "=" in argument]
    return [*expand_paths(others), *([f"runs={override_value(names)}"] if names else [])]


def _check(config: DictConfig) -> dict[str, Any]:
    """Return the settings, checked."""
    settings = plain(config)
    check_keys("", settings, ["runs", "yes", "tracking"])
    tracking_settings(settings)
    with config_errors("", settings):
        boolean("yes", settings["yes"])
    runs = settings["runs"] = [settings["runs"]] if isinstance(settings["runs"], str) else settings["runs"]
    if not isinstance(runs, list) or not runs:
        raise ConfigError(
            f"runs must be given, for example python -m scratch_dl.delete 973b3352, but got {runs!r}; "
            "python -m scratch_dl.runs lists them"
        )
    for run in runs:
        if not isinstance(run, str) or not re.fullmatch(r"[\w.-]+", run):
            raise ConfigError(
                f"runs must be ids, or beginnings of ids, but got {run!r}; python -m scratch_dl.runs lists them"
            )
    return settings


def main() -> None:
    """Entry point of the command."""
    Command("delete", _check, _run, expand).main()


if __name__ == "__main__":
    main()
