"""Resuming a run: find its folder, compare the settings with the recorded ones, restore its checkpoint."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf

from scratch_dl import kernels, tracking
from scratch_dl.config.build import build
from scratch_dl.config.overrides import key_of
from scratch_dl.config.plain import flat, plain
from scratch_dl.config.schema import Setup
from scratch_dl.config.targets import check_targets
from scratch_dl.config.yaml_files import CONF, read_yaml
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import hidden
from scratch_dl.tracking.store import open_existing_store
from scratch_dl.training import checkpoint
from scratch_dl.training.loop import Progress
from scratch_dl.training.result import CONFIG, RunResult, read_summary
from scratch_dl.training.run import train_run

if TYPE_CHECKING:
    from scratch_dl.diagnosis import Verdict

# A finished run is not continued because of a change to one of these.
IDLE = ("resume", "verification", "diagnosis", "tracking.", "trainer.test", "metrics")
# Settings that may change without permission: they decide where and how long a run continues, and what is measured, not
# what it computes.
FREE = (
    "resume",
    "metrics",
    "verification",
    "diagnosis",
    "tracking.uri",
    "tracking.dir",
    "tracking.run_id",
    "tracking.register",
    "tracking.every",
    "trainer.max_minutes",
    "trainer.checkpoint_every_steps",
    "trainer.test",
)
_OF_COMMAND = ("resume", "hydra.", "hydra/", "allowed_targets")  # settings of this command, not of the run
_LENGTH = "trainer.epochs"
_LATER = {"loss": "mse", "metrics": "default"}  # groups that older runs did not record, and the choice that they had


def resume_run(config: DictConfig, overrides: Sequence[str]) -> RunResult:
    """Continue the run `config.resume.run` (an id or a folder) under the settings that it recorded.

    A finished run is left as it is; only what MLflow has not received yet is sent.

    Raises:
        ConfigError: if there is no such run, or a setting differs that may not.
        CheckpointError: if it has no readable checkpoint.
    """
    command = plain(config)
    folder = find_folder(str(command["resume"]["run"]), command["tracking"])
    recorded = {**recorded_config(folder), "allowed_targets": command["allowed_targets"]}
    given = [override for override in overrides if not override.lstrip("+~").startswith(_OF_COMMAND)]
    allowed = _allowed(command["resume"]["allow"])
    changes = changed_settings(recorded, command, given)
    _check_changes({key: change for key, change in changes.items() if key != _LENGTH}, allowed, folder)
    merged = _merged(recorded, changes)
    check_targets(merged)
    merged["tracking"] = {**merged["tracking"], **_store(folder, command, given)}
    setup = build(merged)
    _check_changes(changes, allowed, folder, setup.schedule.depends_on_length)
    content = checkpoint.load_last(folder / "checkpoints")
    summary, progress = read_summary(folder), Progress(**content["progress"])
    total = setup.data.steps_per_epoch(setup.trainer.batch_size) * setup.trainer.epochs
    complete = summary.get("status") == "FINISHED" and (progress.step >= total or progress.stopped)
    if complete and all(key.startswith(IDLE) for key in changes):
        return _finished(setup, folder, summary, progress)
    if "data" in content and "data" not in allowed and not any(key.startswith(("data", "noise")) for key in changes):
        _check_data(content["data"], setup, folder)
    _compute_as_before(setup, content)
    if _target(content["config"]["optimizer"]) != _target(setup.config["optimizer"]):
        content["optimizer"] = setup.optimizer.state_dict()  # a different optimizer starts without a history
    print(f"continuing the run in {folder}")
    if any(key.startswith("trainer.") for key in changes):
        content["progress"]["stopped"] = ""  # the reason to stop early may no longer hold
    return train_run(setup, folder, [*summary.get("overrides", []), *given], restored=content)


def _finished(setup: Setup, folder: Path, summary: Mapping[str, Any], progress: Progress) -> RunResult:
    """Send what MLflow has not received of a finished run, and return its result."""
    tracked = tracking.replay(folder, setup.tracking.dir, setup.tracking.uri)
    print(f"the run in {folder} is finished (step {progress.step}): nothing to do")
    best = checkpoint.load(folder / "checkpoints" / checkpoint.BEST)
    setup.network.load_state_dict(best["network"])
    return RunResult(
        run_id=summary["run_id"],
        folder=folder,
        status="FINISHED",
        scores=summary["scores"],
        progress=progress,
        network=setup.network,
        tracked=tracked,
        overrides=summary["overrides"],
        verification=summary.get("verification", "off"),
        diagnosis=_verdict(summary),
    )


def _check_data(before: str, setup: Setup, folder: Path) -> None:
    """Refuse to continue on other pixels, or with other pictures left out, than those the run has been trained on."""
    if (now := setup.data.digest) != before:
        raise ConfigError(
            f"the pictures of the run in {folder} are not those of its last checkpoint (digest {now}, not {before}); "
            "put those back, or permit it by 'resume.allow=[data]'"
        )


def _compute_as_before(setup: Setup, content: Mapping[str, Any]) -> None:
    """Set the threads and the kernels that the checkpoint was computed with, on which its bits depend."""
    if setup.threads is None and content["threads"] != torch.get_num_threads():
        torch.set_num_threads(content["threads"])
    before = content["kernels"]
    if setup.backend == "auto" or (setup.backend == "native" and before.startswith("native")):
        setup.backend = _same_kernels(before)


def _store(folder: Path, command: Mapping[str, Any], given: Sequence[str]) -> dict[str, Any]:
    """Return tracking.dir and tracking.uri of the resumed run: those of the command, else those of its folder."""
    asked = {key: command["tracking"][key] for key in ("dir", "uri")}
    keys = set(map(key_of, given))
    if Path(str(command["resume"]["run"])).absolute() != folder or keys >= {"tracking.dir", "tracking.uri"}:
        return asked
    try:
        directory, uri = tracking.store_location(folder, check=not keys & {"tracking.uri", "tracking.dir"})
    except tracking.TrackingError as error:
        raise ConfigError(str(error)) from error
    if "tracking.uri" in keys:
        return {"dir": str(directory), "uri": asked["uri"]}
    if "tracking.dir" in keys:
        return {"dir": asked["dir"], "uri": None if uri is None or uri.startswith("sqlite:") else uri}
    return {"dir": str(directory), "uri": uri}


def _verdict(summary: Mapping[str, Any]) -> "Verdict | None":
    from scratch_dl.diagnosis import Verdict

    recorded = summary.get("diagnosis")
    return None if recorded is None else Verdict.from_json(recorded)


def _same_kernels(before: str) -> str:
    """Return the backend that a run was computed with; "auto", and print why, if it cannot be used here."""
    try:
        kernels.check(before)
    except ValueError:
        print(f"the run was computed by {before} kernels, which cannot be used here: its bits will not be the same")
        return "auto"
    return before


def find_folder(run: str, settings: Mapping[str, Any], key: str = "resume") -> Path:
    """Return the folder of a run that the setting `key` names: by the folder, an id or its beginning, latest or best.

    Raises:
        ConfigError: if there is none.
    """
    path = Path(run)
    if (path / CONFIG).is_file():
        return path.absolute()
    if path.exists() or ("/" in run and not run.startswith(tracking.MODELS)):
        raise ConfigError(f"{key} must be a run's folder (with a {CONFIG}), its id, latest or best, but got {run!r}")
    store = open_existing_store(settings, f"run {run!r}")
    try:
        return tracking.find_folder(store, run, key)
    except tracking.TrackingError as error:
        raise ConfigError(str(error)) from error


def recorded_config(folder: Path) -> dict[str, Any]:
    """Return the configuration that a run recorded, without `allowed_targets`, which only a command line can give.

    A group that did not exist when the run was recorded gets the choice that matches what the run did.

    Raises:
        ConfigError: if it cannot be read, or contains a ${...}: a recorded configuration has every value written out.
    """
    content = read_yaml(folder / CONFIG)
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{folder / CONFIG} must have a run's settings, but got {str(content)[:40]!r}")
    if key := next((key for key, value in flat(content).items() if "${" in str(value)), None):
        raise ConfigError(f"{folder / CONFIG} must have every value written out, but {key} has a ${{...}}")
    content.pop("allowed_targets", None)
    for group, name in _LATER.items():
        content.setdefault(group, read_yaml(Path(CONF, group, f"{name}.yaml")))
    return content


def changed_settings(
    recorded: Mapping[str, Any], command: Mapping[str, Any], given: Sequence[str]
) -> dict[str, tuple[Any, Any]]:
    """Return key -> (recorded value, new value) of every setting that the command line changes.

    A group is compared leaf by leaf; if its `_target_` changes, the whole group is one change.
    """
    changes: dict[str, tuple[Any, Any]] = {}
    before, now = OmegaConf.create(dict(recorded)), OmegaConf.create(dict(command))
    for override in given:
        key = key_of(override)
        if key in ("experiment", "debug"):
            raise ConfigError(
                f"{key} cannot be chosen on resume, when the recorded settings hold; give single settings"
            )
        old, new = OmegaConf.select(before, key), OmegaConf.select(now, key)
        if _target(old) != _target(new) and ("." not in key or new is None):  # an entry of a group is taken out
            changes[key] = (OmegaConf.to_container(old), new and OmegaConf.to_container(new))
            continue
        if _target(before.get(top := key.partition(".")[0])) != _target(now.get(top)) and top in changes:
            continue  # a setting of a group that is replaced
        for leaf in sorted({*_leaves(key, old), *_leaves(key, new)}):
            was, becomes = _leaves(key, old).get(leaf), _leaves(key, new).get(leaf)
            if was != hidden(becomes):  # a recorded configuration contains no passwords
                changes[leaf] = (was, becomes)
    return changes


def _target(node: Any) -> str | None:
    """Return the `_target_` of a group, or None for anything else."""
    mapping = isinstance(node, Mapping) or OmegaConf.is_dict(node)
    return str(node["_target_"]) if mapping and "_target_" in node else None


def _check_changes(
    changes: Mapping[str, tuple[Any, Any]], allowed: Sequence[str], folder: Path, depends_on_length: bool = True
) -> None:
    """Refuse a change that needs a permission which was not given.

    Raises:
        ConfigError: naming the setting, its old and its new value.
    """
    for key, (old, new) in changes.items():
        if may_change(key, allowed, depends_on_length):
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping) and "_target_" in old:
            permit = "" if key == "model" else f", or permit it by 'resume.allow=[{key}]'"
            raise ConfigError(
                f"a resumed run keeps its {key}: {old['_target_']} cannot become {new['_target_']}; leave out {key}=..."
                f"{permit}"
            )
        reason = " (the schedule depends on the length)" if key == _LENGTH else ""
        raise ConfigError(
            f"{key} of the run in {folder} is {old!r} and cannot become {new!r}{reason}; leave it out, "
            f"or permit it by 'resume.allow=[{key}]'"
        )


def _allowed(given: Any) -> list[str]:
    if not isinstance(given, list) or not all(isinstance(key, str) for key in given):
        raise ConfigError(f"resume.allow must be a list of keys such as [optimizer.lr], but got {given!r}")
    return given


def _leaves(key: str, node: Any) -> dict[str, Any]:
    if not OmegaConf.is_dict(node):
        return {key: OmegaConf.to_container(node) if OmegaConf.is_list(node) else node}
    leaves: dict[str, Any] = {}
    for name in node:
        leaves |= _leaves(f"{key}.{name}", node[name])
    return leaves


def _merged(recorded: Mapping[str, Any], changes: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    merged = OmegaConf.create(dict(recorded))
    for key, (_, new) in changes.items():
        OmegaConf.update(merged, key, new, merge=False, force_add=True)
    return plain(merged)


def may_change(key: str, allowed: Sequence[str], depends_on_length: bool) -> bool:
    """Return whether a resumed run may have another value of `key`.

    Args:
        key: of the setting.
        allowed: settings and groups of settings that the user permits to change.
        depends_on_length: whether the schedule depends on `trainer.epochs`.
    """
    if key == "trainer.epochs" and not depends_on_length:
        return True
    return any(key == free or key.startswith(f"{free}.") for free in (*FREE, *allowed))
