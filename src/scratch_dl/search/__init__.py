"""Searches of the settings by Optuna. Only this package imports it.

space.py      what is searched;  parameter.py  one setting of it;  grammar.py  values as Hydra takes them
settings.py   how: hydra.sweeper
storage.py    where a study is kept;  stored.py  its trials there, and what a dead process has left
study.py      what is drawn next, what came of it;  identity.py  which points are the same
run.py        a search from start to end;  workers.py  several processes at once
trial.py      a trial inside its job
outcomes.py   what came of a trial;  causes.py  the trials grouped by why;  common.py  what those of a group share
recording.py  the study's run in MLflow, and its end;  results.py  the study as its report shows it
report.py     the report;  plots.py importances.py axes.py  its pictures;  terminal.py  what is printed
retrain.py    the commands that train the best again;  winner.py  its one look at the test photographs
"""

from scratch_dl.search.run import SweepError, run

__all__ = ["SweepError", "run"]
