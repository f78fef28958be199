"""What is reported of a study while it runs and at its end: a line per trial, its run in MLflow, and the report."""

import logging
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra import compose as hydra_compose
from omegaconf import DictConfig

from scratch_dl import tracking
from scratch_dl.search import report, tables, winner
from scratch_dl.search.study import Study
from scratch_dl.search.trial_result import (
    COUNTED,
    DrawnTrial,
    Objective,
    State,
    StudySummary,
    TrialResult,
    TrialRow,
    best_trials,
)
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import without_password
from scratch_dl.training.note import config_dir
from scratch_dl.training.summary import where_flags

log = logging.getLogger(__name__)
FOLDER = "sweeps"
_STATE = "trial.state"


class StudyTracker:
    """The study's run in MLflow, which its workers on all machines share.

    Optuna keeps the study itself. When MLflow does not accept something, a warning says so, and the next end of the
    same command sends all of it.

    Args:
        study: opened.

    Raises:
        TrackingError: if the store cannot be used.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.directory = study.directory
        where = study.base.tracking
        self.store = tracking.open_store(self.directory, where.uri)
        self.parent = self._open_run(str(where.experiment))

    def on_trial_end(self, drawn: DrawnTrial, result: TrialResult) -> None:
        """Print the line of a trial that counts, and record it in MLflow.

        For a point that another program has put into the queue, print also why it is not trained.
        """
        if result.state not in COUNTED:
            if drawn.is_queued:
                print(f"#{drawn.number} of the queue is {result.state}: {result.reason}", flush=True)
            return
        rows = self.study.rows()
        objectives = self.study.settings.objectives
        best_value = _best_value(rows, objectives)
        done = sum(row.state in COUNTED for row in rows)
        print(tables.trial_line(rows[drawn.number], done, self.study.n_trials, objectives, best_value), flush=True)
        with self._warning():
            self._send_trial(rows[: drawn.number + 1], result)
            self.parent.tags(_count_tags(rows))

    def on_search_end(self, finished: bool) -> tuple[TrialRow, ...]:
        """Write and print the report; evaluate the winner on the test photographs if no trial is left to train.

        Args:
            finished: False if the search was stopped.

        Returns:
            Every trial as it stands.
        """
        end_reason = self.study.end_reason() if finished else None
        rows = self.study.rows()  # read after it, since the last trial may just have ended elsewhere
        elsewhere = sum(row.state == State.RUNNING for row in rows)
        scores = {} if end_reason is None else self._test_scores(rows)
        summary = self._summarize(rows, scores)
        folder = self.directory / FOLDER / self.study.settings.study_name
        files = report.write_report(self.study.optuna, summary, folder)
        tables.print_summary(summary, folder / report.HTML)
        if elsewhere:
            print(f"{elsewhere} trials are in training elsewhere; the last one to end completes the report")
        if end_reason:
            print(end_reason)
        done = sum(row.state in COUNTED for row in rows)
        if not finished and done < self.study.n_trials:
            print(f"stopped after {done} of {self.study.n_trials} trials; the same command goes on")
        print(f"look: python -m scratch_dl.ui{where_flags(self.study.base)}", flush=True)
        with self._warning():
            self._send_missing_trials(rows)
            self.parent.files(files)
            tags = {**_count_tags(rows), **_best_tags(summary), tracking.DESCRIPTION: report.description(summary)}
            self.parent.tags(tags)
            self.parent.metrics(scores, 0)
            if not elsewhere:
                has_failed = self.study.failure_message(rows) or all(row.state != State.COMPLETE for row in rows)
                self.parent.finish("KILLED" if not finished else "FAILED" if has_failed else "FINISHED")
        return rows

    def _send_trial(self, rows: tuple[TrialRow, ...], result: TrialResult) -> None:
        """Record the last of `rows` in MLflow: its values in the study's run; its values and its tags in its own."""
        row, objectives = rows[-1], self.study.settings.objectives
        values = dict(zip((objective.name for objective in objectives), result.values or (), strict=False))
        if result.state == State.COMPLETE and values:
            metrics = {f"trial/{name}": value for name, value in values.items()}
            if (best_value := _best_value(rows, objectives)) is not None:
                metrics[f"best/{objectives[0].name}"] = best_value
            self.parent.metrics(metrics, row.number)
        if result.run_id:  # last, as its tags show that all of the trial is recorded
            tags = {"study": self.study.settings.study_name, "trial": str(row.number), **_trial_tags(result)}
            self.parent.describe_run(result.run_id, tags, _objective_metrics(objectives, result), result.epochs)

    def _send_missing_trials(self, rows: tuple[TrialRow, ...]) -> None:
        """Record the trials that MLflow did not accept, or whose process was killed before it recorded them."""
        tags = self.parent.nested_tags()
        for row in rows:
            result = row.result
            if row.state in COUNTED and result is not None and _STATE not in tags.get(result.run_id, {_STATE: ""}):
                self._send_trial(rows[: row.number + 1], result)

    def _summarize(self, rows: tuple[TrialRow, ...], scores: dict[str, float]) -> StudySummary:
        study, settings = self.study, self.study.settings
        best = best_trials(rows, settings.objectives)
        commands = {}
        if len(best) == 1:

            def compose(overrides: Sequence[str]) -> DictConfig:
                return hydra_compose("train", overrides=list(overrides), return_hydra_config=True)

            try:
                trial = study.configuration(best[0])
                commands = winner.retrain_commands(trial, compose, config_dir(), study.space.fixed)
            except ConfigError as error:
                if not rows[best[0]].is_foreign:
                    raise
                print(error)
        return StudySummary(
            study=settings.study_name,
            storage=without_password(settings.storage),
            space=study.space.describe(),
            objectives=settings.objectives,
            n_trials=study.n_trials,
            sampler=str(settings.sampler),
            pruner=str(settings.pruner),
            seed=settings.seed,
            rows=rows,
            best=best,
            retrain=commands,
            test=scores,
        )

    def _test_scores(self, rows: tuple[TrialRow, ...]) -> dict[str, float]:
        """Return the winner's scores on the test photographs, computed once per winner; empty for a Pareto front."""
        best = best_trials(rows, self.study.settings.objectives)
        if len(best) != 1:
            return {}
        known = self.study.attribute("winner") or {}
        if known.get("number") == best[0]:
            return dict(known["scores"])
        row = rows[best[0]]
        assert row.result is not None
        if row.is_foreign:
            print(f"trial {row.number} was trained by another program, so its test scores are unknown")
            return {}
        scores = winner.test_scores(self.study.configuration(row.number), row.result, self.directory)
        if scores:
            self.study.set_attribute("winner", {"number": row.number, "scores": scores})
        return scores

    def _open_run(self, experiment: str) -> tracking.SharedRun:
        """Return the study's run, which the first process creates."""
        study, uri = self.study, self.store.name
        with study.locked():
            known = study.attribute("mlflow") or {}
            if known.get("uri") == uri:
                try:
                    parent = tracking.SharedRun(self.store, known["run_id"])
                    parent.reopen()
                except tracking.TrackingError as error:
                    log.warning("the study gets a new run in MLflow: %s", error)
                else:
                    return parent
            settings = study.settings
            tags = {
                "study": settings.study_name,
                "storage": without_password(settings.storage),
                "space": study.space.digest,
                "objective": ", ".join(map(str, settings.objectives)),
                "direction": ", ".join(objective.direction for objective in settings.objectives),
                "sampler": str(settings.sampler),
                "pruner": str(settings.pruner),
                "host": socket.gethostname(),
            }
            parent = tracking.SharedRun.create(self.store, experiment, settings.study_name, tags)
            study.set_attribute("mlflow", {"uri": uri, "run_id": parent.run_id, "experiment_id": parent.experiment_id})
            with self._warning():
                parent.params({f"space.{key}": text for key, text in study.space.by_key().items()})
        return parent

    @contextmanager
    def _warning(self) -> Iterator[None]:
        """Turn an error of the store into a warning."""
        try:
            yield
        except (tracking.TrackingError, OSError) as error:
            log.warning("MLflow has not got all of the study; the same command sends it again (%s)", error)


def _best_value(rows: tuple[TrialRow, ...], objectives: Sequence[Objective]) -> float | None:
    """Return the best trial's value; None if none is complete, or for a Pareto front."""
    best = best_trials(rows, objectives)
    return rows[best[0]].values[0] if len(best) == 1 else None


def _objective_metrics(objectives: Sequence[Objective], result: TrialResult) -> dict[str, float]:
    """Return `objective`, or `objective/best-val-psnr_db` and so on for several: sorted by it, the best comes first."""
    names = ["objective"] if len(objectives) == 1 else [f"objective/{objective.slug}" for objective in objectives]
    return dict(zip(names, result.values or (), strict=False))


def _trial_tags(result: TrialResult) -> dict[str, str]:
    tags = {_STATE: result.state}
    if result.reason:
        tags["trial.reason"] = result.reason
    if result.values is not None:
        tags["trial.value"] = ", ".join(f"{value:.6g}" for value in result.values)
    return tags


def _count_tags(rows: tuple[TrialRow, ...]) -> dict[str, str]:
    counts = Counter(row.state for row in rows)
    return {
        f"trials.{state}": str(counts[state])
        for state in (*COUNTED, State.REFUSED, State.KILLED, State.RUNNING, State.WAITING)
    }


def _best_tags(summary: StudySummary) -> dict[str, str]:
    """The best trial's number, settings and value; for a Pareto front, the numbers alone."""
    tags = {"best.trial": ", ".join(map(str, summary.best))}
    if len(summary.best) == 1:
        row = summary.row(summary.best[0])
        tags |= {f"best.{key}": str(value) for key, value in row.params.items()}
        tags["best.value"] = str(row.values[0])
    return tags
