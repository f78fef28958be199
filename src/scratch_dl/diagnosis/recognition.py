"""From a failed verdict of the verification to the mistake: compares gradients with those of each known mistake.

A module whose results equal those of one of the fault bank's classes, to the last digits, makes that mistake. A user's
module is recognised if its forward equals that of ReLU or Sigmoid, or if it is a subclass of one of our modules.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from scratch_dl import nn
from scratch_dl.diagnosis.causes import CAUSES
from scratch_dl.diagnosis.verdict import Sign
from scratch_dl.faults import FAULTS
from scratch_dl.nn import Module
from scratch_dl.verification.blame import LOSS
from scratch_dl.verification.optimizer import OPTIMIZER
from scratch_dl.verification.passes import (
    BrokenPassError,
    Pass,
    converted,
    copied,
    draw_like,
    forward,
    own_pass,
    relative_error,
    takes_gradient,
)
from scratch_dl.verification.references import leaves
from scratch_dl.verification.report import NETWORK, Finding, Report
from scratch_dl.verification.trace import Batch, own_step

_SAME = 1e-9
_LAST = 40
_CONTRACT = (  # words in a check's name -> the mistake; the first that fits counts
    ("no stale copies", "stale_gradient_reference"),
    ("leaves the parameters the same objects", "stale_gradient_reference"),
    ("each parameter moves as it would alone", "sgd_momentum_shared"),
    ("zero_grad clears", "gradient_never_cleared"),
)
_GENERIC = {"forward": "forward_wrong", "contract": "contract_broken"}


def recognise(report: Report, network: Module, loss: Module, batch: Batch) -> list[Sign]:
    """Return a sign for every failed verdict, those of single modules before the network's; mend the first one first.

    Args:
        report: of the network.
        network: that was verified; is copied.
        loss: under which it is trained.
        batch: images and targets with which the modules are tried.
    """
    if report.passed:
        return []
    signs, tried = [], dict(_tried(network, loss, batch))
    for finding in report.failures:
        cause = _of_contract(finding, tried.get(finding.module))
        if cause is None and finding.module in tried and finding.direction.startswith("grad"):
            cause = _known_mistake(*tried[finding.module])
        signs.append(_sign(finding, cause))
    return signs


def known_mistakes(report: Report, network: Module, loss: Module, batch: Batch) -> list[str]:
    """Return a line for each module whose mistake is in the fault bank."""
    return [
        f"{sign.module} makes a known mistake, {sign.cause}: {CAUSES[sign.cause].what}; cure: {CAUSES[sign.cause].cure}"
        for sign in recognise(report, network, loss, batch)
        if sign.cause in FAULTS
    ]


def unrecognised(report: Report) -> list[Sign]:
    """Return the signs without the network at hand: which kind of verdict failed, but not by which mistake."""
    return [_sign(finding, _of_contract(finding, None)) for finding in report.failures]


def _sign(finding: Finding, cause: str | None) -> Sign:
    detail = f"; {finding.detail}" if finding.detail else ""
    said = f"error {finding.error:.2g}, at most {finding.limit:.0e} ({finding.check}){detail}"
    rule = f"verification: {finding.check}"
    # A single mistake fails many checks of the whole network; these explain nothing.
    order = _LAST if finding.module == NETWORK else 0
    return Sign(rule, cause or _generic(finding), finding.module, finding.direction, 0, said, order=order)


def _tried(network: Module, loss: Module, batch: Batch) -> Iterator[tuple[str, tuple[Module, list[Tensor]]]]:
    """Yield name and (module, its inputs in float64) for the network's modules and the loss."""
    network, loss = copied((network, loss))
    network.to(dtype=torch.float64)
    try:
        trace = own_step(network, loss, batch.to(torch.float64))
    except BrokenPassError:
        return
    for name, module in leaves(network).items():
        if name in trace.inputs:
            yield name, (module, [trace.inputs[name]])
    yield LOSS, (loss, [trace.outputs[""], batch.target.double()])


def _known_mistake(module: Module, inputs: list[Tensor]) -> str | None:
    """Return the fault whose class does exactly what the module does, if the right class does not; else None."""
    generator = torch.Generator().manual_seed(0)
    try:
        output = forward(module, inputs)
        grad = draw_like(output, generator) if takes_gradient(module, output) else None
        did = own_pass(converted(module, torch.float64), inputs, grad)
        for fault in FAULTS.values():
            for right, wrong in fault.swaps.items():
                twin = _as(right, module, inputs, output)
                if twin is None or _same(did, own_pass(twin, inputs, grad)):
                    continue
                twin.__class__ = wrong
                if _same(did, own_pass(twin, inputs, grad)):
                    return fault.name
    except BrokenPassError:
        pass
    return None


def _as(kind: type[Module], module: Module, inputs: list[Tensor], output: Tensor) -> Module | None:
    """Return the module as an instance of `kind`, if it is a subclass or its forward computes the same; else None."""
    if isinstance(module, kind):
        twin = copied(module)
        twin.__class__ = kind
        return twin
    if kind in (nn.ReLU, nn.Sigmoid) and len(inputs) == 1:
        twin = kind()
        return twin if relative_error(output, forward(twin, inputs)) < _SAME else None
    return None


def _same(one: Pass, other: Pass) -> bool:
    return one.gradients.keys() == other.gradients.keys() and all(
        relative_error(one.gradients[key], expected) < _SAME for key, expected in other.gradients.items()
    )


def _of_contract(finding: Finding, tried: tuple[Module, list[Tensor]] | None) -> str | None:
    if finding.direction != "contract":
        return None
    cause = next((cause for words, cause in _CONTRACT if words in finding.check), None)
    if cause != "gradient_never_cleared" or tried is None:
        return cause
    if isinstance(tried[0], nn.Upsampling):
        return "upsampling_gradient_never_cleared"
    return "conv_bias_never_cleared" if finding.detail.startswith("bias") else cause


def _generic(finding: Finding) -> str:
    if finding.module == OPTIMIZER:
        return "optimizer_wrong"
    if "linearity" in finding.check:
        return "gradient_not_linear"
    return _GENERIC.get(finding.direction, "gradient_wrong")
