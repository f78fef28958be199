"""The end of a grid of runs: a line a run, and the mean and spread of their scores."""

import json
import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

COLUMNS = {"best val": "val/best_psnr_db", "val whole": "val_whole/psnr_db", "test": "test/psnr_db"}


def summarise(folder: Path) -> bool:
    """Print a table of the runs whose summaries lie in the numbered subfolders of `folder`; PSNR in dB.

    Returns:
        Whether all of them finished.
    """
    paths = sorted(folder.glob("*/summary.json"), key=lambda path: int(path.parent.name))
    summaries = [json.loads(path.read_text()) for path in paths]
    if not summaries:
        return False
    table = Table(title=f"{len(summaries)} runs in {folder}: PSNR, dB", box=None, title_justify="left", pad_edge=False)
    for name in ("run", "overrides", "status"):
        table.add_column(name, overflow="fold")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    common = set.intersection(*(set(summary["overrides"]) for summary in summaries)) if len(summaries) > 1 else set()
    scores: dict[str, list[float]] = {name: [] for name in COLUMNS}
    for path, summary in zip(paths, summaries, strict=True):
        cells = []
        for name, key in COLUMNS.items():
            value = summary["scores"].get(key)
            cells.append("" if value is None else f"{value:.2f}")
            if value is not None:
                scores[name].append(value)
        own = " ".join(override for override in summary["overrides"] if override not in common)
        table.add_row(path.parent.name, own, summary["status"], *cells)
    for label, measure in (("mean", statistics.mean), ("std", statistics.stdev)):
        cells = [f"{measure(values):.2f}" if len(values) > 1 else "" for values in scores.values()]
        table.add_row(label, "", "", *cells)
    Console(highlight=False).print(table)
    points = sum(path.is_dir() and path.name.isdigit() for path in folder.iterdir())
    finished: int = sum(summary["status"] == "FINISHED" for summary in summaries)
    return points == finished
