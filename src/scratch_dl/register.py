"""`scratch-dl register run=best`, or `python -m scratch_dl.register`: put a trained network into the model registry."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from scratch_dl.cli.command import Command
from scratch_dl.config.build import tracking_settings
from scratch_dl.config.plain import plain
from scratch_dl.config.targets import check_keys


def _run(_config: DictConfig, _folder: Path, settings: dict[str, Any]) -> None:
    """Register the network of a run, and print what became of the alias."""
    from scratch_dl.tracking.registry import register
    from scratch_dl.tracking.selection import select_run
    from scratch_dl.tracking.store import open_existing_store

    store = open_existing_store(settings["tracking"])
    print(register(store, select_run(store, str(settings["run"]))).words)


def _check(config: DictConfig) -> dict[str, Any]:
    """Return the settings, checked."""
    settings = plain(config)
    check_keys("", settings, ["run", "tracking"])
    tracking_settings(settings)
    return settings


def main() -> None:
    """Entry point of the command."""
    Command("register", _check, _run).main()


if __name__ == "__main__":
    main()
