"""Explains in the user's terms why a configuration cannot be composed, or where a refused setting comes from."""

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
_OTHER_NAMES = {"n_jobs": "workers", "search_space": "params"}  # names that other sweepers give to settings of a search
_MOST_LISTED = 12  # settings in a message
_NOT_FOUND = r"Could not find '([^']+)'.*?Available options in '[^']+':\n(.*?)\n(?:Config search|\s*$)"


class Explainer:
    """Explains the errors of one composition.

    Args:
        load: composes the configuration with given overrides.
        overrides: of the composition that failed.
        in_program: whether a program composes, not a command.
    """

    def __init__(
        self, load: Callable[[Sequence[str]], DictConfig], overrides: Sequence[str], in_program: bool = False
    ) -> None:
        self.load, self.overrides, self.in_program = load, overrides, in_program

    def explain(self, error: BaseException) -> str:
        """Return one line that explains an exception of Hydra."""
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
            (
                r"Override (\S+) looks like a config group",
                lambda match: f"{match[1]} names a group that does not exist",
            ),
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
        given = next((word for word in self.overrides if word.startswith(f"+{match[1]}=")), f"+{match[1]}=...")
        return f"{match[1]} is a setting already: leave out the +, {shlex.quote(given[1:])}"

    def _unknown(self, match: re.Match[str]) -> str:
        key = match[1].removesuffix(".")
        config = self._without_settings()
        if key.startswith(f"{_SEARCH}."):
            return self._unknown_of_search(key, config)
        if key.startswith("metrics.") and key.endswith("._target_"):
            return f"{key} is not a setting; a metric of your own is added with a +: '+{key}=...'"
        keys = known_keys(config, hydra=key.startswith("hydra."))
        group, _, leaf = key.rpartition(".")
        choice = config.hydra.runtime.choices.get(group)
        own = [name.removeprefix(f"{group}.") for name in keys if name.startswith(f"{group}.")]
        if leaf and choice and key in _keys_of_other_choices(group):
            listed = ", ".join(name for name in own if "." not in name and name != "_target_") or "none"
            return f"{key} is not a setting of {group}={choice}; it has {listed}{self._hint_on_resume(key)}"
        near = nearest(key, [known for known in keys if not key.startswith(f"{known}.") or "." in known])
        is_short = choice and 0 < len(own) <= _MOST_LISTED
        listed = f"{group}={choice} has {', '.join(own)}" if is_short else "--help lists them"
        return f"{key} is not a setting{near or f'; {listed}'}"

    def _unknown_of_search(self, key: str, config: DictConfig) -> str:
        known = [f"{_SEARCH}.{name}" for name in read_yaml(Path(CONF, "hydra", "sweeper", "scratch_dl.yaml"))]
        if (here := _OTHER_NAMES.get(key.rpartition(".")[2])) is not None:
            return f"{key} is not a setting; it is called {_SEARCH}.{here} here"
        if key in known and not str(config.hydra.sweeper.get("_target_")).endswith("scratch_dl_sweeper.Sweeper"):
            return f"{key} is a setting of a search: add search=custom, or another search"
        return f"{key} is not a setting{nearest(key, known) or '; conf/hydra/sweeper/scratch_dl.yaml lists them'}"

    def _hint_on_resume(self, key: str) -> str:
        if not any(override.startswith("resume.run=") for override in self.overrides):
            return ""
        return f"; if the run that is resumed has it, give it as +{key}=..."

    def _no_choice(self, _: re.Match[str]) -> str:
        parsed = [OverridesParser.create().parse_override(override) for override in self.overrides]
        groups = set(self.load([]).hydra.runtime.choices)
        wrong = [each for each in parsed if each.key_or_group in groups and not isinstance(each.value(), str)]
        return f"a group takes one of its choices, but got {', '.join(str(each.input_line) for each in wrong)}"

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
        return f"{own} must be one value, like every setting of hydra"

    def _without_settings(self) -> DictConfig:
        """Return the configuration with only the choices of groups and presets, as far as it can be composed."""
        choices = [override for override in self.overrides if _is_choice(override)]
        for overrides in (choices, [choice for choice in choices if choice.partition("=")[0] in _groups()], []):
            try:
                return self.load(overrides)
            except Exception:
                continue
        raise AssertionError("the configuration of conf/ cannot be composed")


def with_cause(words: str, config: DictConfig, overrides: Sequence[str]) -> str:
    """Return the message `words` of a check, with the cause of a wrong value or unknown setting appended, if known."""
    key = re.match(r"([\w.]+)[ :]", words)
    if key is None:
        return words
    if re.search(r"but got '[^']*'", words):
        for name, _, value in (override.partition("=") for override in overrides):
            if name.lstrip("+") == key[1] and "${oc.env:" in value:
                corrected = shlex.quote(f'{name}="${{oc.decode:{value}}}"')
                return f"{words}; ${{oc.env:...}} gives a text; oc.decode turns it into a value: {corrected}"
    group, _, leaf = key[1].partition(".")
    if " is not a setting" not in words or not leaf or all(not word.startswith(f"{group}=") for word in overrides):
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
    """Return all dotted keys of a configuration, either of Hydra's part or of the rest."""
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
    """Return the dotted keys in all files of a group in conf/."""
    contents = [read_yaml(path) for path in sorted(Path(CONF, group).glob("*.yaml"))]
    return [f"{group}.{key}" for content in contents if isinstance(content, dict) for key in content]


def _is_choice(override: str) -> bool:
    """Return whether an override selects a choice of a group."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except Exception:
        return False
    return not parsed.is_sweep_override() and "." not in parsed.key_or_group and isinstance(parsed.value(), str)


def _has(preset: str, choice: str, group: str, leaf: str, config: DictConfig) -> bool:
    """Return whether the preset's file, or one in its defaults list, has the setting."""
    for source in config.hydra.runtime.config_sources:
        path = Path(source.path, preset, f"{choice}.yaml")
        if source.schema != "file" or not path.is_file():
            continue
        content = read_yaml(path) or {}
        if leaf.partition(".")[0] in (content.get(group) or {}):
            return True
        bases = [base for base in content.get("defaults", []) if isinstance(base, str) and base != "_self_"]
        return any(_has(preset, base, group, leaf, config) for base in bases)
    return False


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
