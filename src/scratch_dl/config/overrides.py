"""Writes, reads and checks overrides of Hydra's command line, and expands what a user types into them."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from scratch_dl.config.yaml_files import parse_yaml
from scratch_dl.system.errors import ConfigError

PATHS = (
    "resume",
    "resume.run",
    "run",
    "output",
    "baseline",
)  # their values are paths or ids, whatever characters they contain
# Mappings that are empty by default; Hydra overrides a key that is not in them yet only with ++.
_OPEN = re.compile(r"(tracking\.tags|hydra\.sweeper\.(params|conditions))(\.|=)")
_DISTRIBUTION = re.compile(r"(?<!['\"\w,(])((?:choice|range|interval|tag)\((?:[^()]|\([^()]*\))*\))")
_BRACKETS = {"[": "]", "{": "}", "(": ")"}


def parse(text: str, expected: str = "") -> Override:
    """Parse an override.

    Raises:
        ConfigError: if it cannot be parsed; the message ends with `expected`.
    """
    try:
        return OverridesParser.create(config_loader=_loader()).parse_override(text)
    except HydraException as error:
        reason = " ".join(str(error).split()).removesuffix(".")[:150]
        raise ConfigError(f"{text} cannot be read ({reason}){f'; {expected}' if expected else ''}") from None


def choices_of(override: Override) -> list[str]:
    """Return the choices of its group that a glob matches, in Hydra's order; [] if there is no such group."""
    glob: Any = override.value()  # the type that Hydra declares for it omits Glob
    loader = _loader()
    return [] if loader is None else list(glob.filter(loader.get_group_options(override.key_or_group)))


def key_of(override: str) -> str:
    """Return the dotted key that an override sets, without `+`, `~` or a package: `+model@x=unet` -> "model"."""
    try:
        key = OverridesParser.create().parse_override(override).key_or_group
    except HydraException:  # an argument that `check_readable` refuses
        key = override.partition("=")[0]
    return key.replace("/", ".")


def value_of(key: str, overrides: Sequence[str]) -> Any:
    """Return the value that the last override of `key` gives it; None if there is none, or it cannot be read."""
    given = [override for override in overrides if key_of(override) == key and _is_readable(override)]
    return OverridesParser.create().parse_override(given[-1]).value() if given else None


def _loader() -> ConfigLoader | None:
    """Return Hydra's loader, which knows the groups; None outside a command."""
    hydra = GlobalHydra.instance()
    return hydra.config_loader() if hydra.is_initialized() else None


def override_value(value: Any) -> str:
    """Return the text that Hydra's grammar reads as `value`, to be written after `key=`."""
    if isinstance(value, QuotedString):
        value = value.text
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(override_value, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_mapping_key(key)}:{override_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        return value if _is_bare(value) else QuotedString(value, Quote.single).with_quotes()
    return repr(value)


def unquoted(value: str) -> str | None:
    """Return the text after `key=` without Hydra's quotes, if it has any; None for null."""
    if _is_quoted(value):
        return str(parse(f"k={value}").value())
    return None if value == "null" else value


def _mapping_key(key: Any) -> str:
    """Return a mapping's key for Hydra's grammar, in which keys cannot be quoted, but characters can be escaped."""
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", key) if isinstance(key, str) else override_value(key)


def expand(arguments: Sequence[str]) -> list[str]:
    """Return the overrides for Hydra that correspond to what a user types.

    A path or an id is quoted, whatever it contains. With `resume=X`, Hydra does not create a folder. A tag or a
    parameter of a search can be given without ++.

    Raises:
        ConfigError: if a path is empty.
    """
    expanded: list[str] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in PATHS or not equals or value == "null" or (key == "output" and value in ("", "''")):
            expanded.append(_opened(argument) if _OPEN.match(argument) else argument)
            continue
        name = key.removesuffix(".run")
        if not value.strip("'\" "):
            raise ConfigError(f"{name} must be a run's folder or id, but got ''")
        quoted = value if _is_quoted(value) or "${" in value else QuotedString(value, Quote.single).with_quotes()
        if name == "resume":
            expanded += [f"resume.run={quoted}", "hydra.run.dir=."]
        else:
            expanded.append(f"{key}={quoted}")
    return expanded


def _opened(argument: str) -> str:
    """Return an override with ++, which permits a new key; a mapping in YAML is rewritten in Hydra's grammar."""
    key, _, value = argument.partition("=")
    if value[:1] == "{" and (_DISTRIBUTION.search(value) or not _is_readable(argument)):
        content = parse_yaml(_DISTRIBUTION.sub(r"'\1'", value), argument)
        argument = f"{key}={override_value(content)}"
    return f"++{argument}"


def check_readable(arguments: Sequence[str], multirun: bool = False) -> None:
    """Refuse an argument that Hydra cannot parse.

    Args:
        arguments: overrides.
        multirun: whether a comma separates several values.

    Raises:
        ConfigError: naming the argument, and the correct way to write it.
    """
    for argument in arguments:
        try:
            if not OverridesParser.create().parse_override(argument).key_or_group:
                raise HydraException("it has no key")
        except HydraException as error:
            raise ConfigError(_unreadable(argument, multirun, error)) from None


def _unreadable(argument: str, multirun: bool, error: Exception) -> str:
    argument = argument.removeprefix("++") if _OPEN.match(argument.removeprefix("++")) else argument
    key, equals, value = argument.partition("=")
    if not equals:
        return f"{argument!r} cannot be read: a setting is given as key=value, for example trainer.epochs=5"
    if not _is_key(key):
        return f"{argument!r} cannot be read: {key!r} is not the name of a setting"
    for corrected in (_quoted_each(key, value, multirun), f"{key}={_double_quoted(value)}"):
        if corrected is not None and _is_readable(corrected):
            if value[:1] in _BRACKETS and value[:1] != "(":
                break  # probably a list or a mapping; quoted, it would be a text
            return f"{argument!r} cannot be read: quote the value for Hydra, {shlex.quote(corrected)}"
    reason = " ".join(str(error).splitlines()[0].split())
    end = _BRACKETS.get(value[:1])
    hint = f"it begins with {value[0]!r} and must end with {end!r}; " if end and not value.endswith(end) else ""
    return (
        f"{argument!r} cannot be read: {hint}a list is like {key}=[1,2], a mapping like '{key}={{a: 1}}', "
        f"a text like '{key}=\"...\"' ({reason})"
    )


def _quoted_each(key: str, value: str, multirun: bool) -> str | None:
    """Return an override with quotes around those of its several values that need them; None for a single value."""
    if not multirun or "," not in value:
        return None
    return f"{key}=" + ",".join(
        item if _is_readable(f"k={item}") else _double_quoted(item) for item in value.split(",")
    )


def _double_quoted(text: str) -> str:
    return QuotedString(text, Quote.double).with_quotes()


def _is_key(key: str) -> bool:
    return bool(key.lstrip("+~")) and _is_readable(f"{key}=1")


def _is_readable(argument: str) -> bool:
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True


def _is_quoted(value: str) -> bool:
    """Return whether a value is a single text in Hydra's quotes."""
    return value[:1] in ("'", '"') and value[-1] == value[0] and _is_readable(f"k={value}")


def _is_bare(text: str) -> bool:
    """Return whether Hydra reads the text without quotes as itself, alone and in a list."""
    if not text or set(text) & set("()[]{},:=\\'\"$ \t\n"):
        return False
    try:
        return OverridesParser.create().parse_override(f"key={text}").value() == text
    except HydraException:
        return False
