"""The paper's tables: healthy modules pass, a broken one is seen in its own row, and what is printed can be read."""

import json
import math
import re

import pytest
import torch
from rich.console import Console

from scratch_dl import nn
from scratch_dl.faults import modules
from scratch_dl.paper import module_timing, table_modules, tables
from scratch_dl.system import timing
from scratch_dl.tracking.names import check_name


@pytest.fixture(scope="module")
def healthy():
    """Tables of a few runs of the modules as they are."""
    return tables.measure(runs=3, rounds=2, calls=1)


def cell(measured, name, quantity):
    """The one cell of that module and quantity."""
    (found,) = [cell for cell in measured.cells if (cell.name, cell.quantity) == (name, quantity)]
    return found


def test_every_module_and_quantity_has_its_cell_and_passes(healthy):
    """Three modules without parameters, four with: 7 forwards, 7 dL/dX, 4 dL/dW, 4 dL/db, and the slip's row."""
    by_quantity = {}
    for one in healthy.cells:
        by_quantity.setdefault(one.quantity, []).append(one)
        assert one.passed == one.healthy, f"{one.label} {one.quantity}: {one.ours_error} beside {one.pytorch_error}"
    assert {quantity: len(cells) for quantity, cells in by_quantity.items()} == {
        "forward": 7, "grad_input": 8, "grad_weight": 4, "grad_bias": 4,
    }  # fmt: skip
    assert healthy.passed


def test_the_papers_sigmoid_is_sigma_prime_at_the_incoming_gradient(healthy):
    """Table II prints 0.249991 +- 0.000001; the healthy Sigmoid differs from PyTorch by rounding alone."""
    slip = cell(healthy, "sigmoid_gradient_at_upstream", "grad_input")
    assert abs(slip.difference.mean - 0.249991) < 0.000001, slip.difference
    assert not slip.healthy
    assert cell(healthy, "sigmoid", "grad_input").difference.mean < 1e-11


class Nan(nn.ReLU):
    """Its forward is no number anywhere."""

    def forward(self, input):
        return super().forward(input) * math.nan


BROKEN = [
    pytest.param("Sigmoid", modules.SigmoidAtUpstream, {("sigmoid", "grad_input")}, id="sigmoid"),
    pytest.param("ReLU", modules.ReLUMaskFromGradient, {("relu", "grad_input")}, id="relu"),
    pytest.param("ReLU", Nan, {("relu", "forward"), ("relu", "grad_input")}, id="nan"),
    pytest.param("Conv2d", modules.ConvBiasOnClass, {("conv2d", "grad_bias")}, id="conv2d"),
    pytest.param("MSELoss", modules.MSENotDivided, None, id="mse"),
]


@pytest.mark.parametrize(("name", "broken", "expected"), BROKEN)
def test_a_broken_module_fails_in_its_own_cells(name, broken, expected, monkeypatch):
    """The verdict names the cells, and a fault of the loss shows in every gradient."""
    monkeypatch.setattr(nn, name, broken)
    measured = tables.measure(runs=1, rounds=1, calls=1)
    failed = {(one.name, one.quantity) for one in measured.cells if one.healthy and not one.passed}
    if expected is None:
        expected = {(c.name, c.quantity) for c in measured.cells if c.healthy and c.quantity != "forward"}
    assert failed == expected
    assert not measured.passed
    assert measured.metrics()["tables/passed"] == 0
    assert "NOT as exact as PyTorch: " in printed(measured)


@pytest.mark.parametrize(
    ("ours", "pytorch", "passed"),
    [
        pytest.param(0.9e-5, 0.0, True, id="within-the-band"),
        pytest.param(1.1e-5, 1e-6, False, id="beyond-both"),
        pytest.param(3.9e-3, 1e-3, True, id="as-bad-as-pytorch"),
        pytest.param(4.1e-3, 1e-3, False, id="worse-than-pytorch"),
        pytest.param(math.nan, math.nan, False, id="no-number"),
    ],
)
def test_the_worst_run_decides(ours, pytorch, passed):
    """The mean would hide one bad run in ten thousand."""
    spreads = (tables.Spread(0.0, 0.0, worst) for worst in (0.0, ours, pytorch))
    assert tables.Cell("I", "relu", "ReLU", "forward", None, *spreads).passed is passed


def test_the_errors_of_a_run_are_those_of_the_norms(monkeypatch):
    """A ReLU twice too large is wrong by its own norm, and by its mean: U(-1/2, 1/2) has E max(X, 0) = 1/8."""

    class Doubled(nn.ReLU):
        def forward(self, input):
            return 2 * super().forward(input)

    monkeypatch.setattr(nn, "ReLU", Doubled)
    found = cell(tables.measure(runs=2, rounds=1, calls=1), "relu", "forward")
    assert found.ours_error.worst == pytest.approx(1, abs=1e-6)
    assert found.difference.mean == pytest.approx(1 / 8, rel=0.05)
    assert found.pytorch_error.worst < 1e-7


def test_runs_differ_and_a_seed_repeats_them(healthy):
    """Fresh inputs, targets and weights in every run; the same ones from the same seed."""
    again, other = (tables.measure(runs=3, rounds=1, calls=1, seed=seed) for seed in (0, 1))
    assert again.cells == healthy.cells
    assert other.cells != healthy.cells
    assert cell(healthy, "conv2d", "grad_weight").difference.std > 0


def test_global_state_stays():
    """Neither the generator, nor the grad mode, nor the number of threads is another afterwards."""
    torch.manual_seed(7)
    before = torch.get_rng_state(), torch.is_grad_enabled(), torch.get_num_threads()
    with torch.no_grad():  # a caller's own mode must not reach PyTorch's side
        tables.measure(runs=1, rounds=1, calls=1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.is_grad_enabled(), torch.get_num_threads()) == before[1:]


def printed(measured):
    """What a terminal of 80 columns shows."""
    console = Console(width=80)
    with console.capture() as captured:
        console.print(measured.rich())
    return captured.get()


def test_the_printed_tables_fit_80_columns_uncut(healthy):
    """No line is wider, no cell is cut off, and each table and the verdict stand there."""
    text = printed(healthy)
    assert max(map(len, text.splitlines())) <= 80
    assert "\u2026" not in text
    for part in ("Table I: ", "Table II: ", "Table III: ", "Printed equations", "as exact as PyTorch: "):
        assert text.count(part) == 1, part


def test_the_markdown_has_as_many_cells_in_every_line_of_a_table(healthy):
    """The bars of |Delta| are escaped; six tables, the last one the slips without a figure."""
    blocks = re.findall(r"(?:^\|.*\n)+", healthy.markdown(), re.MULTILINE)
    assert len(blocks) == 6
    for block in blocks:
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(counts) == 1, block


def test_json_and_metrics_hold_what_was_measured(healthy):
    """The dictionary survives JSON; MLflow takes every name."""
    plain = json.loads(json.dumps(healthy.to_json()))
    assert plain["passed"] is True
    assert len(plain["cells"]) == 23
    assert plain["cells"][0]["difference"].keys() == {"mean", "std", "worst"}
    assert plain["timings"][0]["ratio"].keys() == {"low", "median", "high"}
    metrics = healthy.metrics()
    for name, value in metrics.items():
        check_name("metric", name)
        assert math.isfinite(value), name
    assert metrics["tables/conv2d/grad_weight_abs_diff"] == cell(healthy, "conv2d", "grad_weight").difference.mean
    assert metrics["tables/conv2d/forward_rel_err"] == cell(healthy, "conv2d", "forward").ours_error.mean
    assert metrics["tables/relu/time_ratio"] > 0
    assert metrics["tables/relu/full_time_ratio"] > 0


@pytest.mark.parametrize("name", ["runs", "rounds", "calls"])
def test_nothing_to_measure_is_refused(name):
    """A mean over nothing would be nan."""
    with pytest.raises(ValueError, match=f"{name} must be >= 1, but got 0"):
        tables.measure(**{"runs": 1, "rounds": 1, "calls": 1, name: 0})


def test_progress_counts_runs_and_rounds():
    """Each stage ends with all of it done; the warm-up is not told."""
    said = []
    tables.measure(runs=2, rounds=3, calls=1, progress=lambda *told: said.append(told))
    assert said == [("runs", 1, 2), ("runs", 2, 2), ("timing", 1, 3), ("timing", 2, 3), ("timing", 3, 3)]


def test_times_are_per_call_and_the_ratio_is_of_pairs(monkeypatch):
    """Of a clock that a call of ours moves by 6 us and one of PyTorch's by 2; the warm-up's values are left out."""
    clock = [0]
    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: clock[0])
    modes = []

    def call(microseconds):
        def call():
            modes.append((microseconds, torch.is_grad_enabled()))
            warm_up = len(modes) <= 2 * 2 * 5
            clock[0] += 1000 * microseconds * (50 if warm_up else 1)

        return call

    pair = module_timing.TimedPair(table_modules.TABLE_MODULES[0], "full", call(6), call(2))
    (measured,) = module_timing.time_pairs([pair], rounds=4, calls=5)
    assert measured.ours == timing.Quartiles(6, 6, 6)
    assert measured.pytorch == timing.Quartiles(2, 2, 2)
    assert measured.ratio == timing.Quartiles(3, 3, 3)
    assert measured.paper_us is None
    assert set(modes) == {(6, False), (2, True)}
    assert [mode[0] for mode in modes[::5]] == [2, 6, 6, 2, 2, 6, 6, 2, 2, 6, 6, 2]


def test_quartiles_lie_between_neighbours():
    """Linear, as numpy's default; of one value all three are it."""
    assert timing.Quartiles.from_values([4, 1, 3, 2]) == timing.Quartiles(1.75, 2.5, 3.25)
    assert timing.Quartiles.from_values([5]) == timing.Quartiles(5, 5, 5)


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [
        pytest.param(0.0, 0.0, "0", id="nothing"),
        pytest.param(3.77e-7, 1.08e-7, "(3.77\u00b11.08)e-07", id="one-power-for-both"),
        pytest.param(0.249991, 0.000001, "0.249991\u00b10.000001", id="the-deviation-sets-the-digits"),
        pytest.param(0.25, 1e-12, "0.2500000\u00b10.0000000", id="seven-digits-at-most"),
        pytest.param(9.5e-9, 1e-15, "(9.50\u00b10.00)e-09", id="two-digits-under-a-power"),
        pytest.param(21345.0, 210.0, "(2.13\u00b10.02)e+04", id="large"),
        pytest.param(2e-9, 0.0, "(2.00\u00b10.00)e-09", id="one-run"),
        pytest.param(math.nan, math.nan, "nan", id="no-number"),
    ],
)
def test_a_figure_is_written_with_its_deviation(mean, std, text):
    """The paper's way of writing, with one power of ten."""
    assert tables._figure(mean, std) == text
