"""The benchmark: the command, what it compares, and how its figures come about."""

import dataclasses
import json
import time
from functools import partial

import pytest
import torch
from variants import exhaustive

from scratch_dl import bench, nn
from scratch_dl.benchmarks import cases, goals, loop, memory, scaling, steps, suite
from scratch_dl.benchmarks.convolutions import LARGE, PAPER, PASSES, SMALL
from scratch_dl.benchmarks.loop import Stopwatch
from scratch_dl.benchmarks.part_result import Comparison, ComparisonTable
from scratch_dl.benchmarks.settings import BenchSettings
from scratch_dl.models import paper, unet
from scratch_dl.system.timing import Quartiles, Side, interleave
from scratch_dl.verification.counterparts import UnequalError, check_equal, in_channels_last, pytorch_twin

SETTINGS = BenchSettings(rounds=2, seed=0, backend="auto", threads=1, smoke=True)


@pytest.fixture
def run(tmp_path, monkeypatch, in_process):
    """The command in this process: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    return partial(in_process, bench)


TITLES = {
    "modules": "Modules of Table III", "steps": "Training step", "flops": "Convolutions", "memory": "Peak memory",
    "scaling": "Growth of a step", "prediction": "Prediction", "loop": "Training loop",
}  # fmt: skip


@pytest.mark.parametrize(
    "parts",
    [
        # Of those that measure in processes of their own, one.
        pytest.param([part for part in bench.PARTS if part not in ("scaling", "loop")], id="most"),
        exhaustive(list(bench.PARTS), id="all"),
    ],
)
def test_every_part_is_measured_printed_written_and_recorded(run, tmp_path, parts):
    """At the smallest size: a table a part within 80 columns, JSON, picture, and an MLflow run with all of it."""
    from mlflow import MlflowClient

    status, out, err = run("smoke=true", "threads=[1]", "output=results", f"parts=[{','.join(parts)}]")
    assert (status, err) == (0, ""), out
    for part in parts:
        assert f"\n{TITLES[part]}" in f"\n{out}", part
    assert "figures reach their goal" not in out, "tiny sizes are held against no goal"
    assert max(len(line) for line in out.splitlines()) <= 80
    found = json.loads((tmp_path / "results" / "bench.json").read_text())
    assert [outcome["part"] for outcome in found["outcomes"]] == parts
    assert {outcome["threads"] for outcome in found["outcomes"]} == {1}
    assert (tmp_path / "results" / "bench.png").read_bytes().startswith(b"\x89PNG")
    client = MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    (recorded,) = client.search_runs([client.get_experiment_by_name("bench").experiment_id])
    assert f"recorded  {recorded.info.run_id} (experiment bench)" in out
    assert recorded.info.status == "FINISHED"
    assert recorded.data.metrics["smoke/1_threads/modules/relu/forward_ratio"] > 0
    if "scaling" in parts:
        assert recorded.data.metrics["smoke/1_threads/scaling/batch/own_time_exponent"] < 10
    assert recorded.data.params["machine.torch"] == torch.__version__
    assert recorded.data.params["machine.backend"] == found["machine"]["backend"]
    assert recorded.data.params["backend"] == "auto"
    assert recorded.data.params["machine.rounds"] == "2"
    assert recorded.data.tags["kernels"] == found["machine"]["backend"]
    paths = {item.path for item in client.list_artifacts(recorded.info.run_id)}
    assert paths - {"git.diff"} == {"bench.json", "bench.png", "bench.md"}
    assert {path.name for path in tmp_path.iterdir()} == {"mlruns", "results"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["parts=[step]"], "parts must be one of modules, steps, flops, memory, scaling, prediction, loop, "
                     "but got 'step'; did you mean 'steps'?", id="part"),
        pytest.param(["parts=steps"], "parts must be a list such as 'parts=[modules,steps,", id="no-list"),
        pytest.param(["parts=[]"], "parts must be a list such as", id="no-part"),
        pytest.param(["parts=[steps,steps]"], "parts must be different from one another, but got", id="part-twice"),
        pytest.param(["threads=2"], "threads must be a list such as 'threads=[1,null]', but got 2", id="threads"),
        pytest.param(["threads=[0]"], "threads must be >= 1, but got 0", id="no-thread"),
        pytest.param(["rounds=0"], "rounds must be >= 1, but got 0", id="rounds"),
        pytest.param(["seed=a"], "seed must be an integer >= 0, but got 'a'", id="seed"),
        pytest.param(["backend=nativ"], "backend must be one of auto, reference, native, native", id="backend"),
        pytest.param(["smoke=1"], "smoke must be true or false, but got 1", id="smoke"),
        pytest.param(["output=''"], "output must be a non-empty string, but got ''", id="output"),
        pytest.param(["tracking.uri=x"], "tracking.uri must be like http://", id="uri"),
        pytest.param(["round=3"], "round is not a setting; did you mean 'rounds'?", id="setting"),
        pytest.param(["+foo=1"], "foo is not a setting; there are: parts, rounds, seed,", id="added"),
        pytest.param(["+tracking.foo=1"], "tracking.foo is not a setting; there are: dir, uri,", id="added-below"),
        pytest.param(["-m", "seed=1,2"], "bench takes one configuration at a time, but got -m", id="multirun"),
    ],
)  # fmt: skip
def test_a_usage_error_is_one_line_and_exit_2_and_leaves_nothing(run, tmp_path, arguments, message):
    """In the user's words, on stderr, before anything is written."""
    status, out, err = run(*arguments)
    assert (status, out) == (2, ""), err
    assert err.startswith(f"error: {message}"), err
    assert err.count("\n") == 1, err
    assert list(tmp_path.iterdir()) == []


def test_the_parts_are_those_of_the_command():
    assert tuple(suite.MEASURES) == bench.PARTS


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda g: paper((4, 6, 5), 3, "same", "nearest", True, "pytorch", (8, 12), g), id="nearest"),
        pytest.param(
            lambda g: paper((4, 6, 5), 4, "same", "nearest", True, "pytorch", (8, 12), g), id="uneven-padding"
        ),
        pytest.param(lambda g: paper((4, 6, 5), 4, "same", "transposed", True, "pytorch", (8, 12), g), id="transposed"),
        pytest.param(lambda g: paper((4, 6, 5), 3, "same", "transposed", False, "he", (8, 12), g), id="output-padding"),
        pytest.param(lambda g: unet(3, 3, "nearest", True, "he", (8, 12), g), id="unet"),
        pytest.param(lambda g: unet(3, 3, "nearest", True, "he", (8, 12), g, residual=True), id="unet-residual"),
    ],
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_twin_computes_the_same(make, channels_last, generator):
    """Output and every gradient, to rounding."""
    network = make(generator).to(torch.float64)
    images, target = torch.rand(2, 2, 3, 8, 12, dtype=torch.float64, generator=generator)
    mine = cases.own(network, images, target)
    theirs = cases.pytorch(network, images, target, channels_last=channels_last)
    with torch.no_grad():
        found = [mine.output(), *mine.grads()]
    expected = [theirs.output(), *theirs.grads()]
    assert len(found) == len(network.parameters()) + 1
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_the_twin_has_weights_of_its_own_and_draws_nothing(generator):
    network = paper((2, 2, 2), 3, "same", "nearest", True, "pytorch", generator=generator)
    before = torch.get_rng_state()
    made = in_channels_last(pytorch_twin(network))
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        next(made.parameters()).zero_()
    assert network.parameters()[0].value.abs().min() > 0


def test_a_module_without_a_twin_is_named():
    with pytest.raises(TypeError, match="Odd has no counterpart"):
        pytorch_twin(nn.Sequential(nn.ReLU(), type("Odd", (nn.Module,), {})()))


def test_what_differs_is_not_timed(monkeypatch):
    """A twin with one weight of its own is refused before the first round."""

    def other(network):
        made = pytorch_twin(network)
        with torch.no_grad():
            next(made.parameters())[0, 0, 0, 0] += 0.1
        return made

    monkeypatch.setattr(cases, "pytorch_twin", other)
    with pytest.raises(UnequalError, match=r"nearest, tiny: .* must be PyTorch's to 0.0001, but differs by"):
        steps.measure(SETTINGS)


@pytest.mark.parametrize(
    ("mine", "message"),
    [
        pytest.param((torch.ones(2), [torch.ones(2)]), None, id="equal"),
        pytest.param((torch.full((2,), 1.001), [torch.ones(2)]), "pair: the output must be", id="output"),
        pytest.param((torch.ones(2), [torch.full((2,), 1.001)]), "pair: the gradient of parameter 0 must", id="grad"),
        pytest.param((torch.tensor([1, torch.nan]), [torch.ones(2)]), "differs by nan", id="nan"),
    ],
)
def test_equal_is_to_one_in_ten_thousand(mine, message):
    theirs = torch.ones(2), [torch.ones(2)]
    if message is None:
        check_equal("pair", mine, theirs)
    else:
        with pytest.raises(UnequalError, match=message):
            check_equal("pair", mine, theirs)


def test_sides_take_turns_and_each_has_its_mode(monkeypatch):
    """Three of them: another one begins each round, and what is entered is not timed."""
    clock = [0]
    monkeypatch.setattr(time, "perf_counter_ns", lambda: clock[0])
    said = []

    def call(name):
        def call():
            said.append((name, torch.is_grad_enabled()))
            clock[0] += 1000 * (ord(name) - 96)

        return call

    sides = [Side(call("a")), Side(call("b"), torch.enable_grad), Side(call("c"))]
    assert interleave([sides], rounds=4, calls=1) == [[[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]]
    assert "".join(name for name, _ in said) == "bcacababcbcacababc"
    assert set(said) == {("a", False), ("b", True), ("c", False)}


def test_the_ratio_is_of_pairs():
    """A machine that slows both down tenfold now and then does not move it."""
    one = Comparison.of("x", "", "", [10, 200, 30], [5, 100, 10], scale=0.1)
    assert one.ratio == Quartiles.from_values([2, 2, 3])
    assert one.own.median == pytest.approx(3)
    assert one.metrics() == pytest.approx({"x_own": 3, "x_rival": 1, "x_ratio": 2})


def test_better_is_the_one_of_the_lower_median():
    """Round by round against that one, even where the other was faster for once."""
    rivals = {
        "eager": [4, 1, 4],
        "eager, channels_last": [2, 2, 2],
        "compiled": [1, 1, 1],
        "compiled, channels_last": [3, 3, 0.5],
    }
    found = {one.name: one for one in steps.comparisons(cases.NEAREST, [1, 2, 3], rivals)}
    assert found["steps/nearest_100/better"].ratio == Quartiles.from_values([0.5, 1, 1.5])
    assert found["steps/nearest_100/compiled"].ratio == Quartiles.from_values([1, 2, 3])
    assert set(found) == {f"steps/nearest_100/{name}" for name in ("eager", "channels_last", "better", "compiled")}


def test_without_a_compiler_it_is_left_out():
    """And the other ratios stand."""
    found = steps.comparisons(cases.NEAREST, [1], {"eager": [1], "eager, channels_last": [2]})
    assert [one.rival for one in found] == ["eager", "eager, channels_last", "better"]


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 2.0])
def test_the_exponent_of_a_power_law(power):
    points = [1, 2, 4, 8, 32]
    assert scaling.exponent(points, [7 * x**power for x in points]) == pytest.approx(power)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        pytest.param("modules/relu/forward_ratio", 1.0, "<=1.00 reached", id="at-the-bound"),
        pytest.param("modules/relu/forward_ratio", 1.001, "<=1.00 not reached", id="above"),
        pytest.param("loop/arithmetic_share", 0.85, ">0.85 not reached", id="strict"),
        pytest.param("flops/large_64/forward_peak_share", 0.8, ">=0.80 reached", id="share"),
        pytest.param("loop/help_s", float("nan"), "<1.50 not reached", id="nan"),
        pytest.param("modules/relu/forward_own", 1.0, None, id="none"),
        pytest.param("flops/conv1/forward_peak_share", 0.1, None, id="small-shape"),
    ],
)
def test_goals(name, value, said):
    goal = goals.goal_of(name)
    assert (goal and goal.goal_text(value)) == said


def test_every_goal_is_of_a_figure_that_is_measured():
    """By the names that the cases give."""
    names = [f"steps/{case.name}/{rival}_ratio" for case in (cases.NEAREST, cases.TRANSPOSED, cases.DEFAULT)
             for rival in ("better", "compiled")]  # fmt: skip
    names += [f"flops/{one.name}/{direction}_peak_share" for one in LARGE for direction in PASSES]
    names += ["memory/nearest_100_ratio", "modules/relu/full_ratio", "loop/arithmetic_share", "loop/help_s",
              "loop/diagnosis_share"]  # fmt: skip
    assert {goals.goal_of(name) for name in names} - {None} == set(goals.GOALS)


def test_the_table_says_reached_or_not_beside_the_figure():
    rows = [Comparison.of(f"memory/{name}", name, "eager", [value], [1]) for name, value in (("a", 0.5), ("b", 0.9))]
    outcome = ComparisonTable("memory", "Memory", "", "MiB").result(1, rows)
    assert [row[-1] for row in outcome.table.rows] == ["<=0.70 reached", "<=0.70 not reached"]
    results = suite.BenchResults({}, [outcome])
    assert results.verdict == "1 of 2 figures reach their goal"
    assert results.summary.rows == [("memory/*_ratio", "<= 0.70", "1 of 2", "0.90", "1")]
    assert results.metrics()["bench/1_threads/memory/b_ratio"] == 0.9


@pytest.mark.parametrize("convolution", SMALL, ids=lambda convolution: convolution.name)
def test_the_passes_are_pytorchs(convolution, generator):
    """Each alone; the enlarged one's too."""
    tensors = convolution.tensors(generator)
    own, theirs = convolution.own(*tensors), convolution.pytorch(*tensors)
    assert tuple(own) == tuple(theirs) == PASSES
    for name in PASSES:
        torch.testing.assert_close(own[name](), theirs[name](), rtol=1e-4, atol=1e-4)


def test_operations_are_counted_by_the_definition():
    """conv1: 100 images, 32 of 16x16 outputs, 27 products each; nearest at scale 2 and kernel 3 needs 4 of 9."""
    conv1, _, up1, _ = PAPER
    assert conv1.plain_flops == conv1.needed_flops == 2 * 100 * 32 * 256 * 27
    assert up1.plain_flops == 2 * 100 * 32 * 256 * 64 * 9
    assert up1.plain_flops / up1.needed_flops == pytest.approx(2.25)


@pytest.mark.exhaustive
def test_memory_is_what_the_steps_take_beyond_the_start():
    """A batch a hundred times as large takes more, in bytes that fit its tensors; measured in a fresh process."""
    small = dataclasses.replace(cases.SMALL[0], batch=64, size=(32, 32))
    few, many = (memory.beyond(dataclasses.replace(small, batch=batch), "own", SETTINGS) for batch in (16, 512))
    pixels = 512 * 3 * 32 * 32 * 4
    assert pixels < many < 40 * pixels, many / pixels
    assert few < many / 4, (few, many)


def test_a_process_that_fails_is_told_in_one_line(tmp_path, monkeypatch):
    """A real one, but of a shell, which starts faster than the measurement's own."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho Traceback >&2; echo 'ValueError: channels' >&2; exit 1\n")
    python.chmod(0o700)
    monkeypatch.setattr(memory.sys, "executable", str(python))
    with pytest.raises(RuntimeError, match=r"memory of .*: the process failed with 1: ValueError: channels$"):
        memory.beyond(cases.SMALL[0], "own", SETTINGS)


def test_the_default_training_is_measured_without_a_trace_of_the_stopwatch():
    """Shares of one short epoch; the arithmetic takes a part of the time, and a step a part of it."""
    found = loop.train(SETTINGS)
    assert 0 < found["arithmetic_share_of_epoch"] < found["arithmetic_share"] < 1
    assert found["undisturbed_share"] > 0
    assert found["steps"] == 2


def test_a_stopwatch_adds_up_the_time_of_modules_and_functions(monkeypatch):
    """Also of the backward of a training, which leaves the input's gradient out; afterwards nothing is timed."""
    clock = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    watch, network = Stopwatch(), nn.Sequential({"conv": nn.Conv2d(1, 1, 1), "relu": nn.ReLU()})
    with nn.observing([(network, watch)]):
        output = network(torch.ones(1, 1, 2, 2))
        assert nn.parameter_gradients(network, torch.ones_like(output)).numel() == 0
    assert watch.timed(max)(1, 2) == 2
    network(torch.ones(1, 1, 2, 2))
    assert watch.seconds == 3


def test_help_names_every_setting(run):
    status, out, _ = run("--help")
    assert status == 0
    for name in ("parts", "rounds", "seed", "backend", "threads", "output", "smoke", "tracking.dir", *bench.PARTS):
        assert name in out, name


def test_a_file_in_the_place_of_the_folder_is_refused_before_anything_is_measured(run, tmp_path):
    (tmp_path / "results").write_text("")
    status, out, err = run("smoke=true", "output=results")
    assert (status, out) == (2, "")
    assert "output must be a folder, but got the file 'results'" in err
