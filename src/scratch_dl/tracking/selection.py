"""Finds the runs that a person means: one by its id, the beginning of its id, `latest` or `best`; or all trainings."""

import difflib
from typing import Any

from scratch_dl.system.checks import nearest
from scratch_dl.tracking.errors import SettingError, TrackingError
from scratch_dl.tracking.mlflow_calls import mlflow_call
from scratch_dl.tracking.store import Store, client

LATEST, BEST = "latest", "best"
MODELS = "models:/"
SCORE = "val/best_psnr_db"
PAGE = 1000
_TRAINED_ON = {f"data.{key}" for key in ("train", "target", "crops_per_epoch", "augment", "test")}
EPOCHS = "trainer.epochs"
_OF_TRAININGS = "parameters"  # a parameter that only trainings have; a verification has their settings too
_TRAIN = "train one: python -m scratch_dl.train"
FULL, _SHORTEST = 32, 4  # characters of an id


def select_run(store: Store, name: str, key: str = "run") -> Any:
    """Return the run of a store that the setting `key` names: an id, the beginning of one, LATEST, BEST, or a model.

    A model is `models:/<name>@<alias>` or `models:/<name>/<version>`; it is the run's from which it was registered.

    Raises:
        SettingError: if there is none or several; the message begins with `key`, and names the nearest ones.
    """
    if name == LATEST:
        return latest_run(store, key)
    if name == BEST:
        return best_runs(store, key)[0]
    if name.startswith(MODELS):
        return get_run(store, _registered(store, name, key), key)
    return get_run(store, name, key, _SHORTEST)


def get_run(store: Store, run_id: str, key: str = "run", shortest: int = FULL) -> Any:
    """Return the run with this id, or the only one whose id begins with it if it has at least `shortest` characters.

    Raises:
        SettingError: if there is none or several; the message begins with `key`, and names the nearest ones.
    """
    try:
        with mlflow_call():
            return client(store).get_run(run_id)
    except TrackingError as error:
        known = {run.info.run_id: run for run in search_runs(store)}
        if run_id in known:
            raise
        begun = [known_id for known_id in known if run_id and known_id.startswith(run_id)]
        if len(run_id) >= shortest and begun:
            if len(begun) == 1:
                return known[begun[0]]
            words = f"{key}={run_id} is the beginning of {len(begun)} ids: {', '.join(begun[:3])}"
            raise SettingError(words) from error
        near = begun[:3] or difflib.get_close_matches(run_id, known, n=3, cutoff=0.3) or list(known)[:3]
        hint = f"the nearest are {', '.join(near)}" if near else "it has no runs"
        raise SettingError(f"{key}={run_id} is not in tracking.uri={store.shown}; {hint}") from error


def _registered(store: Store, address: str, key: str) -> str:
    """Return the id of the run of a registered model.

    Raises:
        SettingError: if there is no such model.
    """
    model, at, alias = address.removeprefix(MODELS).partition("@")
    try:
        with mlflow_call():
            api = client(store)
            if at:
                return str(api.get_model_version_by_alias(model, alias).run_id)
            name, _, version = model.rpartition("/")
            return str(api.get_model_version(name, version).run_id)
    except TrackingError as error:
        raise SettingError(
            f"{key}={address} is not a registered model of tracking.uri={store.shown}; register one: "
            "scratch-dl register run=best"
        ) from error


def latest_run(store: Store, key: str = "run") -> Any:
    """Return the training that was started last.

    Raises:
        SettingError: if there is none.
    """
    if not (runs := trainings(store)):
        raise SettingError(f"{key}={LATEST}, but no network was trained in tracking.uri={store.shown}; {_TRAIN}")
    return runs[0]


def best_runs(store: Store, key: str = "run") -> list[Any]:
    """Return the trainings that can be compared with the last one of them, the best on the validation crops first.

    They are finished, verified and without a fault, have its data and its noise, and are no trials of a search, which
    log no model.

    Raises:
        SettingError: if there is none.
    """
    sound = [run for run in trainings(store) if is_sound(run) and not is_trial(run)]
    if not sound:
        raise SettingError(
            f"{key}={BEST}, but no run in tracking.uri={store.shown} is finished, verified and without fault; {_TRAIN}"
        )
    same = [run for run in sound if data_and_noise(run) == data_and_noise(sound[0])]
    return sorted(same, key=lambda run: -float(run.data.metrics[SCORE]))


def best_of_experiment(store: Store, name: str, count: int, key: str = "experiment") -> list[Any]:
    """Return the sound trainings of an experiment, the best on the validation crops first, at most `count`.

    Raises:
        SettingError: if there is no such experiment, or it has none.
    """
    sound = [run for run in trainings(store, name) if is_sound(run)]
    if not sound:
        raise SettingError(f"{key}={name}, but none of its runs is finished, verified and without fault; {_TRAIN}")
    return sorted(sound, key=lambda run: -float(run.data.metrics[SCORE]))[:count]


def is_sound(run: Any) -> bool:
    """Return whether a run is a finished training without a fault that was verified and scored."""
    return bool(
        run.info.status == "FINISHED"
        and run.data.tags.get("verification") == "passed"
        and not fault_of(run)
        and SCORE in run.data.metrics
    )


def fault_of(run: Any) -> str:
    """Return the name of the fault that was put into a training; "" if there was none."""
    fault = str(run.data.tags.get("fault") or run.data.params.get("fault", "none"))
    return "" if fault == "none" else fault


def is_trial(run: Any) -> bool:
    """Return whether a training is a trial of a search."""
    return {"study", "trial"} <= set(run.data.tags)


def data_and_noise(run: Any) -> tuple[tuple[str, str], ...]:
    """Return what two runs must have in common if their scores are to be compared.

    These are the noise and the settings of the data that do not concern the training alone; of pictures that do not
    ship with a package, also the digest of the data.
    """
    own = sorted(
        item
        for item in run.data.params.items()
        if item[0].startswith(("noise.", "data.")) and item[0] not in _TRAINED_ON
    )
    if run.data.params.get("data._target_") == "scratch_dl.data.Photos":
        return tuple(own)
    return (*own, *(("digest", each.dataset.digest) for each in getattr(run.inputs, "dataset_inputs", [])))


def trainings(store: Store, experiment: str | None = None) -> list[Any]:
    """Return the trainings of all experiments, or of the one of this name, the last one first.

    Raises:
        SettingError: if there is no such experiment.
    """
    return [run for run in search_runs(store, experiment=experiment) if _OF_TRAININGS in run.data.params]


def search_runs(store: Store, query: str = "", experiment: str | None = None) -> list[Any]:
    """Return the runs that match a query, the last one first, without those that were deleted.

    Args:
        store: where they are.
        query: in MLflow's language; "" for all runs.
        experiment: the name of the experiment to search; None for all.

    Raises:
        SettingError: if there is no such experiment; the message names the most similar one, or all.
    """
    with mlflow_call():
        api = client(store)
        known = {each.name: each.experiment_id for each in api.search_experiments(max_results=PAGE)}
    if experiment is not None and experiment not in known:
        hint = nearest(experiment, known) or f"; there are: {', '.join(known)}"
        raise SettingError(f"experiment={experiment!r} is not in tracking.uri={store.shown}{hint}")
    experiments = list(known.values()) if experiment is None else [known[experiment]]
    if not experiments:
        return []
    with mlflow_call():
        found: list[Any] = []
        token: str | None = None
        while token != "":
            page = api.search_runs(
                experiments, query, max_results=PAGE, order_by=["attributes.start_time DESC"], page_token=token
            )
            found += page
            token = page.token or ""
        return found
