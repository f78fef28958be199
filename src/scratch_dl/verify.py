"""`python -m scratch_dl.verify [overrides of train]`: is every module right?

Of the network that a training with the same overrides would train; of one module of one's own (`module=...`); or beside
the paper's tables (`suite=tables`). Exit status 1 if anything fails.
"""

import inspect
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from scratch_dl.cli.command import run_command
from scratch_dl.cli.errors import exit_with
from scratch_dl.config.build import build, tracking_of
from scratch_dl.config.overrides import expand as arguments_for_hydra
from scratch_dl.config.plain import plain
from scratch_dl.config.schema import KEYS, Setup
from scratch_dl.config.targets import check_keys, find_target, naming
from scratch_dl.config.yaml_files import CONF
from scratch_dl.kernels.restoring import restored
from scratch_dl.system.checks import boolean, choice, integer
from scratch_dl.system.errors import FAILURE, ConfigError
from scratch_dl.tracking import Untracked, tracked_run

if TYPE_CHECKING:
    from scratch_dl import tracking
    from scratch_dl.verification import Report

OWN = ("suite", "module", "args", "input", "reference", "draws", "runs", "rounds", "calls", "record")
SUITES = ("network", "module", "tables")


@hydra.main(version_base="1.3", config_path=CONF, config_name="verify")
def command(config: DictConfig) -> None:
    """Verify, print, record; leave with status 1 if anything failed."""
    try:
        passed = _verify(config, Path(HydraConfig.get().runtime.output_dir))
    except Exception as error:
        exit_with(error)
    if not passed:
        raise SystemExit(FAILURE)


@restored()
def _verify(config: DictConfig, folder: Path) -> bool:
    from scratch_dl import kernels

    settings = _settings(config)
    measure = {"network": _network, "module": _one_module, "tables": _tables}[settings["suite"]]
    with naming("", plain(config)):
        kernels.use(plain(config)["backend"])
    if not _recorded(settings):
        return measure(config, settings, None)
    passed = True
    try:
        with tracked_run(config, folder, str(settings["module"] or settings["suite"])) as run:
            run.tags({"kernels": kernels.used()})
            passed = measure(config, settings, run)
    except Untracked:
        if passed:  # a mistake in a module is what the exit status tells first
            raise
    return passed


def _network(config: DictConfig, _: Mapping[str, Any], run: "tracking.Run | None") -> bool:
    import torch

    from scratch_dl.diagnosis import known_mistakes
    from scratch_dl.verification import verify_network
    from scratch_dl.verification.trace import Batch

    setup = _setup(config)
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
    return _shown(report, run, mistakes)


def _one_module(config: DictConfig, settings: Mapping[str, Any], run: "tracking.Run | None") -> bool:
    from scratch_dl.verification import check_module

    given = plain(config)
    with naming("", given):
        seed = integer("seed", given["seed"], minimum=0)
        oracle = boolean("verification.oracle", given["verification"]["oracle"])

    module, reference = _module(settings)
    with naming("", settings):
        report = check_module(module, reference, settings["input"], draws=settings["draws"], oracle=oracle, seed=seed)
    return _shown(report, run)


def _shown(report: "Report", run: "tracking.Run | None", mistakes: Sequence[str] = ()) -> bool:
    report.show()
    for line in mistakes:
        print(textwrap.fill(line, 80))
    if run is not None:
        report.record(run)
    return report.passed


def _tables(config: DictConfig, settings: Mapping[str, Any], run: "tracking.Run | None") -> bool:
    from rich.console import Console

    from scratch_dl.paper import tables

    seed = integer("seed", plain(config)["seed"], minimum=0)
    measured = tables.measure(settings["runs"], settings["rounds"], settings["calls"], seed)
    Console(highlight=False).print(measured.rich())
    if run is not None:
        measured.record(run)
    return measured.passed


def _settings(config: DictConfig) -> dict[str, Any]:
    """The settings that are verify's own, checked.

    Raises:
        ConfigError: if one cannot be used.
    """
    given = plain(config)
    check_keys("", given, [*KEYS, *OWN])
    tracking_of(given)
    settings = {key: given[key] for key in OWN}
    with naming("", settings):
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
    """What `train` would build."""
    config = OmegaConf.masked_copy(config, [str(key) for key in config if key not in OWN])
    setup = build(config)
    if not setup.verification.enabled:
        raise ConfigError("verification must be full or quick here, but got off")
    return setup


def _module(settings: Mapping[str, Any]) -> tuple[Any, Any]:
    """The module, and its reference made with the same arguments (as far as it takes them), or None."""
    from scratch_dl.nn import adapt
    from scratch_dl.verification.module import as_inputs
    from scratch_dl.verification.references import as_function

    with naming("", settings):
        as_inputs(settings["input"], "input")
    made = _made("module", settings["module"], settings["args"])
    with naming("", settings):
        adapted = adapt(made, "module")
    if settings["reference"] is None:
        return made, None
    reference = _made("reference", settings["reference"], settings["args"])
    with naming("", settings):
        as_function(reference, adapted)
    return made, reference


def _made(key: str, target: Any, arguments: Mapping[str, Any]) -> Any:
    """An object of the class, or, for a reference, a function as it is."""
    found = find_target(key, str(target))
    if not inspect.isclass(found):
        if key == "reference":
            return found
        raise ConfigError(f"{key} must name a class, but got {target!r}")
    parameters = inspect.signature(found).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        try:
            check_keys("args", arguments, list(parameters))
        except ConfigError as error:
            if key == "module":
                raise
            own = "; a module whose arguments have other names says its counterpart by a method pytorch_reference"
            raise ConfigError(f"reference={target} is made with the module's args: {error}{own}") from error
    with naming("args", arguments):
        try:
            return found(**{name: tuple(v) if isinstance(v, list) else v for name, v in arguments.items()})
        except TypeError as error:
            raise ConfigError(f"{key}={target} does not take args={dict(arguments)}: {error}") from error


def _recorded(settings: Mapping[str, Any]) -> bool:
    return bool(settings["record"]) if settings["record"] is not None else settings["suite"] != "module"


def expand(arguments: Sequence[str]) -> list[str]:
    """What is not recorded leaves no folder: add the overrides by which Hydra makes none."""
    given = {key: value for key, _, value in (word.partition("=") for word in arguments)}
    record = given.get("record", "null").lower()
    if record == "false" or (record == "null" and given.get("module", "null") != "null"):
        return [*arguments_for_hydra(arguments), "hydra.run.dir=.", "hydra.output_subdir=null"]
    return arguments_for_hydra(arguments)


def _check(config: DictConfig) -> None:
    """Check the settings, and build what is to be verified once."""
    settings = _settings(config)
    if settings["suite"] == "network":
        _setup(config)
    elif settings["suite"] == "module":
        _module(settings)


def main() -> None:
    """Entry point of the command."""
    run_command(command, "verify", _check, expand, several=False)


if __name__ == "__main__":
    main()
