"""Scores, differences and groups of seeds, of runs that were never trained."""

import itertools
from pathlib import Path

import pytest

from scratch_dl.comparison import curves
from scratch_dl.comparison.runs import MARKS, ComparedRun
from scratch_dl.comparison.scores import scores, scores_table, seed_groups


def run(mark, psnr, seed=0, lr=1.0, status="FINISHED", **changes):
    history = {"val/psnr_db": [(0, 10.0), (5, psnr), (10, psnr - 1)], "test/psnr_db": [(10, psnr - 2)]}
    config = {
        "seed": seed,
        "loss": {"_target_": "scratch_dl.nn.MSELoss"},
        "optimizer": {"lr": lr},
        "tracking": {"dir": mark},
        "resume": {"allow": [mark]},
    }
    own = {"mark": mark, "name": "n", "run_id": mark, "folder": Path(mark), "config": config, "summary": {},
           "history": history, "status": status, "tags": {}, "environment": {}, "digest": "d",
           "parameters": 1000}  # fmt: skip
    return ComparedRun(**{**own, **changes})


def test_a_run_that_was_killed_has_the_scores_that_are_known():
    assert scores(run("A", 20.0, status=None)) == {
        "test/psnr_db": 18.0, "val/best_psnr_db": 20.0, "epochs": 2, "parameters": 1000
    }  # fmt: skip
    assert scores(run("A", 20.0, history={}, parameters=None)) == {}


def test_differences_are_to_the_baseline_and_no_column_is_empty():
    a, b = run("A", 20.0), run("B", 19.9, lr=2.0, parameters=3500)
    table = scores_table([a, b], b)
    assert table.head == ("run", "val crops", "test", "epochs", "parameters")
    assert table.rows == [
        ("A n", "20.00\n(+0.10)", "18.00\n(+0.10)", "2", "1,000\n(-2,500)"),
        ("B n", "19.90", "17.90", "2", "3,500"),
    ]
    assert table.legend.endswith("the difference to B")


def test_a_difference_that_rounds_to_zero_is_not_negative():
    assert scores_table([run("A", 20.0), run("B", 19.999, lr=2.0)], run("A", 20.0)).rows[1][1] == "20.00\n(+0.00)"


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        pytest.param([run("A", 20.0), run("B", 20.0, seed=1)], ["AB"], id="two-seeds"),
        pytest.param([run("A", 20.0), run("B", 20.0)], [], id="the-same-seed-twice"),
        pytest.param([run("A", 20.0), run("B", 20.0, seed=1, lr=2.0)], [], id="another-setting"),
        pytest.param([run("A", 20.0), run("B", 20.0, seed=1, status="KILLED")], [], id="not-finished"),
        pytest.param([run("ABCD"[n], 20.0, seed=n // 2, lr=n % 2) for n in range(4)], ["AC", "BD"], id="two-groups"),
    ],
)  # fmt: skip
def test_finished_runs_that_differ_only_in_their_seed_are_a_group(runs, expected):
    assert ["".join(each.mark for each in group) for group in seed_groups(runs)] == expected


def test_a_group_has_mean_deviation_and_count():
    group = [run("A", 20.0), run("B", 21.0, seed=1), run("C", 22.0, seed=2, history={"val/psnr_db": [(0, 22.0)]})]
    row = scores_table(group, group[0]).rows[-1]
    assert row[:3] == ("A, B, C: mean ± standard deviation, n=3", "21.00±1.00\n(+1.00)", "18.50±0.71 n=2\n(+0.50)")


def test_no_two_curves_look_the_same_and_every_run_is_in_the_legend(monkeypatch):
    from matplotlib.figure import Figure

    drawn, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k)))
    runs = [run(mark, 20.0) for mark in MARKS]
    assert curves.draw_curves(runs, "val/psnr_db").startswith(b"\x89PNG")
    lines = drawn[0].axes[0].lines
    assert len({(line.get_color(), str(line.get_linestyle()), line._unscaled_dash_pattern) for line in lines}) == 26
    assert all(a.get_color() != b.get_color() for a, b in itertools.pairwise(lines))
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == [f"{mark} n" for mark in MARKS]
    assert curves.draw_curves(runs, "val/loss") is None


def test_own_metrics_have_columns_of_the_test_photographs_or_else_of_those_for_validation():
    own = {"psnr_db": {"_target_": "p"}, "ssim": None, "mae": {"_target_": "m"}, "off": None}
    a, b = run("A", 20.0), run("B", 21.0)
    for each, value in ((a, 0.125), (b, 0.25)):
        each.config["metrics"] = own
        each.history["val_whole/mae"] = [(10, value)]
    table = scores_table([a, b], a)
    assert table.head == ("run", "val crops", "test", "mae (val)", "epochs", "parameters")
    assert [row[3] for row in table.rows] == ["0.1250", "0.2500\n(+0.1250)"]
    b.history["test/mae"] = [(10, 0.5)]
    table = scores_table([a, b], a)
    assert [row[3] for row in (table.head, *table.rows)] == ["mae", "", "0.5000"]
    assert "SSIM, mae of the test photographs" in table.legend
    assert len(seed_groups([a, run("C", 20.0, seed=1)])[0]) == 2, "a metric is no part of a training"


def test_curves_of_several_losses_are_not_called_one_error():
    a, b, c = run("A", 20.0), run("B", 20.0), run("C", 20.0)
    assert curves.curve_titles([a, b])["val/loss"] == "mean squared error on the validation crops"
    c.config["loss"] = {"_target_": "scratch_dl.nn.L1Loss"}
    title = "each run's own loss on the validation crops (mean squared error, mean absolute error: not comparable)"
    assert curves.curve_titles([a, b, c])["val/loss"] == title
    assert curves.curve_titles([c])["val/loss"] == "mean absolute error on the validation crops"
