"""The diagnosis of one training: it watches, records what it sees, and concludes only from what is recorded.

A run that was killed is therefore explained from its record just like a run that ended well.
"""

import json
import logging
import math
import shlex
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from scratch_dl import tracking
from scratch_dl.diagnosis import figure, signals
from scratch_dl.diagnosis.causes import CAUSES, TOO_SHORT, UNKNOWN
from scratch_dl.diagnosis.inspection import DATA, inspect
from scratch_dl.diagnosis.output_class import CLASSES, classify
from scratch_dl.diagnosis.recognition import recognise, unrecognised
from scratch_dl.diagnosis.rules import left_out, rules_for
from scratch_dl.diagnosis.signs import History, read_signs
from scratch_dl.diagnosis.verdict import CERTAIN, DOUBTFUL, Sign, Verdict, conclude
from scratch_dl.verification.report import REPORT, Report
from scratch_dl.verification.trace import Batch

if TYPE_CHECKING:
    from scratch_dl.config.schema import Setup

BEFORE, VERDICT, FIGURE = "diagnosis/before.json", "diagnosis/verdict.json", "figures/diagnosis.png"
OUTPUT_CLASS = "output_class"
NOTHING = "none"
FLAT = ("not_finite", "zeros", "ones", "half", "mean")
LEAST_GAIN_DB, LEAST_STEPS = 0.5, 500
_WIDTH = 80
_VERIFY = "python -m scratch_dl.verify"
_NOT_VERIFIED = ("hydra", "tracking.", "verification", "diagnosis", "resume", "trainer.max_minutes")
log = logging.getLogger(__name__)


class Diagnosis:
    """Watches a training of `setup` and records in `run`.

    Args:
        setup: of the training; it is never changed.
        run: gets metrics `watch/...`, tags, the verdict and the figure.
        overrides: of the command line, for the commands in the verdict.

    Attributes:
        blur_psnr_db: PSNR of the blurred validation crops; set it before the first validation.
        say: is called with each line about a certain mistake, as soon as it is seen.
    """

    def __init__(self, setup: "Setup", run: tracking.Run, overrides: Sequence[str] = ()) -> None:
        self.setup = setup
        self.overrides = overrides
        self.run = run
        self.blur_psnr_db = math.inf
        self.say: Callable[[str], object] = print
        self._said = False
        self._watching = True

    def before(self, report: Report | None) -> None:
        """Record the failures of the verification, and what is seen before the first step."""
        setup = self.setup
        like = setup.network.parameters()[0].value
        input, target = setup.data.batch(0, setup.trainer.batch_size, setup.seed)
        batch = Batch(input.to(like), target.to(like))
        signs: list[Sign] = [] if report is None else unrecognised(report)
        parts, clip_norm = (setup.network, setup.optimizer, setup.loss, batch), setup.trainer.clip_norm
        seen: signals.Signals = {}
        try:
            if report is not None:
                signs = recognise(report, setup.network, setup.loss, batch)
            seen |= inspect(*parts, clip_norm)
            seen |= signals.watch(*parts, clip_norm)
        except Exception as error:  # a training must not end because of its diagnosis
            log.warning("the diagnosis saw little before the first step: %s: %s", type(error).__name__, error)
        self._note(seen, 0)
        self.run.text(json.dumps([asdict(sign) for sign in signs], indent=1), BEFORE)
        self._announce()

    def step(self, step: int, batch: tuple[Tensor, Tensor]) -> None:
        """Watch the step after `step` others, if it is due."""
        if not self._watching or not signals.is_due(step, self.setup.diagnosis.every):
            return
        setup = self.setup
        try:
            seen = signals.watch(setup.network, setup.optimizer, setup.loss, Batch(*batch), setup.trainer.clip_norm)
        except Exception as error:  # a training must not end because of its diagnosis
            log.warning("the diagnosis stops at step %d: %s: %s", step, type(error).__name__, error)
            self._watching = False
            return
        self._note(seen, step)
        if step in signals.EARLY:
            self._announce()

    def validation(self, step: int, output: Tensor) -> None:
        """Record what the output has become."""
        name = classify(output, *self.setup.data.validation, self.blur_psnr_db)
        self._note({OUTPUT_CLASS: float(CLASSES.index(name))}, step)

    def conclude(self, reason: str | None, files: bool) -> Verdict:
        """Record and return the verdict.

        Args:
            reason: why the training ended early, if it did.
            files: whether to draw a figure even if the run is healthy.
        """
        record = tracking.Journal(self.run.folder)
        history = record.history()
        verdict = explain(record.folder, history, reason, self.overrides, self.setup.config.get("loss"))
        self.run.tags(
            {
                "diagnosis": verdict.cause,
                "diagnosis.module": verdict.module or NOTHING,
                "diagnosis.direction": verdict.direction or NOTHING,
                OUTPUT_CLASS: verdict.output_class or NOTHING,
                "diagnosis.step": str(verdict.step) if verdict.module else NOTHING,
            }
        )
        self.run.text(json.dumps(verdict.to_json(), indent=1), VERDICT)
        drawn_before = (self.run.folder / tracking.ARTIFACTS / FIGURE).is_file()
        if (files or drawn_before or verdict.finds_fault) and (
            drawn := figure.draw(own_signals(history), verdict)
        ) is not None:
            self.run.figure(drawn, FIGURE)
        return verdict

    def _note(self, seen: signals.Signals, step: int) -> None:
        self.run.metrics({f"{signals.PREFIX}/{name}": value for name, value in seen.items()}, step)

    def _announce(self) -> None:
        """Announce the first certain mistake, once."""
        if self._said:
            return
        history = tracking.Journal(self.run.folder).history()
        signs = signs_of(self.run.folder, history, self.setup.config.get("loss"))
        if certain := [sign for sign in signs if sign.rank == CERTAIN]:
            verdict = conclude(certain, progress=False)
            verdict = replace(verdict, cure=verdict.cure.replace(_VERIFY, verify_command(self.overrides)))
            self._said = True
            for line in lines(verdict):
                self.say(line)


def lines(verdict: Verdict) -> list[str]:
    """Return a verdict for the terminal, in lines of at most 80 columns."""
    said = [("diagnosis: ", verdict.line)]
    said += [(f"  {name:<10}", getattr(verdict, name)) for name in ("what", "evidence", "cure")]
    return [
        textwrap.fill(f"{name}{words}", _WIDTH, subsequent_indent=" " * 12, break_on_hyphens=False)
        for name, words in said
        if words
    ]


def signs_of(folder: Path, history: History, loss: Mapping[str, Any] | None = None) -> list[Sign]:
    """Return every sign in what a run recorded: in its folder, and in its metrics, by the rules for its loss."""
    before, report = (folder / tracking.ARTIFACTS / path for path in (BEFORE, REPORT))
    known: list[Sign] = []
    if before.is_file():
        known = [Sign(**each) for each in json.loads(before.read_text())]
    elif report.is_file():  # the run was verified, but not watched
        known = unrecognised(Report.from_json(json.loads(report.read_text())))
    return known + read_signs(own_signals(history), rules_for(loss))


def explain(
    folder: Path,
    history: History,
    reason: str | None,
    overrides: Sequence[str] = (),
    loss: Mapping[str, Any] | None = None,
) -> Verdict:
    """Return the verdict on a run, only from what it recorded.

    Args:
        folder: of the run.
        history: its metrics, or those up to some step.
        reason: why it ended early, if it did.
        overrides: of its command line, for the commands in the verdict.
        loss: the settings of its loss; None for the squared error.
    """
    signs = signs_of(folder, history, loss)
    if not signs and not set(own_signals(history)) - {OUTPUT_CLASS, f"{DATA}/level"}:  # no module was seen
        if reason is not None and not history.get("train/loss"):
            return Verdict(UNKNOWN, what="the run ended before its first step", cure="see the reason")
        return Verdict(UNKNOWN, what=CAUSES[UNKNOWN].what, cure=CAUSES[UNKNOWN].cure)
    last = max((step for step, _ in history.get("train/loss", ())), default=0)
    if reason is not None and reason.startswith("Diverged"):
        signs.append(
            Sign("loss_not_finite", "learning_rate_too_large", "optimizer", "settings", last + 1, reason, order=90)
        )
    classes = history.get(f"{signals.PREFIX}/{OUTPUT_CLASS}", ())
    name = CLASSES[int(classes[-1][1])] if classes else ""
    progress = _progress(history) and name not in FLAT
    if last >= LEAST_STEPS and not progress:
        said = "on the validation crops the output is farther from the clean picture than its input is"
        signs.append(Sign("below_input", "not_converged", "network", "forward", last, said, DOUBTFUL, order=95))
    verdict = replace(conclude(signs, progress, name), left_out=left_out(loss))
    if verdict.healthy and last < LEAST_STEPS and not progress:
        what, cure = CAUSES[TOO_SHORT]
        return replace(verdict, cause=TOO_SHORT, what=f"{what}: {last} of {LEAST_STEPS} steps", cure=cure)
    if _VERIFY in verdict.cure:
        return replace(verdict, cure=verdict.cure.replace(_VERIFY, verify_command(overrides)))
    return verdict


def verify_command(overrides: Sequence[str]) -> str:
    """Return the command that verifies what a training with these overrides trains."""
    own = [word for word in overrides if not word.lstrip("+~").startswith(_NOT_VERIFIED)]
    return f"python -m scratch_dl.verify {shlex.join(own)}".rstrip()


def _progress(history: History) -> bool:
    """Return whether a late validation is better than the untrained network and than the noisy input.

    If the noisy input's PSNR is infinite, as for a black picture under photon noise, only the first is asked.
    """
    psnr, gain = ([value for _, value in history.get(f"val/{name}_db", ())] for name in ("psnr", "gain"))
    late = max(3, len(psnr) // 4)
    return bool(psnr) and max(psnr[-late:]) - psnr[0] > LEAST_GAIN_DB and (not gain or max(gain[-late:]) > 0)


def own_signals(history: History) -> History:
    """Return the signals among a run's metrics, without their prefix."""
    prefix = f"{signals.PREFIX}/"
    return {key.removeprefix(prefix): points for key, points in history.items() if key.startswith(prefix)}
