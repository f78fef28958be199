"""What a person reads of a study in a terminal of 80 columns."""

import io

import pytest
from rich.console import Console

from scratch_dl.search.tables import format_value, print_summary, short_names, trial_line
from scratch_dl.search.trial_result import Objective, State, StudySummary, TrialResult, TrialRow

PSNR, SIZE = Objective("val/psnr_db", "best", "maximize"), Objective("parameters", "last", "minimize")
PARAMS = {"model.kernel_size": 4, "optimizer.lr": 1.23456}
HEALTHY = {"cause": "healthy", "output_class": "better_than_blur"}
SIZES = "model: the output must have the input's size 32x32, but the sizes are: input 32x32, conv1 15x15"
LINES = [
    pytest.param(TrialResult(State.COMPLETE, values=(28.2,), **HEALTHY), (PSNR,), 28.5,
                 " 9 of 30 trained #17 complete 28.20 (best 28.50) healthy, better than blur: kernel_size=4 lr=1.23",
                 id="complete"),
    pytest.param(TrialResult(State.PRUNED, reason="pruned at epoch 4: val/psnr_db 21 is behind", values=(21.0,)),
                 (PSNR,), 28.5,
                 " 9 of 30 trained #17 pruned      21 (best 28.50) at epoch 4: kernel_size=4 lr=1.23", id="pruned"),
    pytest.param(TrialResult(State.FAILED, reason="train/loss became nan at step 3", cause="dead_units"), (PSNR,), None,
                 " 9 of 30 trained #17 failed         diverged (dead_units): kernel_size=4 lr=1.23", id="failed"),
    pytest.param(TrialResult(State.FAILED, reason="OSError: no space left on the device, whatever is done"),
                 (PSNR,), None,
                 " 9 of 30 trained #17 failed         OSError: no space left on the device, wha...: "
                 "kernel_size=4 lr=1.23",
                 id="cut"),
    pytest.param(TrialResult(State.REFUSED, reason=SIZES), (PSNR,), None,
                 " 9 of 30 trained #17 refused        geometry: kernel_size=4 lr=1.23", id="refused"),
    pytest.param(TrialResult(State.KILLED, reason="stopped by a signal"), (PSNR,), None,
                 " 9 of 30 trained #17 killed         stopped by a signal: kernel_size=4 lr=1.23", id="killed"),
    pytest.param(TrialResult(State.COMPLETE, values=(28.2, 26963.0), **HEALTHY), (PSNR, SIZE), None,
                 " 9 of 30 trained #17 complete 28.20 26963 healthy, better than blur: kernel_size=4 lr=1.23",
                 id="several"),
    pytest.param(None, (PSNR,), None, " 9 of 30 trained #17 running: kernel_size=4 lr=1.23", id="running"),
]  # fmt: skip


@pytest.mark.parametrize(("result", "objectives", "best", "expected"), LINES)
def test_a_trial_is_one_line(result, objectives, best, expected):
    row = TrialRow(17, result.state if result else State.RUNNING, PARAMS, result)
    assert trial_line(row, 9, 30, objectives, best) == expected


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["optimizer", "optimizer.lr", "model.kernel_size"], ["optimizer", "lr", "kernel_size"]),
        (["model.channels.0", "model.channels.1", "model.padding.0"], ["channels.0", "channels.1", "padding.0"]),
        (["model.init", "model.up.init", "seed"], ["model.init", "up.init", "seed"]),
        (["lr", "optimizer.lr"], ["lr", "optimizer.lr"]),
    ],
)
def test_names_are_as_short_as_they_can_be_told_apart(keys, expected):
    assert list(short_names(keys).values()) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(28.2, "28.20"), (26963.0, "26963"), (0.5, "0.5000"), (1234.5, "1234"), (-0.001, "-0.001000")],
)
def test_values_have_four_digits_and_whole_numbers_all(value, expected):
    assert format_value(value) == expected


COMMAND = (
    f"python -m scratch_dl.train {' '.join(f'model.modules.some_long_name_{n}=1.2345678901234567' for n in range(9))}"
)


def study(objectives=(PSNR,), best=(2,), rows=9):
    """Long names and many settings; the trial's number is its value."""
    names = ("model.channels.0", "model.channels.1", "model.kernel_size.0", "optimizer.momentum", "optimizer.lr",
             "model.upsampling", "a_setting_of_ninety_letters_" + "x" * 62)  # fmt: skip
    trials = [
        TrialRow(n, State.COMPLETE, dict.fromkeys(names, n + 0.123456),
            TrialResult(State.COMPLETE, values=(float(n), 100.0 - n)[: len(objectives)], **HEALTHY))
        for n in range(rows)
    ]  # fmt: skip
    lost = TrialRow(
        rows,
        State.FAILED,
        {},
        TrialResult(State.FAILED, reason="train/loss became nan", cause="learning_rate_too_large"),
    )
    test = {"test/psnr_db": 27.004, "test/ssim": 0.8, "test/blur_psnr_db": 26.73}
    return StudySummary("s", "sqlite://", {}, objectives, rows, "tpe", "none", 0, (*trials, lost), best,
                   {"at full length": COMMAND} if best else {}, test)  # fmt: skip


def shown(summary):
    console = Console(width=80, file=io.StringIO(), highlight=False)
    print_summary(summary, "mlruns/sweeps/s/report.html", console)
    return console.file.getvalue().splitlines()


def test_the_end_fits_80_columns_but_for_the_commands_which_are_whole():
    lines = shown(study())
    assert f"  {COMMAND}" in lines
    assert max(len(line) for line in lines if line.strip() != COMMAND) <= 80
    assert "report: mlruns/sweeps/s/report.html" in lines


def test_the_end_has_the_five_best_and_the_counts_by_cause():
    lines = shown(study())
    table = lines[: lines.index("")]
    assert [line.split()[1] for line in table if line[:5].strip().isdigit()] == ["8", "7", "6", "5", "4"]
    assert any(line.split()[:3] == ["9", "90%", "8"] and "healthy, better than blur" in line for line in lines)
    assert any(line.split()[:2] == ["1", "10%"] and "diverged (learning_rate_too_large)" in line for line in lines)
    assert any("the winner 27.00, blur 26.73" in line for line in lines)


def test_what_is_minimized_has_the_least_value_first():
    lines = shown(study((Objective("val/mse", "last", "minimize"),)))
    assert next(line for line in lines if line[:5].strip().isdigit()).split()[1] == "0"


def test_of_several_objectives_the_pareto_front_is_shown():
    lines = shown(study((PSNR, SIZE), best=(1, 5, 7)))
    assert lines[0].startswith("Pareto front, 3 of 9 complete trials")
    table = lines[: lines.index("")]
    assert [line.split()[:3] for line in table if line[:5].strip().isdigit()] == [
        ["7", "7", "93"], ["5", "5", "95"], ["1", "1", "99"],
    ]  # fmt: skip


def test_a_study_without_a_complete_trial_still_says_why():
    lines = shown(study(rows=0, best=()))
    assert any("diverged (learning_rate_too_large)" in line for line in lines)
    assert not any("the best of" in line for line in lines)
