"""`scratch-dl compare RUN RUN ...`, or `python -m scratch_dl.compare`: several runs side by side.

Writes one page that needs no network, prints its tables, and records the page in MLflow. With `format=markdown` or
`format=latex` it prints scores and settings for a text, and records nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig

from scratch_dl.cli.command import Command
from scratch_dl.config.build import tracking_settings
from scratch_dl.config.inference import check_inference, use_inference
from scratch_dl.config.overrides import expand, key_of, override_value, unquoted, value_of
from scratch_dl.config.plain import plain
from scratch_dl.config.targets import check_keys, config_errors
from scratch_dl.kernels.restoring import restored
from scratch_dl.system.checks import choice, integer
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.files import file_errors
from scratch_dl.tracking import tracked_run

if TYPE_CHECKING:
    from scratch_dl.comparison.pictures import Networks
    from scratch_dl.comparison.report import Comparison

KEYS = ("runs", "baseline", "best_of", "best", "format", "output", "checkpoint", "backend", "threads",
        "allowed_targets", "tracking")  # fmt: skip
PAGE = "compare.html"


class _Prepared(NamedTuple):
    """The settings, what is compared, the networks (only for a page), and the file to write (None: print)."""

    settings: dict[str, Any]
    comparison: "Comparison"
    networks: "Networks | None"
    output: Path | None


@restored()
def _run(_config: DictConfig, folder: Path, prepared: _Prepared) -> None:
    """Write or print the comparison, and record a page."""
    settings, comparison, networks, output = prepared
    if networks is None:
        text = comparison.markdown() if settings["format"] == "markdown" else comparison.latex()
        if output is None:
            print(text, end="")
        else:
            _write(output, text)
        return
    use_inference(settings)
    page = comparison.page(networks)
    assert output is not None
    _write(output, page)
    comparison.show()
    for note in networks.notes:
        print(note)
    print(f"page      {output}")
    marks = "-".join(run.run_id[:6] for run in comparison.runs[:4])
    ids = " ".join(run.run_id for run in comparison.runs)
    with tracked_run(settings, folder, f"comparison-{marks}", {"compares": ids}) as run:
        run.text(page, PAGE)


def _write(path: Path, text: str) -> None:
    """Write a file that does not exist yet."""
    with file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)


def _prepare(config: DictConfig) -> _Prepared:
    """Check every setting, read the runs, and load their networks; nothing is written.

    Raises:
        ConfigError: if a setting cannot be used, or there is no such run.
    """
    from scratch_dl.comparison.pictures import load_networks
    from scratch_dl.comparison.report import FORMATS, Comparison
    from scratch_dl.comparison.runs import chosen_folders, read_runs

    settings = plain(config)
    check_keys("", settings, list(KEYS))
    check_inference(settings)
    with config_errors("", settings):
        choice("format", settings["format"], FORMATS)
        integer("best", settings["best"], minimum=2)
    is_page = settings["format"] == "html"
    folders, baseline = chosen_folders(settings)
    output = _output(settings["output"], PAGE if is_page else None)
    runs = read_runs(folders, settings)
    comparison = Comparison(runs, runs[folders.index(baseline)])
    recorded = runs[0].config["tracking"]["experiment"]
    settings["tracking"]["experiment"] = settings["tracking"]["experiment"] or recorded
    tracking_settings(settings)
    networks = load_networks(runs, settings["checkpoint"], settings["allowed_targets"]) if is_page else None
    return _Prepared(settings, comparison, networks, output)


def _output(given: Any, default: str | None) -> Path | None:
    """Return the file to write.

    Raises:
        ConfigError: if it exists.
    """
    name = default if given is None else str(given)
    if name is not None and Path(name).exists():
        raise ConfigError(f"{name} would be overwritten; choose another file: output=...")
    return None if name is None else Path(name)


def _expanded(words: Sequence[str]) -> list[str]:
    """Return the overrides for Hydra; a word without `=`, or one that is a folder, is a run.

    An experiment of MLflow becomes `best_of`, because `experiment` is a group of presets for Hydra.
    """
    runs = [word for word in words if "=" not in word or Path(word).exists()]
    others = []
    for word in expand([word for word in words if word not in runs]):
        key, _, value = word.partition("=")
        others.append(f"best_of={override_value(unquoted(value))}" if key == "experiment" else word)
    if runs:
        others.append(f"runs={override_value(runs)}")
    if value_of("format", others) not in (None, "html") and "hydra.run.dir" not in map(key_of, others):
        others.append("hydra.run.dir=.")  # nothing is recorded
    return others


def main() -> None:
    """Entry point of the command."""
    Command("compare", _prepare, _run, _expanded).main()


if __name__ == "__main__":
    main()
