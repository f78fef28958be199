"""Searches of the settings by Optuna, which only this package imports; and `-m` without a search.

run.py            a search from start to end;  workers.py  several processes at once
settings.py       the settings of a search: hydra.sweeper
space.py          what is searched;  parameter.py  one setting of it;  space_check.py  whether all of it exists
study.py          which point is drawn next;  identity.py  when two points, or two studies, are the same
storage.py        where a study is kept;  stored_trials.py  its trials there, and those of processes that died
trial.py          a trial inside its job;  trial_result.py  what came of it, and the summary of a study
failure_groups.py trials grouped by why they ended as they did, and what those of a group have in common
tracker.py        the study's run in MLflow, a line per trial, and the end
tables.py         how trials are written;  report.py  the report;  plots.py importances.py  its pictures
winner.py         the best trial: how to train it again, and its one evaluation on the test photographs
multirun.py       `-m` without a search: a grid of runs and its table
"""
