"""Names and values that MLflow accepts, artifact paths that stay in a run's folder, and which metrics are costs."""

import hashlib
import re
from pathlib import PurePosixPath

_NAME = re.compile(r"[/\w.\- :]+")
NAME_LENGTH = 250
IMAGE_KEY_LENGTH = 100  # a file name consists of the key, the step, the time and a random number
# MLflow's limits on the length of a value, in characters.
PARAM_LENGTH = 6000
TAG_LENGTH = 8000
_COSTS = ("loss", "grad_norm", "training_s", "parameters", "mae", "mse", "rmse", "nrmse", "lpips")


def check_name(what: str, name: str) -> None:
    """Refuse a name that MLflow would refuse later.

    Args:
        what: "metric", "parameter" or "tag", for the message.
        name: of it.

    Raises:
        ValueError: if it would.
    """
    pure = PurePosixPath(name)
    if not _NAME.fullmatch(name) or str(pure) != name or pure.is_absolute() or ".." in pure.parts or name == ".":
        raise ValueError(
            f"the name of a {what} must be letters, digits, '_', '-', '.', ':', spaces and single slashes inside, "
            f"but got {name!r}"
        )
    if len(name) > NAME_LENGTH:
        raise ValueError(f"the name of a {what} must have at most {NAME_LENGTH} characters, but got {len(name)}")


def less_is_better(metric: str) -> bool:
    """Return whether the smaller of two values of a metric is the better one, as far as its name says."""
    return metric.rpartition("/")[2] in _COSTS


def image_key(name: str) -> str:
    """Return a key that MLflow's grid of images accepts; different names have different keys."""
    key = re.sub(r"[^\w\-. ]", "_", name, flags=re.ASCII)
    if key == name and len(name) <= IMAGE_KEY_LENGTH:
        return name
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{key[: IMAGE_KEY_LENGTH - 9]}-{mark}"


def clip(text: str, length: int) -> str:
    """Return the first `length` characters, without NUL (PostgreSQL refuses it) and lone surrogates (all stores do)."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")[:length]


def check_artifact_path(path: str) -> PurePosixPath:
    """Return the path of an artifact, after checking that it stays in the folder of artifacts.

    Raises:
        ValueError: if it does not, or MLflow would refuse it.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.name or not re.fullmatch(r"[\w.\-+ /]+", path):
        raise ValueError(f"an artifact's path must be relative, without '..' or odd characters, but got {path!r}")
    return pure
