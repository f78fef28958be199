"""What is said of a study while it runs and at its end: a line a trial, its run in MLflow, and the report."""

import logging
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from scratch_dl import tracking
from scratch_dl.search import report, terminal
from scratch_dl.search.outcomes import COMPLETE, COUNTED, KILLED, REFUSED, RUNNING, WAITING, Outcome, Results, Row
from scratch_dl.search.results import best, results_of
from scratch_dl.search.study import Draw, Study
from scratch_dl.system.passwords import without_password
from scratch_dl.training.summary import where_flags

log = logging.getLogger(__name__)
FOLDER = "sweeps"


class Recording:
    """The study's run in MLflow, which its workers on all machines share.

    The study itself is kept by Optuna; when MLflow does not take something, a warning says so, and the next end of
    the same command sends it all.

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
        self.parent = self._parent(str(where.experiment))

    def settled(self, draw: Draw, outcome: Outcome) -> None:
        """A trial has come to something."""
        if outcome.state not in COUNTED:
            return
        rows = self.study.rows()
        objectives = self.study.settings.objectives
        found = best(rows, objectives)
        leader = rows[found[0]].outcome if len(found) == 1 else None
        record = leader.values[0] if leader and leader.values else None
        done = sum(row.state in COUNTED for row in rows)
        print(terminal.trial_line(rows[draw.number], done, self.study.n_trials, objectives, record), flush=True)
        with self._warning():
            tags = {"study": self.study.settings.study_name, "trial": str(draw.number), **_tags(outcome)}
            if outcome.copied_from is not None:
                values = dict(zip((objective.name for objective in objectives), outcome.values or (), strict=False))
                params = {key: str(value) for key, value in draw.params.items()}
                self.parent.nested(f"trial-{draw.number}", tags, params, values, outcome.epochs)
            elif outcome.run_id:
                self.parent.tag_run(outcome.run_id, tags)
            if outcome.state == COMPLETE and outcome.values:
                names = [objective.name for objective in objectives]
                values = {f"trial/{name}": value for name, value in zip(names, outcome.values, strict=True)}
                if record is not None:
                    values[f"best/{names[0]}"] = record
                self.parent.metrics(values, draw.number)
            self.parent.tags(_counts(rows))

    def conclude(self, finished: bool) -> tuple[Row, ...]:
        """Write and print the report; at the very end, look at the test photographs with the winner."""
        why = self.study.why_over() if finished else None
        rows = self.study.rows()  # after it: the last trial may just have ended elsewhere
        elsewhere = sum(row.state == RUNNING for row in rows)
        scores = {} if why is None else self._test(rows)
        results = results_of(self.study, rows, scores)
        folder = self.directory / FOLDER / self.study.settings.study_name
        files = report.write(self.study.optuna, results, folder)
        terminal.show(results, folder / "report.html")
        if elsewhere:
            print(f"{elsewhere} trials are in training elsewhere; the last one to end completes the report")
        if why:
            print(why)
        done = sum(row.state in COUNTED for row in rows)
        if not finished and done < self.study.n_trials:
            print(f"stopped after {done} of {self.study.n_trials} trials; the same command goes on")
        print(f"look: python -m scratch_dl.ui{where_flags(self.study.base)}", flush=True)
        with self._warning():
            self.parent.files(files)
            self.parent.tags(
                {**_counts(rows), **_best_tags(results), tracking.DESCRIPTION: report.description(results)}
            )
            self.parent.metrics(scores, 0)
            if not elsewhere:
                anything = any(row.state == COMPLETE for row in rows)
                self.parent.finish("KILLED" if not finished else "FINISHED" if anything else "FAILED")
        return rows

    def _test(self, rows: tuple[Row, ...]) -> dict[str, float]:
        """The winner's scores on the test photographs, computed once a winner."""
        from scratch_dl.search.winner import test_scores

        found = best(rows, self.study.settings.objectives)
        if len(found) != 1:
            return {}
        known = self.study.attribute("winner") or {}
        if known.get("number") == found[0]:
            return dict(known["scores"])
        row = rows[found[0]]
        assert row.outcome is not None
        scores = test_scores(self.study.configuration(row.number), row.outcome, self.directory)
        if scores:
            self.study.remember("winner", {"number": row.number, "scores": scores})
        return scores

    def _parent(self, experiment: str) -> tracking.Parent:
        """The study's run, made by the first process that comes."""
        study, uri = self.study, self.store.name
        with study.alone():
            known = study.attribute("mlflow") or {}
            if known.get("uri") == uri:
                try:
                    parent = tracking.Parent(self.store, known["run_id"])
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
            parent = tracking.Parent.create(self.store, experiment, settings.study_name, tags)
            study.remember("mlflow", {"uri": uri, "run_id": parent.run_id, "experiment_id": parent.experiment_id})
            with self._warning():
                parent.params({f"space.{key}": text for key, text in study.space.by_key().items()})
        return parent

    @contextmanager
    def _warning(self) -> Iterator[None]:
        try:
            yield
        except (tracking.TrackingError, OSError) as error:
            log.warning("MLflow has not got all of the study; the same command sends it again (%s)", error)


def _tags(outcome: Outcome) -> dict[str, str]:
    tags = {"trial.state": outcome.state}
    if outcome.reason:
        tags["trial.reason"] = outcome.reason
    if outcome.values is not None:
        tags["trial.value"] = ", ".join(f"{value:.6g}" for value in outcome.values)
    if outcome.copied_from is not None:
        tags["copied_from"] = str(outcome.copied_from)
    return tags


def _counts(rows: tuple[Row, ...]) -> dict[str, str]:
    counted = Counter(row.state for row in rows)
    return {f"trials.{state}": str(counted[state]) for state in (*COUNTED, REFUSED, KILLED, RUNNING, WAITING)}


def _best_tags(results: Results) -> dict[str, str]:
    """The best trial's settings, value and number; of a Pareto front, the numbers alone."""
    tags = {"best.trial": ", ".join(map(str, results.best))}
    if len(results.best) == 1:
        row = results.row(results.best[0])
        tags |= {f"best.{key}": str(value) for key, value in row.params.items()}
        tags["best.value"] = str(row.outcome.values[0]) if row.outcome and row.outcome.values else ""
    return tags
