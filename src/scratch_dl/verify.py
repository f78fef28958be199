"""`python -m scratch_dl.verify [overrides of train]`: is every module right?

Verifies the network that a training with the same overrides would train, your own module (`module=...`), or the
paper's tables (`suite=tables`). The exit status is 1 if anything fails.
"""

import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from scratch_dl.cli.command import Command
from scratch_dl.config.build import build, tracking_settings
from scratch_dl.config.overrides import expand as expand_paths
from scratch_dl.config.overrides import value_of
from scratch_dl.config.plain import plain
from scratch_dl.config.schema import KEYS, Setup
from scratch_dl.config.targets import check_keys, config_errors, find_target
from scratch_dl.kernels.restoring import restored
from scratch_dl.system.checks import boolean, choice, integer
from scratch_dl.system.errors import FAILURE, ConfigError
from scratch_dl.tracking import Untracked, tracked_run

if TYPE_CHECKING:
    from scratch_dl import tracking
    from scratch_dl.verification import Report

OWN = ("suite", "module", "args", "input", "reference", "draws", "runs", "rounds", "calls", "record")
SUITES = ("network", "module", "tables")


class _Checked(NamedTuple):
    """The settings, and their subject: a Setup, a module and its reference (or None), or None for the tables."""

    settings: dict[str, Any]
    subject: Any


@restored()
def _run(config: DictConfig, folder: Path, checked: _Checked) -> int:
    """Verify, print, record; return the exit status: FAILURE if anything failed."""
    from scratch_dl import kernels

    settings, subject = checked
    suites: dict[str, Callable[..., bool]] = {"network": _network, "module": _one_module, "tables": _tables}
    verify = suites[settings["suite"]]
    with config_errors("", plain(config)):
        kernels.use(plain(config)["backend"])
    if not _is_recorded(settings):
        return 0 if verify(subject, settings, None) else FAILURE
    passed = True
    try:
        with tracked_run(config, folder, str(settings["module"] or settings["suite"])) as run:
            run.tags({"kernels": kernels.used()})
            passed = verify(subject, settings, run)
    except Untracked:
        if passed:  # otherwise the exit status reports the failed verification, which is more important
            raise
    return 0 if passed else FAILURE


def _network(setup: Setup, _: Mapping[str, Any], run: "tracking.Run | None") -> bool:
    import torch

    from scratch_dl.diagnosis import known_mistakes
    from scratch_dl.verification import verify_network
    from scratch_dl.verification.trace import Batch

    if setup.threads is not None:
        torch.set_num_threads(setup.threads)
    if setup.fault is not None:
        print(setup.fault)
        if run is not None:
            run.tags({"fault": setup.fault.name})
    size, what = setup.data.crop_size, setup.verification
    report = verify_network(setup.network, setup.optimizer, size, what, loss=setup.loss, seed=setup.seed)
    images = torch.rand((2, 2, 3, *size), generator=torch.Generator().manual_seed(setup.seed))
    mistakes = known_mistakes(report, setup.network, setup.loss, Batch(images[0], images[1]))
    return _publish(report, run, mistakes)


def _one_module(subject: tuple[Any, Any], settings: Mapping[str, Any], run: "tracking.Run | None") -> bool:
    from scratch_dl.verification import check_module

    module, reference = subject
    oracle, seed = settings["oracle"], settings["seed"]
    with config_errors("", settings):
        report = check_module(module, reference, settings["input"], draws=settings["draws"], oracle=oracle, seed=seed)
    return _publish(report, run)


def _publish(report: "Report", run: "tracking.Run | None", mistakes: Sequence[str] = ()) -> bool:
    """Print and record a report, and return whether everything passed."""
    report.show()
    for line in mistakes:
        print(textwrap.fill(line, 80))
    if run is not None:
        report.record(run)
    return report.passed


def _tables(_: None, settings: Mapping[str, Any], run: "tracking.Run | None") -> bool:
    from rich.console import Console

    from scratch_dl.paper import tables

    measured = tables.measure(settings["runs"], settings["rounds"], settings["calls"], settings["seed"])
    Console(highlight=False).print(measured.rich())
    if run is not None:
        measured.record(run)
    return measured.passed


def _settings(config: DictConfig) -> dict[str, Any]:
    """Return verify's own settings, checked, and the settings of train that it uses for a module.

    Raises:
        ConfigError: if one cannot be used.
    """
    given = plain(config)
    check_keys("", given, [*KEYS, *OWN])
    tracking_settings(given)
    settings = {key: given[key] for key in (*OWN, "seed")}
    with config_errors("", given):
        integer("seed", settings["seed"], minimum=0)
        settings["oracle"] = boolean("verification.oracle", given["verification"]["oracle"])
    with config_errors("", settings):
        choice("suite", settings["suite"], SUITES)
        for name in ("draws", "runs", "rounds", "calls"):
            integer(name, settings[name], minimum=1)
    if settings["record"] not in (None, True, False):
        raise ConfigError(f"record must be true, false or null, but got {settings['record']!r}")
    if settings["module"] is not None:
        if settings["suite"] == "tables":
            raise ConfigError(f"module must be null with suite=tables, but got {settings['module']!r}")
        settings["suite"] = "module"
    elif alone := [key for key in ("args", "input", "reference") if settings[key] is not None]:
        raise ConfigError(f"{alone[0]} needs a module, for example module=my_layers.MyConv, but there is none")
    elif settings["suite"] == "module":
        raise ConfigError("module must be given, for example module=my_layers.MyConv, but it is missing")
    settings["args"] = {} if settings["args"] is None else settings["args"]
    if not isinstance(settings["args"], Mapping):
        raise ConfigError(
            f"args must be a mapping, for example 'args={{kernel_size: 3}}', but got {settings['args']!r}"
        )
    if settings["suite"] == "module" and settings["input"] is None:
        raise ConfigError("input must be given with module=..., for example input=[4,3,16,16], but it is missing")
    return settings


def _setup(config: DictConfig) -> Setup:
    """Build what `train` would build."""
    config = OmegaConf.masked_copy(config, [str(key) for key in config if key not in OWN])
    setup = build(config)
    if not setup.verification.enabled:
        raise ConfigError("verification must be full or quick here, but got off")
    return setup


def _module(settings: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the module, and its reference, made with the same arguments, or None."""
    from scratch_dl.nn import adapt
    from scratch_dl.verification.module import as_inputs
    from scratch_dl.verification.references import as_function

    with config_errors("", settings):
        as_inputs(settings["input"], "input")
    module = _make("module", settings["module"], settings["args"])
    with config_errors("", settings):
        adapted = adapt(module, "module")
    if settings["reference"] is None:
        return module, None
    reference = _make("reference", settings["reference"], settings["args"])
    with config_errors("", settings):
        as_function(reference, adapted)
    return module, reference


def _make(key: str, target: Any, arguments: Mapping[str, Any]) -> Any:
    """Return an object of the class `target`; a reference may also be a function, which is returned unchanged."""
    kind = find_target(key, str(target))
    if not inspect.isclass(kind):
        if key == "reference":
            return kind
        raise ConfigError(f"{key} must name a class, but got {target!r}")
    parameters = inspect.signature(kind).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        try:
            check_keys("args", arguments, list(parameters))
        except ConfigError as error:
            if key == "module":
                raise
            hint = "; if they have other names, give the module a method pytorch_reference instead"
            raise ConfigError(f"reference={target} is made with the module's args: {error}{hint}") from error
    with config_errors("args", arguments):
        try:
            return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in arguments.items()})
        except TypeError as error:
            raise ConfigError(f"{key}={target} does not take args={dict(arguments)}: {error}") from error


def _is_recorded(settings: Mapping[str, Any]) -> bool:
    return bool(settings["record"]) if settings["record"] is not None else settings["suite"] != "module"


def expand(arguments: Sequence[str]) -> list[str]:
    """Expand the arguments as for any command; if nothing is recorded, add overrides so that Hydra makes no folder."""
    expanded = expand_paths(arguments)
    record = value_of("record", expanded)
    if record is False or (record is None and value_of("module", expanded) is not None):
        return [*expanded, "hydra.run.dir=.", "hydra.output_subdir=null"]
    return expanded


def _check(config: DictConfig) -> _Checked:
    """Check the settings, and build what is to be verified."""
    settings = _settings(config)
    if settings["suite"] == "network":
        return _Checked(settings, _setup(config))
    return _Checked(settings, _module(settings) if settings["suite"] == "module" else None)


def main() -> None:
    """Entry point of the command."""
    Command("verify", _check, _run, expand).main()


if __name__ == "__main__":
    main()
