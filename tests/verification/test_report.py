"""A report's verdict is its worst finding, and every form of it says the same."""

import json
import math

import pytest
import torch
from rich.console import Console

from scratch_dl import models, optim
from scratch_dl.config.schema import Verification
from scratch_dl.tracking.names import check_name
from scratch_dl.verification import Finding, Report, verify_network


def finding(module="conv1", direction="forward", error=0.0, limit=1e-10, detail="", check="PyTorch float64"):
    return Finding(module, direction, check, error, limit, detail=detail)


def shown(report, width=80):
    console = Console(width=width, color_system=None, force_terminal=False, highlight=False)
    with console.capture() as captured:
        report.show(console)
    return captured.get()


@pytest.fixture(scope="module")
def paper():
    """The report of the paper's network at its default channels and kernels, with a short lock-step."""
    network = models.paper([24, 32, 24], 4, "same", "transposed", True, "pytorch", (8, 8), torch.Generator())
    settings = Verification(True, "stop", True, float32=False, geometries=True, lockstep_steps=2, lockstep_max_s=9)
    return verify_network(network, optim.SGD(network.parameters(), 1.0, 0.9), (8, 8), settings)


@pytest.fixture
def failing():
    """One failed verdict among three, two failed findings in it, and an error that is no number."""
    report = Report("a title", kinds={"conv1": "Conv2d"}, notes=["a note"], seconds=1.26)
    report.add([finding(error=1e-12), finding(error=math.nan, detail="no number"), finding(error=math.inf)])
    report.add([finding(direction="grad_bias", error=2e-11), finding("network", "lockstep", 0.0)])
    return report


@pytest.mark.parametrize(
    ("error", "passed"),
    [
        pytest.param(0.0, True, id="nothing"),
        pytest.param(1e-10, True, id="on-the-limit"),
        pytest.param(math.nextafter(1e-10, 1), False, id="just-over-it"),
        pytest.param(math.nan, False, id="no-number"),
        pytest.param(math.inf, False, id="infinite"),
    ],
)
def test_a_finding_passes_within_its_band_only(error, passed):
    """What is no number, or is on the wrong side of the band by one bit, fails."""
    assert finding(error=error).passed is passed


def test_an_empty_report_does_not_pass():
    """Nothing checked is nothing shown."""
    report = Report("empty")
    assert not report.passed
    assert report.headline == "empty: nothing could be checked (0 comparisons in 0.0 s)"
    assert report.metrics() == {"verify/passed": 0.0, "verify/checks": 0}
    assert "nothing could be checked" in shown(report)
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["passed"] is False


@pytest.mark.parametrize(
    ("findings", "decisive", "passed"),
    [
        pytest.param([(1e-12, 1e-10), (1e-7, 1e-5), (5e-11, 1e-10)], 2, True, id="nearest-to-its-own-band"),
        pytest.param([(1e-12, 1e-10), (1e-9, 1e-10), (1.0, 1e-10)], 1, False, id="first-that-failed"),
        pytest.param([(1.0, 1e-10), (math.nan, 1e-10)], 0, False, id="order-not-size"),
        pytest.param([(0.0, 1e-10), (math.nan, 1e-10)], 1, False, id="no-number"),
    ],
)
def test_one_finding_decides_a_verdict(findings, decisive, passed):
    """The first that failed, else the one nearest to its own band: float32's band is no excuse for float64."""
    report = Report("one")
    made = report.add(finding(error=error, limit=limit) for error, limit in findings)
    verdict = report.verdicts["conv1"]["forward"]
    assert verdict.decisive is made[decisive]
    assert verdict.passed is passed is report.passed
    assert verdict.checks == len(findings)


def test_single_modules_come_before_the_network():
    """A module's failure is the cause, the network's the effect, whichever was found first."""
    report = Report("order")
    report.add([finding("network", "lockstep", 1.0), finding("conv2", error=1.0), finding("conv1", error=1.0)])
    assert [failure.module for failure in report.failures] == ["conv2", "conv1", "network"]


def test_a_note_is_said_once(failing):
    """However many modules say it."""
    failing.note("another")
    failing.note("a note")
    assert failing.notes == ["a note", "another"]


def test_the_headline_counts_verdicts_and_comparisons(failing):
    """One line."""
    assert failing.headline == "a title: 1 of 3 verdicts FAILED (5 comparisons in 1.3 s)"


def test_metrics_have_names_that_mlflow_takes(paper):
    """A metric a direction: the error that comes nearest to its band, or goes furthest beyond it."""
    metrics = paper.metrics()
    for name in metrics:
        check_name("metric", name)
    directions = ("forward", "grad_input", "grad_weight", "grad_bias", "contract", "lockstep")
    assert set(metrics) == {"verify/passed", "verify/checks", *(f"verify/{name}_rel_err" for name in directions)}
    for direction in directions:
        found = [row[direction].decisive for row in paper.verdicts.values() if direction in row]
        worst = max(found, key=lambda finding: finding.error / finding.limit)
        assert metrics[f"verify/{direction}_rel_err"] == worst.error, direction
    assert (metrics["verify/passed"], metrics["verify/checks"]) == (1.0, len(paper.findings))


def test_the_artifact_table_has_a_row_a_verdict(paper, failing):
    content = paper.artifact_table()
    assert len(content["data"]) == sum(len(row) for row in paper.verdicts.values())
    assert all(len(row) == len(content["columns"]) for row in content["data"])
    rows = {(row[0], row[2]): dict(zip(content["columns"], row, strict=True)) for row in content["data"]}
    decisive = paper.verdicts["conv2"]["grad_weight"].decisive
    assert rows["conv2", "grad_weight"]["class"] == "Conv2d"
    assert float(rows["conv2", "grad_weight"]["error"]) == pytest.approx(decisive.error, rel=0.05)
    assert [row[:4] for row in failing.artifact_table()["data"] if not row[3]] == [
        ["conv1", "Conv2d", "forward", False]
    ]


def test_the_papers_table_fits_80_columns_uncut(paper):
    """A row a module, no row broken over two lines, in order of the network."""
    lines = shown(paper).splitlines()
    assert max(map(len, lines)) <= 80
    assert "\u2026" not in shown(paper)
    assert lines[0] == paper.headline
    assert lines[1].split() == ["module", "forward", "grad_input", "grad_weight", "grad_bias", "contract"]
    assert [line.split()[0] for line in lines[2:10]] == [
        "conv1", "relu1", "conv2", "relu2", "up1", "relu3", "up2", "sigmoid",
    ]  # fmt: skip
    assert len(lines) == 2 + len(paper.verdicts)


def test_a_failure_is_seen_in_the_table_and_said_below(failing):
    """With its error, its band, the witness and the detail; what passed is not said again."""
    text = shown(failing, width=200)
    assert "FAIL nan" in text
    assert "FAIL conv1 forward: error nan, at most 1e-10 (PyTorch float64); no number" in text
    assert "note: a note" in text
    assert text.count("FAIL ") == 2
    assert str(failing).startswith("a title: 1 of 3 verdicts FAILED")


def test_json_is_strict_and_complete(failing, paper):
    """No NaN and no Infinity, which JSON does not have; every finding is in it."""
    for report in (failing, paper):
        read = json.loads(json.dumps(report.to_json(), allow_nan=False))
        assert read["passed"] is report.passed
        assert len(read["findings"]) == read["comparisons"] == len(report.findings)
        assert {module: set(row) for module, row in read["verdicts"].items()} == {
            module: set(row) for module, row in report.verdicts.items()
        }
    verdict = failing.to_json()["verdicts"]["conv1"]["forward"]
    assert (verdict["passed"], verdict["error"], verdict["checks"]) == (False, "nan", 3)
    assert failing.to_json()["findings"][2]["error"] == "inf"


def test_markdown_has_the_table_and_the_failures(failing, paper):
    """As many cells in every line; one row a module."""
    for report in (failing, paper):
        text = report.markdown()
        assert text.startswith(f"# {report.headline}\n")
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len(rows) == 2 + len(report.verdicts)
        assert {row.count("|") for row in rows} == {7}
    assert "| conv1 (Conv2d) | FAIL nan |" in failing.markdown()
    assert "- FAIL conv1 forward: error nan" in failing.markdown()
    assert "- note: a note" in failing.markdown()


class Recorder:
    """Keeps what a run is told."""

    def __init__(self):
        self.said = {}

    def tags(self, values):
        self.said |= values

    def metrics(self, values, step):
        self.said["metrics"] = (values, step)

    def text(self, text, path):
        self.said[path] = text

    def table(self, content, path):
        self.said[path] = content


def test_a_run_is_given_tag_metrics_and_artifacts(failing, paper):
    """The failed verdicts have a tag of their own; metrics stand at step 0."""
    for report, word in ((failing, "failed"), (paper, "passed")):
        run = Recorder()
        report.record(run)
        assert run.said["verification"] == word
        assert run.said["metrics"] == (report.metrics(), 0)
        assert json.loads(run.said["verification/report.json"]) == json.loads(json.dumps(report.to_json()))
        assert run.said["verification/report.md"] == report.markdown()
        assert run.said["verification/verdicts.json"] == report.artifact_table()
        assert run.said.get("verification.failed") == (None if report.passed else "conv1 forward")


def test_metrics_and_artifacts_can_be_left_out(paper):
    """The tag is set in any case."""
    run = Recorder()
    paper.record(run, metrics=False, files=False)
    assert run.said == {"verification": "passed"}
