"""Passwords in addresses: what may be shown, and what may be kept."""

import re
from collections.abc import Mapping
from typing import Any

# To SQLAlchemy a password ends at the first "@" and may hold a "/"; one with an "@" of its own is an error, not shown.
# One slash, too, which is what a path makes of an address.
_USERINFO = re.compile(r"(:/{1,2}[^:/\s]*):(?:[^\s/?#]*|[^\s?#'\",]*|[^@\s]*)@")
_QUERY = re.compile(r"([?&](?:ssl)?password=)[^&\s'\"]*", re.IGNORECASE)
_QUERY_PART = re.compile(r"(?:ssl)?password=", re.IGNORECASE)


def hide(text: str) -> str:
    """Return a text, as a command line, with `***` for the password of every address in it."""
    return _QUERY.sub(r"\1***", _USERINFO.sub(r"\1:***@", text))


def hidden(value: Any) -> Any:
    """Return settings, in whatever nesting of mappings and lists, with `***` for every password in an address."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, Mapping):
        return {key: hidden(item) for key, item in value.items()}
    return [hidden(item) for item in value] if isinstance(value, list | tuple) else value


def without_password(url: str) -> str:
    """Return an address without its password: the same for everybody who means this database, and fit to be kept.

    PostgreSQL's library then takes the password from PGPASSWORD or ~/.pgpass.
    """
    bare, mark, query = _USERINFO.sub(r"\1@", url).partition("?")
    kept = "&".join(part for part in query.split("&") if not _QUERY_PART.match(part))
    return bare + mark + kept if kept else bare
