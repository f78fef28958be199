"""Arguments as Hydra's command line takes them: written, read, and expanded from what a user types."""

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

PATHS = ("resume", "resume.run", "run", "output")  # whatever they contain, it is a path or an id
# Mappings that are empty by default: Hydra does not override a key that is not in them yet.
_OPEN = re.compile(r"(tracking\.tags|hydra\.sweeper\.(params|conditions))(\.|=)")
_DISTRIBUTION = re.compile(r"(?<!['\"\w,(])((?:choice|range|interval|tag)\((?:[^()]|\([^()]*\))*\))")
_BRACKETS = {"[": "]", "{": "}", "(": ")"}


def parse(text: str, expected: str = "") -> Override:
    """Read an override.

    Raises:
        ConfigError: naming its key; `expected` says what it could be.
    """
    try:
        return OverridesParser.create(config_loader=_loader()).parse_override(text)
    except HydraException as error:
        reason = " ".join(str(error).split()).removesuffix(".")[:150]
        raise ConfigError(f"{text} cannot be read ({reason}){f'; {expected}' if expected else ''}") from None


def choices_of(override: Override) -> list[str]:
    """What a glob stands for: the choices of its group that fit, in Hydra's order; nothing if there is no group."""
    glob: Any = override.value()  # the type that Hydra declares for it leaves a Glob out
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
    """Hydra's, which knows the groups; None outside of a command."""
    hydra = GlobalHydra.instance()
    return hydra.config_loader() if hydra.is_initialized() else None


def in_grammar(value: Any) -> str:
    """What to write after `key=` for a value, so that Hydra makes the same one of it."""
    if isinstance(value, QuotedString):
        value = value.text
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(in_grammar, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_key_in_grammar(key)}:{in_grammar(one)}" for key, one in value.items()) + "}"
    if isinstance(value, str):
        return value if _is_bare(value) else QuotedString(value, Quote.single).with_quotes()
    return repr(value)


def as_text(value: str) -> str | None:
    """Return the text that is given after `key=`, with Hydra's quotes or without; None for null."""
    if _is_quoted(value):
        return str(parse(f"k={value}").value())
    return None if value == "null" else value


def _key_in_grammar(key: Any) -> str:
    """A mapping's key: in Hydra's grammar it cannot be quoted, but a backslash can stand before a character."""
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", key) if isinstance(key, str) else in_grammar(key)


def expand(arguments: Sequence[str]) -> list[str]:
    """Return the overrides that Hydra is given for those that a user types.

    A path or an id is quoted, whatever it contains. `resume=X` makes Hydra write no folder of its own. A tag, and a
    parameter of a search, may be given as any other setting.

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
    """With ++, by which Hydra takes a new key; a mapping that only YAML can read is written in Hydra's grammar."""
    key, _, value = argument.partition("=")
    if value[:1] == "{" and (_DISTRIBUTION.search(value) or not _is_readable(argument)):
        content = parse_yaml(_DISTRIBUTION.sub(r"'\1'", value), argument)
        argument = f"{key}={in_grammar(content)}"
    return f"++{argument}"


def check_readable(arguments: Sequence[str], multirun: bool = False) -> None:
    """Refuse an argument that Hydra's grammar has no reading for.

    Args:
        arguments: overrides.
        multirun: whether a comma separates several values.

    Raises:
        ConfigError: naming the argument, and how to write it.
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
                break  # meant as a list or a mapping, so quoting it as a text would change its meaning
            return f"{argument!r} cannot be read: quote the value for Hydra, {shlex.quote(corrected)}"
    reason = " ".join(str(error).splitlines()[0].split())
    end = _BRACKETS.get(value[:1])
    hint = f"it begins with {value[0]!r} and must end with {end!r}; " if end and not value.endswith(end) else ""
    return (
        f"{argument!r} cannot be read: {hint}a list is like {key}=[1,2], a mapping like '{key}={{a: 1}}', "
        f"a text like '{key}=\"...\"' ({reason})"
    )


def _quoted_each(key: str, value: str, multirun: bool) -> str | None:
    """With quotes around those of several values that need them."""
    if not multirun or "," not in value:
        return None
    return f"{key}=" + ",".join(one if _is_readable(f"k={one}") else _double_quoted(one) for one in value.split(","))


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
    """Whether a value is one text in Hydra's own quotes."""
    return value[:1] in ("'", '"') and value[-1] == value[0] and _is_readable(f"k={value}")


def _is_bare(text: str) -> bool:
    """Whether Hydra makes of the text, without quotes, in a list as alone, the text itself."""
    if not text or set(text) & set("()[]{},:=\\'\"$ \t\n"):
        return False
    try:
        return OverridesParser.create().parse_override(f"key={text}").value() == text
    except HydraException:
        return False
