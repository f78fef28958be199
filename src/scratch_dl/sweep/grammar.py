"""Values as Hydra's command line takes them."""

from collections.abc import Mapping
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from scratch_dl.targets import ConfigError


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
        return "{" + ",".join(f"{in_grammar(key)}:{in_grammar(one)}" for key, one in value.items()) + "}"
    if isinstance(value, str):
        return value if _is_bare(value) else QuotedString(value, Quote.single).with_quotes()
    return repr(value)


def _is_bare(text: str) -> bool:
    """Whether Hydra makes of the text, without quotes, in a list as alone, the text itself."""
    if not text or set(text) & set("()[]{},:=\\'\"$ \t\n"):
        return False
    try:
        return OverridesParser.create().parse_override(f"key={text}").value() == text
    except HydraException:
        return False
