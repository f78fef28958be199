"""Names and values that MLflow takes, and paths that stay in a run's folder."""

import re
from pathlib import PurePosixPath

_NAME = re.compile(r"[/\w.\- :]+")
NAME_LENGTH = 250
# MLflow's limits, in characters of a value.
PARAM_LENGTH = 6000
TAG_LENGTH = 8000


def check_name(what: str, name: str) -> None:
    """Refuse a name that MLflow would refuse later.

    Raises:
        ValueError: naming `what` it is the name of.
    """
    pure = PurePosixPath(name)
    if not _NAME.fullmatch(name) or str(pure) != name or pure.is_absolute() or ".." in pure.parts or name == ".":
        raise ValueError(
            f"the name of a {what} must be letters, digits, '_', '-', '.', ':', spaces and single slashes inside, "
            f"but got {name!r}"
        )
    if len(name) > NAME_LENGTH:
        raise ValueError(f"the name of a {what} must have at most {NAME_LENGTH} characters, but got {len(name)}")


def clip(text: str, length: int) -> str:
    """Return the text's beginning as every store takes it: PostgreSQL knows no NUL, and none knows half a character."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")[:length]


def check_artifact_path(path: str) -> PurePosixPath:
    """Return an artifact's path if it stays in the folder of artifacts.

    Raises:
        ValueError: if it does not, or MLflow would refuse it.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.name or not re.fullmatch(r"[\w.\-+ /]+", path):
        raise ValueError(f"an artifact's path must be relative, without '..' or odd characters, but got {path!r}")
    return pure
