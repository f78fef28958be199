"""The objectives of a search, read from `hydra.sweeper`: metrics that a trial logs, each with a direction."""

from collections.abc import Iterable
from typing import Any

from scratch_dl.config.metrics import OURS
from scratch_dl.search.trial_result import Objective
from scratch_dl.system.checks import choice, nearest, text
from scratch_dl.tracking.names import less_is_better

DIRECTIONS = ("maximize", "minimize")
_EPOCH, _WHOLE = "val", "val_whole"  # before the names of the metrics of crops at each epoch, and of whole photographs
_OTHERS = (
    "val/best_psnr_db",
    "val/best_step",
    "train/loss",
    "train/grad_norm",
    "train/lr",
    "images_per_s",
    "training_s",
    "parameters",
)
_PREFIXES = ("watch/", "verify/")  # of metrics whose names depend on the configuration


def epoch_metrics(names: Iterable[str]) -> list[str]:
    """Return what is logged at each validation, given the names in the group `metrics`; PSNR always is."""
    others = [name for name in names if name != "psnr_db"]
    return [f"{_EPOCH}/{name}" for name in ("psnr_db", "psnr_pooled_db", *others, "gain_db", "loss")]


def read_objectives(given: Any, directions: Any, names: Iterable[str] = OURS) -> tuple[Objective, ...]:
    """Return the objectives of a search.

    Args:
        given: `hydra.sweeper.objective`, a text or a list.
        directions: `hydra.sweeper.direction`; None where it is the usual one.
        names: in the group `metrics`.

    Raises:
        ValueError: if one of them cannot be used.
        TypeError: if one of them is not a text.
    """
    words = given if isinstance(given, list) else [given]
    ways = directions if isinstance(directions, list) else [directions] * (1 if directions else len(words))
    if not words:
        raise ValueError("objective must name a metric, but got none")
    if len(words) != len(ways):
        raise ValueError(
            f"direction must have one of {', '.join(DIRECTIONS)} for each of the {len(words)} objectives, "
            f"but got {directions!r}"
        )
    names = list(names)
    objectives = [_objective(word, way, names) for word, way in zip(words, ways, strict=True)]
    if double := next((str(each) for each in objectives if objectives.count(each) > 1), None):
        raise ValueError(f"objective must be given once each, but got {double} twice")
    return tuple(objectives)


def _objective(word: Any, way: Any, names: list[str]) -> Objective:
    *at, name = text("objective", word).split()
    if len(at) > 1 or (at and at[0] not in ("best", "last")):
        raise ValueError(f"objective must be like 'best val/psnr_db' or 'last train/loss', but got {word!r}")
    if name.startswith("test/"):
        raise ValueError(f"objective must not be of the test photographs, which no trial may see, but got {word!r}")
    known = _known(names)
    if name not in known and not name.startswith(_PREFIXES):
        prefix, _, last = name.partition("/")
        own = f"; a metric of your own is added by +metrics.{last}._target_=my_metrics.{last}" if last else ""
        raise ValueError(
            f"objective must be one of {', '.join(known)} or begin with {', '.join(_PREFIXES)}, but got {name!r}"
            f"{nearest(name, known)}{own if prefix in (_EPOCH, _WHOLE) and last not in OURS else ''}"
        )
    usual = "minimize" if less_is_better(name) else "maximize"
    last = name.rpartition("/")[2]
    if way is None and last in names and last not in OURS and usual == "maximize":
        raise ValueError(
            f"direction must be given for {name}, a metric of your own: hydra.sweeper.direction=minimize or maximize"
        )
    return Objective(name, at[0] if at else "best", choice("direction", usual if way is None else way, DIRECTIONS))


def _known(names: list[str]) -> list[str]:
    """Return every metric whose name does not depend on the network."""
    each = epoch_metrics(names)
    whole = [metric.replace(f"{_EPOCH}/", f"{_WHOLE}/") for metric in each if metric not in ("val/gain_db", "val/loss")]
    return [*each, *_OTHERS, *whole]
