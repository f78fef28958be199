"""A study that several processes work on: what is drawn next, and what came of it.

Optuna's storage is the only memory. Under the study's lock one process at a time draws; what is drawn follows from the
seed, the trial's number and the trials before it alone. An interrupted study goes on with what it had drawn last; a
trial that is trained again has another number, so later draws differ from those of a study that was never interrupted.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from scratch_dl.cli.errors import in_one_line, is_usage
from scratch_dl.config.build import build
from scratch_dl.config.plain import flat, plain
from scratch_dl.search.identity import BESIDE, THREADS, identity
from scratch_dl.search.outcomes import COMPLETE, COUNTED, DISCARDED, PRUNED, REFUSED, RUNNING, WAITING, Outcome, Row
from scratch_dl.search.parameter import Value
from scratch_dl.search.storage import open_storage, quiet
from scratch_dl.search.stored import StoredStudy
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import hidden, hide, without_password
from scratch_dl.tracking.process import hold, this_process

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

REDRAWS = 10  # refused points for each trial asked for
_REPEATS = 10  # draws of what another worker is training, before one waits for it
_WAIT_S = 1.0
_OF_NO_WEIGHT = (*BESIDE, THREADS, "device", "backend")


@dataclass
class Draw:
    """A point of the space.

    Attributes:
        number: its trial's, in the study.
        overrides: of its job, those that stay included.
        params: the drawn settings, by key.
        outcome: if it is settled without a training: refused, or a copy.
    """

    number: int
    overrides: list[str]
    params: dict[str, Value]
    outcome: Outcome | None = None


@dataclass
class Study(StoredStudy):
    """One process's view of the study.

    Attributes:
        base: the configuration without what is drawn.
        compose: overrides -> a trial's configuration.
        outside: in words, where the first trial is not the configuration as it stands.
    """

    base: DictConfig
    compose: Callable[[Sequence[str]], DictConfig]
    outside: list[str] = field(default_factory=list)

    def open(self) -> None:
        """Make the study, with the configuration's own point as its first trial, or go on with it.

        Raises:
            ConfigError: if it is there, and another one; the message names what differs.
            StorageError: if the storage cannot be used.
        """
        import optuna

        storage = open_storage(self.settings.storage)
        name = self.settings.study_name
        directions: list[Any] = [objective.direction for objective in self.settings.objectives]
        pruner = self.settings.make_pruner(self.base.trainer.epochs)
        with self.alone():
            try:
                self.optuna = optuna.load_study(study_name=name, storage=storage, pruner=pruner)
            except KeyError:
                self.optuna = optuna.create_study(
                    study_name=name, storage=storage, directions=directions, pruner=pruner
                )
            attributes = self.optuna.user_attrs
            if "definition" not in attributes:
                foreign = any("baseline" not in trial.user_attrs for trial in self.optuna.get_trials(deepcopy=False))
                if foreign or [direction.name.lower() for direction in self.optuna.directions] != directions:
                    raise ConfigError(self._another("it was made by another program"))
                point, self.outside = self.space.baseline(self.setting)
                self.optuna.enqueue_trial(point, user_attrs={"baseline": True}, skip_if_exists=True)
                self.optuna.set_user_attr("definition", self._definition())
            elif differences := list(_differences(attributes["definition"], self._definition())):
                raise ConfigError(self._another("; ".join(differences[:4])))

    def ask(self) -> Draw | None:
        """The next point, or None if nothing is left to draw: enough are trained or in training, or it gave up."""
        repeats = 0
        while True:
            with self.alone():
                self._recover()
                draw = self._draw()
            if draw is None or draw.outcome is None or draw.outcome.state != DISCARDED:
                return draw
            repeats += 1
            if repeats % _REPEATS == 0:
                if self.in_hand:
                    return None  # for others may wait for what this process has drawn and not begun
                self._wait_for_others()

    def tell(self, draw: Draw, outcome: Outcome) -> bool:
        """Keep what came of a trial; False if another machine, which took this one for dead, trains it again."""
        import optuna

        try:
            with quiet():
                self._settle(draw.number, outcome)
        except optuna.exceptions.UpdateFinishedTrialError:
            self.in_hand.discard(draw.number)
            return False
        return True

    @cached_property
    def n_trials(self) -> int:
        """How many trials are asked for, those of earlier calls included."""
        if self.settings.sampler.name != "grid":
            assert self.settings.n_trials is not None
            return self.settings.n_trials
        size = sum(1 for _ in self.space.grid(self.setting))
        return min(size, self.settings.n_trials or size)

    def why_over(self) -> str | None:
        """Why nothing is left to train, "" if enough is trained; None while something is, here or elsewhere."""
        with self.alone():
            self._recover()
            trials = self.optuna.get_trials(deepcopy=False)
            rows = self._rows(trials)
            in_progress = any(row.state in (WAITING, RUNNING) for row in rows)
            return None if in_progress else self._end(trials, rows)

    def missing(self) -> int:
        """How many trials are neither counted nor in training by a process that lives."""
        with self.alone():
            self._recover()
        rows = self.rows()
        return max(0, self.n_trials - sum(row.state in (*COUNTED, RUNNING) for row in rows))

    def setting(self, key: str) -> Any:
        """A key's value in the configuration, or a group's choice."""
        choices = self.base.hydra.runtime.choices
        if key in choices:
            return choices[key]
        value = OmegaConf.select(self.base, key)
        return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value

    def configuration(self, number: int) -> DictConfig:
        """The composed configuration of a trial, as it was trained.

        Raises:
            ConfigError: if the storage, which others may write to, has overrides that only a command line may have.
        """
        with quiet():
            trial = self.optuna.get_trials(deepcopy=False)[number]
        overrides = [str(override) for override in trial.user_attrs["overrides"]]
        for override in overrides:
            if override not in self.space.fixed and re.match(r"[+~]*(hydra\b|allowed_targets\b)", override):
                raise ConfigError(
                    f"{override} of trial {number} in {without_password(self.settings.storage)} must be given on the "
                    "command line, but the storage says it"
                )
        return self.compose(overrides)

    def _definition(self) -> dict[str, Any]:
        """What may not change: a study's trials are compared with one another."""
        drawn = {parameter.key for parameter in self.space.parameters}
        groups = {one for one in drawn if one in self.base.hydra.runtime.choices}
        own = {
            key: _without(key, value, drawn) for key, value in flat(plain(self.base)).items()
            if not key.startswith(_OF_NO_WEIGHT) and key not in drawn and key.partition(".")[0] not in groups
        }  # fmt: skip
        for override in self.space.fixed:  # the settings of a drawn group are those that the command line says
            key, _, value = override.lstrip("+").partition("=")
            if key.partition(".")[0] in groups:
                own[key] = value
        objectives = self.settings.objectives
        return json.loads(json.dumps({  # type: ignore[no-any-return]
            "space": self.space.describe(),
            "objective": [str(objective) for objective in objectives],
            "direction": [objective.direction for objective in objectives],
            "settings": hidden(own),
        }))  # fmt: skip

    def _another(self, why: str) -> str:
        return (
            f"the study {self.settings.study_name} in {without_password(self.settings.storage)} is another one: {why}; "
            "choose another hydra.sweeper.study_name"
        )

    def _wait_for_others(self) -> None:
        """Until one of the trials that other processes train has ended, if there are any."""
        others = self._in_training_elsewhere()
        while others and others <= self._in_training_elsewhere():
            time.sleep(_WAIT_S)
            with self.alone():
                self._recover()

    def _draw(self) -> Draw | None:
        """One more point."""
        trials = self.optuna.get_trials(deepcopy=False)
        rows = self._rows(trials)
        if self._end(trials, rows) is not None:
            return None
        trial = self.optuna.ask()
        self.in_hand.add(trial.number)
        trial.set_user_attr("worker", {**this_process(), "lock": hold(self.directory)})
        if hasattr(self.optuna._storage, "record_heartbeat"):  # one without any is never taken for dead
            self.optuna._storage.record_heartbeat(trial._trial_id)
        drawn = self.space.draw(trial, self.setting)
        overrides = [*self.space.fixed, *(parameter.override(value) for parameter, value in drawn.items())]
        # Where it is recorded is no part of it, and may have a password.
        own = [hide(override) for override in overrides if not override.lstrip("+~").startswith("tracking.")]
        trial.set_user_attr("overrides", own)
        draw = Draw(trial.number, overrides, {parameter.key: value for parameter, value in drawn.items()})
        try:
            setup = build(self.compose(overrides))
        except Exception as error:
            if not is_usage(error):
                raise
            draw.outcome = Outcome(REFUSED, reason=in_one_line(error))
            self._settle(trial.number, draw.outcome)
            return draw
        same = identity(setup)
        trial.set_user_attr("identity", same)
        twins = (one for one in trials if one.user_attrs.get("identity") == same)
        twin = next((one for one in twins if rows[one.number].state in (*COUNTED, RUNNING)), None)
        if twin is None:
            return draw
        if rows[twin.number].state == RUNNING:
            draw.outcome = Outcome(DISCARDED, reason=f"trial {twin.number}, in training, is the same point")
            self._settle(trial.number, draw.outcome)
            return draw
        outcome = rows[twin.number].outcome
        assert outcome is not None
        first = twin.number if outcome.copied_from is None else outcome.copied_from
        draw.outcome = replace(outcome, copied_from=first, seconds=0.0)
        for step, value in twin.intermediate_values.items() if outcome.state == PRUNED else ():
            trial.report(value, step)
        self._settle(trial.number, draw.outcome)
        return draw

    def _end(self, trials: Sequence["FrozenTrial"], rows: Sequence[Row]) -> str | None:
        """Why nothing more is drawn, "" if enough is; None, with Optuna ready for the next trial, if something is."""
        states = [row.state for row in rows]
        if WAITING not in states and sum(state in (*COUNTED, RUNNING) for state in states) >= self.n_trials:
            return ""
        if (refused := states.count(REFUSED)) >= REDRAWS * self.n_trials:
            return (
                f"{refused} points were refused, {REDRAWS} for each trial asked for; hydra.sweeper.params may "
                "leave out what fits nowhere"
            )
        return None if self._arm(trials, rows) else "the grid has no further point"

    def _arm(self, trials: Sequence["FrozenTrial"], rows: Sequence[Row]) -> bool:
        """Give Optuna the sampler for the next trial; False if a grid is at its end."""
        from optuna.samplers import PartialFixedSampler

        digest = hashlib.sha256(f"{self.settings.seed} {len(trials)}".encode()).digest()
        conditional = any(parameter.condition for parameter in self.space.parameters)
        untrained = sum(row.state == REFUSED or (row.is_copy and row.state in (COMPLETE, PRUNED)) for row in rows)
        sampler = self.settings.make_sampler(int.from_bytes(digest[:4]), conditional, untrained)
        if self.settings.sampler.name == "grid" and all(row.state != WAITING for row in rows):
            settled = (*COUNTED, RUNNING, REFUSED)
            tried = [trial.params for trial, row in zip(trials, rows, strict=True) if row.state in settled]
            point = next((point for point in self.space.grid(self.setting) if point not in tried), None)
            if point is None:
                return False
            sampler = PartialFixedSampler(point, sampler)
        self.optuna.sampler = sampler
        return True


def _without(key: str, value: Any, drawn: set[str]) -> Any:
    """A list without its items that are drawn."""
    if not isinstance(value, list):
        return value
    return [None if f"{key}.{place}" in drawn else item for place, item in enumerate(value)]


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for part in ("objective", "direction"):
        if before[part] != now[part]:
            yield f"{part} was {', '.join(before[part])}, is {', '.join(now[part])}"
    for part in ("space", "settings"):
        for key in sorted({*before[part], *now[part]}):
            old, new = (one[part].get(key, "not searched" if part == "space" else "not set") for one in (before, now))
            if old != new:
                yield f"{key} was {old}, is {new}"
