"""Which addresses an MLflow store can have, and which folders can contain one."""

from pathlib import Path
from urllib.parse import urlsplit

from scratch_dl.system.passwords import hide

SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
_LONGEST_BYTES = 3500  # of a folder's path; Linux allows 4096 (PATH_MAX), and files of runs need the rest
_LONGEST_NAME_BYTES = 255  # NAME_MAX of the usual file systems


def check_uri(name: str, uri: str) -> str:
    """Return `uri` if an MLflow store can have this address.

    Raises:
        ValueError: naming the setting `name`; a password in the address is hidden.
    """
    scheme, mark, rest = uri.partition("://")
    if not mark or scheme.partition("+")[0].lower() not in SCHEMES or not rest:
        kind = urlsplit(uri).scheme if ":" in uri else ""
        reason = ", because MLflow no longer supports file stores" if kind == "file" or not kind else ""
        raise ValueError(
            f"{name} must be like http://127.0.0.1:5000 or sqlite:////a/path.db{reason}, but got {hide(uri)!r}"
        )
    if scheme.partition("+")[0].lower() == "sqlite" and not rest.partition("?")[0].strip("/"):
        raise ValueError(f"{name} must name a file, like sqlite:////a/path.db, but got {uri!r}")
    return uri


def check_directory(name: str, folder: str, holds_database: bool) -> None:
    """Refuse a folder that can never contain runs.

    Args:
        name: of the setting.
        folder: its value.
        holds_database: whether it also contains the database of the runs, whose address cannot contain ? or %.

    Raises:
        ValueError: naming the setting, the folder and the rule.
    """
    path = Path(folder).expanduser().absolute()
    if holds_database and (special := sorted(set(str(path)) & set("?%"))):
        raise ValueError(
            f"{name} must be a folder without {special[0]!r} in its whole path, which has a meaning in an address, "
            f"but got {str(path)!r}; choose another folder, or give tracking.uri"
        )
    longest = max((len(part.encode(errors="surrogateescape")) for part in path.parts), default=0)
    if longest > _LONGEST_NAME_BYTES or len(str(path).encode(errors="surrogateescape")) > _LONGEST_BYTES:
        raise ValueError(
            f"{name} must be a folder whose name has at most {_LONGEST_NAME_BYTES} bytes, its path {_LONGEST_BYTES}, "
            f"but got {str(path)[:60]!r}... of {len(str(path))} characters"
        )
