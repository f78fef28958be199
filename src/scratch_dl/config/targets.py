"""From a group of the configuration to the object that its `_target_` makes, and errors that name the key."""

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from scratch_dl.system.checks import nearest
from scratch_dl.system.errors import ConfigError, UnknownKeyError

_NEEDS = {"model": "backward", "optimizer": "step", "schedule": "factor", "data": "batch", "noise": "needs_subpixels"}
# A configuration may come with somebody else's checkpoint: it can name what makes such an object, and nothing else.
_OWN_TARGETS = {
    "model": ("scratch_dl.models.", "scratch_dl.nn."),
    "optimizer": ("scratch_dl.optim.",),
    "schedule": ("scratch_dl.schedule.",),
    "data": ("scratch_dl.data.",),
    "noise": ("scratch_dl.data.",),
}


def make(group: str, config: Mapping[str, Any], **extra: Any) -> Any:
    """Call a group's `_target_` with its arguments; of `extra`, what it takes.

    A mapping with a `_target_` among the arguments, however deep, is made first; of `extra` it may take `generator`.
    What draws from the global random states is given the seed's own numbers, and leaves these states as they were.

    Raises:
        ConfigError: if an argument is unknown, missing or refused; the message names its key.
    """
    if not isinstance(config.get(group), Mapping) or "_target_" not in config[group]:
        raise ConfigError(f"{group} must be one of the group's choices, with a _target_, but got {config.get(group)!r}")
    check_targets({group: config[group], "allowed_targets": config.get("allowed_targets", [])})
    made = _call(group, config[group], extra, config.get("seed"))
    if not hasattr(made, _NEEDS[group]):
        raise ConfigError(f"{group}._target_ must make a {group}, but {config[group]['_target_']!r} does not")
    return made


def _call(key: str, settings: Mapping[str, Any], extra: Mapping[str, Any], seed: Any) -> Any:
    """Call the `_target_` that stands at `key`."""
    from scratch_dl.system.seeding import seeded

    def inner(key: str, value: Any) -> Any:
        if isinstance(value, list):
            return [inner(f"{key}[{position}]", item) for position, item in enumerate(value)]
        if not isinstance(value, Mapping):
            return value
        if "_target_" in value:
            return _call(key, value, {name: extra[name] for name in ("generator",) if name in extra}, seed)
        return {name: inner(f"{key}.{name}", item) for name, item in value.items()}

    arguments = {name: value for name, value in settings.items() if name != "_target_"}
    with seeded(seed, key, "import"):  # apart from the call, which is to draw the same where it is not the first
        target = find_target(f"{key}._target_", settings["_target_"])
    known = inspect.signature(target).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        try:
            check_keys(key, arguments, [name for name in known if name not in extra])
        except ConfigError as error:
            if "." not in key:
                raise
            left = next(name for name in arguments if name not in known or name in extra)
            raise UnknownKeyError(f"{error}; '~{key}.{left}' removes what another _target_ had there") from error
    for name, parameter in known.items():
        if (
            parameter.default is parameter.empty
            and name not in {**arguments, **extra}
            and parameter.kind.name in ("POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY")
        ):
            raise ConfigError(f"{key}.{name} must be given, for example +{key}.{name}=..., but it is missing")
    given = {name: inner(f"{key}.{name}", value) for name, value in arguments.items()}
    given |= {name: value for name, value in extra.items() if name in known}
    with naming(key, arguments), seeded(seed, key):  # by key: no module's weights depend on what another one draws
        return target(*_unpacked(known, given), **given)


def _unpacked(known: Mapping[str, inspect.Parameter], given: dict[str, Any]) -> list[Any]:
    """Take what is given for `*name` out of `given`: a list one by one, anything else alone."""
    name = next((name for name, parameter in known.items() if parameter.kind is parameter.VAR_POSITIONAL), None)
    if name is None or name not in given:
        return []
    value = given.pop(name)
    return value if isinstance(value, list) else [value]


def check_targets(config: Mapping[str, Any]) -> None:
    """Refuse every `_target_`, wherever it stands, outside its group's part of this package and `allowed_targets`.

    Raises:
        ConfigError: if there is one; nothing has been imported or called then.
    """
    allowed = config.get("allowed_targets")
    if not isinstance(allowed, list) or not all(isinstance(prefix, str) and prefix for prefix in allowed):
        raise ConfigError(f"allowed_targets must be a list of prefixes such as [my_layers.], but got {allowed!r}")

    def visit(key: str, value: Any) -> None:
        prefixes = (*_OWN_TARGETS.get(re.split(r"[.\[]", key, maxsplit=1)[0], ()), *allowed)
        if isinstance(value, Mapping):
            for name, inner in value.items():
                visit(f"{key}.{name}" if key else str(name), inner)
        elif isinstance(value, list):
            for position, inner in enumerate(value):
                visit(f"{key}[{position}]", inner)
        elif key.rpartition(".")[2] == "_target_" and not prefixes:
            raise ConfigError(f"{key} must not be given, as nothing is made of it, but got {value!r}; leave it out")
        elif key.rpartition(".")[2] == "_target_" and not str(value).startswith(prefixes):
            raise ConfigError(
                f"{key} must begin with one of {', '.join(prefixes)}, but got {value!r}; "
                f"'allowed_targets=[{str(value).partition('.')[0]}.]' permits it"
            )

    visit("", config)


def check_keys(group: str, given: Mapping[str, Any], known: list[str]) -> None:
    """Refuse a key that is not known, naming the nearest one that is.

    Raises:
        UnknownKeyError: if there is one.
    """
    for key in given:
        if key not in known:
            name = f"{group}.{key}" if group else key
            others = f"; there are: {', '.join(known)}" if known else f"; {group} takes none"
            raise UnknownKeyError(f"{name} is not a setting{nearest(str(key), known) or others}")


@contextmanager
def naming(group: str, given: Mapping[str, Any]) -> Iterator[None]:
    """Name the key in what a callable says of its arguments.

    Raises:
        ConfigError: in place of a TypeError or ValueError.
    """
    try:
        yield
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        words = str(error)
        first = re.split(r"[\s\[:]", words, maxsplit=1)[0]
        joint = "" if not group else "." if first in given else ": "
        raise ConfigError(f"{group}{joint}{words}") from error


def find_target(key: str, target: str) -> Any:
    """Import a target; it must be defined where its name says, so that no module's imports are reached through it.

    Raises:
        ConfigError: if there is no such callable.
    """
    path, _, name = target.rpartition(".")
    if not path:
        raise ConfigError(f"{key} must be like package.module.Class, but got {target!r}")
    top = target.partition(".")[0]
    owner: Any = None
    inside: list[str] = []  # classes on the way, for a static method
    while path and owner is None:
        try:
            owner = importlib.import_module(path)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{path}.".startswith(f"{error.name}."):
                raise ConfigError(f"{key}={target} cannot be imported: {error}") from error
            path, _, outer = path.rpartition(".")
            inside.insert(0, outer)
        except Exception as error:
            raise ConfigError(f"{key}={target} cannot be imported: {type(error).__name__}: {error}") from error
    if owner is None:
        raise ConfigError(f"{key} must be like package.module.Class, but there is no module {top!r} for {target!r}")
    for part in (*inside, name):
        if not hasattr(owner, part):
            where = getattr(owner, "__name__", path)
            raise ConfigError(f"{key} must name a callable, but {where} has no {part!r}{nearest(part, dir(owner))}")
        owner = getattr(owner, part)
        if inspect.ismodule(owner):
            break  # what another module imports is not this module's own
    # Functions written in C may not say where they are from.
    if not callable(owner) or (getattr(owner, "__module__", None) or top).partition(".")[0] != top:
        raise ConfigError(f"{key} must name a callable of the package {top}, but got {target!r}")
    return owner
