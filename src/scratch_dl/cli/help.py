"""What `train --help` and `evaluate --help` print: every setting with its comment, from the files in conf/."""

import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from scratch_dl.config.yaml_files import CONF, read_yaml

_WIDTH, _COMMENT = 80, 36  # columns, and where comments begin
_SETTING = re.compile(r"([\w.]+): *(.*?)(?: +# (.*))?$")
_USEFUL = {
    "train": {
        "model=unet optimizer=adam": "another network, another optimizer",
        "trainer.epochs=5 seed=1": "shorter, from other random numbers",
        "noise=poisson data=folder data.path=DIR": "another noise, pictures of your own",
        "experiment=best_unet": "a preset that was found by a search",
        "-m seed=1,2,3": "a grid; -m search=geometry: a search",
    },
    "evaluate": {
        "run=best": "the best network; or latest, an id",
        "run=best noise=poisson": "under another noise",
        "run=best data=folder data.path=DIR": "all pictures of a folder as one set",
    },
}
_END = {
    "train": "resume=<run> goes on with a run; fault=help lists deliberate mistakes; --cfg job\n"
    "prints the composed configuration. Searches: conf/hydra/sweeper/scratch_dl.yaml.",
    "evaluate": "It is recorded as an MLflow run in the experiment of the run that it scores.",
}
COMMANDS = tuple(_USEFUL)


def settings_help(name: str, chosen: Mapping[str, str]) -> str:
    """Return the help of a command: useful overrides, then each group with its choices, then the other settings.

    Args:
        name: of the command, one of COMMANDS.
        chosen: group -> the choice whose settings are listed instead of the default one's.
    """
    lines = [f"python -m scratch_dl.{name} [key=value ...]", ""]
    lines += [f"  {words:<39} {purpose}" for words, purpose in _USEFUL[name].items()]
    file = Path(CONF) / f"{name}.yaml"
    for entry in read_yaml(file)["defaults"]:
        (group, default), *_ = entry.items() if isinstance(entry, Mapping) else [("", None)]
        if (Path(CONF) / group).is_dir() and group:
            lines += ["", *_group(group, chosen.get(group, default))]
    lines += ["", "settings of no group", *_settings(_own_lines(file), "")]
    return "\n".join([*lines, "", _END[name]])


def _group(group: str, choice: str | None) -> Iterator[str]:
    """Yield a group's choices, and the settings of one of them."""
    choices = sorted(path.stem for path in (Path(CONF) / group).glob("*.yaml"))
    others = ", ".join(other for other in choices if other != choice)
    title = f"{group}={choice or 'null'}{f' (or {others})' if others else ''}"
    yield from textwrap.wrap(title, _WIDTH, subsequent_indent="  ")
    file = Path(CONF) / group / f"{choice}.yaml"
    if file.is_file():
        yield from _settings(file.read_text(encoding="utf-8").splitlines(), f"{group}.")


def _own_lines(file: Path) -> list[str]:
    """Return the lines of a primary configuration between its defaults and Hydra's part."""
    lines = file.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("  - _self_"))
    end = next(number for number, line in enumerate(lines) if line.startswith("hydra:"))
    return [line for line in lines[start:end] if not line.startswith("  - ")]


def _settings(lines: list[str], prefix: str) -> Iterator[str]:
    """Yield each setting with its value and its comment; what lies deeper than two keys stays as in the file."""
    parent = ""
    for line in lines:
        if line.startswith(("# @", "_target_", "defaults")) or not line.strip():
            continue
        found = _SETTING.fullmatch(line.removeprefix("  ") if parent else line)
        if line.startswith("#"):
            yield from textwrap.wrap(
                line.removeprefix("#").strip(), _WIDTH - 2, initial_indent="  ", subsequent_indent="  "
            )
        elif not found:
            yield f"    {line}"
        elif not line.startswith(" ") and found[2][:1] in ("#", ""):
            parent = found[1]
        else:
            parent = parent if line.startswith(" ") else ""
            key = f"{parent}.{found[1]}" if parent else found[1]
            yield from _row(f"{prefix}{key}={found[2]}", found[3] or "")


def _row(setting: str, comment: str) -> Iterator[str]:
    """Yield a setting, and its comment beside it, in lines of at most _WIDTH columns."""
    said = textwrap.wrap(comment, _WIDTH - _COMMENT, break_on_hyphens=False)
    first = said.pop(0) if said and len(setting) + 4 <= _COMMENT else ""
    yield f"  {setting:<{_COMMENT - 2}}{first}".rstrip()
    yield from (f"{' ' * _COMMENT}{line}" for line in said)
