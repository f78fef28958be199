"""The same small search on the other storages and launchers; two commands at once on one empty database."""

import re
from urllib.parse import urlsplit

import pytest

SPACE = ("optimizer.lr=tag(log,interval(0.5,20.0))", "hydra.sweeper.pruner=none")


@pytest.fixture(scope="module")
def on_sqlite(place, search):
    here = place()
    done = search(here, *SPACE, "hydra.sweeper.n_trials=3")
    assert done.returncode == 0, done.stderr
    return here


@pytest.mark.exhaustive
def test_a_journal_file_has_the_same_trials_and_is_gone_on_with(on_sqlite, place, search, tmp_path):
    journal = str(tmp_path / "studies" / "small.journal")
    here = place(storage=journal)
    where = f"hydra.sweeper.storage={journal}"
    for total, before in ((2, 0), (3, 2)):
        done = search(here, *SPACE, where, f"hydra.sweeper.n_trials={total}")
        assert done.returncode == 0, done.stderr
        assert f"kept in {journal}{f'; goes on after {before} draws' if before else ''}\n" in done.stdout
    assert [(trial.params, trial.values) for trial in here.trials()] == [
        (trial.params, trial.values) for trial in on_sqlite.trials()
    ]
    parent, nested = here.runs()
    assert (parent.info.status, sorted(nested)) == ("FINISHED", [0, 1, 2])
    assert parent.data.tags["storage"] == journal
    assert not (here.folder / "optuna.db").exists()
    changed = search(here, "optimizer.lr=tag(log,interval(0.5,10.0))", *SPACE[1:], where)
    assert changed.returncode == 2
    assert "optimizer.lr was tag(log,interval(0.5,20.0)), is tag(log,interval(0.5,10.0))" in changed.stderr


@pytest.mark.exhaustive
def test_a_process_killed_on_a_journal_file_takes_nothing_with_it(on_sqlite, place, search, started, ended, tmp_path):
    journal = str(tmp_path / "small.journal")
    here = place(storage=journal)
    words = (*SPACE, f"hydra.sweeper.storage={journal}", "hydra.sweeper.n_trials=2")
    assert ended(started(here, *words, trial=1, step=5, signal=9)).returncode == -9
    done = search(here, *words)
    assert done.returncode == 0, done.stderr
    assert here.states() == ["complete", None, "complete"]
    assert [here.trials()[number].values for number in (0, 2)] == [trial.values for trial in on_sqlite.trials()[:2]]


@pytest.fixture(scope="module")
def on_postgres(postgres, place, started, ended):
    """One empty database for study and MLflow, and two commands, as of two machines, at once."""
    url = postgres()
    here = place(storage=url, uri=url)
    words = (*SPACE, f"hydra.sweeper.storage={url}", f"tracking.uri={url}", "hydra.sweeper.n_trials=5")
    processes = [started(here, *words, slow=0.02) for _ in range(2)]
    return here, [ended(process) for process in processes]


@pytest.mark.exhaustive
def test_two_commands_at_once_on_one_empty_postgresql_come_to_the_total(on_postgres):
    here, both = on_postgres
    assert [done.returncode for done in both] == [0, 0], [done.stderr for done in both]
    assert here.states().count("complete") == 5
    assert here.numbers("failed", "killed") == []
    points = [tuple(here.trials()[number].params.values()) for number in here.numbers("complete")]
    assert len(set(points)) == 5
    assert len({trial.user_attrs["worker"]["pid"] for trial in here.trials()}) == 2
    assert all(trial.state.is_finished() for trial in here.trials())


@pytest.mark.exhaustive
def test_postgresql_has_one_run_of_the_study_and_one_a_trial(on_postgres):
    here, both = on_postgres
    parent, nested = here.runs()
    assert parent.info.status == "FINISHED"
    assert sorted(nested) == here.numbers("complete")
    assert {run.info.status for run in nested.values()} == {"FINISHED"}
    assert parent.data.tags["best.trial"] == str(here.study().best_trial.number)
    assert any("the best of 5 complete trials" in done.stdout for done in both)
    assert sum(len(re.findall(r"(?m)^\d of 5 trained ", done.stdout)) for done in both) == 5


@pytest.mark.exhaustive
def test_a_password_stands_in_no_tag_parameter_line_or_file_of_the_record(on_postgres):
    here, both = on_postgres
    password = urlsplit(here.storage).password
    for done in both:
        assert password not in done.stdout + done.stderr
        assert "kept in postgresql+psycopg://tester@127.0.0.1" in done.stdout
    parent, nested = here.runs()
    for run in (parent, *nested.values()):
        for values in (run.data.tags, run.data.params):
            assert not [key for key, value in values.items() if password in value]
    assert parent.data.tags["storage"] == here.storage.replace(f":{password}", "")
    assert not [trial.number for trial in here.trials() if password in str(trial.user_attrs)]
    assert password not in str(here.study().user_attrs)
    files = [path for path in here.folder.rglob("*") if path.is_file() and password.encode() in path.read_bytes()]
    # What Hydra and a checkpoint keep of the configuration is needed to go on with a run.
    assert not [path for path in files if path.parent.name in ("custom", "artifacts") or path.suffix == ".jsonl"], files


@pytest.mark.exhaustive
def test_postgresql_gives_what_sqlite_gives(on_sqlite, postgres, place, started, ended):
    """One process: the same parameters and values by a seed, wherever the study is kept."""
    url = postgres()
    here = place(storage=url)
    done = ended(started(here, *SPACE, f"hydra.sweeper.storage={url}", "hydra.sweeper.n_trials=3"))
    assert done.returncode == 0, done.stderr
    assert [(trial.params, trial.values) for trial in here.trials()] == [
        (trial.params, trial.values) for trial in on_sqlite.trials()
    ]


@pytest.mark.exhaustive
def test_the_joblib_launcher_trains_two_at_once(place, started, ended):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    here = place()
    launcher = ("hydra/launcher=joblib", "hydra.sweeper.workers=2", "hydra.sweeper.n_trials=4")
    done = ended(started(here, *SPACE, *launcher, slow=0.1))
    assert done.returncode == 0, done.stderr
    assert here.states() == ["complete"] * 4
    assert len({trial.params["optimizer.lr"] for trial in here.trials()}) == 4
    starts = [trial.datetime_start for trial in here.trials()]
    ends = [trial.datetime_complete for trial in here.trials()]
    assert starts[1] < ends[0]
    assert starts[3] < ends[2]
    parent, nested = here.runs()
    assert (parent.info.status, sorted(nested)) == ("FINISHED", [0, 1, 2, 3])
    starts, ends = ([getattr(nested[n].info, name) for n in range(4)] for name in ("start_time", "end_time"))
    assert starts[1] < ends[0]
    assert starts[0] < ends[1]
