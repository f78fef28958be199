"""The report of a study: what stands in it, that it needs no other file, its pictures or why they are not there."""

import csv
import logging
import re
from html.parser import HTMLParser

import matplotlib
import optuna
import pytest
from matplotlib import pyplot
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from scratch_dl.search.importances import importances
from scratch_dl.search.plots import write_plots
from scratch_dl.search.report import description, write_report
from scratch_dl.search.trial_result import Objective, State, StudySummary, TrialResult, TrialRow

PSNR, SIZE = Objective("val/psnr_db", "best", "maximize"), Objective("parameters", "last", "minimize")
LOSS = Objective("val/loss", "last", "minimize")
STATES = {
    State.COMPLETE: TrialState.COMPLETE,
    State.PRUNED: TrialState.PRUNED,
    State.REFUSED: TrialState.PRUNED,
    State.FAILED: TrialState.FAIL,
}
CHOICE, WHOLE = CategoricalDistribution(["same", "0", None]), IntDistribution(2, 64)
RATE, MOMENTUM = FloatDistribution(0.01, 10, log=True), FloatDistribution(0, 0.95)
PICTURES = {"history", "parallel", "slice", "importance_pedanova", "importance_fanova"}
RETRAIN = "python -m scratch_dl.train optimizer.lr=1.0 'model.padding=[1,0]'"


@pytest.fixture(autouse=True)
def quiet_optuna():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def make(results, objectives=(PSNR,)):
    """A study whose number n has the n-th result; every third trial has no momentum."""
    study = optuna.create_study(directions=[objective.direction for objective in objectives])
    rows = []
    for n, result in enumerate(results):
        drawn = {"model.padding": (CHOICE, CHOICE.choices[n % 3]), "model.channels.0": (WHOLE, 2 + n * 7 % 60),
                 "optimizer.lr[optimizer=sgd]": (RATE, 0.02 * 1.3**n)}  # fmt: skip
        if n % 3:
            drawn["optimizer.momentum"] = (MOMENTUM, n / 50)
        study.add_trial(
            create_trial(
                state=STATES[result.state],
                params={name: value for name, (_, value) in drawn.items()},
                distributions={name: distribution for name, (distribution, _) in drawn.items()},
                values=result.values if result.state == State.COMPLETE else None,
            )
        )
        params = {name.partition("[")[0]: value for name, (_, value) in drawn.items()}
        rows.append(TrialRow(n, result.state, params, result))
    complete = [row for row in rows if row.state == State.COMPLETE]
    best = (max(complete, key=lambda row: row.result.values).number,) if complete else ()
    if complete and len(objectives) > 1:
        best = tuple(trial.number for trial in study.best_trials)
    space = {"model.padding": "choice(same,0,null)", "optimizer.lr": "tag(log,interval(0.01,10)) if optimizer=sgd"}
    again = {"at full length": RETRAIN} if best else {}
    test = {"test/psnr_db": 27.004, "test/ssim": 0.8} if best else {}
    summary = StudySummary("my_study", "sqlite:////tmp/s.db", space, objectives, 9, "tpe", "median", 7, tuple(rows),
                           best, again, test)  # fmt: skip
    return study, summary


def good(n, n_values=1):
    values = (28 - (n % 7) / 3, 1000.0 + n, n % 5 / 10)[:n_values]
    return TrialResult(State.COMPLETE, values=values, cause="healthy", verdict="healthy",
                       output_class="better_than_blur",
                   verification="passed", run_id=f"{n:032x}", experiment_id="5", epochs=3, seconds=2.0,
                   parameters=1000 + n)  # fmt: skip


MIXED = [
    *map(good, range(14)),
    TrialResult(
        State.COMPLETE,
        values=(11.0,),
        cause="dead_units",
        verdict="dead_units: relu3, from step 4",
        output_class="zeros",
    ),
    TrialResult(State.PRUNED, reason="pruned at epoch 4: behind", values=(20.0,)),
    TrialResult(State.FAILED, reason="ValueError: <b>bold</b> | `code` and *stars* ](x) __init__"),
    TrialResult(State.REFUSED, reason="model.padding must be >= 0, but got -1"),
]


class Tags(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.words = [], ""
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words += data


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """The folder of the report on MIXED."""
    folder = tmp_path_factory.mktemp("report") / "new"
    style = dict(matplotlib.rcParams)
    files = write_report(*make(MIXED), folder)
    assert pyplot.get_fignums() == []
    changed = {key for key, value in matplotlib.rcParams.items() if value != style[key]}
    assert not [key for key in changed if not key.startswith("backend")]
    names = {"report.md", "report.html", "trials.csv", *(f"{name}.png" for name in PICTURES)}
    assert {path.name for path in files} == names
    assert all(path.is_file() for path in files)
    return folder


def test_the_report_says_what_was_searched_what_came_of_it_and_how_to_have_it_again(mixed):
    report = (mixed / "report.md").read_text()
    for words in (
        "# Study my_study",
        "- objective: maximize best val/psnr_db",
        "| `optimizer.lr` | `tag(log,interval(0.01,10)) if optimizer=sgd` |",
        f"Trial [0](#/experiments/5/runs/{32 * '0'}?workflowType=machine_learning): best val/psnr_db **28**",
        f"```\n{RETRAIN}\n```",
        "| the winner | 27.00 |",
        "| healthy, better than blur | 14 | 78% | 28 |",
        "| collapsed to zero (dead_units) | 1 | 6% | 11 |",
        "- for example, trial 17: model.padding must be >= 0, but got -1",
        "(1 refused ones left out; they are in trials.csv)",
        "| 15 | pruned | pruned at epoch 4: behind | 20 |",
        "### Importance by PED-ANOVA",
        "### Importance by fANOVA",
    ):
        assert words in report, words
    assert "| 17 | refused" not in report


def test_the_html_stands_on_its_own_and_takes_no_message_for_markup(mixed):
    page = Tags((mixed / "report.html").read_text())
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 5
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in sources)
    assert not {"a", "b", "script", "link"} & {tag for tag, _ in page.tags}
    assert page.words.count("<b>bold</b> | code and *stars* ](x) __init__") == 2  # as the example, and in the table
    assert RETRAIN in page.words


def test_the_csv_has_every_trial_in_full(mixed):
    rows = list(csv.DictReader((mixed / "trials.csv").read_text().splitlines()))
    assert [int(row["number"]) for row in rows] == list(range(18))
    assert rows[1]["best val/psnr_db"] == str(28 - 1 / 3)
    assert rows[1]["optimizer.lr"] == str(0.02 * 1.3)
    assert rows[0]["optimizer.momentum"] == ""
    assert rows[17]["label"] == "geometry refused"


def test_the_description_has_the_best_the_causes_and_ten_links():
    said = description(make(MIXED)[1])
    assert len(re.findall(r"^\| \[\d+\]\(#/experiments/5/runs/", said, re.MULTILINE)) == 10
    assert "val/psnr_db **28**: trial [0](#/experiments/5/runs/" in said
    assert "- 14 (78%) healthy, better than blur" in said


@pytest.mark.parametrize(
    ("objectives", "fronts"),
    [
        ((PSNR, SIZE), {"pareto.png"}),
        pytest.param(
            (PSNR, SIZE, LOSS), {"pareto_parameters.png", "pareto_last-val-loss.png"}, marks=pytest.mark.exhaustive
        ),
    ],
    ids=["two", "three"],
)
def test_several_objectives_have_pictures_of_their_own_and_a_front(tmp_path, objectives, fronts):
    study, summary = make([good(n, len(objectives)) for n in range(12)], objectives)
    names = {path.name for path in write_report(study, summary, tmp_path)}
    assert {*fronts, "history_best-val-psnr_db.png", "slice_parameters.png"} <= names
    assert len(names) == 3 + 5 * len(objectives) + len(fronts)
    report = (tmp_path / "report.md").read_text()
    assert "## The Pareto front" in report
    assert "### Importance by fANOVA for parameters" in report


@pytest.mark.parametrize(
    ("results", "missing"),
    [
        pytest.param([], PICTURES, id="nothing"),
        pytest.param(MIXED[-3:], PICTURES, id="none-complete"),
        pytest.param([good(0)], PICTURES - {"history"}, id="one"),
        pytest.param([good(0), good(7), good(14)], {"importance_pedanova", "importance_fanova"}, id="all-the-same"),
        pytest.param([good(0), good(1)], {"importance_pedanova", "importance_fanova"}, id="two"),
        pytest.param([good(n) for n in range(9)], {"importance_pedanova", "importance_fanova"}, id="nine"),
        pytest.param([good(n) for n in range(10)], set(), id="ten"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_says_why_and_leaves_no_old_picture(results, missing, tmp_path):
    for name in PICTURES:
        (tmp_path / f"{name}.png").touch()
    files = write_report(*make(results), tmp_path)
    assert {name for name in PICTURES if not (tmp_path / f"{name}.png").exists()} == missing
    assert {path.name for path in tmp_path.glob("*.png")} == {path.name for path in files if path.suffix == ".png"}
    report = (tmp_path / "report.md").read_text()
    assert report.count("Not drawn: ") == len(missing)


def test_a_single_setting_is_no_question_of_importance(tmp_path):
    study = optuna.create_study(direction="maximize")
    for n in range(10):
        study.add_trial(
            create_trial(params={"x": float(n)}, distributions={"x": FloatDistribution(0, 9)}, value=float(n))
        )
    rows = tuple(
        TrialRow(n, State.COMPLETE, {"x": float(n)}, TrialResult(State.COMPLETE, values=(float(n),))) for n in range(10)
    )
    summary = StudySummary("s", "sqlite://", {}, (PSNR,), 10, "tpe", "none", 0, rows, (9,), {}, {})
    pictures = write_plots(study, summary, tmp_path)
    assert pictures["importance_fanova"] == "x is the only setting drawn in every complete trial"


@pytest.mark.parametrize("evaluator", ["pedanova", "fanova"])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_setting_that_matters_is_the_most_important(evaluator, direction):
    """What x is decides, y does nothing; z is there in half of the trials only."""
    study = optuna.create_study(direction=direction)
    for n in range(40):
        x, y = n * 7 % 40 / 40, n * 11 % 40 / 40
        params = {"x": x, "y": y} | ({"z": y} if n % 2 else {})
        unit = FloatDistribution(0, 1)
        study.add_trial(create_trial(params=params, distributions=dict.fromkeys(params, unit), value=(x - 0.2) ** 2))
    found = importances(study, evaluator, 0, Objective("val/mse", "last", direction))
    assert next(iter(found.shares)) == "x"
    assert found.shares["x"] > 0.5
    assert sum(found.shares.values()) == pytest.approx(1)
    assert ("left out, as not drawn in every trial: z" in found.note) == ("z" not in found.shares)


def test_importances_leave_no_word_of_optunas_among_what_is_printed():
    study, unit, said = optuna.create_study(), FloatDistribution(0, 1), []
    for n in range(9):
        study.add_trial(create_trial(params={"x": n / 9}, distributions={"x": unit}, value=n))
    handler = logging.Handler()
    handler.emit = said.append
    logging.getLogger("optuna").addHandler(handler)
    optuna.logging.set_verbosity(optuna.logging.INFO)  # as it is in a search
    try:
        importances(study, "pedanova", 0, Objective("val/mse", "last", "minimize"))
        assert said == []
        optuna.create_study()
        assert said
    finally:
        logging.getLogger("optuna").removeHandler(handler)


@pytest.mark.parametrize(("direction", "expected"), [("maximize", "x"), ("minimize", "y")])
def test_ped_anova_looks_at_the_best_trials_and_not_at_the_least_values(direction, expected):
    """The largest values need a large x, the smallest a large y."""
    study, unit = optuna.create_study(direction=direction), FloatDistribution(0, 1)
    for n in range(50):
        x, y = n * 7 % 50 / 50, n * 11 % 50 / 50
        value = (x > 0.88) * 10 - (y > 0.88) * 10 + n / 1000
        study.add_trial(create_trial(params={"x": x, "y": y}, distributions={"x": unit, "y": unit}, value=value))
    found = importances(study, "pedanova", 0, Objective("val/psnr_db", "last", direction))
    assert next(iter(found.shares)) == expected
