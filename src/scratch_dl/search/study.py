"""A study that several processes work on: which point is drawn next, and what came of it.

Optuna's storage is the only memory. Under the study's lock one process at a time draws. What is drawn follows from the
seed, the trial's number and the trials before it alone. An interrupted study goes on with the point that it had drawn
last; a trial that is trained again has another number, so later points differ from those of a study that was never
interrupted.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, Trial

from scratch_dl.cli.errors import in_one_line, is_usage
from scratch_dl.config.build import build
from scratch_dl.search import stored_trials
from scratch_dl.search.drawing import MAX_REFUSALS, MAX_REPEATS, fruitless_draws, next_sampler, point_key, repeated
from scratch_dl.search.identity import definition_differences, point_identity, study_definition
from scratch_dl.search.settings import SearchSettings
from scratch_dl.search.space import Space
from scratch_dl.search.storage import GRPC, locked, open_storage, quiet
from scratch_dl.search.trial_result import COUNTED, DrawnTrial, State, TrialResult, TrialRow, job_overrides
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import hide, without_password
from scratch_dl.tracking.process import register_process, this_process


@dataclass
class Study:
    """One process's view of the study.

    Attributes:
        settings, space: what is asked for.
        directory: `tracking.dir`, where processes hold the locks that show that they live.
        base: the configuration without what is drawn.
        compose: overrides -> a trial's configuration.
        outside: in words, where the first trial is not the configuration as it stands.
        optuna: Optuna's study, once this one is open.
        unsettled: numbers of the trials that this process has drawn and not settled.
    """

    settings: SearchSettings
    space: Space
    directory: Path
    base: DictConfig
    compose: Callable[[Sequence[str]], DictConfig]
    outside: list[str] = field(default_factory=list)
    optuna: "optuna.Study" = field(init=False)  # quoted, since the attribute hides the module in this class
    unsettled: set[int] = field(init=False, default_factory=set)

    def open(self) -> None:
        """Create the study, with the configuration's own point as its first trial, or continue an existing one.

        Raises:
            ConfigError: if the existing study is a different one; the message names the differences.
            StorageError: if the storage cannot be used.
        """
        storage = open_storage(self.settings.storage)
        name = self.settings.study_name
        directions: list[Any] = [objective.direction for objective in self.settings.objectives]
        pruner = self.settings.make_pruner(self.base.trainer.epochs)
        definition = study_definition(self.settings, self.space, self.base)
        with self.locked():
            try:
                self.optuna = optuna.load_study(study_name=name, storage=storage, pruner=pruner)
            except KeyError:
                self.optuna = optuna.create_study(
                    study_name=name, storage=storage, directions=directions, pruner=pruner
                )
            attributes = self.optuna.user_attrs
            if "definition" not in attributes:
                found = [direction.name.lower() for direction in self.optuna.directions]
                if found != directions:
                    words = f"its direction is {', '.join(found)}, not {', '.join(directions)}"
                    raise ConfigError(self._is_another(words))
                point, self.outside = self.space.baseline(self.setting)
                self.optuna.enqueue_trial(point, user_attrs={"baseline": True}, skip_if_exists=True)
                self.optuna.set_user_attr("definition", definition)
            elif differences := list(definition_differences(attributes["definition"], definition)):
                raise ConfigError(self._is_another("; ".join(differences[:4])))

    def ask(self) -> DrawnTrial | None:
        """Return the next trial, or None if nothing is left to draw: enough trials exist, or no point is left."""
        while True:
            with self.locked():
                self._recover()
                drawn = self._draw()
            if drawn is None or drawn.result is None or drawn.result.state != State.REPEATED or drawn.is_queued:
                return drawn

    def tell(self, drawn: DrawnTrial, result: TrialResult) -> bool:
        """Store what came of a trial; return False if another machine took this one for dead and trains it again."""
        try:
            with quiet():
                self._settle(drawn.number, result)
        except optuna.exceptions.UpdateFinishedTrialError:
            self.unsettled.discard(drawn.number)
            return False
        return True

    def rows(self) -> tuple[TrialRow, ...]:
        """Return every trial as it stands."""
        with quiet():
            return stored_trials.read_rows(self._trials(), self.space)

    def attribute(self, key: str) -> Any:
        """Return what is stored with the study under a key; None if nothing is."""
        with quiet():
            return self.optuna.user_attrs.get(key)

    def set_attribute(self, key: str, value: Any) -> None:
        """Store something with the study."""
        with quiet():
            self.optuna.set_user_attr(key, value)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the study's lock: meanwhile no other process draws from the study."""
        # A gRPC proxy has no lock, so a file in the folder of runs, which all processes of the study then must share.
        storage = self.settings.storage
        place = str(self.directory / "grpc") if storage.startswith(GRPC) else storage
        with locked(place, f"study {self.settings.study_name}"), quiet():
            yield

    def heartbeats(self, numbers: Sequence[int]) -> AbstractContextManager[None]:
        """Meanwhile, show other machines that the process of these trials lives."""
        return stored_trials.heartbeats(self.optuna, numbers)

    def release(self) -> None:
        """Leave the trials that this process has drawn to another process, or to the next call of the command."""
        with self.locked():
            for number in sorted(self.unsettled):
                self._settle(number, TrialResult(State.KILLED, reason="its process was stopped"))

    @cached_property
    def n_trials(self) -> int:
        """How many trials are asked for, including those of earlier calls."""
        if self.settings.sampler.name != "grid":
            assert self.settings.n_trials is not None
            return self.settings.n_trials
        size = sum(1 for _ in self.space.grid(self.setting))
        return min(size, self.settings.n_trials or size)

    def end_reason(self) -> str | None:
        """Return why nothing is left to train; "" if enough is trained; None while a trial waits or is in training."""
        with self.locked():
            self._recover()
            trials = self._trials()
            rows = stored_trials.read_rows(trials, self.space)
            in_progress = any(row.state in (State.WAITING, State.RUNNING) for row in rows)
            return None if in_progress else self._end_reason(trials, rows)

    def failure_message(self, rows: Sequence[TrialRow]) -> str:
        """Return in words how many trainings failed if these are more than `max_failure_rate` permits, "" otherwise."""
        failed, rate = sum(row.state == State.FAILED for row in rows), self.settings.max_failure_rate
        if failed <= rate * self.n_trials:
            return ""
        return f"{failed} of {self.n_trials} trainings failed, but hydra.sweeper.max_failure_rate is {rate:g}"

    def missing(self) -> int:
        """Return how many trials are neither counted nor in training by a process that lives."""
        with self.locked():
            self._recover()
        return max(0, self.n_trials - sum(row.state in (*COUNTED, State.RUNNING) for row in self.rows()))

    def setting(self, key: str) -> Any:
        """Return a key's value in the configuration, or a group's choice."""
        choices = self.base.hydra.runtime.choices
        if key in choices:
            return choices[key]
        value = OmegaConf.select(self.base, key)
        return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value

    def configuration(self, number: int) -> DictConfig:
        """Return the composed configuration of a trial, as it was trained.

        Raises:
            ConfigError: if the storage, which others may write to, has overrides that only a command line may have, or
                a point outside the space.
        """
        with quiet():
            trial = self.optuna.get_trials(deepcopy=False)[number]
        return self.compose(stored_trials.read_overrides(trial, self.space, self.settings.storage))

    def _trials(self) -> list[FrozenTrial]:
        return self.optuna.get_trials(deepcopy=False)

    def _recover(self) -> None:
        stored_trials.recover(self.optuna, self.space, self.directory)

    def _settle(self, number: int, result: TrialResult) -> None:
        stored_trials.settle(self.optuna, number, result)
        self.unsettled.discard(number)

    def _is_another(self, reason: str) -> str:
        return (
            f"the study {self.settings.study_name} in {without_password(self.settings.storage)} is another one: "
            f"{reason}; choose another hydra.sweeper.study_name"
        )

    def _draw(self) -> DrawnTrial | None:
        """Draw one more point, and settle its trial if it needs no training."""
        trials = self._trials()
        rows = stored_trials.read_rows(trials, self.space)
        if self._end_reason(trials, rows) is not None:
            return None
        trial = self.optuna.ask()
        self.unsettled.add(trial.number)
        trial.set_user_attr("worker", {**this_process(), "lock": register_process(self.directory)})
        stored_trials.heartbeat(self.optuna, trial.number)  # a trial without any is never taken for dead
        queued = self._trials()[trial.number].system_attrs.get("fixed_params", {})
        is_queued = bool(queued) and not {"baseline", "retries"} & trial.user_attrs.keys()
        if (misfit := self.space.misfit(queued)) is not None:
            refused = TrialResult(State.REFUSED, reason=misfit)
            self._settle(trial.number, refused)
            return DrawnTrial(trial.number, [], dict(queued), refused, is_queued)
        point = self.space.draw(trial, self.setting)
        overrides = [*self.space.fixed, *(parameter.override(value) for parameter, value in point.items())]
        # Where runs are tracked does not belong to the point, and may contain a password.
        stored = [hide(override) for override in overrides if not override.lstrip("+~").startswith("tracking.")]
        trial.set_user_attr("overrides", stored)
        params = {parameter.key: value for parameter, value in point.items()}
        drawn = DrawnTrial(trial.number, overrides, params, is_queued=is_queued)
        drawn.result = self._result_without_training(trial, overrides, trials, rows)
        if drawn.result is not None:
            self._settle(trial.number, drawn.result)
        return drawn

    def _result_without_training(
        self, trial: Trial, overrides: list[str], trials: Sequence[FrozenTrial], rows: Sequence[TrialRow]
    ) -> TrialResult | None:
        """Return the result of a point that the configuration refuses, or that an earlier trial is; else None."""
        points = {row.number: point_key(trials[row.number].params) for row in rows}
        if (result := repeated(point_key(trial.params), points, rows)) is not None:
            return result
        try:
            setup = build(self.compose(job_overrides(trial.number, overrides)))
        except Exception as error:
            if not is_usage(error):
                raise
            return TrialResult(State.REFUSED, reason=in_one_line(error))
        identity = point_identity(setup)
        trial.set_user_attr("identity", identity)
        identities = {row.number: trials[row.number].user_attrs.get("identity") for row in rows}
        return repeated(identity, identities, rows)

    def _end_reason(self, trials: Sequence[FrozenTrial], rows: Sequence[TrialRow]) -> str | None:
        """Return why nothing more is drawn, "" if enough is; None, with Optuna ready for the next trial, otherwise."""
        states = [row.state for row in rows]
        if State.WAITING not in states and sum(state in (*COUNTED, State.RUNNING) for state in states) >= self.n_trials:
            return ""
        if message := self.failure_message(rows):
            return message
        fruitless = fruitless_draws(states)
        if self.settings.sampler.name != "grid" and fruitless[State.REFUSED] >= MAX_REFUSALS:
            return (
                f"no new point was among the last draws: {fruitless[State.REFUSED]} were refused; hydra.sweeper.params "
                "may leave out what fits nowhere"
            )
        sampler = next_sampler(self.settings, self.space, self.setting, trials, rows)
        if State.WAITING not in states:
            if sampler is None:
                trained = sum(state in COUNTED for state in states)
                return f"no further point is left: {trained} were trained, {states.count(State.REFUSED)} refused"
            if (repeats := fruitless[State.REPEATED]) >= MAX_REPEATS:
                return f"no new point was among the last draws: {repeats} were of points that had been tried before"
        self.optuna.sampler = sampler or RandomSampler(self.settings.seed)  # for what a waiting point leaves open
        return None
