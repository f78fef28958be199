"""What every command shares: its configuration, refused before anything is written if bad, and one-line errors."""

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from scratch_dl import __version__, provenance
from scratch_dl.checks import nearest
from scratch_dl.config import CONF, build, flat, plain
from scratch_dl.passwords import hide
from scratch_dl.targets import ConfigError

if TYPE_CHECKING:
    from scratch_dl import tracking

USAGE, FAILURE, UNTRACKED = 2, 1, 3
_NO_GROUP = "Config group override must be"  # Hydra says this with a plain ValueError
TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1"  # what the user wants, before `run_command` sets it for Hydra


def register_resolvers() -> None:
    """Make `${process_id:}` known: two runs that start in one second still get a folder each."""
    OmegaConf.register_new_resolver("process_id", os.getpid, replace=True)


def compose_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration `name` of conf/ with `overrides`, Hydra's own part included, for use outside a command."""
    register_resolvers()
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=CONF, version_base="1.3"):
            return compose(name, overrides=list(overrides), return_hydra_config=True)
    finally:
        GlobalHydra.instance().hydra = before


class Untracked(SystemExit):
    """A command did its work, but MLflow has not got everything."""


@contextmanager
def recording(
    config: DictConfig | Mapping[str, Any], folder: Path, name: str, tags: Mapping[str, str] | None = None
) -> Iterator["tracking.Run"]:
    """An MLflow run, which ends with the block; its settings are those of the command.

    Args:
        config: of the command.
        folder: of the run.
        name: of the run, unless `tracking.run_name` gives one.
        tags: of the run, beside those of `tracking.tags`, the command, the version and the commit.

    Raises:
        Untracked: at the end, after a line with the cure, if not all was sent.
    """
    from scratch_dl import tracking

    where = plain(config)["tracking"]
    store = tracking.open_store(where["dir"], where["uri"])
    own = {**where["tags"], **(tags or {}), "command": provenance.command_line(), "version": __version__}
    git = provenance.git_state(Path(__file__).parent)
    if git is not None:
        own |= {"git.commit": git.commit, "git.dirty": str(git.dirty).lower()}
    run = tracking.Run.create(store, folder, where["experiment"], where["run_name"] or name, own)
    status = "FAILED"
    try:
        run.params(flat(plain(config)))
        if git is not None and git.dirty:
            run.text(git.diff, "git.diff")
        yield run
        status = "FINISHED"
    finally:
        sent = run.finish(status)
    print(f"recorded  {run.run_id} (experiment {where['experiment']})")
    if not sent:
        send = f"from scratch_dl.tracking import replay; replay({str(folder)!r})"
        print(f"error: MLflow has not got everything; later: python -c {shlex.quote(send)}", file=sys.stderr)
        raise Untracked(UNTRACKED)


def flags_first(arguments: Sequence[str]) -> list[str]:
    """Put Hydra's flags before the overrides: it takes them in this order only."""
    return sorted(arguments, key=lambda word: word[:1] != "-" and ("=" in word or word[:1] == "~"))


def help_on_faults(arguments: Sequence[str]) -> None:
    """Print the catalogue of faults and leave, if the command line asks for it by `fault=help`."""
    if "fault=help" in arguments:
        from scratch_dl import faults

        print(faults.help_text())
        raise SystemExit(0)


class FrontDoor(Callback):
    """Refuses a configuration before its folder is made; grids and searches check every point themselves."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Build everything once, and throw it away; Hydra only warns of an exception here, so this exits."""
        if config.get("resume") is None or config.resume.run is None:  # a resumed run's settings are the recorded ones
            _exit_on_error(lambda: build(config))


def run_command(command: Callable[[], Any], name: str = "train") -> None:
    """Run a Hydra command; an error is one line on stderr and an exit status of 2 (usage) or 1.

    HYDRA_FULL_ERROR=1 in the environment shows the traceback instead.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing several lines of its own
    register_resolvers()
    try:
        command()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        exit_with(error, name)
    except BaseException as stop:  # training.Interrupted, outside of what a run can record
        if (status := getattr(stop, "exit_status", None)) is None:
            raise
        raise SystemExit(status) from None


def exit_with(error: BaseException, name: str = "train") -> NoReturn:
    """Print the error in one line and leave with its status; raise it as it is if a traceback is wanted."""
    if TRACEBACK:
        raise error
    print(f"error: {in_one_line(error, name)}", file=sys.stderr)
    raise SystemExit(USAGE if is_usage(error) else FAILURE) from None


def is_usage(error: BaseException) -> bool:
    """Whether an error is one of the command line or the configuration."""
    return (
        isinstance(error, ConfigError | OmegaConfBaseException)
        or type(error).__module__.startswith("hydra.")
        or str(error).startswith(_NO_GROUP)
    )


def in_one_line(error: BaseException, name: str = "train") -> str:
    """An error in the user's words, without a password of theirs; Hydra's own are rephrased."""
    return hide(_in_one_line(error, name))


def _in_one_line(error: BaseException, name: str) -> str:
    words = str(error)
    if words.startswith(_NO_GROUP):
        return f"a group takes one of its choices: {words.splitlines()[0]}"
    if match := re.search(r"Could not (?:override|delete from config|append to config)\S* '?([^\s']+)'?", words):
        key = match[1].removesuffix(".")
        searching = key.startswith("hydra.sweeper.")
        keys = _sweeper_keys() if searching else _known_keys(name)
        where = "; conf/hydra/sweeper/scratch_dl.yaml lists them" if searching else "; --help lists them"
        return f"{key} is not a setting{nearest(key, keys) or where}"
    if match := re.search(r"Could not find '([^']+)'.*?Available options in '[^']+':\n(.*?)\n(?:Config search|\s*$)",
                          words, re.DOTALL):  # fmt: skip
        group, _, chosen = match[1].rpartition("/")
        options = match[2].split()
        return f"{group} must be one of {', '.join(options)}, but got {chosen!r}{nearest(chosen, options)}"
    if match := re.match(r"Sweep parameters '(.+)' requires --multirun", words):
        return f"{match[1]} is several values: add search=custom to search them, or -m for a grid of a,b,c"
    if match := re.match(r"LexerNoViableAltException: (.*)", words):
        return f"an argument cannot be read at {match[1]!r}; quote it as one word, like 'input=[4, 3, 16, 16]'"
    first = " ".join(words.splitlines()[:1]) or type(error).__name__
    if is_usage(error):
        return f"{first} (in the command line or conf/)" if type(error).__module__.startswith("hydra.") else first
    known = type(error).__module__.startswith("scratch_dl.") or isinstance(error, OSError)
    return first if known else f"{type(error).__name__}: {first} (HYDRA_FULL_ERROR=1 shows where)"


def _exit_on_error(check: Callable[[], Any]) -> None:
    try:
        check()
    except Exception as error:
        exit_with(error)


def _sweeper_keys() -> list[str]:
    """The settings of a search."""
    return [f"hydra.sweeper.{key!s}" for key in OmegaConf.load(Path(CONF) / "hydra" / "sweeper" / "scratch_dl.yaml")]


def _known_keys(name: str) -> list[str]:
    """Every key of the default configuration, dotted."""
    keys: list[str] = []

    def visit(prefix: str, node: Any) -> None:
        for key in node:
            dotted = f"{prefix}{key}"
            keys.append(dotted)
            value = node._get_node(key)
            if isinstance(value, DictConfig) and not value._is_missing() and not value._is_none():
                visit(f"{dotted}.", value)

    config = compose_config(name, [])
    with open_dict(config):
        config.pop("hydra", None)
    visit("", config)
    return keys
