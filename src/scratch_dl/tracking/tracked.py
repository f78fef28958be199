"""The MLflow run of a command that trains nothing, as a context manager."""

import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from scratch_dl.config.plain import flat, plain
from scratch_dl.system import provenance
from scratch_dl.system.errors import UNTRACKED
from scratch_dl.tracking.locks import folder_lock
from scratch_dl.tracking.run import Run
from scratch_dl.tracking.store import open_store


class Untracked(SystemExit):
    """The command succeeded, but MLflow has not received everything; the exit status is UNTRACKED."""


@contextmanager
def tracked_run(
    config: DictConfig | Mapping[str, Any], folder: Path, name: str, tags: Mapping[str, str] | None = None
) -> Iterator[Run]:
    """Yield an MLflow run with the command's settings as parameters; it ends with the block, as FINISHED or FAILED.

    Args:
        config: of the command.
        folder: of the run.
        name: of the run, unless `tracking.run_name` gives one.
        tags: of the run, besides those of `tracking.tags`, the command, the version and the commit.

    Raises:
        Untracked: at the end, after printing how to send the rest, if not everything was sent.
    """
    where = plain(config)["tracking"]
    store = open_store(where["dir"], where["uri"])
    source, diff = provenance.source_tags()
    own = {**where["tags"], **(tags or {}), **source}
    with folder_lock(folder):  # shows other processes that this one is alive
        run = Run.create(store, folder, where["experiment"], where["run_name"] or name, own)
        status = "FAILED"
        try:
            run.params(flat(plain(config)))
            if diff:
                run.text(diff, "git.diff")
            yield run
            status = "FINISHED"
        finally:
            sent = run.finish(status)
    print(f"recorded  {run.run_id} (experiment {where['experiment']})")
    if not sent:
        send = f"from scratch_dl.tracking import replay; replay({str(folder)!r})"
        print(f"error: MLflow has not received everything; later: python -c {shlex.quote(send)}", file=sys.stderr)
        raise Untracked(UNTRACKED)
