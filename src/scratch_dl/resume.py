"""Going on with a run: find its folder, compare the settings with the recorded ones, restore its checkpoint."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf

from scratch_dl import checkpoint, kernels, tracking
from scratch_dl.config import build, plain
from scratch_dl.passwords import hidden
from scratch_dl.session import CONFIG, SUMMARY, Result, train_run
from scratch_dl.targets import ConfigError
from scratch_dl.training import Progress

if TYPE_CHECKING:
    from scratch_dl.diagnosis import Verdict

# What may differ without a word: where and how long the run goes on, not what it computes.
IDLE = ("resume", "verification", "diagnosis", "tracking.", "trainer.test")  # no reason to go on with a finished run
FREE = ("resume", "verification", "diagnosis", "tracking.uri", "tracking.dir", "trainer.max_minutes", "trainer.test")


def resume_run(config: DictConfig, overrides: Sequence[str]) -> Result:
    """Go on with the run `config.resume.run` (an id or a folder) under the settings it recorded.

    A finished run is left as it is; only what MLflow has not got yet is sent.

    Raises:
        ConfigError: if there is no such run, or a setting differs that may not.
        CheckpointError: if it has no readable checkpoint.
    """
    command = plain(config)
    folder = find_folder(str(command["resume"]["run"]), command["tracking"])
    # Runs of before there were these settings lack them.
    recorded = {
        "verification": command["verification"],
        "diagnosis": command["diagnosis"],
        "backend": "reference",
        "fault": "none",
        **recorded_config(folder),
    }
    given = [override for override in overrides if not override.startswith(("resume", "hydra."))]
    changes = _changes(recorded, command, given)
    merged = _merged(recorded, changes)
    merged["tracking"] = {**merged["tracking"], **_store(folder, command, given)}
    setup = build(merged)
    content = checkpoint.load_last(folder / "checkpoints")
    total = setup.data.steps_per_epoch(setup.trainer.batch_size) * setup.trainer.epochs
    summary = _summary(folder)
    progress = Progress(**content["progress"])
    complete = summary.get("status") == "FINISHED" and (progress.step >= total or progress.stopped)
    if complete and all(key.startswith(IDLE) for key in changes):
        tracked = tracking.replay(folder, merged["tracking"]["dir"], merged["tracking"]["uri"])
        print(f"the run in {folder} is finished (step {progress.step}): nothing to do")
        best = checkpoint.load(folder / "checkpoints" / checkpoint.BEST)
        setup.network.load_state_dict(best["network"])
        scores, before = summary["scores"], summary["overrides"]
        return Result(summary["run_id"], folder, "FINISHED", scores, progress, setup.network, tracked, 0, before,
                      summary.get("verification", "off"), _verdict(summary))  # fmt: skip
    allowed = command["resume"]["allow"]
    for key, (old, new) in changes.items():
        if not _free(key, allowed, setup.schedule.depends_on_length):
            why = " (the schedule depends on the length)" if key == "trainer.epochs" else ""
            raise ConfigError(
                f"{key} of the run in {folder} is {old!r} and cannot become {new!r}{why}; leave it out, "
                f"or permit it by resume.allow=[{key}]"
            )
    if setup.threads is None and content["threads"] != torch.get_num_threads():
        torch.set_num_threads(content["threads"])  # bits depend on it
    before = content.get("kernels", "reference")
    if setup.backend == "auto" or (setup.backend == "native" and before.startswith("native")):
        setup.backend = _same_kernels(before)
    print(f"going on with the run in {folder}")
    if any(key.startswith("trainer.") for key in changes):
        content["progress"]["stopped"] = ""  # the reason to stop early may be gone
    return train_run(setup, folder, [*summary.get("overrides", []), *given], restored=content)


def _summary(folder: Path) -> dict[str, Any]:
    """What the run's summary says; nothing if there is none, or the file is damaged: the checkpoint has it all."""
    try:
        return dict(json.loads((folder / SUMMARY).read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _store(folder: Path, command: Mapping[str, Any], given: Sequence[str]) -> dict[str, Any]:
    """Where the run is recorded now: where the command says or found it by its id, else where its folder lies."""
    asked = {key: command["tracking"][key] for key in ("dir", "uri")}
    keys = {override.lstrip("+").partition("=")[0] for override in given}
    if Path(str(command["resume"]["run"])).absolute() != folder or keys >= {"tracking.dir", "tracking.uri"}:
        return asked
    try:
        directory, uri = tracking.whereabouts(folder, check="tracking.uri" not in keys and "tracking.dir" not in keys)
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
    """The backend that a run was computed with, on which its bits depend; "auto", and a word of it, if not here."""
    try:
        kernels.check(before)
    except ValueError:
        print(f"the run was computed by {before} kernels, which cannot be used here: its bits will not be the same")
        return "auto"
    return before


def find_folder(run: str, settings: Mapping[str, Any], key: str = "resume") -> Path:
    """The folder of a run given by its folder or its id, as the setting `key` has it.

    Raises:
        ConfigError: if there is none.
    """
    path = Path(run)
    if (path / CONFIG).is_file():
        return path.absolute()
    if path.exists() or "/" in run:
        raise ConfigError(f"{key} must be a run's folder (with a {CONFIG}) or id, but got {run!r}")
    if settings["uri"] is None and not (Path(settings["dir"]) / "mlflow.db").exists():
        raise ConfigError(f"tracking.dir={settings['dir']} holds no runs, so there is no run {run!r}")
    store = tracking.open_store(settings["dir"], settings["uri"])
    try:
        return tracking.find_folder(store, run)
    except tracking.TrackingError as error:
        raise ConfigError(str(error)) from error


def recorded_config(folder: Path) -> dict[str, Any]:
    """The configuration that a run recorded.

    Raises:
        ConfigError: if it cannot be read.
    """
    try:
        return plain(OmegaConf.create((folder / CONFIG).read_text()))  # type: ignore[arg-type]
    except Exception as error:
        raise ConfigError(f"{folder / CONFIG} cannot be read: {str(error).splitlines()[0]}") from error


def _changes(
    recorded: Mapping[str, Any], command: Mapping[str, Any], given: Sequence[str]
) -> dict[str, tuple[Any, Any]]:
    """Key -> (recorded value, new value) of what the command line says otherwise, group choices leaf by leaf."""
    changes: dict[str, tuple[Any, Any]] = {}
    for override in given:
        key = override.partition("=")[0].lstrip("+~").partition("@")[0].replace("/", ".")
        if key in ("experiment", "debug"):
            raise ConfigError(
                f"{key} cannot be chosen on resume, when the recorded settings hold; give single settings"
            )
        old, new = OmegaConf.select(OmegaConf.create(dict(recorded)), key), OmegaConf.select(
            OmegaConf.create(dict(command)), key
        )  # fmt: skip
        leaves = sorted({*_leaves(key, old), *_leaves(key, new)})
        for leaf in leaves:
            before, after = _leaves(key, old).get(leaf), _leaves(key, new).get(leaf)
            if before != hidden(after):  # what is recorded has no passwords
                changes[leaf] = (before, after)
    return changes


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
        OmegaConf.update(merged, key, new, force_add=True)
    return plain(merged)


def _free(key: str, allowed: Sequence[str], depends_on_length: bool) -> bool:
    if key == "trainer.epochs" and not depends_on_length:
        return True
    return any(key == free or key.startswith(f"{free}.") for free in (*FREE, *allowed))
