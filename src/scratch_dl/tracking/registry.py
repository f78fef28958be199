"""Registers trained networks in MLflow's model registry; the best one on the same validation has the alias champion."""

import math
from typing import Any, NamedTuple

from scratch_dl.tracking.errors import SettingError, TrackingError
from scratch_dl.tracking.mlflow_calls import mlflow_call
from scratch_dl.tracking.selection import SCORE, data_and_noise, is_sound
from scratch_dl.tracking.store import Store, client
from scratch_dl.tracking.values import DESCRIPTION

NAME, CHAMPION = "denoiser", "champion"
_TEXT = (
    "Hand-written networks that denoise pictures: float32 of shape (n, 3, height, width), any size, white is 1. "
    f"The alias {CHAMPION} belongs to the best one on its validation crops."
)


_GONE = "RESOURCE_DOES_NOT_EXIST"


class Registration(NamedTuple):
    """A version of the model, and in words what became of the alias."""

    version: str
    words: str


def register(store: Store, run: Any) -> Registration:
    """Register the network of a run, and make it the champion if it beats the present one on the same data and noise.

    A run that is registered already keeps its version.

    Raises:
        SettingError: if the run is not finished, verified and without a fault, or has logged no model.
        TrackingError: if the store fails.
    """
    if not is_sound(run):
        raise SettingError(f"run={run.info.run_id} must be a finished, verified training without a fault")
    with mlflow_call():
        api = client(store)
        version = _version(api, run) or _create(api, run)
        champion = _champion_run(store, api)
        if champion is None or champion.info.run_id == run.info.run_id:
            words = f"{NAME} version {version} is the {CHAMPION}"
        elif reason := _kept_because(run, champion):
            kept = f"kept the {CHAMPION} of run {champion.info.run_id}{reason}"
            return Registration(version, f"{NAME} version {version} is registered; {kept}")
        else:
            own, other = _score(run), _score(champion)
            words = f"{NAME} version {version} is the new {CHAMPION}: {own:.2f} dB, before {other:.2f} dB"
        api.set_registered_model_alias(NAME, CHAMPION, version)
    return Registration(version, words)


def _kept_because(run: Any, champion: Any) -> str:
    """Return why a run does not replace the champion, to follow its id; "" if it does."""
    if data_and_noise(run) != data_and_noise(champion):
        return ", which was validated on other data or another noise"
    if _score(run) <= _score(champion):
        return f": {_score(champion):.2f} dB, this one {_score(run):.2f} dB"
    return ""


def _score(run: Any) -> float:
    return float(run.data.metrics.get(SCORE, -math.inf))


def _champion_run(store: Store, api: Any) -> Any | None:
    """Return the run of the champion; None if there is none, or its run is gone."""
    try:
        with mlflow_call():
            run_id = str(api.get_model_version_by_alias(NAME, CHAMPION).run_id)
            return client(store).get_run(run_id)
    except TrackingError as error:
        # Any other error, such as that of a locked database, must not put a weaker network in the champion's place.
        if getattr(error.__cause__, "error_code", None) in (_GONE, "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _version(api: Any, run: Any) -> str | None:
    """Return the version that was registered from a run; None if none was."""
    found = api.search_model_versions(f"name = '{NAME}' AND run_id = '{run.info.run_id}'")
    return str(found[0].version) if found else None


def _create(api: Any, run: Any) -> str:
    models = api.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    if not models:
        raise SettingError(f"run={run.info.run_id} has logged no model, as it was trained with tracking.detail=trial")
    if not any(model.name == NAME for model in api.search_registered_models(f"name = '{NAME}'")):
        api.create_registered_model(NAME, description=_TEXT)
    note = run.data.tags.get(DESCRIPTION, "").partition("\n")[0]
    description = f"{run.info.run_name}; {note}" if note else str(run.info.run_name)
    created = api.create_model_version(
        NAME, models[0].artifact_location, run.info.run_id, description=description, model_id=models[0].model_id
    )
    for key in ("model", "noise", "verification", "diagnosis"):
        if key in run.data.tags:
            api.set_model_version_tag(NAME, created.version, key, run.data.tags[key])
    api.set_model_version_tag(NAME, created.version, SCORE, f"{run.data.metrics[SCORE]:.4f}")
    return str(created.version)
