"""A search from its start to its end: draw, train, tell, until enough trials are there; then the report."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from scratch_dl import kernels, tracking
from scratch_dl.cli.command import check_given
from scratch_dl.config.build import build
from scratch_dl.kernels.restoring import restored
from scratch_dl.search.fit import check_fit
from scratch_dl.search.outcomes import COMPLETE, FAILED, KILLED, Outcome
from scratch_dl.search.settings import read_settings
from scratch_dl.search.space import Space, check_keys, read_space
from scratch_dl.search.study import Draw, Study
from scratch_dl.search.tracker import Recording
from scratch_dl.search.trial import is_of_surroundings
from scratch_dl.search.workers import is_worker, leave_with_parent, supervise
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import without_password
from scratch_dl.system.provenance import usable_cores
from scratch_dl.training.signals import Interrupted, handling, interrupt

Compose = Callable[[Sequence[str]], DictConfig]


class SweepError(RuntimeError):
    """Nothing came of a search."""


@restored()
def run(config: DictConfig, arguments: Sequence[str], compose: Compose, launcher: Callable[[], Launcher]) -> None:
    """Search, by this process or by `hydra.sweeper.workers` of them, until the study has its `n_trials`.

    Args:
        config: as composed, Hydra's part included.
        arguments: the command line's overrides but for Hydra's own.
        compose: overrides -> the configuration of a job.
        launcher: makes Hydra's launcher.

    Raises:
        ConfigError: if a setting cannot be used, or the study is there and another one.
        SweepError: if not one trial is complete in the end.
        Interrupted: by SIGINT or SIGTERM; the same command goes on.
    """
    study = _read(config, arguments, compose)
    settings = study.settings
    local = config.hydra.runtime.choices.get("hydra/launcher") == "basic"
    with handling(interrupt):
        if is_worker():
            leave_with_parent()
        study.open()
        recording = Recording(study)
        at_once = 1 if local else settings.workers
        if is_worker():
            with _released(study):
                _Worker(study, recording, launcher(), at_once).work()
            return
        _announce(study)
        try:
            with _released(study):
                if settings.workers > 1 and local:
                    supervise(study, settings.workers)
                else:
                    _Worker(study, recording, launcher(), at_once).work()
                if study.why_over() is None and study.missing():
                    raise SweepError(
                        f"{study.missing()} trials are missing, as workers have left; the same command goes on"
                    )
        except BaseException:
            with _undisturbed():
                recording.conclude(finished=False)
            raise
        rows = recording.conclude(finished=True)
        if not any(row.state == COMPLETE for row in rows):
            raise SweepError(_nothing(rows))


@contextlib.contextmanager
def _released(study: Study) -> Iterator[None]:
    """Whatever this ends by, nothing is left that looks as if it were in training here."""
    try:
        yield
    except BaseException:
        with _undisturbed():
            study.release()
        raise


def _undisturbed() -> contextlib.AbstractContextManager[Any]:
    """A further signal waits for what is written down."""
    return handling(lambda _number, _frame: None)


def _read(config: DictConfig, arguments: Sequence[str], compose: Compose) -> Study:
    """The study, not opened yet; refused before anything is written."""
    settings = read_settings(config.hydra, config.tracking.dir)
    sweeper = config.hydra.sweeper
    space = read_space(sweeper.params, sweeper.conditions, arguments)
    threads = "threads=" + str(config.threads or max(1, usable_cores() // settings.workers))
    space = Space(space.parameters, (*space.fixed, threads))
    base = compose(list(space.fixed))
    if base.resume.run is not None:
        raise ConfigError("resume.run must be null in a search, which goes on by its own command")
    if base.trainer.test:
        raise ConfigError("trainer.test must be false in a search: its trials may not see the test photographs")
    if base.tracking.run_id is not None:
        raise ConfigError("tracking.run_id must be null in a search, whose runs are several, but got an id")
    check_given(lambda config: kernels.use(build(config).backend), base, space.fixed)
    tracking.check_store(base.tracking.dir, base.tracking.uri, base.tracking.experiment)
    check_keys(space, base)
    study = Study(settings, space, Path(str(base.tracking.dir)).expanduser().absolute(), base, compose)
    check_fit(space, compose, study.setting)
    if settings.sampler.name == "grid":
        space.check_finite()
    return study


def _announce(study: Study) -> None:
    settings = study.settings
    rows = study.rows()
    there = sum(row.outcome is not None and row.state != KILLED for row in rows)
    print(
        f"study {settings.study_name}: {study.n_trials} trials of {len(study.space.parameters)} settings by "
        f"{settings.sampler.name}, {', '.join(f'{one.direction} {one}' for one in settings.objectives)}\n"
        f"kept in {without_password(settings.storage)}{f'; goes on after {there} draws' if there else ''}",
        flush=True,
    )
    at_random = [one.key for one in study.space.parameters if one.choices is not None or one.condition]
    if settings.sampler.name in ("qmc", "cmaes") and at_random:
        print(f"{settings.sampler.name} is for numbers: {', '.join(at_random)} are drawn at random", flush=True)
    for words in study.outside:
        print(f"the first trial is the configuration as it stands, but for {words}", flush=True)


class _Worker:
    """One process that draws, trains and tells."""

    def __init__(self, study: Study, recording: Recording, launcher: Launcher, at_once: int) -> None:
        self.study, self.recording, self.launcher, self.at_once = study, recording, launcher, at_once

    def work(self) -> None:
        """Until nothing is left to draw.

        Raises:
            Interrupted: after a trial that a signal has stopped.
        """
        while batch := self._batch():
            stopped, away = 0, None
            for draw, returned in zip(batch, self._returned(batch), strict=True):
                try:
                    told = _told(returned)
                except Exception as error:
                    away = error  # of the surroundings; what the others of the batch have comes first
                else:
                    stopped = stopped or told.pop("exit_status", 0)
                    self._settled(draw, Outcome.from_json(told))
            if away is not None:
                raise away
            if stopped:
                raise Interrupted(stopped - 128)

    def _batch(self) -> list[Draw]:
        """What is trained next; what is settled without a training is told of at once."""
        batch: list[Draw] = []
        while len(batch) < self.at_once and (draw := self.study.ask()) is not None:
            if draw.outcome is None:
                batch.append(draw)
            else:
                self.recording.settled(draw, draw.outcome)
        return batch

    def _returned(self, batch: list[Draw]) -> Sequence[Any]:
        """What each draw's job gives back."""
        jobs = [
            [*draw.overrides, f"hydra.sweeper.trial={draw.number}", f"hydra.sweep.subdir='{draw.number}'"]
            for draw in batch
        ]
        with self.study.beating([draw.number for draw in batch]):
            return self.launcher.launch(jobs, initial_job_idx=batch[0].number)

    def _settled(self, draw: Draw, outcome: Outcome) -> None:
        if self.study.tell(draw, outcome):
            self.recording.settled(draw, outcome)
        else:
            print(f"trial {draw.number} was taken for dead, and is trained again elsewhere", flush=True)


def _told(returned: Any) -> dict[str, Any]:
    """What a job says; an exception of its process is a failure of its own."""
    try:
        return dict(returned.return_value)
    except Exception as error:
        if is_of_surroundings(error):
            raise
        return {"state": FAILED, "reason": f"{type(error).__name__}: {error}"}


def _nothing(rows: Sequence[Any]) -> str:
    """Why nothing came of it: the commonest reason."""
    reasons = [row.outcome.reason for row in rows if row.outcome is not None and row.outcome.reason]
    if not reasons:
        return "no trial was made"
    common = max(sorted(set(reasons)), key=reasons.count)
    return f"not one of {len(rows)} trials is complete; {reasons.count(common)} times: {common}"
