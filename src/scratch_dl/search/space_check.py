"""Whether every setting that is searched or stays exists, whatever choice of a group is drawn."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from scratch_dl.cli.errors import in_one_line
from scratch_dl.config.build import build
from scratch_dl.config.overrides import parse
from scratch_dl.config.plain import flat, plain
from scratch_dl.search.parameter import SearchParameter, Value, key_of
from scratch_dl.search.space import Space
from scratch_dl.search.trial_result import Objective
from scratch_dl.system.checks import nearest
from scratch_dl.system.errors import ConfigError, UnknownKeyError
from scratch_dl.system.passwords import hide

_ABSENT = object()
_NOT_SEARCHED = (
    *("resume", "tracking", "metrics", "hydra", "threads", "allowed_targets"),
    *("search", "experiment", "debug"),
)


def check_keys(space: Space, base: DictConfig) -> None:
    """Refuse a search of a key that the configuration lacks, a condition on such a key, and keys of no training.

    Raises:
        ConfigError: naming the nearest key that exists.
    """
    groups = base.hydra.runtime.choices
    for parameter in space.parameters:
        if parameter.key == "trainer.test":
            raise ConfigError("trainer.test must be false in a search: its trials may not see the test photographs")
        if parameter.choices and any(hide(text) != text for text in parameter.choices.values()):
            raise ConfigError(f"{parameter.key} cannot be searched, as a study keeps its choices, passwords included")
        if parameter.key.partition(".")[0] in _NOT_SEARCHED:
            raise ConfigError(f"{parameter.key} cannot be searched, as it is not of the training itself")
    keys = [parameter.key for parameter in space.parameters if not parameter.conditions and not parameter.prefix]
    keys += [condition.key for parameter in space.parameters for condition in parameter.conditions]
    for key in keys:
        if key not in groups and OmegaConf.select(base, key, default=_ABSENT) is _ABSENT:
            near = nearest(key, [*flat(plain(base)), *groups])
            raise ConfigError(f"{key} is not a setting here{near or ', so it cannot be searched'}")
    for parameter in space.parameters:
        _check_group_choices(parameter.key, list((parameter.choices or {}).values()))
        for condition in parameter.conditions:
            _check_group_choices(condition.key, condition.values)


def check_losses(space: Space, objectives: Sequence[Objective]) -> None:
    """Refuse the loss as an objective where it is searched: values of different losses cannot be compared.

    Raises:
        ConfigError: naming the objective and the setting.
    """
    searched = next((p.key for p in space.parameters if p.key.partition(".")[0] == "loss"), None)
    objective = next((str(each) for each in objectives if each.name.rpartition("/")[2] == "loss"), None)
    if searched and objective:
        raise ConfigError(
            f"hydra.sweeper.objective must not be a loss where {searched} is searched, as losses of several kinds "
            f"cannot be compared, but got {objective!r}; 'hydra.sweeper.objective=best val/psnr_db' compares outputs"
        )


def with_real_numbers(space: Space, base: DictConfig, compose: Callable[[Sequence[str]], DictConfig]) -> Space:
    """Return the space in which an interval with integer bounds draws real numbers if its setting is one.

    Args:
        space: what is searched.
        base: the configuration without what is drawn.
        compose: overrides -> the configuration of a trial.
    """

    def is_real(parameter: SearchParameter) -> bool:
        # The choice of a group may bring the setting.
        groups = [each for each in parameter.conditions if each.key in base.hydra.runtime.choices]
        choices = itertools.product(*([f"{group.key}={value}" for value in group.values] for group in groups))
        configs = [compose([*space.fixed, *chosen]) for chosen in choices] if groups else [base]
        return any(isinstance(OmegaConf.select(config, parameter.key), float) for config in configs)

    def real(parameter: SearchParameter) -> SearchParameter:
        is_whole = parameter.is_integer and parameter.step is None and not parameter.is_cast
        if not is_whole or not is_real(parameter):
            return parameter
        return replace(parameter, low=float(parameter.low), high=float(parameter.high))

    return replace(space, parameters=tuple(map(real, space.parameters)))


def _check_group_choices(key: str, values: Sequence[str]) -> None:
    """Refuse a value that is not one of a group's choices, because every trial with it would be refused."""
    hydra = GlobalHydra.instance()
    options = hydra.config_loader().get_group_options(key) if hydra.is_initialized() else []
    if options and (unknown := next((value for value in values if value not in (*options, "null")), None)):
        raise ConfigError(f"{key} must be one of {', '.join(options)}, but got {unknown!r}{nearest(unknown, options)}")


def check_choices_fit(
    space: Space, compose: Callable[[Sequence[str]], DictConfig], setting: Callable[[str], Any]
) -> None:
    """Compose and build a point for each choice of each group that is drawn, or one point if no group is.

    A point that fails for another reason, such as a geometry that does not fit, is left to the search.

    Args:
        space: what is searched.
        compose: overrides -> the configuration of a trial.
        setting: a key -> its value in the configuration without what is drawn.

    Raises:
        ConfigError: naming the setting, and the choice that has no setting of this name.
    """
    errors: list[tuple[SearchParameter, Value, str]] = []
    known = compose(list(space.fixed)).hydra.runtime.choices
    groups = [parameter for parameter in space.parameters if parameter.choices is not None and parameter.key in known]
    choices: list[tuple[SearchParameter | None, Value]] = [(group, v) for group in groups for v in group.values()]
    for group, choice in choices or [(None, None)]:
        chosen = {group: choice}
        point = space.point(lambda parameter: chosen.get(parameter, parameter.first), setting)  # noqa: B023
        overrides = [*space.fixed, *(parameter.override(value) for parameter, value in point.items())]
        try:
            build(compose(overrides))
        except UnknownKeyError as error:
            if group is None:
                raise ConfigError(in_one_line(error)) from None
            errors.append((group, choice, in_one_line(error)))
        except ConfigError:
            continue
    for group, choice, message in errors:
        lacking = {value for other, value, _ in errors if other is group}
        fitting = [text for value, text in (group.choices or {}).items() if value not in lacking]
        raise ConfigError(_explain(space, group, choice, message, fitting))


def _explain(space: Space, group: SearchParameter, choice: Value, message: str, fitting: Sequence[str]) -> str:
    """Say which choice lacks the setting, and the condition under which it could be searched."""
    key = message.partition(" is not a setting")[0]
    if not fitting or " is not a setting" not in message:
        return f"{message}, with {group.key}={choice}"
    drawn = next((str(parameter) for parameter in space.parameters if parameter.key == key), None)
    fixed = next((override for override in map(parse, space.fixed) if key_of(override) == key), None)
    value = drawn or f"choice({fixed.get_value_element_as_str() if fixed else 'null'})"
    condition = f"{group.key}={','.join(fitting)}"
    return (
        f"{fixed.input_line if fixed else key} is for {condition}, and {group.key}={choice} has no "
        f"{key.rpartition('.')[2]}: leave it out, or make it depend on the {group.key} in a search's file, as "
        f"conf/search/optimisation.yaml does: hydra.sweeper.conditions: {{{key}: {{{condition}: {value}}}}}"
    )
