"""What the studies share: arguments, the start of a run.py, the tables of a README, and an MLflow run of their own."""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from _jobs import StudyError
from scratch_dl import tracking
from scratch_dl.system import provenance
from scratch_dl.system.files import write_atomically
from scratch_dl.terminal.text_table import TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEGIN, END = "<!-- tables: written by run.py -->", "<!-- end of tables -->"


def parser(doc: str, workers: bool = True) -> argparse.ArgumentParser:
    """Return a parser with the arguments that every study has.

    Args:
        doc: the docstring of its run.py.
        workers: whether it trains, in processes whose number and `tracking.dir` the user may choose.
    """
    result = argparse.ArgumentParser(description=doc.splitlines()[0])
    result.add_argument("--smoke", action="store_true", help="run everything at a small size and write nothing")
    if workers:
        result.add_argument("--workers", type=int, default=2, help="number of processes that train, one thread each")
        result.add_argument("--directory", type=Path, default=Path("mlruns"), help="tracking.dir of the runs")
    return result


def run_study(study: Callable[[argparse.Namespace, Path], int | None], options: argparse.Namespace) -> int:
    """Call `study(options, directory)` and return the exit status of the command.

    Args:
        study: trains, prints and writes; it returns an exit status, None for 0. With --smoke its directory is a
            temporary one.
        options: those of `parser`.
    """
    try:
        if options.smoke:
            with tempfile.TemporaryDirectory() as folder:
                return study(options, Path(folder)) or 0
        return study(options, options.directory.expanduser().absolute()) or 0
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command continues from here", file=sys.stderr)
        return 130


def print_tables(tables: Iterable[TextTable], sentences: Iterable[str] = ()) -> None:
    """Print tables, and sentences below them."""
    console = Console(highlight=False, soft_wrap=True)
    for table in tables:
        console.print(table.rich())
    for sentence in sentences:
        console.print(sentence, markup=False)


def write_results(
    folder: Path, results: Mapping[str, Any], text: str, figures: Mapping[str, "Figure"] | None = None
) -> None:
    """Write results.json and the figures, and put the text between the two comments of README.md.

    Args:
        folder: of the study.
        results: everything that JSON can express.
        text: Markdown.
        figures: name -> the picture <name>.png.
    """
    write_atomically(folder / "results.json", f"{json.dumps(results, indent=1)}\n".encode())
    for name, figure in (figures or {}).items():
        figure.savefig(folder / f"{name}.png")
    readme = folder / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_atomically(readme, f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}".encode())


def machine() -> dict[str, Any]:
    """Return what the results were computed on."""
    environment = provenance.environment()
    return {name: environment[name] for name in ("cpu", "usable_cores", "python", "platform")}


def decibel(value: float | None, places: int = 2) -> str:
    """Return the cell of a PSNR: "-" if it is unknown or infinite."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{places}f}"


@contextmanager
def mlflow_run(study: str, name: str, directory: Path | str = "mlruns", **params: object) -> Iterator[tracking.Run]:
    """Begin an MLflow run in the study's experiment, and end it after the block.

    Args:
        study: the name of the experiment.
        name: of the run.
        directory: `tracking.dir`.
        params: of the run.
    """
    day, clock = time.strftime("%Y-%m-%d %H-%M-%S").split()
    folder = Path(directory).absolute() / "hydra" / day / f"{clock}-{os.getpid()}"
    where: dict[str, Any] = {"dir": str(directory), "uri": None, "experiment": study, "run_name": name, "tags": {}}
    with tracking.tracked_run({**params, "tracking": where}, folder, name) as run:
        yield run
