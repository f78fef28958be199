"""Tags, parameters and metrics as MLflow accepts them, for the runs of trainings and of studies."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from scratch_dl.system.passwords import hide
from scratch_dl.tracking.names import PARAM_LENGTH, TAG_LENGTH, check_name, clip

DESCRIPTION = "mlflow.note.content"
# MLflow's limits on one batch: values of each kind, and values of all kinds together.
BATCH = {"metrics": 1000, "params": 100, "tags": 100}
BATCH_TOTAL = 1000
DENSE = 128
_CUT = "\n\n(cut here)"


def texts(what: str, values: Mapping[str, object]) -> dict[str, str]:
    """Return values as texts, with `***` in place of every password in an address.

    Args:
        what: "tag" or "parameter", for the message.
        values: by name.

    Raises:
        ValueError: if MLflow would refuse a name.
    """
    for key in values:
        check_name(what, key)
    return {key: hide(str(value)) for key, value in values.items()}


def nonfinite_tags(values: Mapping[str, float], step: int) -> dict[str, str]:
    """Return a tag `nonfinite/<metric>` with the step for each value that is NaN or infinite.

    MLflow shows an infinity as 1.8e308, so such a value is not logged as a metric.
    """
    return {f"nonfinite/{key}": str(step) for key, value in values.items() if not math.isfinite(value)}


def is_sent(step: int, every: int | None) -> bool:
    """Return whether MLflow gets the values of this step, of which every step has some.

    Without `every`, it gets all of the first 2 * DENSE steps, every 2nd one of as many again, then every 4th, and so
    on: DENSE points whenever the number of steps doubles. The rule looks at the step alone, so that a training that is
    prolonged has the same points as one that was longer from the start.
    """
    if every is None:
        every = 2 ** max(0, (step // DENSE).bit_length() - 1)
    return step % every == 0


def chunks(values: Mapping[str, str], size: int = BATCH["tags"]) -> Iterator[dict[str, str]]:
    """Split values into parts that fit in one batch."""
    items = list(values.items())
    return (dict(items[start : start + size]) for start in range(0, len(items), size))


def log_values(
    api: Any,
    run_id: str,
    metrics: Iterable[tuple[str, float, int, int]] = (),
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log values in one batch, cut to MLflow's maximum lengths.

    Args:
        api: an MlflowClient.
        run_id: of the run.
        metrics: (name, value, time in ms, step); NaN and infinite values are omitted.
        params: texts by name.
        tags: texts by name; DESCRIPTION, which MLflow shows as Markdown, is cut at the end of a line.
    """
    from mlflow.entities import Metric, Param, RunTag

    api.log_batch(
        run_id,
        [Metric(key, value, time_ms, step) for key, value, time_ms, step in metrics if math.isfinite(value)],
        [Param(key, clip(value, PARAM_LENGTH)) for key, value in (params or {}).items()],
        [RunTag(key, clip_tag(key, value)) for key, value in (tags or {}).items()],
    )


def clip_tag(key: str, value: str) -> str:
    """Return a tag's value cut to MLflow's maximum; a description only at line ends, to keep its tables valid."""
    if key != DESCRIPTION or len(value) <= TAG_LENGTH:
        return clip(value, TAG_LENGTH)
    head = clip(value, TAG_LENGTH - len(_CUT) + 1)
    return (head.rpartition("\n")[0] or head[:-1]) + _CUT


def now_ms() -> int:
    """Return the time as MLflow represents it: milliseconds since 1970."""
    return int(time.time() * 1000)
