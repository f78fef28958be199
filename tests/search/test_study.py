"""A study draws what follows from its seed and its past alone, whoever works on it and whatever dies on the way."""

import copy
import math
import os
import pickle
import socket
import threading
import warnings

import optuna
import pytest
import yaml
from omegaconf import OmegaConf, open_dict

from scratch_dl.config.composing import compose_config
from scratch_dl.search import storage
from scratch_dl.search.drawing import fruitless_draws
from scratch_dl.search.settings import Algorithm, SearchSettings
from scratch_dl.search.space import read_space
from scratch_dl.search.study import Study
from scratch_dl.search.trial_result import COUNTED, Objective, State, TrialResult, best_trials
from scratch_dl.system.errors import ConfigError
from scratch_dl.tracking.process import register_process

BEST = Objective("val/psnr_db", "best", "maximize")
RATE = {"optimizer.lr": "tag(log,interval(0.02,20.0))"}
TWO = {"trainer.batch_size": "choice(8,16)"}
NUMBERS = {**RATE, "optimizer.momentum": "interval(0.0,0.9)", "trainer.batch_size": "interval(4,16)"}
STORAGES = ["journal", pytest.param("sqlite", marks=pytest.mark.exhaustive)]
ELSEWHERE = {"host": "another-machine", "pid": "1", "lock": "an-id/another-machine.1.abcd.lock"}


@pytest.fixture(scope="module")
def configuration():
    """Made by Hydra once."""
    config = compose_config("train", ["search=custom", "experiment=paper_sgd", "model.channels=[8,8,8]"])
    with open_dict(config):
        config.hydra = {"runtime": {"choices": dict(config.hydra.runtime.choices)}}
    return config


@pytest.fixture
def make(configuration, tmp_path):
    """Makes and opens a study; `conf` are overrides of the configuration by key."""
    opened = []

    def made(
        params, conditions=None, arguments=(), where="journal", conf=None, objectives=(BEST,), opening=True, **given
    ):
        def compose(overrides):
            config = copy.deepcopy(configuration)
            pairs = [
                *(conf or {}).items(),
                *(text.split("=", 1) for text in overrides if not text.startswith("hydra.")),
            ]
            for key, value in pairs:
                OmegaConf.update(config, key, yaml.safe_load(value) if isinstance(value, str) else value)
            return config

        place = {"journal": str(tmp_path / "study.journal"), "sqlite": f"sqlite:///{tmp_path}/study.db"}.get(
            where, where
        )
        known = {"study_name": "s", "storage": place, "n_trials": 6, "workers": 1, "objectives": objectives,
                 "sampler": Algorithm("random", {}), "pruner": Algorithm("none", {}), "seed": 0}  # fmt: skip
        if isinstance(given.get("sampler"), str):
            given["sampler"] = Algorithm(given["sampler"], {})
        space = read_space(params, conditions or {}, list(arguments))
        study = Study(SearchSettings(**{**known, **given}), space, tmp_path, compose(space.fixed), compose)
        if opening:
            study.open()
        opened.append(place)
        return study

    yield made
    storage.open_storage.cache_clear()


def complete(study, draw, value=1.0):
    study.tell(draw, TrialResult(State.COMPLETE, values=(value,)))


def score(draw):
    """Of a training, in place of it."""
    numbers = [float(value) for value in draw.params.values() if not isinstance(value, str)]
    return -sum(math.log(abs(value) + 1e-3) ** 2 for value in numbers)


def settle(study, number=10**6):
    """Draw and tell so often, or to the end; what was drawn."""
    draws = []
    while len(draws) < number and (draw := study.ask()) is not None:
        if draw.result is None:
            complete(study, draw, score(draw))
        draws.append(draw)
    return draws


def points(draws):
    return [draw.params for draw in draws]


def states(study):
    return [row.state for row in study.rows()]


def dead(study):
    """A process that worked in this folder of runs, and holds no lock there any more."""
    place = register_process(study.directory).partition("/")[0]
    return {"host": socket.gethostname(), "pid": "1", "lock": f"{place}/gone.1.abcd.lock"}


def abandon(study, draw, worker=None, result=None):
    """As it looks when the trial's process has died."""
    worker = worker or dead(study)
    number = study.optuna._storage.get_trial_id_from_study_id_trial_number(study.optuna._study_id, draw.number)
    study.optuna._storage.set_trial_user_attr(number, "worker", worker)
    if result is not None:
        study.optuna._storage.set_trial_user_attr(number, "result", result.to_json())


# What is drawn


def test_the_first_trial_is_the_configuration_as_it_stands(make):
    study = make(NUMBERS)
    draw = study.ask()
    assert draw.params == {"optimizer.lr": 1.0, "optimizer.momentum": 0.9, "trainer.batch_size": 8}
    assert (draw.number, draw.result, study.outside) == (0, None, [])
    assert draw.overrides == ["optimizer.lr=1.0", "optimizer.momentum=0.9", "trainer.batch_size=8"]
    complete(study, draw)
    assert study.ask().params != draw.params


def test_a_baseline_outside_of_the_space_is_moved_into_it_and_said(make):
    study = make({"trainer.batch_size": "choice(4,16)"})
    assert study.ask().params == {"trainer.batch_size": 4}
    assert study.outside == ["trainer.batch_size=4, as 8 is not in choice(4,16)"]


def test_what_stays_is_in_every_trial(make):
    draws = settle(make(RATE, arguments=["seed=3", "model.init=he"], n_trials=3))
    assert all(draw.overrides[:2] == ["seed=3", "model.init=he"] for draw in draws)
    assert [draw.overrides[2] for draw in draws] == [f"optimizer.lr={draw.params['optimizer.lr']!r}" for draw in draws]


def test_conditions_are_drawn_by_hydras_own_composition(tmp_path):
    def compose(overrides):
        return compose_config("train", ["search=custom", "experiment=paper_sgd", "model.channels=[8,8,8]", *overrides])

    conditions = {
        "optimizer.momentum": {"optimizer=sgd": "interval(0.0,0.99)"},
        "optimizer.lr": {"optimizer=sgd": "interval(0.5,2)", "optimizer=adam": "interval(0,0.01)"},
    }
    space = read_space({"optimizer": "choice(sgd,adam)"}, conditions, [])
    settings = SearchSettings(
        "s", str(tmp_path / "s.journal"), 6, 1, (BEST,), Algorithm("random", {}), Algorithm("none", {}), 0
    )
    study = Study(settings, space, tmp_path, compose([]), compose)
    study.open()
    draws = settle(study)
    assert points(draws[:1]) == [{"optimizer": "sgd", "optimizer.momentum": 0.9, "optimizer.lr": 1.0}]
    assert {draw.params["optimizer"] for draw in draws} == {"sgd", "adam"}
    for draw in draws:
        assert ("optimizer.momentum" in draw.params) == (draw.params["optimizer"] == "sgd")
        assert (draw.params["optimizer.lr"] >= 0.5) == (draw.params["optimizer"] == "sgd")
    assert [row.params for row in study.rows()] == points(draws)


@pytest.mark.parametrize(
    "sampler",
    [Algorithm("random", {}), Algorithm("tpe", {"n_startup_trials": 2}), Algorithm("qmc", {}), Algorithm("cmaes", {})],
    ids=lambda one: one.name,
)
def test_the_same_seed_draws_the_same_however_often_it_is_interrupted(make, tmp_path, sampler):
    def study(name, seed=0):
        return make(NUMBERS, sampler=sampler, seed=seed, where=str(tmp_path / name))

    whole = points(settle(study("whole")))
    assert len(whole) == len({tuple(point.values()) for point in whole}) == 6
    parts = [points(settle(study("parts"), number)) for number in (1, 1, 3, 9)]
    assert sum(parts, []) == whole  # noqa: RUF017
    other = points(settle(study("other", seed=1), 3))
    assert other[0] == whole[0]
    assert all(one != same for one, same in zip(other[1:], whole[1:], strict=False))


def test_a_storage_cannot_have_the_sampler_run_anything(make, tmp_path):
    """CMA-ES keeps its state as a pickle in the study, which others may write to."""

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    study = make(NUMBERS, sampler=Algorithm("cmaes", {"n_startup_trials": 1}))

    def search():
        for _ in range(4):
            draw = study.ask()
            with storage.quiet():
                trial = study.optuna.trials[draw.number]._trial_id
                study.optuna._storage.set_trial_system_attr(trial, "cma:optimizer:0", pickle.dumps(Evil()).hex())
            complete(study, draw)

    with pytest.raises(ConfigError, match=r"asks for posix\.mkdir"):
        search()
    assert not (tmp_path / "ran").exists()


def test_tpe_and_cmaes_learn_from_what_was_told(make, tmp_path):
    for name, sampler in (("tpe", Algorithm("tpe", {"n_startup_trials": 2})), ("cmaes", Algorithm("cmaes", {}))):
        drawn = []
        for sign in (1, -1):
            study = make(NUMBERS, sampler=sampler, where=str(tmp_path / f"{name}{sign}"), n_trials=9)
            drawn.append([])
            while (draw := study.ask()) is not None:
                complete(study, draw, sign * score(draw))
                drawn[-1].append(draw.params)
        assert drawn[0][:2] == drawn[1][:2]
        assert drawn[0] != drawn[1], name


@pytest.mark.exhaustive
def test_tpe_draws_at_random_until_enough_points_are_trained(make, tmp_path):
    params = {"model.padding": "choice(same,2,6)", **RATE}
    trained, drawn = [], []
    for sampler in (Algorithm("tpe", {"n_startup_trials": 4}), Algorithm("random", {})):
        study = make(params, sampler=sampler, where=str(tmp_path / sampler.name), n_trials=8)
        draws = settle(study)
        trained.append([number for number, draw in enumerate(draws) if draw.result is None])
        drawn.append(points(draws))
    fourth = trained[0][3]
    assert fourth > 3  # refused points came between
    assert drawn[0][: fourth + 1] == drawn[1][: fourth + 1]
    assert drawn[0][fourth + 1] != drawn[1][fourth + 1]


# A grid


def test_a_grid_visits_every_point_once_in_order_and_ends_by_itself(make):
    params = {"trainer.batch_size": "choice(4,8,16)", "optimizer.momentum": "range(0,0.5,0.1)"}
    study = make(params, sampler="grid", n_trials=None, conf={"optimizer.momentum": 0.3})
    assert study.n_trials == 15
    draws = [*settle(study, 6), *settle(make(params, sampler="grid", n_trials=None, conf={"optimizer.momentum": 0.3}))]
    found = [(point["trainer.batch_size"], round(point["optimizer.momentum"], 6)) for point in points(draws)]
    product = [(size, momentum) for size in (4, 8, 16) for momentum in (0.0, 0.1, 0.2, 0.3, 0.4)]
    assert found == [(8, 0.3), *(point for point in product if point != (8, 0.3))]
    assert all(draw.result is None for draw in draws)
    assert (study.ask(), study.end_reason()) == (None, "")


def test_a_grid_may_be_cut_short_and_leaves_out_nothing_but_what_fits_nowhere(make):
    params = {"model.padding": "choice(same,2,1,6)", "trainer.batch_size": "choice(8,16)"}
    assert len(settle(make(params, sampler="grid", n_trials=2))) == 2
    study = make(params, sampler="grid", n_trials=None)
    settle(study)
    assert (study.ask(), study.end_reason()) == (None, "no further point is left: 2 were trained, 4 refused")
    tried = {(row.params["model.padding"], row.params["trainer.batch_size"]): row for row in study.rows()}
    assert len(tried) == len(study.rows()) == 8
    assert {key for key, row in tried.items() if row.state == State.REFUSED} == {
        (p, size) for p in (2, 6) for size in (8, 16)
    }
    # padding=1 is what "same" comes to, and is not trained
    assert all(tried[1, size].state == State.REPEATED for size in (8, 16))


# What fits nowhere, and what was there already


def test_geometries_that_fit_nowhere_are_refused_and_not_counted(make):
    study = make({"model.padding": "choice(same,2)", **RATE}, n_trials=4)
    draws = settle(study)
    refused = [draw for draw in draws if draw.result]
    assert [draw.result.state for draw in refused] == [State.REFUSED] * len(refused)
    assert refused
    assert all("model" in draw.result.reason and "\n" not in draw.result.reason for draw in refused)
    assert all((draw.params["model.padding"] == 2) == (draw.result is not None) for draw in draws)
    assert (states(study).count(State.COMPLETE), states(study).count(State.REFUSED)) == (4, len(refused))
    assert study.end_reason() == ""
    # To the sampler they are bad points, not unknown ones.
    kept = study.optuna.get_trials()
    assert all(kept[draw.number].state == optuna.trial.TrialState.PRUNED for draw in refused)


def test_where_nothing_fits_it_gives_up_and_says_why(make):
    study = make({"model.padding": "choice(2,6)"}, n_trials=2)
    draws = settle(study, 100)
    assert {draw.result.state for draw in draws} == {State.REFUSED}
    assert sorted(draw.params["model.padding"] for draw in draws) == [2, 6]
    assert study.end_reason() == "no further point is left: 0 were trained, 2 refused"
    assert study.missing() == 2


def test_where_points_are_refused_without_end_it_gives_up_and_says_why(make, monkeypatch):
    monkeypatch.setattr("scratch_dl.search.study.MAX_REFUSALS", 20)
    study = make({"model.padding": "choice(2,6)", **RATE}, n_trials=2)
    assert len(settle(study, 100)) == 20
    assert study.end_reason() == (
        "no new point was among the last draws: 20 were refused; hydra.sweeper.params may leave out what fits nowhere"
    )


def test_a_grid_goes_on_after_any_number_of_refused_points(make, monkeypatch):
    monkeypatch.setattr("scratch_dl.search.study.MAX_REFUSALS", 2)
    study = make({"model.padding": "choice(2,6,1)"}, n_trials=None, sampler=Algorithm("grid", {}))
    assert [draw.result is None for draw in settle(study)] == [False, False, True]


@pytest.mark.parametrize("where", STORAGES)
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_every_point_is_trained_before_one_would_be_again(make, where, sampler):
    params = {"trainer.batch_size": "choice(4,8,12,16,20)", "optimizer.momentum": "choice(0.0,0.9)"}
    study = make(params, n_trials=30, where=where, sampler=Algorithm(sampler, {}))
    draws = settle(study)
    assert all(draw.result is None for draw in draws)
    assert len({tuple(draw.params.values()) for draw in draws}) == len(draws) == 10
    assert study.end_reason() == "no further point is left: 10 were trained, 0 refused"
    # Optuna was told of each training once; what repeats one is a failure, which its samplers leave out.
    told = [trial.state.name for trial in study.optuna.get_trials()]
    assert set(told) <= {"COMPLETE", "FAIL"}
    assert told.count("COMPLETE") == 10


def test_a_space_whose_points_are_all_the_same_training_ends(make):
    study = make({"trainer.pictures": "interval(1,1000000)"}, n_trials=3)
    assert len(settle(study)) == 1
    assert study.end_reason() == "no new point was among the last draws: 100 were of points that had been tried before"


def test_a_refused_point_does_not_end_a_row_of_repeats():
    states = [State.REPEATED, State.COMPLETE, State.REPEATED, State.REFUSED, State.REPEATED]
    assert fruitless_draws(states) == {State.REPEATED: 2, State.REFUSED: 1}
    assert fruitless_draws([*states, State.RUNNING]) == {}


def test_padding_that_comes_to_the_same_is_not_trained_again(make):
    study = make({"model.padding": "choice(same,1)"}, n_trials=2)
    assert [draw.params["model.padding"] for draw in settle(study)] == ["same"]
    assert {row.result.reason for row in study.rows() if row.state == State.REPEATED} == {"trial 0 is the same point"}


@pytest.mark.parametrize(
    "result",
    [
        TrialResult(State.PRUNED, reason="behind", values=(21.0,), epochs=2),
        TrialResult(State.FAILED, reason="train/loss became nan"),
    ],
    ids=lambda result: result.state,
)
def test_a_point_that_was_pruned_or_failed_is_not_tried_again(make, result):
    study = make(TWO, n_trials=9)
    study.tell(study.ask(), result)
    assert points(settle(study)) == [{"trainer.batch_size": 16}]
    assert [state for state in states(study) if state in COUNTED] == [result.state, State.COMPLETE]


# How many


def test_the_number_of_trials_is_a_total(make):
    assert len(settle(make(RATE, n_trials=3))) == 3
    assert settle(make(RATE, n_trials=3)) == []
    assert settle(make(RATE, n_trials=2)) == []
    more = make(RATE, n_trials=5)
    assert more.missing() == 2
    assert [draw.number for draw in settle(more)] == [3, 4]
    assert more.missing() == 0


def test_what_failed_and_what_was_pruned_count(make):
    study = make(RATE, n_trials=3)
    for state in (State.FAILED, State.PRUNED, State.COMPLETE):
        study.tell(study.ask(), TrialResult(state, values=(1.0,)))
    assert study.ask() is None


def test_what_is_in_training_counts_until_it_ends_otherwise(make):
    study = make(RATE, n_trials=2)
    one, _ = study.ask(), study.ask()
    assert study.ask() is None
    assert study.missing() == 0
    study.tell(one, TrialResult(State.KILLED, reason="stopped"))
    assert study.ask().params == one.params


def test_several_objectives_are_kept(make):
    both = (BEST, Objective("parameters", "best", "minimize"))
    study = make(RATE, objectives=both, n_trials=2, sampler="tpe")
    for _ in range(2):
        study.tell(study.ask(), TrialResult(State.COMPLETE, values=(28.0, 5.0)))
    assert study.ask() is None
    assert [trial.values for trial in study.optuna.trials] == [[28.0, 5.0]] * 2
    assert [one.name for one in study.optuna.directions] == ["MAXIMIZE", "MINIMIZE"]


# Whether it is the same study

OTHERS = [
    ({"params": {"optimizer.lr": "interval(0.1,1.0)"}},
     r"optimizer\.lr was tag\(log,interval\(0\.02,20\.0\)\), is interval\(0\.1,1\.0\)"),
    ({"params": {**RATE, **TWO}}, r"trainer\.batch_size was not searched, is choice\(8,16\)"),
    ({"params": TWO}, r"optimizer\.lr was tag.*, is not searched; trainer\.batch_size was not searched, is choice"),
    ({"objectives": (Objective("val/ssim", "best", "maximize"),)}, "objective was best val/psnr_db, is best val/ssim"),
    ({"objectives": (Objective("val/psnr_db", "last", "maximize"),)}, "objective was best val/psnr_db, is last val/ps"),
    ({"objectives": (Objective("val/psnr_db", "best", "minimize"),)}, "direction was maximize, is minimize"),
    ({"conf": {"trainer.epochs": 9}}, "trainer.epochs was 8, is 9"),
    ({"arguments": ["model.init=he"]}, "model.init was pytorch, is he"),
    ({"arguments": ["seed=1"]}, "seed was 0, is 1"),
]  # fmt: skip


@pytest.mark.parametrize(("other", "words"), OTHERS)
def test_another_study_under_the_same_name_is_refused_with_what_differs(make, other, words):
    settle(make(RATE, n_trials=2))
    with pytest.raises(ConfigError, match=words) as refused:
        make(**{"params": RATE, **other})
    assert refused.match(
        r"^the study s in \S+/study\.journal is another one: .*; choose another hydra\.sweeper\.study_name$"
    )
    assert len(make(RATE, n_trials=2).rows()) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"sampler": "tpe"}, {"n_trials": 9}, {"seed": 5}, {"pruner": Algorithm("median", {})}, {"workers": 3},
        {"conf": {"tracking.dir": "/else", "verification.enabled": False, "diagnosis.every": 3, "threads": 2}},
    ],
)  # fmt: skip
def test_what_may_change_of_a_study_is_not_refused(make, other):
    settle(make(RATE, n_trials=2))
    assert len(make(RATE, **other).rows()) == 2


def test_an_item_of_a_list_that_stays_is_a_setting_like_others(make):
    make({"model.channels.0": "choice(8,16)"})
    with pytest.raises(ConfigError, match=r"model\.channels.* was .*8.*, is .*16"):
        make({"model.channels.0": "choice(8,16)"}, conf={"model.channels": [8, 8, 16]})


def test_a_setting_that_stays_in_a_group_that_is_drawn_is_a_setting_like_others(make):
    make({"optimizer": "choice(sgd,adam)"}, arguments=["optimizer.weight_decay=0.0"])
    with pytest.raises(ConfigError, match=r"optimizer\.weight_decay"):
        make({"optimizer": "choice(sgd,adam)"}, arguments=["optimizer.weight_decay=0.1"])


def test_an_empty_study_of_another_direction_is_refused(make):
    study = make(RATE, opening=False)
    made = storage.open_storage(study.settings.storage)
    with storage.quiet():
        optuna.create_study(study_name="s", storage=made, direction="minimize")
    with pytest.raises(ConfigError, match=r"the study s in .* is another one"):
        study.open()


def test_a_study_whose_maker_died_before_it_was_done_is_opened_all_the_same(make, monkeypatch):
    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(optuna.Study, "set_user_attr", dies)
        with pytest.raises(KeyboardInterrupt):
            make(RATE)
    study = make(RATE)
    assert study.ask().params == {"optimizer.lr": 1.0}
    assert study.ask().params != {"optimizer.lr": 1.0}


# What dead processes leave


@pytest.mark.parametrize("where", ["journal", "sqlite"])
def test_the_trial_of_a_dead_process_is_trained_again_once_with_the_same_parameters(make, where):
    study = make(NUMBERS, where=where)
    complete(study, study.ask())
    lost = study.ask()
    abandon(study, lost)
    again = make(NUMBERS, where=where)
    assert again.missing() == 5
    assert again.missing() == 5
    assert states(again) == [State.COMPLETE, State.KILLED, State.WAITING]
    assert again.rows()[2].params == lost.params
    assert again.rows()[1].requeued_as == 2
    draw = again.ask()
    assert (draw.number, draw.params, draw.overrides, draw.result) == (2, lost.params, lost.overrides, None)
    complete(again, draw)
    settle(again)
    assert sum(state in COUNTED for state in states(again)) == 6
    assert [row.params for row in again.rows()].count(lost.params) == 2


def test_a_baseline_that_was_lost_is_still_the_baseline(make):
    study = make(RATE)
    abandon(study, study.ask())
    draw = study.ask()
    assert draw.params == {"optimizer.lr": 1.0}
    assert study.optuna.trials[draw.number].user_attrs["baseline"] is True


def test_a_process_that_died_while_it_drew_leaves_nothing_to_train(make):
    study = make(NUMBERS)
    complete(study, study.ask())
    with storage.quiet():
        half = study.optuna.ask()
        half.suggest_float("optimizer.lr", 0.02, 20.0, log=True)
        half.set_user_attr("worker", dead(study))
    draw = study.ask()
    assert set(draw.params) == set(NUMBERS)
    left, drawn = study.optuna.trials[half.number], study.optuna.trials[draw.number]
    assert (left.state, "retries" in drawn.user_attrs) == (optuna.trial.TrialState.FAIL, False)


@pytest.mark.parametrize("worker", [None, ELSEWHERE], ids=["of-this-process", "of-another-machine"])
@pytest.mark.parametrize("where", STORAGES)
def test_the_trial_of_a_process_that_lives_is_left_alone(make, worker, where):
    study = make(NUMBERS, where=where)
    draw = study.ask()
    if worker:
        abandon(study, draw, worker)
    other = make(NUMBERS, where=where)
    assert other.ask().params != draw.params
    assert states(other) == [State.RUNNING, State.RUNNING]
    complete(study, draw)
    assert states(other)[0] == State.COMPLETE


def test_a_trial_of_a_machine_whose_heart_has_stopped_is_trained_again(make, monkeypatch):
    monkeypatch.setattr(storage, "HEARTBEAT_S", 1)
    monkeypatch.setattr(storage, "GRACE_S", 1)
    study = make(RATE, where="sqlite")
    draw = study.ask()
    abandon(study, draw, ELSEWHERE)
    number = study.optuna._storage.get_trial_id_from_study_id_trial_number(study.optuna._study_id, draw.number)
    study.optuna._storage.record_heartbeat(number)
    assert states(study) == [State.RUNNING]
    deadline = threading.Event()
    for _ in range(40):
        study.missing()
        if State.KILLED in states(study):
            break
        deadline.wait(0.1)
    assert states(study) == [State.KILLED, State.WAITING]


def test_a_point_that_has_ended_three_processes_has_failed(make):
    study = make(RATE, n_trials=3)
    numbers = []
    for _ in range(3):
        draw = study.ask()
        assert draw.params == {"optimizer.lr": 1.0}
        numbers.append(draw.number)
        abandon(study, draw)
    draw = study.ask()
    assert draw.params != {"optimizer.lr": 1.0}
    rows = study.rows()
    assert [rows[number].state for number in numbers] == [State.KILLED, State.KILLED, State.FAILED]
    assert rows[numbers[2]].result.reason == "its process died, 3 times in a row"
    assert study.missing() == 1


def test_a_trial_that_was_told_before_its_process_died_is_finished_with_that(make):
    study = make(RATE, n_trials=2)
    draw = study.ask()
    abandon(study, draw, result=TrialResult(State.COMPLETE, values=(27.5,), run_id="r"))
    again = make(RATE, n_trials=2)
    assert again.missing() == 1
    assert again.rows()[0].result == TrialResult(State.COMPLETE, values=(27.5,), run_id="r")
    assert again.optuna.trials[0].values == [27.5]
    assert again.ask().params != draw.params
    assert again.ask() is None


def test_a_trial_that_its_user_stopped_is_trained_again_however_often(make):
    study = make(RATE)
    for number in range(5):
        draw = study.ask()
        assert (draw.number, draw.params) == (number, {"optimizer.lr": 1.0})
        study.tell(draw, TrialResult(State.KILLED, reason="stopped by a signal"))
    complete(study, study.ask())
    assert states(study) == [State.KILLED] * 5 + [State.COMPLETE]


# Other programs


@pytest.fixture
def foreign(make):
    """Makes a study and another program's view of it, through Optuna alone."""

    def view(params, **given):
        study = make(params, **given)
        with storage.quiet():
            return study, optuna.load_study(study_name="s", storage=storage.open_storage(study.settings.storage))

    return view


def test_what_another_program_trains_is_neither_waited_for_nor_changed(foreign):
    study, other = foreign(RATE, n_trials=2)
    with storage.quiet():
        running = other.ask()
        running.suggest_float("optimizer.lr", 0.02, 20.0, log=True)
    assert len(settle(study)) == 2
    assert study.end_reason() == ""
    assert states(study).count("foreign") == 1
    with storage.quiet():
        other.tell(running, 25.0)
    assert [row.values for row in study.rows() if row.is_foreign] == [(25.0,)]


def test_what_another_program_has_trained_counts_and_is_not_trained_again(foreign):
    study, other = foreign(TWO, n_trials=3)
    with storage.quiet():
        trial = other.ask({"trainer.batch_size": optuna.distributions.CategoricalDistribution((8, 16))})
        trained = trial.params["trainer.batch_size"]
        other.tell(trial, 40.0)
        failed = other.ask()
        other.tell(failed, state=optuna.trial.TrialState.FAIL)
    draws = settle(study)
    assert [draw.params["trainer.batch_size"] for draw in draws if draw.result is None] == [24 - trained]
    assert study.end_reason() == "no further point is left: 2 were trained, 0 refused"
    assert best_trials(study.rows(), (BEST,)) == (trial.number,)
    assert study.configuration(trial.number).trainer.batch_size == trained


def test_a_point_of_the_queue_that_cannot_be_trained_is_refused_once_by_name(foreign):
    study, other = foreign({**RATE, "model.kernel_size": "choice(3,4)"}, n_trials=4)
    queue = [{"model.kernel_size": 9}, {"optimizer.lr": 300.0}, {"optimizer.rate": 1.0}, {"optimizer.lr": 2.0}]
    with storage.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for point in queue:
            other.enqueue_trial(point)
    draws = settle(study)
    assert [draw.result.reason for draw in draws if draw.result is not None] == [
        "model.kernel_size must be in choice(3,4), but got 9",
        "optimizer.lr must be in tag(log,interval(0.02,20.0)), but got 300.0",
        "optimizer.rate is not searched; it must be one of optimizer.lr, model.kernel_size",
    ]
    assert {draw.is_queued for draw in draws if draw.result is not None} == {True}
    assert 2.0 in [draw.params["optimizer.lr"] for draw in draws if draw.result is None]
    assert len([draw for draw in draws if draw.result is None]) == 4


@pytest.mark.parametrize("where", ["journal", "sqlite"])
def test_a_study_that_another_program_has_made_is_adopted_with_its_queue(make, where):
    study = make(RATE, where=where, n_trials=2, opening=False)
    made = storage.open_storage(study.settings.storage)
    with storage.quiet():
        optuna.create_study(study_name="s", storage=made, direction="maximize").enqueue_trial({"optimizer.lr": 3.0})
    study.open()
    assert points(settle(study)) == [{"optimizer.lr": 3.0}, {"optimizer.lr": 1.0}]


def test_more_failures_than_are_permitted_end_the_search(make):
    study = make(RATE, n_trials=10, max_failure_rate=0.2)
    for _ in range(3):
        study.tell(study.ask(), TrialResult(State.FAILED, reason="train/loss became nan"))
    assert study.ask() is None
    assert study.end_reason() == "3 of 10 trainings failed, but hydra.sweeper.max_failure_rate is 0.2"


# Several workers


@pytest.mark.parametrize("where", STORAGES)
def test_what_another_worker_is_training_is_not_drawn(make, where):
    one, other, third = (make(TWO, where=where, n_trials=3) for _ in range(3))
    first, second = one.ask(), other.ask()
    assert [first.params["trainer.batch_size"], second.params["trainer.batch_size"]] == [8, 16]
    assert (one.ask(), other.ask(), third.ask()) == (None, None, None)
    assert third.end_reason() is None  # as one of the two may have to be trained again
    complete(one, first, 1.0)
    complete(other, second, 2.0)
    assert third.end_reason() == "no further point is left: 2 were trained, 0 refused"


@pytest.mark.filterwarnings("ignore")  # of Optuna's; what silences them knows one thread a process
@pytest.mark.parametrize("where", STORAGES)
def test_workers_at_once_draw_different_points_and_as_many_as_asked_for(make, where):
    """With a storage each, as two processes have."""
    studies = []
    for _ in range(2):
        storage.open_storage.cache_clear()
        studies.append(make({"trainer.batch_size": "range(4,12)"}, where=where, n_trials=8))
    assert studies[0].optuna._storage is not studies[1].optuna._storage
    start, training, errors = threading.Barrier(2), set(), []
    guard = threading.Lock()

    def work(study):
        try:
            start.wait(10)
            while (draw := study.ask()) is not None:
                if draw.result is not None:
                    continue
                with guard:
                    assert draw.params["trainer.batch_size"] not in training
                    training.add(draw.params["trainer.batch_size"])
                complete(study, draw, 1.0)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(study,), daemon=True) for study in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert sum(state in COUNTED for state in states(studies[0])) == 8
    assert len(training) == 8
