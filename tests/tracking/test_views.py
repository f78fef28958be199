"""What a person sees first in MLflow: views and description of an experiment, the order of metrics, thinned curves."""

import json

import pytest

from scratch_dl.tracking import Journal, Run, open_store, views
from scratch_dl.tracking.lookup import experiment_id
from scratch_dl.tracking.sender import _batches
from scratch_dl.tracking.store import client
from scratch_dl.tracking.values import DENSE, DESCRIPTION, is_sent


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return open_store(tmp_path_factory.mktemp("views") / "mlruns")


def tags(store, name):
    return client(store).get_experiment_by_name(name).tags


def test_an_experiment_gets_a_description_and_two_views(store):
    number = experiment_id(store, "seen")
    found = tags(store, "seen")
    assert f"#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey=results" in found[DESCRIPTION]
    assert found["mlflow.experimentKind"] == "custom_model_development"
    results, curves = (json.loads(found[f"mlflow.sharedViewState.{view}"]) for view in ("results", "curves"))
    assert (results["orderByKey"], results["orderByAsc"]) == ("metrics.`val/psnr_db`", False)
    assert [column.partition(".")[2].strip("`") for column in results["selectedColumns"]] == [
        "val/psnr_db", "val/gain_db", "verification", "diagnosis", "model", "noise", "fault"
    ]  # fmt: skip
    psnr, loss, pictures = curves["compareRunCharts"]
    baselines = [f"baseline/{name}_psnr_db" for name in ("noisy", "blur", "tv", "nlm")]
    assert psnr["selectedMetricKeys"] == ["val/psnr_db", *baselines]
    assert loss["selectedMetricKeys"] == ["train/loss", "val/loss"]
    assert pictures["imageKeys"] == ["samples"]


def test_an_experiment_from_before_gets_its_views_and_keeps_its_own_description(store):
    number = client(store).create_experiment("older", tags={DESCRIPTION: "mine", "mlflow.sharedViewState.own": "{}"})
    assert experiment_id(store, "older") == number
    found = tags(store, "older")
    assert (found[DESCRIPTION], found["mlflow.sharedViewState.own"]) == ("mine", "{}")
    assert views.has_view(found, views.RESULTS)


def test_addresses_open_the_view_in_the_mode_for_trainings():
    start = "http://h:1/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey="
    assert views.page("http://h:1", "7") == f"{start}results"
    assert views.page("http://h:1", "7", views.CURVES) == f"{start}curves&compareRunsMode=CHART"


def test_metrics_of_a_batch_arrive_with_psnr_and_loss_first(store):
    run = Run.create(store, store.directory / "ordered", "seen")
    names = ("watch/a", "verify/b", "other", "val/loss", "train/loss", "val/psnr_db")
    run.metrics(dict.fromkeys(names, 1.0), 0)
    assert run.finish("FINISHED")
    assert list(client(store).get_run(run.run_id).data.metrics) == [
        "val/psnr_db", "train/loss", "val/loss", "other", "watch/a", "verify/b"
    ]  # fmt: skip


@pytest.mark.parametrize(("every", "sent"), [(None, None), (1, range(1, 701)), (300, [300, 600])])
def test_mlflow_gets_some_steps_of_many_and_the_folder_all(store, every, sent):
    run = Run.create(store, store.directory / f"thinned{every}", "seen")
    run.every = every
    for step in range(1, 701):
        run.metric("train/loss", 1 / step, step, every_step=True)
    run.metric("val/loss", 0.5, 677)
    assert run.finish("FINISHED")
    got = [(point.step, point.value) for point in client(store).get_metric_history(run.run_id, "train/loss")]
    steps = [*range(1, 256), *range(256, 512, 2), *range(512, 701, 4)] if sent is None else list(sent)
    assert got == [(step, 1 / step) for step in steps]
    assert len(client(store).get_metric_history(run.run_id, "val/loss")) == 1
    assert run.history(["train/loss"])["train/loss"] == [(step, 1 / step) for step in range(1, 701)]
    assert Journal(run.folder).history()["train/loss"][-1] == (700, 1 / 700)


def test_the_rule_adds_as_many_points_whenever_the_steps_double():
    counts = [sum(is_sent(step, None) for step in range(steps)) for steps in (256, 512, 1024, 2048, 65536)]
    assert counts == [2 * DENSE, 3 * DENSE, 4 * DENSE, 5 * DENSE, 10 * DENSE]
    assert sum(is_sent(step, None) for step in range(1, 12001)) <= 1000


@pytest.mark.parametrize(
    ("kinds", "groups"),
    [
        pytest.param("m a m a m f", [(None, "a"), (None, "a"), (5, "mmm"), (6, "f")], id="files-overtake"),
        pytest.param("a m a", [(1, "a"), (None, "a"), (3, "m")], id="a-file-before-any"),
        pytest.param("m model m", [(1, "m"), (2, "model"), (3, "m")], id="a-model-needs-what-came-before"),
        pytest.param("l l", [(2, "")], id="only-what-the-folder-keeps"),
        pytest.param("m l", [(2, "m")], id="and-after-something"),
    ],
)
def test_nothing_is_marked_as_sent_before_all_of_it_is(kinds, groups):
    """m: metrics, a: a file, f: the end, l: metrics that MLflow does not get; positions are those of entries' ends."""
    full = {"a": "artifact", "f": "finish"}
    entries = [
        {"kind": "metrics" if kind in ("m", "l") else full.get(kind, kind), "values": {"x": 1.0}, "name": kind}
        | ({"local": True} if kind == "l" else {})
        for kind in kinds.split()
    ]
    found = [(end, "".join(entry["name"] for entry in group)) for end, group in _batches(enumerate(entries, 1))]
    assert found == groups


def test_an_experiment_whose_tags_cannot_be_set_is_used_all_the_same(caplog):
    class Refusing:
        def set_experiment_tag(self, *_):
            raise RuntimeError("you may not")

    views.describe_experiment(Refusing(), "7", {})
    assert [record.getMessage() for record in caplog.records] == [
        "the experiment's pages in MLflow are not described: you may not"
    ]


def test_a_table_is_marked_as_one(store):
    run = Run.create(store, store.directory / "table", "seen")
    content = {"columns": ["a"], "data": [["x"]]}
    run.table(content, "verification/verdicts.json")
    assert run.finish("FINISHED")
    marked = json.loads(client(store).get_run(run.run_id).data.tags["mlflow.loggedArtifacts"])
    assert marked == [{"path": "verification/verdicts.json", "type": "table"}]
    assert json.loads((run.folder / "artifacts" / "verification" / "verdicts.json").read_text()) == content
