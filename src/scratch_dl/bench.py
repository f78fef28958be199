"""`python -m scratch_dl.bench [key=value ...]`: how fast is it beside PyTorch?

Times our modules and networks and PyTorch's in turn in one process, prints tables, and records an MLflow run. The exit
status is 0 even if a goal is not reached, because this command measures and does not judge.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from scratch_dl.cli.command import Command
from scratch_dl.config.build import tracking_settings
from scratch_dl.config.plain import plain
from scratch_dl.config.targets import check_keys, config_errors
from scratch_dl.system.checks import boolean, choice, integer, text
from scratch_dl.system.errors import ConfigError
from scratch_dl.tracking import tracked_run

KEYS = ("parts", "rounds", "seed", "backend", "threads", "output", "smoke")
PARTS = ("modules", "steps", "flops", "memory", "scaling", "prediction", "loop")


def _run(config: DictConfig, folder: Path, settings: dict[str, Any]) -> None:
    """Measure, print, record."""
    from rich.console import Console
    from rich.text import Text

    from scratch_dl.benchmarks import suite

    output, console = settings.pop("output"), Console(highlight=False)
    with tracked_run(config, folder, "smoke" if settings["smoke"] else "bench") as run:
        results = suite.measure(**settings, console=console)
        console.print(*([results.summary.rich()] if results.goals() else []), Text(results.headline))
        results.record(run)
        if output is not None:
            results.write(Path(output).expanduser())
            console.print(Text(f"written   {suite.JSON} and {suite.FIGURE} in {output}"))


def _settings(config: DictConfig) -> dict[str, Any]:
    """Return the checked settings, without those of tracking.

    Raises:
        ConfigError: if one cannot be used.
    """
    from scratch_dl import kernels

    settings = plain(config)
    check_keys("", settings, [*KEYS, "tracking"])
    tracking_settings(settings)
    del settings["tracking"]
    with config_errors("", settings):
        parts = _listed("parts", settings["parts"], PARTS)
        for part in parts:
            choice("parts", part, PARTS)
        for count in _listed("threads", settings["threads"], ("1", "null")):
            if count is not None:
                integer("threads", count, minimum=1)
        integer("rounds", settings["rounds"], minimum=1)
        integer("seed", settings["seed"], minimum=0)
        kernels.check(settings["backend"])
        boolean("smoke", settings["smoke"])
        if settings["output"] is not None:
            text("output", settings["output"])
            if (path := Path(settings["output"]).expanduser()).exists() and not path.is_dir():
                raise ValueError(f"output must be a folder, but got the file {settings['output']!r}")
    if len(set(parts)) < len(parts):
        raise ConfigError(f"parts must be different from one another, but got {parts}")
    return settings


def _listed(name: str, value: Any, example: tuple[str, ...]) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{name} must be a list such as '{name}=[{','.join(example)}]', but got {value!r}")
    return value


def main() -> None:
    """Entry point of the command."""
    Command("bench", _settings, _run).main()


if __name__ == "__main__":
    main()
