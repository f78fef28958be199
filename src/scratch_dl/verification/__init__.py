"""The proof that each hand-written module is right: against PyTorch, by algebra, composed, and in training.

It calls PyTorch's own network library, as a witness and never to train. Only `paper` and `benchmarks` do so as well.
"""

from scratch_dl.verification.module import check_module
from scratch_dl.verification.report import DirectionVerdict, Finding, Report
from scratch_dl.verification.suite import verify_network

__all__ = ["DirectionVerdict", "Finding", "Report", "check_module", "verify_network"]
