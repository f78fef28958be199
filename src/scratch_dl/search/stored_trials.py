"""The trials of a study as its storage keeps them: read, settled, and recovered from processes that died.

The attributes of a trial in Optuna:

    worker     the process that trains it
    identity   equal for two points that are the same training
    result     what came of it; a trial that failed without a result has lost its process
    retries    the number of the trial whose point it trains again
    deaths     how many processes in a row have died while they trained this point
    baseline   whether it is the configuration's own point
    overrides  of its job
"""

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from scratch_dl.search.space import Space
from scratch_dl.search.storage import HEARTBEAT_S
from scratch_dl.search.trial_result import State, TrialResult, TrialRow
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import without_password
from scratch_dl.tracking.process import is_alive

MAX_DEATHS = 3
"""Give up on a point after it has crashed this many worker processes."""


def read_rows(trials: Sequence[FrozenTrial], space: Space) -> tuple[TrialRow, ...]:
    """Return every trial as it stands."""
    retries = {trial.user_attrs["retries"]: trial.number for trial in trials if "retries" in trial.user_attrs}
    return tuple(_row(trial, space, retries.get(trial.number)) for trial in trials)


def _row(trial: FrozenTrial, space: Space, requeued_as: int | None) -> TrialRow:
    keys = {parameter.name: parameter.key for parameter in space.parameters}
    params = {keys.get(name, name): value for name, value in _params(trial).items()}
    result: TrialResult | None = None
    if "result" in trial.user_attrs:
        result = TrialResult.from_json(trial.user_attrs["result"])
        state = result.state
    elif is_foreign(trial):
        state, result = _foreign_result(trial)
    elif not trial.state.is_finished():
        state = State.WAITING if trial.state == TrialState.WAITING else State.RUNNING
    elif trial.user_attrs.get("deaths", 0) + 1 >= MAX_DEATHS:
        state = State.FAILED
        result = TrialResult(State.FAILED, reason=f"its process died, {MAX_DEATHS} times in a row")
    else:
        state = State.KILLED
    return TrialRow(trial.number, state, params, result, requeued_as, is_foreign(trial))


def is_foreign(trial: FrozenTrial) -> bool:
    """Return whether another program runs the trial, or ran it. One that waits is trained by whoever comes first."""
    return trial.state != TrialState.WAITING and "worker" not in trial.user_attrs


def _foreign_result(trial: FrozenTrial) -> tuple[State, TrialResult | None]:
    """Return what another program has told Optuna: a value, or nothing that counts."""
    if trial.state == TrialState.COMPLETE:
        return State.COMPLETE, TrialResult(State.COMPLETE, values=tuple(trial.values))
    if trial.state == TrialState.PRUNED:
        values = None if trial.value is None else (trial.value,)
        return State.PRUNED, TrialResult(State.PRUNED, reason="pruned by another program", values=values)
    return State.FOREIGN, None


def _params(trial: FrozenTrial) -> dict[str, Any]:
    """The drawn parameters, or those that a trial in the queue will have."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def read_overrides(trial: FrozenTrial, space: Space, storage: str) -> list[str]:
    """Return the overrides of a trial's job, as they are stored; of another program's trial, those of its parameters.

    Raises:
        ConfigError: if the storage, which others may write to, has overrides that only a command line may have, or a
            point outside the space.
    """
    if "overrides" not in trial.user_attrs:
        if (misfit := space.misfit(trial.params)) is not None:
            raise ConfigError(f"trial {trial.number} of another program lies outside of the search: {misfit}")
        drawn = [parameter for parameter in space.parameters if parameter.name in trial.params]
        return [*space.fixed, *(parameter.override(trial.params[parameter.name]) for parameter in drawn)]
    overrides = [str(override) for override in trial.user_attrs["overrides"]]
    for override in overrides:
        if override not in space.fixed and re.match(r"[+~]*(hydra\b|allowed_targets\b)", override):
            raise ConfigError(
                f"{override} of trial {trial.number} in {without_password(storage)} must be given on the command line, "
                "but the storage says it"
            )
    return overrides


def trial_id(study: optuna.Study, number: int) -> int:
    """Return the storage's own id of a trial."""
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def settle(study: optuna.Study, number: int, result: TrialResult) -> None:
    """Store a trial's result, then its state: `recover` finishes a trial that has the first without the second."""
    study._storage.set_trial_user_attr(trial_id(study, number), "result", result.to_json())
    _finish(study, number, result)


def _finish(study: optuna.Study, number: int, result: TrialResult) -> None:
    if result.state == State.COMPLETE:
        assert result.values is not None
        study.tell(number, list(result.values))
    elif result.state in (State.PRUNED, State.REFUSED):
        # To the sampler, a refused point is a bad one, so that it learns to avoid its neighbourhood.
        study.tell(number, state=TrialState.PRUNED)
    else:
        study.tell(number, state=TrialState.FAIL)


def heartbeat(study: optuna.Study, number: int) -> None:
    """Tell the storage that the trial's process lives, if the storage keeps heartbeats."""
    if record := getattr(study._storage, "record_heartbeat", None):
        record(trial_id(study, number))


@contextmanager
def heartbeats(study: optuna.Study, numbers: Sequence[int]) -> Iterator[None]:
    """Meanwhile, tell the storage every HEARTBEAT_S seconds that these trials' process lives, for other machines."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_S):
            for number in numbers:
                with contextlib.suppress(Exception):  # the storage may be back for the next one
                    heartbeat(study, number)

    if hasattr(study._storage, "record_heartbeat"):
        threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def recover(study: optuna.Study, space: Space, directory: Path) -> None:
    """Settle the trials of processes that died, and put their points into the queue again.

    Args:
        study: whose lock the caller holds.
        space: of the study.
        directory: `tracking.dir`, where processes hold the locks that show that they live.
    """
    has_heartbeats = hasattr(study._storage, "record_heartbeat")
    one_machine = isinstance(study._storage, JournalStorage)
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if is_foreign(trial):
            continue
        alive = _is_alive(trial.user_attrs["worker"], directory, one_machine)
        if alive:
            heartbeat(study, trial.number)  # this machine may have slept
        elif alive is None:
            continue
        elif "result" in trial.user_attrs:
            _finish(study, trial.number, TrialResult.from_json(trial.user_attrs["result"]))
        else:
            study.tell(trial.number, state=TrialState.FAIL)
    if has_heartbeats:
        optuna.storages.fail_stale_trials(study)
    trials = study.get_trials(deepcopy=False)
    retried = {trial.user_attrs.get("retries") for trial in trials}
    for trial in trials:
        row = _row(trial, space, None)
        is_whole = "overrides" in trial.user_attrs or "fixed_params" in trial.system_attrs  # not half drawn
        if row.state == State.KILLED and trial.number not in retried and is_whole:
            deaths = trial.user_attrs.get("deaths", 0) + (row.result is None)
            inherited = {key: trial.user_attrs[key] for key in ("baseline",) if key in trial.user_attrs}
            attributes = {"retries": trial.number, "deaths": deaths, **inherited}
            study.enqueue_trial(_params(trial), user_attrs=attributes)


def _is_alive(worker: Mapping[str, str], directory: Path, one_machine: bool) -> bool | None:
    """Return whether the process that trains a trial lives; None if only its heartbeats can tell."""
    alive = is_alive(worker["lock"], directory)
    if alive is None and one_machine:
        alive = psutil.pid_exists(int(worker["pid"]))
    return alive
