"""A study as its storage keeps it: its trials, and what a dead process has left of them.

What a trial has in Optuna, as its attributes:

    worker     the process that trains it
    identity   equal for two points that are the same training
    outcome    what came of it; a trial that failed without one has lost its process
    retries    the number of the trial that it trains again
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from scratch_dl.search.outcomes import COMPLETE, FAILED, KILLED, PRUNED, REFUSED, RUNNING, WAITING, Outcome, Row
from scratch_dl.search.parameter import Parameter
from scratch_dl.search.settings import Settings
from scratch_dl.search.space import Space
from scratch_dl.search.storage import HEARTBEAT_S, lock, quiet
from scratch_dl.tracking.process import is_alive

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

_DEATHS = 3  # a point that has ended so many processes is not tried again


@dataclass
class StoredStudy:
    """One process's view of the trials.

    Attributes:
        settings, space: what is asked for.
        directory: `tracking.dir`, where processes show that they live.
        optuna: the study, once it is open.
        in_hand: numbers of the trials that this process has drawn and not settled.
    """

    settings: Settings
    space: Space
    directory: Path
    optuna: "optuna.Study" = field(init=False)
    in_hand: set[int] = field(init=False, default_factory=set)

    def rows(self) -> tuple[Row, ...]:
        """Every trial as it stands."""
        with quiet():
            return self._rows(self.optuna.get_trials(deepcopy=False))

    def attribute(self, key: str) -> Any:
        """What the study remembers under a key; None if nothing."""
        with quiet():
            return self.optuna.user_attrs.get(key)

    def remember(self, key: str, value: Any) -> None:
        """Keep something with the study."""
        with quiet():
            self.optuna.set_user_attr(key, value)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process draws from the study meanwhile."""
        with lock(self.settings.storage, f"study {self.settings.study_name}"), quiet():
            yield

    @contextmanager
    def beating(self, numbers: Sequence[int]) -> Iterator[None]:
        """Meanwhile, tell the storage now and then that the trials' process lives, for other machines to know."""
        ended = threading.Event()
        storage = self.optuna._storage

        def beat() -> None:
            while not ended.wait(HEARTBEAT_S):
                for number in numbers:
                    with contextlib.suppress(Exception):  # the storage may be back for the next one
                        storage.record_heartbeat(self._id(number))  # type: ignore[attr-defined]

        if hasattr(storage, "record_heartbeat"):
            threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def release(self) -> None:
        """Leave what this process was drawing or training to another one, or to the next call."""
        with self.alone():
            for number in sorted(self.in_hand):
                self._settle(number, Outcome(KILLED, reason="its process was stopped"))

    def _in_training_elsewhere(self) -> set[int]:
        return {row.number for row in self.rows() if row.state == RUNNING} - self.in_hand

    def _recover(self) -> None:
        """Settle what dead processes have left, and put their points into the queue again."""
        import optuna

        heart = getattr(self.optuna._storage, "record_heartbeat", None)
        for trial in self.optuna.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
            alive = self._is_alive(trial.user_attrs.get("worker"), bool(heart))
            if alive is not False:
                if heart and alive:
                    heart(trial._trial_id)  # this machine may have slept
            elif "outcome" in trial.user_attrs:
                self._finish(trial.number, Outcome.from_json(trial.user_attrs["outcome"]))
            else:
                self.optuna.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if heart:
            optuna.storages.fail_stale_trials(self.optuna)
        trials = self.optuna.get_trials(deepcopy=False)
        retried = {trial.user_attrs.get("retries") for trial in trials}
        for trial in trials:
            row = self._row(trial, None)
            params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            drawn = "overrides" in trial.user_attrs or "fixed_params" in trial.system_attrs  # half a point is none
            if row.state == KILLED and trial.number not in retried and drawn:
                deaths = trial.user_attrs.get("deaths", 0) + (row.outcome is None)
                inherited = {key: trial.user_attrs[key] for key in ("baseline",) if key in trial.user_attrs}
                again = {"retries": trial.number, "deaths": deaths, **inherited}
                self.optuna.enqueue_trial(params, user_attrs=again)

    def _is_alive(self, worker: Mapping[str, str] | None, has_heartbeats: bool) -> bool | None:
        """Whether the process that trains a trial lives; None if only its heartbeats can tell."""
        if worker is None:
            return False
        alive = is_alive(worker["lock"], self.directory)
        if alive is None and not has_heartbeats:
            alive = psutil.pid_exists(int(worker["pid"]))  # a journal file is of one machine
        return alive

    def _settle(self, number: int, outcome: Outcome) -> None:
        """First the outcome, then the state: a trial that has the one without the other is finished by `_recover`."""
        self.optuna._storage.set_trial_user_attr(self._id(number), "outcome", outcome.to_json())
        self._finish(number, outcome)

    def _finish(self, number: int, outcome: Outcome) -> None:
        from optuna.trial import TrialState

        if outcome.state == COMPLETE:
            assert outcome.values is not None
            self.optuna.tell(number, list(outcome.values))
        elif outcome.state in (PRUNED, REFUSED):
            # To the sampler, a refused point is a bad one: it learns to keep away from there.
            self.optuna.tell(number, state=TrialState.PRUNED)
        else:
            self.optuna.tell(number, state=TrialState.FAIL)
        self.in_hand.discard(number)

    def _id(self, number: int) -> int:
        storage = self.optuna._storage
        return storage.get_trial_id_from_study_id_trial_number(self.optuna._study_id, number)

    def _rows(self, trials: Sequence["FrozenTrial"]) -> tuple[Row, ...]:
        again = {trial.user_attrs["retries"]: trial.number for trial in trials if "retries" in trial.user_attrs}
        return tuple(self._row(trial, again.get(trial.number)) for trial in trials)

    def _row(self, trial: "FrozenTrial", requeued_as: int | None) -> Row:
        named = {parameter.name: parameter for parameter in self.space.parameters}
        values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        params = {_key(named, name): value for name, value in values.items()}
        outcome: Outcome | None = None
        if "outcome" in trial.user_attrs:
            outcome = Outcome.from_json(trial.user_attrs["outcome"])
            state = outcome.state
        elif not trial.state.is_finished():
            state = WAITING if trial.state.name == "WAITING" else RUNNING
        elif trial.user_attrs.get("deaths", 0) + 1 >= _DEATHS:
            state = FAILED
            outcome = Outcome(FAILED, reason=f"its process died, {_DEATHS} times in a row")
        else:
            state = KILLED
        return Row(trial.number, state, params, outcome, requeued_as)


def _key(named: Mapping[str, Parameter], name: str) -> str:
    return named[name].key if name in named else name
