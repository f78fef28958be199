"""Makes the object of a configuration group by calling its `_target_`; errors name the key."""

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from scratch_dl.config.protocols import check_protocol
from scratch_dl.system.checks import nearest
from scratch_dl.system.errors import ConfigError, UnknownKeyError

# A configuration may come with a checkpoint from someone else, so it can only name targets of its group.
_OWN_TARGETS = {
    "model": ("scratch_dl.models.", "scratch_dl.nn."),
    "loss": ("scratch_dl.nn.",),
    "optimizer": ("scratch_dl.optim.",),
    "schedule": ("scratch_dl.schedule.",),
    "data": ("scratch_dl.data.",),
    "noise": ("scratch_dl.data.",),
    "metrics": ("scratch_dl.data.metrics.",),
}


def make(group: str, config: Mapping[str, Any], **extra: Any) -> Any:
    """Call a group's `_target_` with its arguments, and with those of `extra` that it accepts; return the result.

    A mapping with a `_target_` among the arguments, at any depth, is replaced by its object first; of `extra`, such a
    call gets only `generator`. The global random states are seeded for each call, and restored afterwards.

    Raises:
        ConfigError: if an argument is unknown, missing or refused; the message names its key. Also if the result
            lacks a method of its group.
    """
    if not isinstance(config.get(group), Mapping) or "_target_" not in config[group]:
        raise ConfigError(f"{group} must be one of the group's choices, with a _target_, but got {config.get(group)!r}")
    check_targets({group: config[group], "allowed_targets": config.get("allowed_targets", [])})

    def call(**extra: Any) -> Any:
        return _call(group, config[group], extra, config.get("seed"))

    made = call(**extra)
    check_protocol(group, config[group]["_target_"], made, call)
    return made


def make_object(key: str, settings: Mapping[str, Any], seed: Any) -> Any:
    """Call the `_target_` of the mapping `settings`, the value of `key`, as `make` does for a group.

    Raises:
        ConfigError: as `make`; `check_targets` must have been called before.
    """
    return _call(key, settings, {}, seed)


def _call(key: str, settings: Mapping[str, Any], extra: Mapping[str, Any], seed: Any) -> Any:
    """Call the `_target_` of the mapping `settings`, which is the value of `key`."""
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
    with seeded(seed, key, "import"):  # separately, so that the call draws the same numbers if it is already imported
        target = find_target(f"{key}._target_", settings["_target_"])
    known = inspect.signature(target).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        try:
            check_keys(key, arguments, [name for name in known if name not in extra])
        except ConfigError as error:
            if "." not in key:
                raise
            unknown = next(name for name in arguments if name not in known or name in extra)
            raise UnknownKeyError(f"{error}; '~{key}.{unknown}' removes a setting of the previous _target_") from error
    for name, parameter in known.items():
        if (
            parameter.default is parameter.empty
            and name not in {**arguments, **extra}
            and parameter.kind.name in ("POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY")
        ):
            raise ConfigError(f"{key}.{name} must be given, for example +{key}.{name}=..., but it is missing")
    given = {name: inner(f"{key}.{name}", value) for name, value in arguments.items()}
    given |= {name: value for name, value in extra.items() if name in known}
    with (
        config_errors(key, arguments),
        seeded(seed, key),
    ):  # by key: no module's weights depend on another's
        return target(*_unpacked(known, given), **given)


def _unpacked(known: Mapping[str, inspect.Parameter], given: dict[str, Any]) -> list[Any]:
    """Remove the value of `*name` from `given`, and return it as a list of positional arguments."""
    name = next((name for name, parameter in known.items() if parameter.kind is parameter.VAR_POSITIONAL), None)
    if name is None or name not in given:
        return []
    value = given.pop(name)
    return value if isinstance(value, list) else [value]


def check_targets(config: Mapping[str, Any]) -> None:
    """Refuse every `_target_`, at any depth, outside its group's part of this package and `allowed_targets`.

    Raises:
        ConfigError: if there is one; at that point nothing has been imported or called.
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
            raise ConfigError(f"{key} must not be given, because it has no effect, but got {value!r}; leave it out")
        elif key.rpartition(".")[2] == "_target_" and not str(value).startswith(prefixes):
            raise ConfigError(
                f"{key} must begin with one of {', '.join(prefixes)}, but got {value!r}; "
                f"'allowed_targets=[{str(value).partition('.')[0]}.]' permits it"
            )

    visit("", config)


def check_keys(group: str, given: Mapping[str, Any], known: list[str]) -> None:
    """Refuse an unknown key.

    Raises:
        UnknownKeyError: naming the most similar known key, or all of them.
    """
    for key in given:
        if key not in known:
            name = f"{group}.{key}" if group else key
            listed = f"; there are: {', '.join(known)}" if known else f"; {group} takes none"
            raise UnknownKeyError(f"{name} is not a setting{nearest(str(key), known) or listed}")


@contextmanager
def config_errors(group: str, given: Mapping[str, Any]) -> Iterator[None]:
    """Turn a TypeError or ValueError about an argument into a ConfigError about the setting.

    Args:
        group: key of the group whose settings are the arguments; "" for the top level.
        given: the arguments by name.

    Raises:
        ConfigError: in place of a TypeError or ValueError inside the block.
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
    """Import a target and return it.

    It must be defined in the package that its name begins with, so that what a module imports cannot be reached.

    Raises:
        ConfigError: if there is no such callable.
    """
    path, _, name = target.rpartition(".")
    if not path:
        raise ConfigError(f"{key} must be like package.module.Class, but got {target!r}")
    top = target.partition(".")[0]
    owner: Any = None
    inside: list[str] = []  # enclosing classes of a static method
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
            break  # an imported module does not belong to the importing one
    # Functions written in C may have no __module__.
    if not callable(owner) or (getattr(owner, "__module__", None) or top).partition(".")[0] != top:
        raise ConfigError(f"{key} must name a callable of the package {top}, but got {target!r}")
    return owner
