"""Checks that what a `_target_` made has the methods and attributes of its group, and tries it once without any data.

What a group asks for is written down once, in its class: the public members of `Noise`, `Schedule`, `DataSet`,
`Optimizer` and `Denoiser`.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from scratch_dl.system.errors import ConfigError

PAGE = "docs/adding-things.md"


class _Unfit(Exception):
    """What does not fit, in words that follow the name of the object."""


def check_protocol(group: str, target: str, made: Any, again: Callable[..., Any]) -> None:
    """Refuse an object that a training could not use.

    Args:
        group: of the configuration.
        target: the `_target_` that made the object.
        made: the object.
        again: makes another one, given the arguments that are not settings.

    Raises:
        ConfigError: naming what is missing or does not fit, and the page that shows an example.
    """
    try:
        if group in (protocols := _protocols()):
            _check_members(made, protocols[group])
        if group in _TRIALS and not type(made).__module__.startswith("scratch_dl."):
            _TRIALS[group](made, again)
    except _Unfit as error:
        raise ConfigError(f"{group}._target_={target} {error}; {example_of(group)}") from None


def example_of(group: str) -> str:
    """Return where to see what a part of the group must have, for the end of a message."""
    article = "an" if group[0] in "aeiou" else "a"
    return f"{PAGE} shows {article} {'data set' if group == 'data' else group} of one's own"


def _protocols() -> dict[str, type]:
    """Return the class whose public members an object of a group must have; a loss may be of any class."""
    from scratch_dl import data, models, optim, schedule

    return {
        "model": models.Denoiser,
        "optimizer": optim.Optimizer,
        "schedule": schedule.Schedule,
        "data": data.DataSet,
        "noise": data.Noise,
    }


def _check_members(made: Any, protocol: type) -> None:
    members: dict[str, Any] = {name: None for name in inspect.get_annotations(protocol) if name[0] != "_"}
    members |= {name: value for name, value in vars(protocol).items() if name[0] != "_" or name == "__call__"}
    calls = {name: list(inspect.signature(value).parameters)[1:] for name, value in members.items() if callable(value)}
    shown = {name: f"{name}({', '.join(calls[name])})" if name in calls else name for name in members}
    if missing := [shown[name] for name in members if not _has(made, name, name in calls)]:
        raise _Unfit(f"has no {', no '.join(missing)}")
    for name, arguments in calls.items():
        method = getattr(made, name)
        try:
            inspect.signature(method).bind(*arguments)
        except TypeError:
            raise _Unfit(f"must have {shown[name]}, but has {name}{inspect.signature(method)}") from None
        except ValueError:
            pass  # a function written in C may have no signature


def _has(made: Any, name: str, is_method: bool) -> bool:
    """Return whether the object has the member; a property is not computed, as it may read data."""
    if name == "__call__":
        return callable(made)
    try:
        inspect.getattr_static(made, name)
    except AttributeError:
        return hasattr(made, name)  # by way of __getattr__
    return not is_method or callable(getattr(made, name))


def _try_noise(noise: Any, _: Callable[..., Any]) -> None:
    import torch

    clean = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    subpixels = clean[:, None].repeat(1, 4, 1, 1, 1) if noise.needs_subpixels else None
    call = "__call__(clean, subpixels, generator)"
    one, other = (_called(call, noise, clean.clone(), subpixels, torch.Generator().manual_seed(1)) for _ in range(2))
    if not isinstance(one, torch.Tensor) or one.shape != clean.shape or one.dtype != clean.dtype:
        got = f"{tuple(one.shape)}, {one.dtype}" if isinstance(one, torch.Tensor) else type(one).__name__
        raise _Unfit(f"must return a tensor of clean's shape and dtype, here (2, 3, 8, 8), float32, but got {got}")
    if not torch.equal(one, other):
        raise _Unfit("must draw from the generator that it is given alone, but two equal generators gave two noises")


def _try_schedule(schedule: Any, _: Callable[..., Any]) -> None:
    for progress in (0.0, 0.5):
        factor = _called("factor(progress)", schedule.factor, progress)
        if not isinstance(factor, int | float):
            raise _Unfit(f"must return a float, but factor({progress}) returned a {type(factor).__name__}")
        if not math.isfinite(factor) or factor < 0:
            raise _Unfit(f"must have a factor >= 0 at every progress, but factor({progress}) is {factor!r}")


def _try_optimizer(_: Any, again: Callable[..., Any]) -> None:
    import torch

    from scratch_dl.nn import Parameter

    parameters = [Parameter(torch.ones(2, 3)), Parameter(torch.ones(4))]
    optimizer, other = again(parameters=parameters), again(parameters=parameters)
    for parameter in parameters:
        parameter.grad.fill_(0.5)
    _called("step()", optimizer.step)
    state = _called("state_dict()", optimizer.state_dict)
    _called("load_state_dict(state)", other.load_state_dict, state)
    _called("zero_grad()", optimizer.zero_grad)
    if not isinstance(state, Mapping):
        raise _Unfit(f"must have a state_dict() that returns a mapping, but got {type(state).__name__}")


def _called(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:
        words = " ".join(str(error).split())
        raise _Unfit(f"fails when it is tried: {name} raises {type(error).__name__}: {words}") from error


_TRIALS = {"noise": _try_noise, "schedule": _try_schedule, "optimizer": _try_optimizer}
