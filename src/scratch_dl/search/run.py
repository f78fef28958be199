"""A search from start to end: draw, train and store trials until there are enough of them, then write the report."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from scratch_dl import kernels, tracking
from scratch_dl.cli.command import check_given
from scratch_dl.config.build import build
from scratch_dl.config.metrics import metric_names
from scratch_dl.kernels.restoring import restored
from scratch_dl.search.settings import CONDITIONAL, FOR_NUMBERS, check_algorithms, read_settings
from scratch_dl.search.space import Space, read_space
from scratch_dl.search.space_check import check_choices_fit, check_keys, check_losses, with_real_numbers
from scratch_dl.search.study import Study
from scratch_dl.search.tables import describe_objectives
from scratch_dl.search.tracker import StudyTracker
from scratch_dl.search.trial import is_environment_error
from scratch_dl.search.trial_result import DrawnTrial, State, TrialResult, TrialRow, job_overrides
from scratch_dl.search.workers import supervise, supervisor
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import without_password
from scratch_dl.system.processes import end_with_parent
from scratch_dl.system.provenance import usable_cores
from scratch_dl.training.signals import Interrupted, handling, interrupt

Compose = Callable[[Sequence[str]], DictConfig]


class SearchError(RuntimeError):
    """A search ended without a complete trial, or without all its trials."""


@restored()
def run_search(
    config: DictConfig, arguments: Sequence[str], compose: Compose, launcher: Callable[[], Launcher]
) -> None:
    """Search, by this process or by `hydra.sweeper.workers` of them, until the study has its `n_trials`.

    Args:
        config: the composed configuration, including Hydra's part.
        arguments: the command line's overrides except Hydra's own.
        compose: overrides -> the configuration of a job.
        launcher: makes Hydra's launcher.

    Raises:
        ConfigError: if a setting cannot be used, or the existing study is a different one.
        SearchError: if no trial is complete in the end, or some are missing.
        Interrupted: by SIGINT or SIGTERM; the same command continues.
    """
    study = _read_study(config, arguments, compose)
    n_workers = study.settings.workers
    is_local = config.hydra.runtime.choices.get("hydra/launcher") == "basic"
    with handling(interrupt):
        if (parent := supervisor()) is not None:
            end_with_parent(parent)
        study.open()
        tracker = StudyTracker(study)
        if parent is not None:
            with _releasing(study):
                _Worker(study, tracker, launcher(), 1 if is_local else n_workers).work()
            return
        _announce(study)
        try:
            with _releasing(study):
                if n_workers > 1 and is_local:
                    supervise(study, n_workers)
                else:
                    _Worker(study, tracker, launcher(), 1 if is_local else n_workers).work()
                if study.end_reason() is None and (missing := study.missing()):
                    raise SearchError(f"{missing} trials are missing, as workers have left; the same command goes on")
        except BaseException:
            with _signals_ignored():
                tracker.on_search_end(finished=False)
            raise
        rows = tracker.on_search_end(finished=True)
        if message := study.failure_message(rows):
            raise SearchError(message)
        if not any(row.state == State.COMPLETE for row in rows):
            raise SearchError(_failure(rows))


@contextlib.contextmanager
def _releasing(study: Study) -> Iterator[None]:
    """However this ends, leave no trial behind that looks as if it were in training here."""
    try:
        yield
    except BaseException:
        with _signals_ignored():
            study.release()
        raise


def _signals_ignored() -> contextlib.AbstractContextManager[Any]:
    """A further signal must not interrupt the last writes."""
    return handling(lambda _number, _frame: None)


def _read_study(config: DictConfig, arguments: Sequence[str], compose: Compose) -> Study:
    """Return the study, not opened yet. Whatever cannot be used is refused before anything is written."""
    settings = read_settings(config.hydra, config.tracking.dir, metric_names(config.get("metrics")))
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
    check_losses(space, settings.objectives)
    check_algorithms(settings, any(parameter.conditions for parameter in space.parameters))
    space = with_real_numbers(space, base, compose)
    study = Study(settings, space, Path(str(base.tracking.dir)).expanduser().absolute(), base, compose)
    check_choices_fit(space, compose, study.setting)
    if settings.sampler.name == "grid":
        space.check_finite()
    return study


def _announce(study: Study) -> None:
    """Print what is searched, where it is kept, and what about it may surprise."""
    settings = study.settings
    drawn = sum(row.result is not None and row.state != State.KILLED for row in study.rows())
    print(
        f"study {settings.study_name}: {study.n_trials} trials of {len(study.space.by_key())} settings by "
        f"{settings.sampler.name}, {describe_objectives(settings.objectives)}\n"
        f"kept in {without_password(settings.storage)}{f'; goes on after {drawn} draws' if drawn else ''}",
        flush=True,
    )
    sampler = settings.sampler.name
    at_random = [
        parameter.key
        for parameter in study.space.parameters
        if (parameter.choices and sampler in FOR_NUMBERS) or (parameter.conditions and sampler not in CONDITIONAL)
    ]
    if at_random:
        print(f"{sampler} draws at random: {', '.join(dict.fromkeys(at_random))}", flush=True)
    for words in study.outside:
        print(f"the first trial is the configuration as it stands, but for {words}", flush=True)


class _Worker:
    """A process that draws trials, has them trained, and stores what came of them.

    Args:
        study: opened.
        tracker: is told the result of every trial.
        launcher: Hydra's, which runs the jobs.
        at_once: how many jobs it is given at once.
    """

    def __init__(self, study: Study, tracker: StudyTracker, launcher: Launcher, at_once: int) -> None:
        self.study, self.tracker, self.launcher, self.at_once = study, tracker, launcher, at_once

    def work(self) -> None:
        """Work until nothing is left to draw.

        Raises:
            Interrupted: after a trial that a signal has stopped.
        """
        while batch := self._next_batch():
            exit_status, environment_error = 0, None
            for drawn, job in zip(batch, self._launch(batch), strict=True):
                try:
                    content = _returned(job)
                except Exception as error:
                    environment_error = error  # raised after the results of the batch's other trials are stored
                else:
                    exit_status = exit_status or content.pop("exit_status", 0)
                    self._store(drawn, TrialResult.from_json(content))
            if environment_error is not None:
                raise environment_error
            if exit_status:
                raise Interrupted(exit_status - 128)

    def _next_batch(self) -> list[DrawnTrial]:
        """Return the trials to train next; those that are settled without a training are reported at once."""
        batch: list[DrawnTrial] = []
        while len(batch) < self.at_once and (drawn := self.study.ask()) is not None:
            if drawn.result is None:
                batch.append(drawn)
            else:
                self.tracker.on_trial_end(drawn, drawn.result)
        return batch

    def _launch(self, batch: list[DrawnTrial]) -> Sequence[Any]:
        """Run a job per trial, and return what Hydra's launcher returns."""
        jobs = [job_overrides(drawn.number, drawn.overrides) for drawn in batch]
        with self.study.heartbeats([drawn.number for drawn in batch]):
            return self.launcher.launch(jobs, initial_job_idx=batch[0].number)

    def _store(self, drawn: DrawnTrial, result: TrialResult) -> None:
        if self.study.tell(drawn, result):
            self.tracker.on_trial_end(drawn, result)
        else:
            print(f"trial {drawn.number} was taken for dead, and is trained again elsewhere", flush=True)


def _returned(job: Any) -> dict[str, Any]:
    """Return what a job returned. An exception that is the trial's own fault becomes a failed result.

    Raises:
        Exception: the job's, if the environment caused it.
    """
    try:
        return dict(job.return_value)
    except Exception as error:
        if is_environment_error(error):
            raise
        return {"state": State.FAILED, "reason": f"{type(error).__name__}: {error}"}


def _failure(rows: Sequence[TrialRow]) -> str:
    """Say that no trial is complete, with the most frequent reason."""
    reasons = [row.result.reason for row in rows if row.result is not None and row.result.reason]
    if not reasons:
        return "no trial was made"
    common = max(sorted(set(reasons)), key=reasons.count)
    return f"not one of {len(rows)} trials is complete; {reasons.count(common)} times: {common}"
