"""One run from start to end: what is verified, recorded and printed before, during and after the training."""

import logging
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scratch_dl import kernels, tracking
from scratch_dl.config.schema import Setup
from scratch_dl.evaluation import baselines
from scratch_dl.models import Denoiser
from scratch_dl.system.files import disk_advice
from scratch_dl.system.memory import keep_freed_memory
from scratch_dl.terminal import console
from scratch_dl.training import checkpoint
from scratch_dl.training.conclusion import best_network, log_end, log_photographs, log_samples
from scratch_dl.training.description import Part, close_orphans, create_run, describe, headline
from scratch_dl.training.events import Listener
from scratch_dl.training.loop import Diverged, Progress, Training
from scratch_dl.training.note import again, result_text, run_note, verdict_lines
from scratch_dl.training.result import RunResult, attach_result, write_summary
from scratch_dl.training.run_report import log_report
from scratch_dl.training.signals import Interrupted, handling, interrupt

if TYPE_CHECKING:
    from scratch_dl.diagnosis import Diagnosis, Verdict
    from scratch_dl.verification import Report

log = logging.getLogger(__name__)


class VerificationError(RuntimeError):
    """A module, the network or the optimizer is wrong, and `verification.on_failure` is stop."""


def train_run(
    setup: Setup,
    folder: Path,
    overrides: Sequence[str],
    restored: Mapping[str, Any] | None = None,
    part: Part | None = None,
) -> RunResult:
    """Train in `folder`, or continue there from the checkpoint content `restored`, and record everything in MLflow.

    Raises:
        Diverged: if the loss, a score or a weight becomes NaN or infinite.
        BusyError: if another process works in the folder.
        VerificationError: if something is wrong with the network, and `verification.on_failure` is stop.
        TrackingError: if the store cannot be used.
        CheckpointError: if a checkpoint cannot be written.
    """
    if setup.threads is not None:
        torch.set_num_threads(setup.threads)
    kernels.use(setup.backend)
    keep_freed_memory()
    with handling(interrupt):
        store = tracking.open_store(setup.tracking.dir, setup.tracking.uri)
        with tracking.folder_lock(folder):
            if restored is None:
                close_orphans(store)
                run = create_run(setup, store, folder, overrides, part)
            else:
                run = tracking.Run.reopen(store, folder, restored["progress"]["step"])
            run.every = setup.tracking.every
            return _TrackedTraining(setup, folder, list(overrides), run, part).execute(restored)


class _TrackedTraining(Listener):
    """A training and its MLflow run; passes the events of the loop on to the terminal, the diagnosis and the part."""

    def __init__(self, setup: Setup, folder: Path, overrides: list[str], run: tracking.Run, part: Part | None) -> None:
        self.setup = setup
        self.part = part
        self.folder = folder
        self.overrides = overrides
        self.run = run
        self.full = setup.tracking.detail == "full"
        self.cache = Path(setup.tracking.dir) / "cache"
        self.scores: dict[str, float] = {}
        self.verification = "not reached" if setup.verification.enabled else "off"
        self.diagnosis: Diagnosis | None = None
        self.verdict: Verdict | None = None
        self.training: Training | None = None
        self.reporter: console.Reporter | None = None
        self.started = time.monotonic()

    @property
    def progress(self) -> Progress:
        return self.training.progress if self.training else Progress()

    def execute(self, restored: Mapping[str, Any] | None) -> RunResult:
        """Describe, verify, train and conclude; however that ends, the run gets its status and the reason."""
        status, reason, exit_status = "FAILED", None, 0
        late: list[int] = []

        def note_late(number: int, _: Any) -> None:
            # Something is being sent: do not cut it in half, but do not wait for the rest either.
            late.append(number)
            self.run.hurry()

        try:
            network, status = self._train(restored), "FINISHED"
        except Interrupted as interrupted:
            status, reason, exit_status = "KILLED", str(interrupted), interrupted.exit_status
            with handling(note_late):
                network = best_network(self.setup, self.folder)
            self._diagnose(reason)
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            self._diagnose(reason)
            self._write_failure(reason)
            explained = self._explained(error) or error
            attach_result(explained, self._result("FAILED", self.setup.network))
            if explained is not error:
                raise explained from error
            raise
        finally:
            with handling(note_late):
                self._note(status, reason)
                tracked = self.run.finish(status, reason)
        with handling(note_late):
            self._write_summary(status, reason)
        if late and not exit_status:
            exit_status = 128 + late[0]
        return self._result(status, network, tracked, exit_status)

    def _result(self, status: str, network: Denoiser, tracked: bool = True, exit_status: int = 0) -> RunResult:
        return RunResult(
            run_id=self.run.run_id,
            folder=self.folder,
            status=status,
            scores=self.scores,
            progress=self.progress,
            network=network,
            tracked=tracked,
            exit_status=exit_status,
            overrides=self.overrides,
            verification=self.verification,
            diagnosis=self.verdict,
        )

    def _train(self, restored: Mapping[str, Any] | None) -> Denoiser:
        """Return the network with its best weights, its scores recorded."""
        describe(self.run, self.setup, self.folder, self.overrides, resumed=restored is not None)
        if self.setup.diagnosis.enabled:
            from scratch_dl.diagnosis import Diagnosis

            self.diagnosis = Diagnosis(self.setup, self.run, self.overrides)
        self._verify(fresh=restored is None)
        crops = baselines.baseline_psnr(self.setup.data, "crops", self.cache)
        self.scores.update({f"baseline/{name}_psnr_db": value for name, value in crops.items()})
        trainer = self.setup.trainer
        steps = self.setup.data.steps_per_epoch(trainer.batch_size) * trainer.epochs
        start = restored["progress"]["step"] if restored else 0
        with console.Reporter(steps, trainer.epochs, start) as self.reporter:
            self.reporter.say(headline(self.setup, start, steps))
            if self.diagnosis is not None:
                self.diagnosis.blur_psnr_db, self.diagnosis.say = crops["blur"], self.reporter.say
            self.training = Training(self.setup, self.folder, self.run, self, crops["noisy"])
            if restored is not None:
                self.training.restore(restored)
            else:
                self.run.metrics(self.scores, 0)
            progress = self.training.fit()
            self.reporter.say("evaluating the best checkpoint on whole photographs")
            network = best_network(self.setup, self.folder)
            self.scores |= {
                "val/first_psnr_db": progress.first_psnr_db,
                "val/best_psnr_db": progress.best_psnr_db,
                "val/last_psnr_db": progress.last_psnr_db,
            }
            self.scores |= log_photographs(self.run, self.setup, network, progress)
            log_end(self.run, self.setup, self.folder, progress, self.scores)
        self._diagnose(None)
        return network

    def on_step_begin(self, step: int, batch: tuple[Tensor, Tensor]) -> None:
        """Let the diagnosis watch the step."""
        if self.diagnosis is not None:
            self.diagnosis.step(step, batch)

    def on_step_end(self, step: int, loss: float) -> None:
        """Show the step."""
        assert self.reporter is not None
        self.reporter.step(step, loss)

    def on_validation(self, step: int, output: Tensor) -> None:
        """Let the diagnosis classify the output, and log samples of it."""
        if self.diagnosis is not None:
            self.diagnosis.validation(step, output)
        if self.full:
            log_samples(self.run, self.setup, step, output)

    def on_epoch(self, epoch: int, scores: Mapping[str, float]) -> str | None:
        """Show the scores, and ask the part whether to stop, unless the training stops anyway."""
        assert self.reporter is not None
        self.reporter.epoch(epoch, scores)
        return self.part.on_epoch(epoch, scores) if self.part and epoch and not self.progress.stopped else None

    def _verify(self, fresh: bool) -> None:
        """Verify copies of network and optimizer, and record the verdicts; random states stay untouched.

        Raises:
            VerificationError: if something failed, unless the settings or a deliberate fault say to train anyway.
        """
        setup, settings = self.setup, self.setup.verification
        if not settings.enabled:
            self.run.tags({"verification": self.verification})
            print("verification=off: no module was verified", flush=True)
            self._inspect(None, fresh)
            return
        from scratch_dl.verification import verify_network

        report = verify_network(
            setup.network, setup.optimizer, setup.data.crop_size, settings, loss=setup.loss, seed=setup.seed
        )
        # A resumed run has logged its metrics of step 0 already.
        report.record(self.run, metrics=fresh, files=self.full or not report.passed)
        if report.passed:
            self.verification = "passed"
            print(report.headline, flush=True)
            self._inspect(report, fresh)
            return
        first = report.failures[0]
        self.verification = f"FAILED, first at {first.module} {first.direction}"
        report.show()
        self._inspect(report, fresh)
        if setup.fault is None and settings.on_failure == "stop":
            raise VerificationError(
                f"verification {self.verification.replace('FAILED', 'failed')}; "
                "verification.on_failure=warn trains all the same"
            )
        reason = "verification.on_failure=warn" if setup.fault is None else f"fault={setup.fault.name}"
        print(f"{reason}: training all the same", flush=True)

    def _inspect(self, report: "Report | None", fresh: bool) -> None:
        """Let the diagnosis look at the parts before the first step; a resumed run has logged that already."""
        if self.diagnosis is not None and fresh:
            self.diagnosis.before(report)

    def _diagnose(self, reason: str | None) -> None:
        """Conclude the diagnosis, also of a training that failed; an error of its own only becomes a warning."""
        if self.diagnosis is None or self.verdict is not None:
            return
        # A second Ctrl-C waits: the run's summary still has to be written.
        with handling(lambda _number, _frame: None):
            try:
                self.verdict = self.diagnosis.conclude(reason, self.full)
            except Exception as error:
                log.warning("no diagnosis: %s: %s", type(error).__name__, error)

    def _write_failure(self, reason: str) -> None:
        try:
            self._write_summary("FAILED", reason)
        except OSError as error:  # most likely the disk that made the training fail
            log.warning("no summary: %s", error)

    def _explained(self, error: BaseException) -> BaseException | None:
        """Return an error that says more about the cause than `error` does, or None."""
        if (advice := disk_advice(error)) is not None:
            known = error if isinstance(error, OSError) else error.__cause__
            assert isinstance(known, OSError)
            resume = f"python -m scratch_dl.train {shlex.quote(f'resume={self.folder}')}"
            has_checkpoint = (self.folder / "checkpoints" / checkpoint.LAST).exists()
            again = resume if has_checkpoint else "run the same command again"
            return OSError(known.errno, f"{known.strerror or known}; {advice}, then {again}", known.filename)
        if isinstance(error, Diverged) and self.verdict and self.verdict.module not in ("", "optimizer"):
            # The error proposes another learning rate, which does not cure a wrong module.
            return Diverged(f"{str(error).partition(';')[0]}; diagnosis: {self.verdict.line}")
        return None

    def _note(self, status: str, reason: str | None) -> None:
        """Put the result on top of the run's page, unless its user has put something there."""
        try:
            verdicts = verdict_lines(self.verification, self.verdict) | {"again": again(self.overrides)}
            result = result_text(status, reason, self.progress, self.scores, verdicts)
            if self.full:
                log_report(self.run, self.setup.config, self.overrides, result)
            if tracking.DESCRIPTION not in self.setup.tracking.tags:
                self.run.tags({tracking.DESCRIPTION: run_note(self.run, result)})
        except Exception as error:  # the status of the run must be sent nevertheless
            log.warning("no description of the run: %s: %s", type(error).__name__, error)

    def _write_summary(self, status: str, reason: str | None) -> None:
        summary = {
            "run_id": self.run.run_id,
            "experiment_id": self.run.experiment_id,
            "status": status,
            "reason": reason,
            "overrides": self.overrides,
            "verification": self.verification,
            "scores": self.scores,
            "elapsed_s": round(time.monotonic() - self.started, 1),
        }
        write_summary(self.folder, summary, self.progress, self.verdict)
