"""Makes the screenshots of this folder: trains a few networks and opens MLflow's pages on them in Chromium.

    python docs/screenshots.py [folder of the pictures, by default docs/pictures]

It needs `pip install -e ".[dev]"` and a Chromium, for example Debian's package `chromium`, and takes about four minutes
on 2 cores. It prints how long the charts of 20 runs take to appear.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scratch_dl import ui
from scratch_dl.tracking import Journal, Run, Store, open_store
from scratch_dl.tracking.store import client
from scratch_dl.tracking.views import CURVES, RESULTS, page, run_page

EXPERIMENT = "pages"
WRONG_LAYER = """
import torch


class Shift:
    # Adds a number to each channel. Its gradient is the mean over the batch, where it must be the sum.
    def __init__(self, channels):
        self.b, self.db = torch.zeros(channels), torch.zeros(channels)

    def forward(self, *input):
        return input[0] + self.b[:, None, None]

    def backward(self, *gradwrtoutput):
        self.db += gradwrtoutput[0].mean((0, 2, 3))
        return gradwrtoutput[0]

    def param(self):
        return [(self.b, self.db)]
"""
# Name of the run -> its overrides, in the order in which they are trained.
RUNS: dict[str, tuple[str, ...]] = {
    "healthy": (),
    "unet": ("model=unet", "optimizer=adam"),
    "fault": ("fault=sigmoid_gradient_at_upstream",),
    "wrong": ("model=sequential", "+model.modules.shift={_target_: my_layers.Shift, channels: 3}",
              "allowed_targets=[my_layers.]", "verification.on_failure=warn", "tracking.run_name=my own layer"),
}  # fmt: skip
SEARCH = ("-m", "search=custom", "optimizer.lr=tag(log,interval(0.001,0.01))", "hydra.sweeper.n_trials=3", "seed=7")
SIZE = (1600, 1000)
PATIENCE_S = 120.0


def fill(folder: Path, more: Sequence[str], run: Callable[..., Any] = subprocess.run) -> Store:
    """Train RUNS and SEARCH in the empty folder, with more overrides, and return their store.

    Args:
        folder: in which the commands run.
        more: overrides of every training.
        run: starts a command, as subprocess.run does.
    """
    (folder / "my_layers.py").write_text(WRONG_LAYER)
    for arguments in (*RUNS.values(), SEARCH):
        command = [sys.executable, "-m", "scratch_dl.train", *arguments, *more, f"tracking.experiment={EXPERIMENT}"]
        done = run(command, cwd=folder, capture_output=True, text=True, check=False)
        # The fault is so severe that its training diverges.
        if done.returncode and "sigmoid_gradient_at_upstream" not in done.stderr:
            raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr}")
    return open_store(folder / "mlruns")


def trained(store: Store) -> dict[str, Any]:
    """Return MLflow's run of each entry of RUNS, and "search" -> that of the study."""
    api = client(store)
    experiment = api.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = api.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
    own = [run for run in runs if "study" not in run.data.tags]
    study = next(run for run in runs if "study" in run.data.tags and "trial" not in run.data.tags)
    return {**dict(zip(RUNS, own, strict=True)), "search": study}


def addresses(url: str, runs: Mapping[str, Any]) -> dict[str, str]:
    """Return name -> address of each page that is looked at."""
    experiment = runs["healthy"].info.experiment_id
    three = [runs[name].info.run_id for name in ("healthy", "unet", "wrong")]
    compared = f"runs={quote(json.dumps(three))}&experiments={quote(json.dumps([experiment]))}"
    return {
        "results": page(url, experiment, RESULTS),
        "curves": page(url, experiment, CURVES),
        "run": run_page(url, experiment, runs["healthy"].info.run_id),
        "wrong": run_page(url, experiment, runs["wrong"].info.run_id),
        "search": run_page(url, experiment, runs["search"].info.run_id),
        "compare": f"{url}/#/compare-runs?{compared}&workflowType=machine_learning",
        "models": f"{url}/#/experiments/{experiment}/models?workflowType=machine_learning",
    }


@contextmanager
def served(store: Store) -> Iterator[str]:
    """Serve the pages of the store by the command `ui`; give their address."""
    port = ui.free_port()
    command = [sys.executable, "-m", "scratch_dl.ui", f"tracking.dir={store.directory}", f"port={port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        if "open http" not in lines[1]:
            raise RuntimeError("".join(lines))
        try:
            yield f"http://{ui.HOST}:{port}"
        finally:
            process.terminate()
            process.communicate(timeout=60)


@contextmanager
def browser() -> Iterator[Any]:
    """Give a page of a headless Chromium that is installed on this machine."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise RuntimeError("no Chromium was found, for example Debian's package chromium")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # as root, Chromium has none
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=sandbox)
        tab = started.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
        tab.set_default_timeout(PATIENCE_S * 1000)
        yield tab
        started.close()


def look(tab: Any, address: str, words: Sequence[str] = (), file: Path | None = None, width: int = SIZE[0]) -> str:
    """Open an address, wait until all words are there, take a picture of this width, and return the page's text."""
    tab.goto("about:blank")
    tab.goto(address)
    for word in words:
        tab.get_by_text(word).first.wait_for(state="visible")
    _close_assistant(tab)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        tab.screenshot(path=str(file), clip={"x": 0, "y": 0, "width": width, "height": SIZE[1]})
    return str(tab.inner_text("body"))


def charts(tab: Any, address: str, file: Path | None = None) -> float:
    """Open the view of curves; return the seconds until its two charts and the first picture are drawn."""
    tab.goto("about:blank")
    started = time.monotonic()
    tab.goto(address)
    tab.wait_for_function(
        "document.querySelectorAll('.js-plotly-plot .scatterlayer path').length > 1 && "
        "[...document.querySelectorAll('img')].some(image => image.naturalWidth > 100)"
    )
    seconds = time.monotonic() - started
    look(tab, address, ["samples"], file)
    return seconds


def copies(store: Store, run: Any, n: int) -> None:
    """Put n more runs into the store, with the metrics and the pictures of a training."""
    known = Journal(Path(run.data.tags["scratch_dl.folder"]))
    for number in range(n):
        copy = Run.create(store, store.directory / "hydra" / f"copy-{number}", EXPERIMENT, f"copy {number}")
        for entry in known.entries():
            if entry["kind"] == "metrics" and not entry.get("local"):
                copy.metrics(entry["values"], entry["step"])
            elif entry["kind"] == "image":
                from PIL import Image

                copy.image(_pixels(Image.open(known.folder / entry["files"][0])), entry["key"], entry["step"])
        copy.finish("FINISHED")


def _pixels(picture: Any) -> Any:
    import numpy as np

    return np.asarray(picture.convert("RGB"))


def _close_assistant(tab: Any) -> None:
    """Close MLflow's own panel, which a person closes once."""
    tab.wait_for_timeout(1500)
    button = tab.locator('[data-component-id="mlflow.assistant.chat_panel.close"]')
    if button.count():
        button.first.click()
    tab.wait_for_timeout(1000)


def main() -> None:
    """Make every picture."""
    into = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "pictures").absolute()
    with tempfile.TemporaryDirectory() as folder:
        store = fill(Path(folder), ("trainer.epochs=10",))
        runs = trained(store)
        with served(store) as url, browser() as tab:
            for name, address in addresses(url, runs).items():
                if name == "curves":
                    charts(tab, address, into / "curves.png")
                else:
                    # The right part of a run's page has paths of this machine.
                    width = 1090 if name in ("run", "wrong", "search") else SIZE[0]
                    look(tab, address, file=into / f"{name}.png", width=width)
                print(into / f"{name}.png")
            copies(store, runs["healthy"], 20 - len(RUNS))
            seconds = [charts(tab, addresses(url, runs)["curves"]) for _ in range(3)]
            print(f"the charts of 20 runs appear after {', '.join(f'{s:.1f}' for s in seconds)} s")


if __name__ == "__main__":
    main()
