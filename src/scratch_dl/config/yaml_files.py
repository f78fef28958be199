"""Reads configuration files safely: an error is one line with its place, and aliases cannot exhaust the memory."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException

from scratch_dl.system.errors import ConfigError

CONF = str(Path(__file__).parents[1] / "conf")
PRESETS = ("experiment", "debug", "search")
LARGEST_BYTES = 1_000_000
MOST_NODES = 20_000  # of a file with its aliases expanded; the files of conf/ have fewer than 50
_CURES = {
    "cannot start any token": "a tab cannot indent or separate; use spaces",
    "is given twice": "leave one of them out",
    "mapping values are not allowed here": "quote a value with ': ' in it, or mend the indentation",
    "expected a single document": "leave out what follows the line ---",
}


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file as dictionaries, lists and plain values; interpolations are not resolved.

    Raises:
        ConfigError: in one line with the file and the line number, if it cannot be read or is not valid YAML.
    """
    return parse_yaml(_text(path), str(path))


def parse_yaml(text: str, name: str) -> Any:
    """Return the content of a YAML text, as `read_yaml` does.

    Raises:
        ConfigError: in one line with the `name` of its file.
    """
    try:
        loader = get_yaml_loader()(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _expanded_size(node, {}) > MOST_NODES:
            raise ConfigError(f"{name}: with its aliases expanded it must have at most {MOST_NODES} values")
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{name}{f', line {mark.line + 1}' if mark else ''}: {_problem(error)}") from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(f"{name}: the character U+{error.character:04X} must not stand in YAML") from None
    except RecursionError:
        raise ConfigError(f"{name}: its values are nested too deeply") from None
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{name}: {str(error).splitlines()[0]}") from None


class CheckedFiles(FileConfigSource):
    """Hydra's source of files, but safe: files are read as by `read_yaml`, and forbidden content is refused at once."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Return a configuration file's content.

        Raises:
            ConfigError: if it cannot be read, is a preset without `@package _global_`, or sets hydra.searchpath.
        """
        path = Path(self.path, self._normalize_file_name(config_path)).resolve()
        if not path.is_file():
            raise ConfigLoadError(f"Config not found : {path}")
        text = _text(path)
        content = _parsed(text, str(path))
        if content is not None and not isinstance(content, dict):
            raise ConfigError(f"{path} must have keys and values, but got {str(content)[:40]!r}")
        try:
            header = self._get_header_dict(text)
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from None
        if config_path.split("/")[0] in PRESETS and "/" in config_path and header["package"] != "_global_":
            raise ConfigError(
                f"{path} must begin with the line '# @package _global_'; without it, its settings would be ignored"
            )
        try:
            config = OmegaConf.create(content or {})
            search_path = None if self.path == CONF else OmegaConf.select(config, "hydra.searchpath")
        except OmegaConfBaseException as error:
            key = f" at {error.full_key}" if error.full_key else ""
            raise ConfigError(f"{path}{key}: {str(error).splitlines()[0]}") from None
        if search_path:  # while composing, Hydra would import a package named there
            raise ConfigError(
                f"hydra.searchpath must be given on the command line, but {path} sets it; leave it out there, and add "
                f"'hydra.searchpath=[{','.join(map(str, search_path))}]'"
            )
        return ConfigResult(provider=self.provider, path=f"file://{self.path}", config=config, header=header)


# A search composes a configuration for each point, mostly of the same files.
_parsed = lru_cache(maxsize=256)(parse_yaml)

# Under this name Hydra does not replace it when it registers its own source again, in the processes of a launcher.
CheckedFiles.__name__ = FileConfigSource.__name__


def use_checked_files() -> None:
    """Let Hydra read files with `CheckedFiles`, in this process only, so that other programs are not affected."""
    Plugins.instance()  # registers Hydra's own sources
    SourcesRegistry.instance().types["file"] = CheckedFiles


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > LARGEST_BYTES:
        raise ConfigError(f"{path} must have at most {LARGEST_BYTES} bytes, but has {len(content)}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        key = content.splitlines()[line - 1].partition(b":")[0].decode("ascii", "replace").strip()
        raise ConfigError(
            f"{path}, line {line}, {key}: the file must be UTF-8, but has the byte 0x{content[error.start]:02x}; save "
            f"it as UTF-8 (iconv -f latin1 -t utf-8)"
        ) from None


def _expanded_size(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Return the number of nodes in this one, itself included, counting repetitions by aliases each time."""
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise yaml.MarkedYAMLError(None, None, "an alias is inside the value that it repeats", node.start_mark)
        return size
    known[id(node)] = None
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        inner = node.value
    elif isinstance(node, yaml.MappingNode):
        inner = [child for pair in node.value for child in pair]
    size = 1 + sum(_expanded_size(child, known) for child in inner)
    known[id(node)] = size
    return size


def _problem(error: yaml.MarkedYAMLError) -> str:
    words = " ".join(str(error.problem or error.context or error).split())
    if words.startswith("but found"):
        words = f"{error.context}, {words}"
    words = re.sub(r"found duplicate key (.*)", r"the key \1 is given twice", words)
    cure = next((cure for sign, cure in _CURES.items() if sign in words), "")
    if "cannot start any token" in words and "\\t" not in words:
        cure = "quote the value"
    return f"{words}; {cure}" if cure else words
