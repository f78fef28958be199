"""Whether all that is searched, and all that stays, is a setting at all, whatever choice of a group is drawn."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from omegaconf import DictConfig

from scratch_dl.cli.errors import in_one_line
from scratch_dl.config.build import build
from scratch_dl.config.overrides import in_grammar
from scratch_dl.search.parameter import Parameter, Value
from scratch_dl.search.space import Space
from scratch_dl.system.errors import ConfigError, UnknownKeyError


def check_fit(space: Space, compose: Callable[[Sequence[str]], DictConfig], setting: Callable[[str], Any]) -> None:
    """Compose and build a point for each choice of each group that is drawn; without any such group, one point.

    A point that fails for another reason, as a geometry that does not fit, is for the search to find out.

    Args:
        space: what is searched.
        compose: overrides -> the configuration of a trial.
        setting: a key -> its value in the configuration without what is drawn.

    Raises:
        ConfigError: naming the setting, and the choice that has none of this name.
    """
    failures: list[tuple[Parameter, Value, str]] = []
    known = compose(list(space.fixed)).hydra.runtime.choices
    groups = [one for one in space.parameters if one.choices is not None and one.key in known]
    drawn_choices: list[tuple[Parameter | None, Value]] = [(one, value) for one in groups for value in one.values()]
    for group, choice in drawn_choices or [(None, None)]:
        drawn = space.draw(_First(group, choice), setting)
        overrides = [*space.fixed, *(parameter.override(value) for parameter, value in drawn.items())]
        try:
            build(compose(overrides))
        except UnknownKeyError as error:
            said = in_one_line(error)
            if group is None:
                raise ConfigError(said) from None
            failures.append((group, choice, said))
        except ConfigError:
            continue
    for group, choice, said in failures:
        lacking = {one for other, one, _ in failures if other is group}
        have = [group.choices[one] for one in group.values() if one not in lacking] if group.choices else []
        raise ConfigError(_words(space, group, choice, said, have))


def _words(space: Space, group: Parameter, choice: Value, said: str, have: Sequence[str]) -> str:
    """What does not fit, and the condition under which it would."""
    key = said.partition(" is not a setting")[0]
    one = f"{group.key}={choice}"
    if not have or " is not a setting" not in said:
        return f"{said}, with {one}"
    drawn = next((str(parameter) for parameter in space.parameters if parameter.key == key), None)
    given = next((word for word in space.fixed if re.match(rf"\+*{re.escape(key)}=", word)), None)
    value = drawn or f"choice({given.partition('=')[2] if given else in_grammar(None)})"
    where = f"{group.key}={','.join(have)}"
    return (
        f"{given or key} is for {where}, and {one} has no {key.rpartition('.')[2]}: leave it out, or make it depend on "
        f"the {group.key} in a search's file, as conf/search/optimisation.yaml does: "
        f"hydra.sweeper.conditions: {{{key}: {{{where}: {value}}}}}"
    )


class _First:
    """Draws the first value of everything, and of one parameter a given one."""

    def __init__(self, parameter: Parameter | None, value: Value) -> None:
        self.name, self.value = (parameter.name if parameter else None), value

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        """The first choice."""
        return self.value if name == self.name else choices[0]

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """The smallest number."""
        del name, high, step, log
        return low

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        """The smallest number."""
        del name, high, step, log
        return low
