"""The one look at the test photographs: what the best trial's best weights make of them."""

from pathlib import Path
from typing import Any

from scratch_dl import tracking
from scratch_dl.config.build import build
from scratch_dl.evaluation import scoring
from scratch_dl.search.outcomes import Outcome
from scratch_dl.training import checkpoint


def test_scores(config: Any, outcome: Outcome, directory: Path) -> dict[str, float]:
    """PSNR (dB) and SSIM of the winner and the baselines, by metric name; empty if its weights are not on this machine.

    Args:
        config: the winner's, composed.
        outcome: of the winner.
        directory: `tracking.dir`, absolute; the baselines' scores are kept there.
    """
    folder = tracking.folder_of(outcome.run_id, Path(outcome.folder), directory)
    if folder is None:
        return {}
    weights = folder / "checkpoints" / checkpoint.BEST
    setup = build(config)
    setup.network.load_state_dict(checkpoint.load(weights)["network"])
    scores, _ = scoring.evaluate_photographs(setup.data, setup.network, "test", directory / "cache")
    return scores
