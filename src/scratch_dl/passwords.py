"""Passwords in addresses: what may be shown, and what may be kept."""

import re

# To SQLAlchemy a password ends at the first "@" and may hold a "/"; one with an "@" of its own is an error, not shown.
_USERINFO = re.compile(r"(://[^:/\s]*):(?:[^\s/?#]*|[^\s?#'\",]*|[^@\s]*)@")
_QUERY = re.compile(r"([?&](?:ssl)?password=)[^&\s'\"]*", re.IGNORECASE)
_QUERY_PART = re.compile(r"(?:ssl)?password=", re.IGNORECASE)


def hide(text: str) -> str:
    """Return a text, as a command line, with `***` for the password of every address in it."""
    return _QUERY.sub(r"\1***", _USERINFO.sub(r"\1:***@", text))


def without_password(url: str) -> str:
    """Return an address without its password: the same for everybody who means this database, and fit to be kept.

    PostgreSQL's library then takes the password from PGPASSWORD or ~/.pgpass.
    """
    bare, mark, query = _USERINFO.sub(r"\1@", url).partition("?")
    kept = "&".join(part for part in query.split("&") if not _QUERY_PART.match(part))
    return bare + mark + kept if kept else bare
