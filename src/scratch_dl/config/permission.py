"""What a composed configuration may let Hydra run: what is listed here, and what the command line permits.

Hydra creates launchers, sweepers, callbacks and logging from whatever its part of a configuration names, before a
command can check it. A preset, or the configuration of a checkpoint or a run, may come from someone else, while the
command line is typed by the machine's user. So every configuration of a job is checked here before Hydra runs.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from scratch_dl.config.yaml_files import CONF
from scratch_dl.system.errors import ConfigError

_TARGETS = {
    "callbacks": (),
    "launcher": (
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    ),
    "sweeper": ("hydra_plugins.scratch_dl_sweeper.Grid", "hydra_plugins.scratch_dl_sweeper.Sweeper"),
}
_LOGGING = ("hydra_logging", "job_logging")
_CLASSES = (
    "logging.Formatter",
    "logging.Filter",
    "logging.NullHandler",
    "logging.StreamHandler",
    "logging.FileHandler",
    "logging.handlers.RotatingFileHandler",
    "logging.handlers.TimedRotatingFileHandler",
    "logging.handlers.WatchedFileHandler",
    "logging.handlers.SysLogHandler",
    "colorlog.ColoredFormatter",
)
LARGEST = 10_000_000  # characters; ten values of ten ${...} each, nested ten times, would fill any memory
_WORDS = re.compile(r"[\w.\[\]-]+")
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_LOG_FILE = "${hydra.runtime.output_dir}/${hydra.job.name}.log"  # as in Hydra's own files
_JOB_NAME = "${hydra.job.name}"  # always a text
_COMMANDS = ("setup", "srun_args", "additional_parameters", "python")  # settings of a launcher that a cluster executes
_NAMES = ("module", "reference")  # settings of verify


def check_permission(config: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse what a file would let Hydra run, and `allowed_targets` in a file.

    Args:
        config: composed, including Hydra's part.
        overrides: of the current command line.

    Raises:
        ConfigError: naming the key, its value, and how the command line can permit it; at that point nothing has been
            imported or called.
    """
    typed = dict(_typed_values(overrides))
    _check_allowed_targets(config, typed)
    allowed = tuple(typed.get("allowed_targets") or ())
    content: Any = OmegaConf.to_container(config, resolve=False)
    if _Size(content).measure(content) > LARGEST:
        raise ConfigError(f"a configuration must have at most {LARGEST} characters once every ${{...}} is written out")
    parts = content["hydra"]
    checks = _Checks(config, typed, allowed)
    for name in _TARGETS:
        for key, last, value in _leaves(f"hydra.{name}", parts.get(name)):
            checks.check_plugin(name, key, last, value)
    for name in _LOGGING:
        for key, last, value in _leaves(f"hydra.{name}", parts.get(name)):
            checks.check_logging(key, last, value)
    _check_overrides(parts, overrides)
    copied = typed.get("hydra.job.env_copy") or ()
    for name in ("env_copy", "env_set"):  # they could set LD_PRELOAD or PATH
        for key, last, value in _leaves(f"hydra.job.{name}", parts["job"].get(name)):
            if last not in copied:
                checks.from_command_line(key, value, "an environment variable")
    for key in _NAMES:
        if key in config:
            checks.from_command_line(key, content[key], "a name that is imported")
    if not str(parts["job"].get("name")).isprintable():
        checks.from_command_line("hydra.job.name", parts["job"]["name"], "a text with control characters")
    for key, _, value in _leaves("hydra.searchpath", parts.get("searchpath")):
        checks.from_command_line(key, value, "a place to search for configurations")


class _Checks:
    """One check for each kind of value; `typed` are the values of the command line by key."""

    def __init__(self, config: DictConfig, typed: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
        self.config, self.typed, self.allowed = config, typed, allowed

    def check_plugin(self, name: str, key: str, last: str, value: Any) -> None:
        """Check a leaf of a launcher, sweeper or callback; Hydra instantiates it with everything nested in it."""
        if last == "_target_":
            if value not in _TARGETS[name] and not (self.allowed and str(value).startswith(self.allowed)):
                known = _TARGETS[name]
                rule = f"be one of {', '.join(known)}" if known else "be left out: a file may name no callback"
                raise ConfigError(self._refusal(key, value, rule))
        elif isinstance(value, str) and value.startswith("${") and value.endswith("}") and value != _JOB_NAME:
            self.from_command_line(key, value, "an interpolation")  # perhaps of a mapping with its own _target_
        elif isinstance(value, str) and not value.isprintable():
            self.from_command_line(key, value, "a text with control characters")  # would get into a cluster's script
        elif name == "launcher" and set(re.split(r"[.\[]", key)) & set(_COMMANDS):
            self.from_command_line(key, value, "a command")

    def check_logging(self, key: str, last: str, value: Any) -> None:
        """Check a leaf of a logging configuration."""
        if ".." in key:  # with the key ".", dictConfig sets attributes of a handler, such as the name of its file
            raise ConfigError(self._refusal(key, value, "not set an attribute of a handler"))
        if last in ("class", "()"):
            if value not in _CLASSES and not (self.allowed and str(value).startswith(self.allowed)):
                raise ConfigError(self._refusal(key, value, f"be one of {', '.join(_CLASSES)}"))
        elif not isinstance(value, str):
            return
        elif value.startswith(("ext://", "cfg://")) and value not in _STREAMS:
            raise ConfigError(f"{key} must be one of {', '.join(_STREAMS)}, but got {value!r}{self._where(key)}")
        elif (last == "filename" and value != _LOG_FILE) or (last == "mode" and value != "a"):
            self.from_command_line(key, value, "a file that is written to")
        elif "${" in value and value != _LOG_FILE:
            self.from_command_line(key, value, "an interpolation")

    def from_command_line(self, key: str, value: Any, what: str) -> None:
        """Check a value that no file may give.

        Raises:
            ConfigError: if it is not from the command line.
        """
        if value not in (None, "") and re.sub(r"\[\d+\].*", "", key) not in self.typed:
            raise ConfigError(
                f"{key} must be given on the command line, as {what} is, but a file says {str(value)[:200]!r}"
                f"{self._where(key)}"
            )

    def _refusal(self, key: str, value: Any, rule: str) -> str:
        cure = ""
        if isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", value):
            cure = f"; 'allowed_targets=[{value.partition('.')[0]}.]' permits it"
        return f"{key} must {rule}, but got {value!r}{self._where(key)}{cure}"

    def _where(self, key: str) -> str:
        file = _file_with(self.config, key)
        return f" from {file}" if file else ""


class _Size:
    """Computes an upper bound of a configuration's size in characters once resolved, without resolving it."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content
        self.known: dict[tuple[int, int], int] = {}

    def measure(self, value: Any, parents: tuple[Any, ...] = ()) -> int:
        """Return the size of a value; `parents` are the containers around it."""
        if isinstance(value, str) and "${" not in value:
            return len(value)
        if not isinstance(value, str | Mapping | list):
            return 1
        place = (id(value), id(parents[-1]) if parents else 0)
        if place in self.known:
            return self.known[place]
        self.known[place] = 0  # a value that refers to itself counts as 0; resolving it raises an error
        inner = (*parents, value)
        if isinstance(value, str):
            size = len(value) + sum(self._measure_reference(word, parents) for word in _WORDS.findall(value))
        else:
            items = value.values() if isinstance(value, Mapping) else value
            size = sum(self.measure(item, inner) for item in items)
        self.known[place] = size
        return size

    def _measure_reference(self, word: str, parents: tuple[Any, ...]) -> int:
        """Return the size of what a word in an interpolation names; one ending in a dot may name anything below it."""
        up = len(word) - len(word.lstrip("."))
        trail = list(parents[: len(parents) - up + 1]) if up else [self.content]
        for part in re.findall(r"[^.\[\]]+", word):
            node = trail[-1] if trail else None
            if isinstance(node, Mapping) and part in node:
                trail.append(node[part])
            elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
                trail.append(node[int(part)])
            else:
                return 0
        return self.measure(trail[-1], tuple(trail[:-1])) if trail else 0


def _check_allowed_targets(config: DictConfig, typed: Mapping[str, Any]) -> None:
    if "allowed_targets" not in config:
        return
    content: Any = OmegaConf.to_container(config, resolve=False)
    given = content["allowed_targets"]
    if given == typed.get("allowed_targets", []):
        if "${" in str(given):
            raise ConfigError(f"allowed_targets must be written out, as [my_layers.], but got {given!r}")
        return
    listed = ",".join(map(str, given)) if isinstance(given, list) else str(given)
    file = _file_with(config, "allowed_targets") or "a file"
    raise ConfigError(
        f"allowed_targets must be given on the command line, but {file} says {given!r}; if you trust what it names, "
        f"add 'allowed_targets=[{listed}]'"
    )


def _check_overrides(parts: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Refuse overrides that a file adds to those of the command line, except settings of a training in a search."""
    for kind in ("hydra", "task"):
        if added := [override for override in parts["overrides"][kind] if override not in overrides]:
            raise ConfigError(
                f"hydra.overrides.{kind} must be what the command line says, but a file adds {added[0]!r}"
            )
    for name in ("params", "conditions"):
        for key in parts["sweeper"].get(name) or ():
            if re.match(r"[+~]*(hydra|allowed_targets)\b", str(key)):
                raise ConfigError(
                    f"hydra.sweeper.{name} must be settings of a training, but got {key!r}: give it itself"
                )


def _typed_values(overrides: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of the settings on a command line, a mapping leaf by leaf, without swept settings."""
    parser = OverridesParser.create()
    for override in map(parser.parse_override, overrides):
        if override.is_sweep_override() or override.is_delete() or "/" in override.key_or_group:
            continue
        for key, _, value in _leaves(override.key_or_group, override.value(), lists=False):
            yield key, value


def _leaves(key: str, value: Any, last: str = "", lists: bool = True) -> Iterator[tuple[str, str, Any]]:
    """Yield (dotted key, its last part, value) of every leaf of `value`; the items of a list are key[0] and so on."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner, str(name), lists)
    elif isinstance(value, list) and lists:
        for position, inner in enumerate(value):
            yield from _leaves(f"{key}[{position}]", inner)
    else:
        yield key, last, value


def _file_with(config: DictConfig, key: str) -> str | None:
    """Return the file among the groups' choices that seems to contain a key; None if there is none outside conf/."""
    words = [word for word in re.split(r"[.\[\]]", key) if word and not word.isdigit()]
    sources = [source.path for source in config.hydra.runtime.config_sources if source.schema == "file"]
    names = [f"{group}/{choice}" for group, choice in config.hydra.runtime.choices.items() if isinstance(choice, str)]
    names.append(str(config.hydra.job.config_name))
    for folder in sources:
        for name in names if folder != CONF else ():
            path = Path(folder, f"{name}.yaml")
            if path.is_file() and all(word in path.read_text(encoding="utf-8") for word in words[-2:]):
                return str(path)
    return None
