"""What MLflow's pages show of an experiment: its description, two saved views, and the addresses that open them.

MLflow keeps a saved view as JSON in the experiment's tag `mlflow.sharedViewState.<key>`, and opens it if the page's
address has `viewStateShareKey=<key>`. The names inside are those of its page (`ExperimentPageUIState.tsx`,
`ExperimentPageSearchFacetsState.tsx` and `runs-charts.types.ts` of MLflow 3.17). A page that does not know one of them
falls back to its own choice.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from scratch_dl.tracking.errors import one_line
from scratch_dl.tracking.values import DESCRIPTION

log = logging.getLogger(__name__)

RESULTS, CURVES = "results", "curves"
_STATE, _KIND = "mlflow.sharedViewState.", "mlflow.experimentKind"
_MODE = "workflowType=machine_learning"  # the page would start in its mode for language models otherwise
_PSNR = "metrics.`val/psnr_db`"
_COLUMNS = (
    _PSNR,
    "metrics.`val/gain_db`",
    *(f"tags.`{name}`" for name in ("verification", "diagnosis", "model", "noise", "fault")),
)
_WIDTHS = {"attributes.`Run Name`": 260, "tags.`noise`": 160, "tags.`diagnosis`": 200, "tags.`fault`": 200}  # pixels
_OTHER_SECTIONS = ("val", "train", "test", "val_whole", "baseline", "verify", "watch")
_TEXT = """Trainings of hand-written networks; each run's page describes its result.

- [Results](#/experiments/{id}/runs?{mode}&viewStateShareKey=results): PSNR (dB) and its gain over the noisy picture
  at the last validation, verification, diagnosis, model, noise and fault; the best run first.
- [Curves](#/experiments/{id}/runs?{mode}&viewStateShareKey=curves&compareRunsMode=CHART): PSNR beside its baselines,
  training loss beside validation loss, and validation crops.
"""


def experiment_tags(experiment_id: str) -> dict[str, str]:
    """Return the tags of an experiment: its description, its mode, and its saved views."""
    return {
        DESCRIPTION: _TEXT.format(id=experiment_id, mode=_MODE),
        _KIND: "custom_model_development",
        _STATE + RESULTS: json.dumps(_results()),
        _STATE + CURVES: json.dumps(_curves()),
    }


def describe_experiment(api: Any, experiment_id: str, tags: Mapping[str, str]) -> None:
    """Set the experiment's tags, given those that it has; a description and a mode of its user's own stay.

    An error only becomes a warning: a run can be recorded in an experiment whose pages are not described.

    Args:
        api: an MlflowClient.
        experiment_id: of the experiment.
        tags: that it has.
    """
    for key, value in experiment_tags(experiment_id).items():
        if tags.get(key) != value and not (key in (DESCRIPTION, _KIND) and tags.get(key)):
            try:
                api.set_experiment_tag(experiment_id, key, value)
            except Exception as error:  # perhaps another process sets it at this moment
                log.warning("the experiment's pages in MLflow are not described: %s", one_line(error))
                return


def has_view(tags: Mapping[str, str], view: str) -> bool:
    """Return whether an experiment with these tags has the saved view."""
    return _STATE + view in tags


def page(address: str, experiment_id: str, view: str = RESULTS) -> str:
    """Return the address of a saved view on a server of MLflow's pages, such as http://127.0.0.1:5000."""
    mode = "&compareRunsMode=CHART" if view == CURVES else ""
    return f"{address}/#/experiments/{experiment_id}/runs?{_MODE}&viewStateShareKey={view}{mode}"


def run_page(address: str, experiment_id: str, run_id: str, artifact: str = "") -> str:
    """Return the address of a run's page or one of its artifacts; with "" for `address`, a link inside the pages."""
    path = f"/artifacts/{artifact}" if artifact else ""
    return f"{address}{'/' if address else ''}#/experiments/{experiment_id}/runs/{run_id}{path}?{_MODE}"


def start_page(address: str) -> str:
    """Return the address of the list of experiments."""
    return f"{address}/#/experiments?{_MODE}"


def _results() -> dict[str, Any]:
    return {
        "orderByKey": _PSNR,
        "orderByAsc": False,
        "searchFilter": "",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": list(_COLUMNS),
        "columnOrder": [*(f"attributes.`{name}`" for name in ("Run Name", "Created", "Duration")), *_COLUMNS],
        "columnWidths": _WIDTHS,
        "runsHiddenMode": "FIRST_20_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "groupBy": None,
    }


def _curves() -> dict[str, Any]:
    from scratch_dl.evaluation.baselines import BASELINES

    return {
        **_results(),
        "compareRunCharts": [
            _lines("psnr", ["val/psnr_db", *(f"baseline/{name}_psnr_db" for name in BASELINES)]),
            _lines("loss", ["train/loss", "val/loss"], scale="log"),
            {**_card("grid", "IMAGE", "samples"), "imageKeys": ["samples"], "step": 0},
        ],
        "compareRunSections": [
            _section("curves", opened=True, columns=2, cardHeight=400),
            _section("samples", opened=True, columns=2, cardHeight=700),
            *(_section(name, opened=False) for name in _OTHER_SECTIONS),
        ],
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
        "autoRefreshEnabled": True,
    }


def _lines(key: str, metrics: Sequence[str], scale: str = "linear") -> dict[str, Any]:
    return {
        **_card(key, "LINE"),
        "metricKey": metrics[0],
        "selectedMetricKeys": list(metrics),
        "scaleType": scale,
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "lineSmoothness": 0,
        "range": {},
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }


def _card(key: str, kind: str, section: str = "curves") -> dict[str, Any]:
    return {
        "uuid": key,
        "type": kind,
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 20,
    }


def _section(name: str, opened: bool, **layout: int) -> dict[str, Any]:
    return {
        "uuid": name,
        "name": name,
        "display": opened,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
        **layout,
    }
