"""One run from its start to its end: what is recorded before, during and after the training."""

import json
import logging
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from omegaconf import OmegaConf
from torch import Tensor

from scratch_dl import __version__, kernels, tracking
from scratch_dl.config.environment import RUN_ID
from scratch_dl.config.plain import flat
from scratch_dl.config.schema import Setup
from scratch_dl.evaluation import baselines, scoring
from scratch_dl.models import Denoiser, count_parameters
from scratch_dl.system import provenance
from scratch_dl.system.files import as_json, cure, write_atomically
from scratch_dl.system.memory import keep_freed_memory
from scratch_dl.system.passwords import hidden
from scratch_dl.terminal import console
from scratch_dl.training import checkpoint, pictures
from scratch_dl.training.loop import Diverged, Interrupted, Progress, Training, handling, interrupt

if TYPE_CHECKING:
    from scratch_dl.diagnosis import Diagnosis, Verdict
    from scratch_dl.verification import Report

log = logging.getLogger(__name__)
CONFIG, SUMMARY = "config.yaml", "summary.json"


class VerificationError(RuntimeError):
    """A module, the network or the optimizer is wrong, and `verification.on_failure` says to stop."""


class Part(Protocol):
    """What a run is a part of, such as a trial of a study.

    Attributes:
        name: of the run, unless `tracking.run_name` gives one.
        tags: of the run.
    """

    name: str
    tags: Mapping[str, str]

    def judge(self, epoch: int, values: Mapping[str, float]) -> str | None:
        """Given the scores of an epoch, why the training is to stop, or None."""


@dataclass
class Result:
    """What a training has come to.

    Attributes:
        run_id: in MLflow.
        folder: of the run's local files.
        status: FINISHED, or KILLED after a signal.
        scores: PSNR (dB) and SSIM by metric name, the baselines included.
        progress: how far it came, and its first, best and last validation PSNR.
        network: with the best weights.
        tracked: whether MLflow has everything; if not, `resume=<folder>` sends the rest.
        exit_status: of a command that ends so.
        overrides: what the command line said.
        verification: "passed", "off", or "FAILED" with the first module.
        diagnosis: the verdict on the training; None if it was not watched.
    """

    run_id: str
    folder: Path
    status: str
    scores: dict[str, float]
    progress: Progress
    network: Denoiser
    tracked: bool = True
    exit_status: int = 0
    overrides: list[str] = field(default_factory=list)
    verification: str = "off"
    diagnosis: "Verdict | None" = None


def train_run(
    setup: Setup,
    folder: Path,
    overrides: Sequence[str],
    restored: Mapping[str, Any] | None = None,
    part: Part | None = None,
) -> Result:
    """Train in `folder`, or go on there from the checkpoint content `restored`, and record everything in MLflow.

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
        with tracking.claimed(folder):
            if restored is None:
                _close_orphans(store)
                run = _begin(setup, store, folder, part)
            else:
                run = tracking.Run.reopen(store, folder, restored["progress"]["step"])
            return _Session(setup, folder, list(overrides), run, part).execute(restored)


def _close_orphans(store: tracking.Store) -> None:
    _, unknown = tracking.close_orphans(store)
    if unknown:
        print(
            f"{len(unknown)} runs stay RUNNING, as whether their processes live cannot be told from here: "
            f"{', '.join(unknown[:2])}{', ...' if len(unknown) > 2 else ''}",
            flush=True,
        )


def _begin(setup: Setup, store: tracking.Store, folder: Path, part: Part | None) -> tracking.Run:
    settings, run_id = setup.tracking, setup.tracking.run_id
    if run_id is not None and run_id == os.environ.get(RUN_ID) and (taken := tracking.is_taken(store, run_id)):
        print(f"{RUN_ID}={run_id} is ignored, as it is the run of {taken} already: this training gets a new one")
        run_id = None
    usual = part.name if part else f"{_short(setup, 'model')}-{setup.data.name}-seed{setup.seed}"
    name = settings.run_name or (None if run_id else usual)
    tags = {**settings.tags, **(part.tags if part else {})}
    return tracking.Run.create(store, folder, settings.experiment, name, tags, run_id)


class _Session:
    def __init__(self, setup: Setup, folder: Path, overrides: list[str], run: tracking.Run, part: Part | None) -> None:
        self.setup = setup
        self.part = part
        self.folder = folder
        self.overrides = overrides
        self.run = run
        self.full = setup.tracking.detail == "full"
        self.cache = Path(setup.tracking.dir) / "cache"
        self.scores: dict[str, float] = {}
        self.verdict = "off"
        self.diagnosis: Diagnosis | None = None
        self.explained: Verdict | None = None
        self.started = time.monotonic()

    def execute(self, restored: Mapping[str, Any] | None) -> Result:
        """Describe, train, conclude; whatever happens, the run gets its status and the reason of it."""
        status, reason, exit_status = "FAILED", None, 0
        training: Training | None = None
        late: list[int] = []

        def hold_back(number: int, _: Any) -> None:
            # What is being sent is not cut in half, but not waited for as long either.
            late.append(number)
            self.run.hurry()

        try:
            config = OmegaConf.to_yaml(OmegaConf.create(self.setup.config))
            write_atomically(self.folder / CONFIG, config.encode())
            if restored is None:
                self._describe()
            else:
                self.run.params(flat(self.setup.config))  # what is permitted to differ becomes a tag changed/<key>
                self.run.tags({"resumed_with": " ".join(self.overrides)})
            used, why = kernels.used(self.setup.device), kernels.why_not_native()
            self.run.tags({"kernels": used})
            print(f"kernels: {used}{f'; native: {why}' if why and self.setup.backend == 'auto' else ''}", flush=True)
            if fault := self.setup.fault:
                self.run.tags({"fault": fault.name})
                print(fault, flush=True)
            if self.setup.diagnosis.enabled:
                from scratch_dl.diagnosis import Diagnosis

                self.diagnosis = Diagnosis(self.setup, self.run)
            self._verify(fresh=restored is None)
            crops = baselines.baseline_psnr(self.setup.data, "crops", self.cache)
            self.scores.update({f"baseline/{name}_psnr_db": value for name, value in crops.items()})
            trainer = self.setup.trainer
            steps = self.setup.data.steps_per_epoch(trainer.batch_size) * trainer.epochs
            start = restored["progress"]["step"] if restored else 0
            with console.Reporter(steps, trainer.epochs, start) as reporter:
                reporter.say(self._headline(start, steps))
                if self.diagnosis is not None:
                    self.diagnosis.blur_psnr_db, self.diagnosis.say = crops["blur"], reporter.say
                training = Training(
                    self.setup, self.folder, self.run, reporter, crops["noisy"], self._on_validation, self._on_step,
                    self.part.judge if self.part else lambda _epoch, _values: None,
                )  # fmt: skip
                if restored is not None:
                    training.restore(restored)
                else:
                    self.run.metrics(self.scores, 0)
                progress = training.fit()
                reporter.say("evaluating the best checkpoint on whole photographs")
                network = self._conclude(progress)
            self._explain(None)
            status = "FINISHED"
        except Interrupted as interrupted:
            status, reason, exit_status = "KILLED", str(interrupted), interrupted.exit_status
            progress, network = training.progress if training else Progress(), self._best_network()
            self._explain(reason)
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            self._explain(reason)
            progress = training.progress if training else Progress()
            try:
                self._summary(status, progress, reason)
            except OSError as also:  # the same disk, most likely
                log.warning("no summary: %s", also)
            if (remedy := cure(error)) is not None:
                raise self._of_the_disk(error, remedy) from error
            if isinstance(error, Diverged) and self.explained and self.explained.module not in ("", "optimizer"):
                # Another learning rate, which the error proposes, cures nothing of that.
                raise Diverged(f"{str(error).partition(';')[0]}; diagnosis: {self.explained.line}") from None
            raise
        finally:
            with handling(hold_back):
                tracked = self.run.finish(status, reason)
        with handling(hold_back):
            self._summary(status, progress, reason)
        if late and not exit_status:
            exit_status = 128 + late[0]
        return Result(
            self.run.run_id, self.folder, status, self.scores, progress, network, tracked, exit_status, self.overrides,
            self.verdict, self.explained,
        )  # fmt: skip

    def _of_the_disk(self, error: BaseException, remedy: str) -> OSError:
        """The error of a full or broken disk with its path, and what to do about it."""
        known = error if isinstance(error, OSError) else error.__cause__
        assert isinstance(known, OSError)
        again = (
            f"python -m scratch_dl.train {shlex.quote(f'resume={self.folder}')}"
            if (self.folder / "checkpoints" / checkpoint.LAST).exists()
            else "run the same command again"
        )
        return OSError(known.errno, f"{known.strerror or known}; {remedy}, then {again}", known.filename)

    def _headline(self, start: int, steps: int) -> str:
        setup = self.setup
        where = f"going on from epoch {start * setup.trainer.epochs // steps}, step {start}" if start else "from step 0"
        return (
            f"{_short(setup, 'model')} ({count_parameters(setup.network):,} parameters) on {setup.data.name}, "
            f"{steps:,} steps of {setup.trainer.batch_size} crops, {where}"
        )

    def _describe(self) -> None:
        """Everything that is known before the first step."""
        run, setup = self.run, self.setup
        run.params(flat(setup.config))
        run.text((self.folder / CONFIG).read_text(), CONFIG)
        run.params({"parameters": count_parameters(setup.network)})
        run.text(repr(setup.network) + "\n", "network.txt")
        run.dataset(setup.data.describe(), "training, validation" + (", test" if setup.trainer.test else ""))
        git = provenance.git_state(Path(__file__).parent)
        tags = {"version": __version__, "command": provenance.command_line(), "overrides": " ".join(self.overrides)}
        if git is not None:
            tags |= {"git.commit": git.commit, "git.dirty": str(git.dirty).lower()}
            if git.dirty:
                run.text(git.diff, "git.diff")
        run.tags(tags)
        if self.full:
            run.text(json.dumps(provenance.environment(), indent=2), "environment.json")

    def _verify(self, fresh: bool) -> None:
        """Verify copies of network and optimizer, and record what was found; random states are left untouched."""
        setup = self.setup
        settings = setup.verification
        if not settings.enabled:
            self.run.tags({"verification": "off"})
            print("verification=off: no module was verified", flush=True)
            self._look(None, fresh)
            return
        from scratch_dl.verification import verify_network

        report = verify_network(
            setup.network, setup.optimizer, setup.data.crop_size, settings, loss=setup.loss, seed=setup.seed
        )
        # A resumed run has said its metrics at step 0.
        report.record(self.run, metrics=fresh, files=self.full or not report.passed)
        self.verdict = "passed"
        if report.passed:
            print(report.headline, flush=True)
            self._look(report, fresh)
            return
        report.show()
        self._look(report, fresh)
        first = report.failures[0]
        self.verdict = f"FAILED, first at {first.module} {first.direction}"
        if setup.fault is not None:
            print(f"fault={setup.fault.name}: training all the same", flush=True)
            return
        if settings.on_failure == "stop":
            raise VerificationError(
                f"verification {self.verdict.replace('FAILED', 'failed')}; "
                "verification.on_failure=warn trains all the same"
            )
        print("verification.on_failure=warn: training all the same", flush=True)

    def _on_step(self, step: int, batch: tuple[Tensor, Tensor]) -> None:
        if self.diagnosis is not None:
            self.diagnosis.step(step, batch)

    def _explain(self, reason: str | None) -> None:
        """The verdict, also on a training that has failed; whatever goes wrong here, its own reason stands."""
        if self.diagnosis is None or self.explained is not None:
            return
        # A second Ctrl-C waits for it: the run's summary is still to be written.
        with handling(lambda _number, _frame: None):
            try:
                self.explained = self.diagnosis.conclude(reason, self.full)
            except Exception as error:
                log.warning("no diagnosis: %s: %s", type(error).__name__, error)

    def _look(self, report: "Report | None", fresh: bool) -> None:
        """What the diagnosis sees before the first step; a resumed run has said it."""
        if self.diagnosis is not None and fresh:
            self.diagnosis.before(report)

    def _on_validation(self, step: int, output: Tensor) -> None:
        if self.diagnosis is not None:
            self.diagnosis.validation(step, output)
        if self.full:
            self._picture(step, output)

    def _picture(self, step: int, output: Tensor) -> None:
        noisy, clean = self.setup.data.validation
        some = slice(self.setup.trainer.pictures)
        self.run.image(pictures.composite(noisy[some], output[some], clean[some], scale=4), "samples", step)

    def _best_network(self) -> Denoiser:
        """The network with its best weights, or as it is where there are none yet."""
        best = self.folder / "checkpoints" / checkpoint.BEST
        if best.exists():
            self.setup.network.load_state_dict(checkpoint.load(best)["network"])
        return self.setup.network

    def _conclude(self, progress: Progress) -> Denoiser:
        """Score the best checkpoint on whole photographs, and hand everything over to MLflow."""
        run, setup = self.run, self.setup
        network = self._best_network()
        best = self.folder / "checkpoints" / checkpoint.BEST
        self.scores |= {
            "val/first_psnr_db": progress.first_psnr_db,
            "val/best_psnr_db": progress.best_psnr_db,
            "val/last_psnr_db": progress.last_psnr_db,
        }
        final: dict[str, float] = {}
        for split in ("validation", *(["test"] if setup.trainer.test else [])):
            scores, shown = scoring.evaluate_photographs(setup.data, network, split, self.cache)
            final |= scores
            for photograph, output in shown[: setup.trainer.pictures] if self.full else []:
                picture = pictures.composite(photograph.noisy[None], output[None], photograph.clean[None], scale=1)
                key = tracking.image_key(f"{scoring.PREFIXES[split]}_{photograph.name}")
                run.image(picture, key, progress.step)
        self.scores |= final
        run.metrics(final, progress.step)
        run.metrics({"val/best_psnr_db": progress.best_psnr_db, "val/best_step": progress.best_step}, progress.step)
        run.metric("training_s", progress.training_s, progress.step)
        if not self.full:
            self._picture(progress.step, scoring.denoise(network, setup.data.validation[0]))
            return network
        self._figures()
        for name in (checkpoint.BEST, checkpoint.LAST):
            run.file(best.with_name(name), "checkpoints")
        run.model(best, progress.best_step)
        return network

    def _figures(self) -> None:
        levels = {
            name: self.scores[f"baseline/{name}_psnr_db"] for name in ("noisy", "blur", "tv", "nlm")
        }  # fmt: skip
        history = self.run.history(["train/loss", "val/loss", "val/psnr_db"])
        loss = {"training": history["train/loss"], "validation": history["val/loss"]}
        self.run.figure(pictures.curves(loss, "mean squared error", log_scale=True), "figures/loss.png")
        psnr = {"network": history["val/psnr_db"]}
        self.run.figure(pictures.curves(psnr, "PSNR on the validation crops, dB", levels), "figures/psnr.png")

    def _summary(self, status: str, progress: Progress, reason: str | None) -> None:
        summary = {
            "run_id": self.run.run_id,
            "experiment_id": self.run.experiment_id,
            "status": status,
            "reason": reason,
            "overrides": self.overrides,
            "verification": self.verdict,
            "diagnosis": None if self.explained is None else self.explained.to_json(),
            "output_class": None if self.explained is None else self.explained.output_class,
            "scores": self.scores,
            "progress": asdict(progress),
            "elapsed_s": round(time.monotonic() - self.started, 1),
        }
        write_atomically(self.folder / SUMMARY, as_json(hidden(summary)))


def _short(setup: Setup, group: str) -> str:
    return str(setup.config[group]["_target_"]).rpartition(".")[2]
