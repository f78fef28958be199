"""A study as its report shows it."""

from collections.abc import Mapping, Sequence

from hydra import compose as hydra_compose
from omegaconf import DictConfig

from scratch_dl.search import retrain
from scratch_dl.search.outcomes import COMPLETE, Objective, Results, Row
from scratch_dl.search.study import Study
from scratch_dl.system.passwords import without_password
from scratch_dl.training.summary import config_dir


def results_of(study: Study, rows: tuple[Row, ...], test: Mapping[str, float]) -> Results:
    """What stands in the study now; `test` are the winner's scores on the test photographs."""
    settings = study.settings
    found = best(rows, settings.objectives)
    again = {}
    if len(found) == 1:
        again = retrain.commands(study.configuration(found[0]), _without_search, config_dir(), study.space.fixed)
    return Results(
        settings.study_name, without_password(settings.storage), study.space.describe(), settings.objectives,
        study.n_trials, str(settings.sampler), str(settings.pruner), settings.seed, rows, found, again, test,
    )  # fmt: skip


def best(rows: Sequence[Row], objectives: Sequence[Objective]) -> tuple[int, ...]:
    """The number of the best complete trial, the first of equal ones; of several objectives, the Pareto front's."""
    complete = [row for row in rows if row.state == COMPLETE and _values(row)]

    def behind(one: Row, other: Row) -> bool:
        """Whether `other` is better in something and worse in nothing."""
        pairs = list(zip(objectives, _values(one), _values(other), strict=True))
        better = any(objective.better(theirs, own) for objective, own, theirs in pairs)
        return better and not any(objective.better(own, theirs) for objective, own, theirs in pairs)

    front = tuple(row.number for row in complete if not any(behind(row, other) for other in complete))
    return front if len(objectives) > 1 else front[:1]


def _values(row: Row) -> tuple[float, ...]:
    return (row.outcome.values if row.outcome else None) or ()


def _without_search(overrides: Sequence[str]) -> DictConfig:
    return hydra_compose("train", overrides=list(overrides), return_hydra_config=True)
