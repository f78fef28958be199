"""`scratch-dl denoise photo.png`, or `python -m scratch_dl.denoise`: denoise pictures with a trained network.

Takes files and folders, of any size, and writes photo.denoised.png beside photo.png; nothing is overwritten.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig

from scratch_dl.cli.command import Command
from scratch_dl.config.build import tracking_settings
from scratch_dl.config.inference import check_inference, use_inference
from scratch_dl.config.overrides import expand, override_value
from scratch_dl.config.plain import brief, plain
from scratch_dl.config.targets import check_keys, config_errors
from scratch_dl.kernels.restoring import restored
from scratch_dl.system.checks import boolean, integer
from scratch_dl.system.errors import FAILURE, ConfigError

if TYPE_CHECKING:
    from scratch_dl.models import Denoiser

KEYS = ("inputs", "run", "output", "checkpoint", "ensemble", "tile", "max_pixels", "backend", "threads",
        "allowed_targets", "tracking")  # fmt: skip


class _Prepared(NamedTuple):
    """The settings, input -> output file, the network, and in words which one it is."""

    settings: dict[str, Any]
    files: dict[Path, Path]
    network: "Denoiser"
    words: str


@restored()
def _run(_config: DictConfig, _folder: Path, prepared: _Prepared) -> int:
    """Denoise every file, with a line for each; exit status 1 if one cannot be read or written."""
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from scratch_dl.data.files import why
    from scratch_dl.denoising.files import read_picture, write_picture
    from scratch_dl.denoising.tiles import denoise_picture

    settings, console = prepared.settings, Console(highlight=False)
    use_inference(settings)
    failed = 0
    console.print(prepared.words, markup=False, soft_wrap=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        for source, target in prepared.files.items():
            started = time.monotonic()
            task = bar.add_task(source.name)

            def show(done: int, total: int, task: TaskID = task) -> None:
                bar.update(task, completed=done, total=total)

            try:
                picture = read_picture(source, settings["max_pixels"], target.suffix)
                output = denoise_picture(
                    prepared.network, picture.colours, settings["tile"], settings["ensemble"], show
                )
                write_picture(target, picture, output)
            except (OSError, ValueError, SyntaxError) as error:  # only its header had been read before
                failed += 1
                print(f"error: {source}: {why(error)}", file=sys.stderr)
                continue
            finally:
                bar.remove_task(task)
            height, width = output.shape[1:]
            line = f"{source} -> {target} ({width}x{height}, {time.monotonic() - started:.1f} s)"
            console.print(line, markup=False, soft_wrap=True)
    return FAILURE if failed else 0


def _prepare(config: DictConfig) -> _Prepared:
    """Check every setting and every file, and find the network; nothing is written.

    Raises:
        ConfigError: if a setting or a file cannot be used, or there is no such run.
        CheckpointError: if the run's checkpoint cannot be read.
    """
    from scratch_dl.training import checkpoint
    from scratch_dl.training.result import read_summary
    from scratch_dl.training.resume import find_folder, recorded_config

    settings = plain(config)
    check_keys("", settings, list(KEYS))
    check_inference(settings)
    with config_errors("", settings):
        boolean("ensemble", settings["ensemble"])
        integer("tile", settings["tile"], minimum=1)
        integer("max_pixels", settings["max_pixels"], minimum=1)
    tracking_settings(settings)
    files = _files(settings["inputs"], settings["output"], settings["max_pixels"])
    folder = find_folder(str(settings["run"]), settings["tracking"], "run")
    recorded, summary = recorded_config(folder), read_summary(folder)
    network = checkpoint.load_network(
        folder / "checkpoints" / f"{settings['checkpoint']}.pt", settings["allowed_targets"]
    )
    score = summary.get("progress", {}).get("best_psnr_db")
    is_best = settings["checkpoint"] == "best" and isinstance(score, float)
    reached = f", {score:.2f} dB on its validation crops" if is_best else f", {settings['checkpoint']} checkpoint"
    model = str(recorded["model"]["_target_"]).rpartition(".")[2]
    run_id = summary.get("run_id", folder.name)
    fault = recorded.get("fault") or "none"
    wrong = "" if fault == "none" else f"; it was trained with fault={fault}"
    words = f"{model} of run {run_id}{reached}, trained for {brief(recorded['noise'])}{wrong}"
    return _Prepared(settings, files, network, words)


def _files(inputs: Any, output: Any, max_pixels: int) -> dict[Path, Path]:
    """Return the output file for each picture.

    Raises:
        ConfigError: if a picture cannot be read, or a file would be overwritten.
    """
    from scratch_dl.data.dataset import DataError
    from scratch_dl.data.files import SUFFIXES
    from scratch_dl.denoising.files import check_pictures, default_output

    paths = _pictures(inputs)
    try:
        check_pictures(paths, max_pixels)
    except DataError as error:
        raise ConfigError(str(error)) from error
    if output is None:
        targets = [default_output(path) for path in paths]
    elif len(paths) == 1 and not Path(inputs[0]).is_dir() and not Path(output).is_dir():
        targets = [Path(output)]
    else:
        if Path(output).is_file():
            raise ConfigError(f"output must be a folder for {len(paths)} pictures, but {output} is a file")
        targets = [Path(output) / path.with_suffix(default_output(path).suffix).name for path in paths]
    taken = [target for number, target in enumerate(targets) if target.exists() or target in targets[:number]]
    if taken:
        more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        raise ConfigError(f"{taken[0]}{more} would be overwritten; choose another place: output=...")
    for target in targets:
        if target.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"output must end with one of {', '.join(SUFFIXES)}, but got {target}")
    return dict(zip(paths, targets, strict=True))


def _pictures(inputs: Any) -> list[Path]:
    """Return the pictures that are named, and those of the folders that are."""
    from scratch_dl.denoising.files import pictures_in

    if not isinstance(inputs, list) or not inputs:
        raise ConfigError(
            "inputs must be pictures or folders, for example scratch-dl denoise photo.png; none was given"
        )
    found: list[Path] = []
    for path in map(Path, map(str, inputs)):
        if not path.exists():
            raise ConfigError(f"there is no picture {path}")
        if path.is_dir() and not pictures_in(path):
            raise ConfigError(f"the folder {path} has no pictures")
        found += pictures_in(path) if path.is_dir() else [path]
    return list(dict.fromkeys(found))


def _expanded(words: Sequence[str]) -> list[str]:
    """Return the overrides for Hydra; a word without `=`, or one that is a file, is an input."""
    inputs = [word for word in words if "=" not in word or Path(word).exists()]
    others = expand([word for word in words if word not in inputs])
    return [*others, *([f"inputs={override_value(inputs)}"] if inputs else [])]


def main() -> None:
    """Entry point of the command."""
    Command("denoise", _prepare, _run, _expanded).main()


if __name__ == "__main__":
    main()
