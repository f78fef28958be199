"""Why a configuration cannot be composed, in the user's words, and what is true of the settings given."""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from scratch_dl.config.yaml_files import CONF, PRESETS, read_yaml
from scratch_dl.system.checks import nearest

_SEARCH = "hydra.sweeper"
_ELSEWHERE = {"n_jobs": "workers", "search_space": "params"}  # what other plugins call a search's settings
_MANY = 12
_NOT_FOUND = r"Could not find '([^']+)'.*?Available options in '[^']+':\n(.*?)\n(?:Config search|\s*$)"


class Explainer:
    """Explains the errors of one composition.

    Args:
        load: overrides -> the configuration.
        overrides: those of the composition that failed.
        in_program: whether a program calls this.
    """

    def __init__(
        self, load: Callable[[Sequence[str]], DictConfig], overrides: Sequence[str], in_program: bool = False
    ) -> None:
        self.load, self.overrides, self.in_program = load, overrides, in_program

    def explain(self, error: BaseException) -> str:
        """Return one line on an exception of Hydra's."""
        words = str(error) or str(error.__cause__ or "") or type(error).__name__
        if match := re.match(r"Error merging override (.+)", words):
            return f"{match[1]} cannot be used: {_first_line(error.__cause__ or error)}"
        explanations: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
            (r"Could not append to config\. An item is already at '([^']+)'", self._there_already),
            (r"Could not (?:override|delete)(?: from config\.)? '([^'=]+)[^']*'", self._unknown),
            (rf"In '([^']+)': {_NOT_FOUND}", self._choice),
            (rf"(){_NOT_FOUND}", self._choice),
            (r"Ambiguous value for argument '(.+)'", self._several),
            (r"Sweep parameters '(.+)' requires --multirun", self._several),
            (r"Sweeping over Hydra's configuration is not supported : '(.+)'", self._sweeps_hydra),
            (r"Override (\S+) looks like a config group", lambda match: f"{match[1]} names a group that is not there"),
            (r"Config group override must be", self._no_choice),
            (
                r"In '([^']+)': \w+ raised while composing config:\n([^\n]+)",
                lambda match: f"{match[1]}.yaml: {match[2]}",
            ),
            (r"Cannot find primary config '([^']+)'", lambda match: f"--config-name: there is no {match[1]}.yaml"),
        )
        for pattern, explanation in explanations:
            if match := re.search(pattern, words, re.DOTALL):
                return explanation(match)
        lines = [line.strip() for line in words.splitlines() if line.strip()]
        return f"{' '.join(lines[:2])} (in the command line or conf/)"

    def _there_already(self, match: re.Match[str]) -> str:
        given = next((one for one in self.overrides if one.startswith(f"+{match[1]}=")), f"+{match[1]}=...")
        return f"{match[1]} is a setting already: leave out the +, {shlex.quote(given[1:])}"

    def _unknown(self, match: re.Match[str]) -> str:
        key = match[1].removesuffix(".")
        config = self._without_settings()
        if key.startswith(f"{_SEARCH}."):
            return self._unknown_of_search(key, config)
        keys = known_keys(config, hydra=key.startswith("hydra."))
        group, _, leaf = key.rpartition(".")
        choice = config.hydra.runtime.choices.get(group)
        own = [name.removeprefix(f"{group}.") for name in keys if name.startswith(f"{group}.")]
        if leaf and choice and key in _keys_of_other_choices(group):
            listed = ", ".join(name for name in own if "." not in name and name != "_target_") or "none"
            return f"{key} is not a setting of {group}={choice}; it has {listed}{self._of_resumed(key)}"
        near = nearest(key, [one for one in keys if not key.startswith(f"{one}.") or "." in one])
        listed = f"{group}={choice} has {', '.join(own)}" if choice and 0 < len(own) <= _MANY else "--help lists them"
        return f"{key} is not a setting{near or f'; {listed}'}"

    def _unknown_of_search(self, key: str, config: DictConfig) -> str:
        known = [f"{_SEARCH}.{name}" for name in read_yaml(Path(CONF, "hydra", "sweeper", "scratch_dl.yaml"))]
        if (here := _ELSEWHERE.get(key.rpartition(".")[2])) is not None:
            return f"{key} is not a setting; it is called {_SEARCH}.{here} here"
        if key in known and not str(config.hydra.sweeper.get("_target_")).endswith("scratch_dl_sweeper.Sweeper"):
            return f"{key} is a setting of a search: add search=custom, or another search"
        return f"{key} is not a setting{nearest(key, known) or '; conf/hydra/sweeper/scratch_dl.yaml lists them'}"

    def _of_resumed(self, key: str) -> str:
        if not any(one.startswith("resume.run=") for one in self.overrides):
            return ""
        return f"; if the run that is resumed has it, give it as +{key}=..."

    def _no_choice(self, _: re.Match[str]) -> str:
        parsed = [OverridesParser.create().parse_override(one) for one in self.overrides]
        groups = set(self.load([]).hydra.runtime.choices)
        odd = [one.input_line for one in parsed if one.key_or_group in groups and not isinstance(one.value(), str)]
        return f"a group takes one of its choices, but got {', '.join(map(str, odd))}"

    def _choice(self, match: re.Match[str]) -> str:
        file = f"{match[1]}.yaml: " if "/" in match[1] and not match[1].startswith("hydra/") else ""
        group, _, chosen = match[2].rpartition("/")
        options = match[3].split()
        return f"{file}{group} must be one of {', '.join(options)}, but got {chosen!r}{nearest(chosen, options)}"

    def _several(self, match: re.Match[str]) -> str:
        given = match[1].splitlines()[0].removesuffix("'")
        if self.in_program:
            return (
                f"{given} is several values, and a program trains one run at a time; a grid or a search is for the "
                f"command line: python -m scratch_dl.train -m {shlex.quote(given)}"
            )
        key, _, value = given.partition("=")
        if re.match(r"(choice|range|interval|tag|glob|sort|shuffle)\(", value):
            return f"{given} is several values: add search=custom to search them, or -m for a grid of a,b,c"
        text = shlex.quote(f"{key}='{value}'")
        return (
            f"{given} is several values: add -m for a grid of them, or search=custom to search them; a list is "
            f"{shlex.quote(f'{key}=[{value}]')}, a text {text}"
        )

    def _sweeps_hydra(self, match: re.Match[str]) -> str:
        own = match[1].lstrip("+")
        for name in ("params", "conditions"):
            if own.startswith(f"{_SEARCH}.{name}."):
                return f"{own} is given as the setting itself: {shlex.quote(own.removeprefix(f'{_SEARCH}.{name}.'))}"
        return f"{own} must be one value, as every setting of hydra"

    def _without_settings(self) -> DictConfig:
        """The configuration with the choices of groups and presets alone."""
        choices = [one for one in self.overrides if _is_choice(one)]
        for given in (choices, [one for one in choices if one.partition("=")[0] in _groups()], []):
            try:
                return self.load(given)
            except Exception:
                continue
        raise AssertionError("the configuration of conf/ cannot be composed")


def with_cause(words: str, config: DictConfig, overrides: Sequence[str]) -> str:
    """Return what a check says of a setting, with the cause of a wrong value or a setting too many, if one is known."""
    key = re.match(r"([\w.]+)[ :]", words)
    if key is None:
        return words
    if re.search(r"but got '[^']*'", words):
        for name, _, value in (one.partition("=") for one in overrides):
            if name.lstrip("+") == key[1] and "${oc.env:" in value:
                corrected = shlex.quote(f'{name}="${{oc.decode:{value}}}"')
                return f"{words}; ${{oc.env:...}} gives a text; oc.decode turns it into a value: {corrected}"
    group, _, leaf = key[1].partition(".")
    if " is not a setting" not in words or not leaf or all(not one.startswith(f"{group}=") for one in overrides):
        return words
    choices = config.hydra.runtime.choices
    given = f"{group}={choices.get(group)}"
    for preset in PRESETS:
        if isinstance(choice := choices.get(preset), str) and _has(preset, choice, group, leaf, config):
            what = "searches settings" if preset == "search" else "has settings"
            other = f"search=custom with settings of {given}" if preset == "search" else f"no {preset}"
            return f"{preset}={choice} {what} that {given} does not have ({key[1]}): leave out {given}, or take {other}"
    return words


def known_keys(config: DictConfig, hydra: bool = False) -> list[str]:
    """Return every key of a configuration, dotted: those of Hydra's part, or the others."""
    keys: list[str] = []

    def visit(prefix: str, node: Any) -> None:
        for key, value in node.items() if isinstance(node, Mapping) else ():
            keys.append(f"{prefix}{key}")
            visit(f"{prefix}{key}.", value)

    content: Any = OmegaConf.to_container(config, resolve=False)
    visit("", {key: value for key, value in content.items() if (key == "hydra") is hydra})
    return keys


def _groups() -> list[str]:
    return [path.name for path in Path(CONF).iterdir() if path.is_dir()]


def _keys_of_other_choices(group: str) -> list[str]:
    """Dotted keys of every file of a group in conf/."""
    found = [read_yaml(path) for path in sorted(Path(CONF, group).glob("*.yaml"))]
    return [f"{group}.{key}" for content in found if isinstance(content, dict) for key in content]


def _is_choice(override: str) -> bool:
    """Whether an override names a choice of a group."""
    try:
        one = OverridesParser.create().parse_override(override)
    except Exception:
        return False
    return not one.is_sweep_override() and "." not in one.key_or_group and isinstance(one.value(), str)


def _has(preset: str, choice: str, group: str, leaf: str, config: DictConfig) -> bool:
    """Whether the preset's file, or one that it builds on, has the setting."""
    for source in config.hydra.runtime.config_sources:
        path = Path(source.path, preset, f"{choice}.yaml")
        if source.schema != "file" or not path.is_file():
            continue
        content = read_yaml(path) or {}
        if leaf.partition(".")[0] in (content.get(group) or {}):
            return True
        beneath = [one for one in content.get("defaults", []) if isinstance(one, str) and one != "_self_"]
        return any(_has(preset, one, group, leaf, config) for one in beneath)
    return False


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
