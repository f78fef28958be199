"""Hides or removes passwords in addresses, for messages and files."""

import re
from collections.abc import Mapping
from typing import Any

# For SQLAlchemy a password ends at the first "@" and may contain "/". One that contains "@" is an error, but must not
# be shown either. An address that was turned into a path has only one slash.
_USERINFO = re.compile(r"(:/{1,2}[^:/\s]*):(?:[^\s/?#]*|[^\s?#'\",]*|[^@\s]*)@")
_QUERY = re.compile(r"([?&](?:ssl)?password=)[^&\s'\"]*", re.IGNORECASE)
_QUERY_PART = re.compile(r"(?:ssl)?password=", re.IGNORECASE)


def hide(text: str) -> str:
    """Return a text, such as a command line, with `***` in place of the password of every address in it."""
    return _QUERY.sub(r"\1***", _USERINFO.sub(r"\1:***@", text))


def hidden(value: Any) -> Any:
    """Return settings, nested in mappings and lists, with `***` in place of every password in an address."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, Mapping):
        return {key: hidden(item) for key, item in value.items()}
    return [hidden(item) for item in value] if isinstance(value, list | tuple) else value


def without_password(url: str) -> str:
    """Return an address without its password, so that it can be stored, and compared between users.

    PostgreSQL's library then takes the password from PGPASSWORD or ~/.pgpass.
    """
    bare, mark, query = _USERINFO.sub(r"\1@", url).partition("?")
    rest = "&".join(part for part in query.split("&") if not _QUERY_PART.match(part))
    return bare + mark + rest if rest else bare
