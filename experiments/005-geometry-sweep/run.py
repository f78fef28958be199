"""The sweep that the paper needed: which geometry is best, with its mistake and without, and how good it gets.

python experiments/005-geometry-sweep/run.py [--smoke] [--workers N] [--directory mlruns]
                                             [--parts sweeps,seeds,finals,long] [--models paper,unet]

Every training of the package's own is an MLflow run of the experiment 005-geometry-sweep. Prints the tables, writes
results.json, the figures and the tables of README.md beside this file; a part that is not asked for stays in them as it
was, and so do the finals of a model that is not. Stopped, it goes on where it was when called again. --smoke:
everything at a small size in a temporary folder, nothing written.
"""

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from rich.console import Console

from scratch_dl import kernels, tracking
from scratch_dl.config.build import build
from scratch_dl.config.composing import compose_config
from scratch_dl.data import metrics
from scratch_dl.evaluation import baselines, scoring
from scratch_dl.models import count_parameters
from scratch_dl.system import provenance
from scratch_dl.terminal.text_table import TextTable
from scratch_dl.training import checkpoint
from scratch_dl.verification.counterparts import check_equal, in_channels_last, pytorch_optimizer, pytorch_twin

sys.path.insert(0, str(Path(__file__).parents[1]))
from _trainings import Point, train_all

HERE = Path(__file__).parent
BEGIN, END = "<!-- tables: written by run.py -->", "<!-- end of tables -->"
PARTS = ("sweeps", "seeds", "finals", "long")
PICTURES = {
    "trials": "PSNR of every trial by kernel size, without the fault and with it",
    "photograph": "a test photograph: noisy, denoised by the networks that were trained longest and by BM3D, and clean",
}
F1 = "sigmoid_gradient_at_upstream"
SEEDS = (0, 1, 2)
TOP, BEST = 5, 10  # geometries trained again over seeds, and shown

KERNELS = ("2", "3", "4", "5", "6", "[6,4,4,6]", "[5,3,3,5]")
MODES = ("nearest", "transposed")
RECIPE = ("optimizer=adam", "optimizer.lr=0.002", "schedule=cosine", "model.init=xavier")
SPACE = (
    "model.channels=[32,64,32]", f"model.kernel_size=choice({','.join(KERNELS)})", "model.channels.0=16,32,64",
    "model.channels.1=32,64,128", "model.channels.2=16,32,64",
)  # fmt: skip
TRIAL_EPOCHS = 8  # as conf/search/geometry.yaml has it
# sweep -> its own words, the trials, hydra.sweeper's
SWEEPS = {
    "healthy": ((), 80, ()),
    "fault": ((f"fault={F1}",), 40, ("hydra.sweeper.pruner=none",)),
}
MODELS = ("paper", "unet")
FINALS = [(model, noise) for noise in ("gaussian", "pixelation") for model in MODELS]
LONG_EPOCHS = 100  # about 30 minutes of one core
WHOLE = {"test": "test photographs", "validation": "validation photograph"}
METHODS = ("noisy", "blur", "tv", "nlm")
GOAL_DB = 0.05
# The PSNR of a black output within this.
BLACK_DB = 0.05
_SAY_EVERY_S = 60.0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="everything at a small size, nothing written")
    parser.add_argument("--workers", type=int, default=2, help="processes that train, of one thread each")
    parser.add_argument("--directory", type=Path, default=Path("mlruns"), help="tracking.dir of the runs")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}; seeds needs the sweeps")
    parser.add_argument("--models", default=",".join(MODELS), help=f"some of {','.join(MODELS)}: whose finals to train")
    options = parser.parse_args()
    for option, every in (("parts", PARTS), ("models", MODELS)):
        some = getattr(options, option).split(",")
        setattr(options, option, some)
        if odd := set(some) - set(every):
            parser.error(f"--{option} must be some of {','.join(every)}, but got {sorted(odd)[0]}")
    options.workers = 1 if options.smoke else options.workers
    return options


# --- the sweeps ------------------------------------------------------------------------------------------------------


def sweep_words(name, smoke):
    """What stands behind `python -m scratch_dl.train -m`, Hydra's own words left out, and how many trials."""
    own, n_trials, _ = SWEEPS[name]
    small = ("data.crops_per_epoch=320", "trainer.epochs=1", "data.validation_crops=8", "data.downsample=4",
             "verification=off")  # fmt: skip
    words = ["search=geometry", *RECIPE, *SPACE, *own, *(small if smoke else ())]
    return words, 2 if smoke else n_trials


def sweeper_words(name, workers, directory, smoke):
    _, n_trials = sweep_words(name, smoke)
    return [
        f"hydra.sweeper.study_name=005-{name}", f"hydra.sweeper.workers={workers}",
        f"hydra.sweeper.n_trials={n_trials}", *SWEEPS[name][2], f"tracking.dir='{directory}'",
        f"tracking.experiment={HERE.name}",
    ]  # fmt: skip


def sweep(name, options, directory):
    """Search by the real command, until the study has its trials; Optuna's study, its rows, and what stands for it."""
    words, _ = sweep_words(name, options.smoke)
    more = sweeper_words(name, options.workers, directory, options.smoke)
    process = subprocess.Popen([sys.executable, "-m", "scratch_dl.train", "-m", *words, *more])
    try:
        status = process.wait()
    except BaseException as stopped:
        if not isinstance(stopped, KeyboardInterrupt):  # which it has got from the terminal, too
            process.terminate()
        process.wait()
        raise
    if status in (130, 143, -signal.SIGINT, -signal.SIGTERM):
        raise KeyboardInterrupt
    study, results = found_in_storage(words, more)
    # A sweep of which no trial is complete ends with an error, and is a result all the same.
    if status and (missing := study.missing()):
        raise SystemExit(f"the sweep {name} ended with status {status}, and {missing} trials are missing")
    return study, results


def found_in_storage(words, more):
    """The study as Optuna has kept it, and its results."""
    from scratch_dl.search.settings import read_settings
    from scratch_dl.search.space import read_space
    from scratch_dl.search.study import Study
    from scratch_dl.search.trial_result import StudySummary, best_trials

    def compose(given):
        return compose_config("train", [*more, *given])

    config = compose(["search=geometry"])
    space = read_space(config.hydra.sweeper.params, config.hydra.sweeper.conditions, words)
    settings = read_settings(config.hydra, config.tracking.dir)
    study = Study(settings, space, Path(config.tracking.dir).absolute(), compose(list(space.fixed)), compose)
    study.open()
    rows = study.rows()
    return study, StudySummary(
        study=settings.study_name, storage="", space=space.describe(), objectives=settings.objectives,
        n_trials=study.n_trials, sampler=str(settings.sampler), pruner=str(settings.pruner), seed=settings.seed,
        rows=rows, best=best_trials(rows, settings.objectives), retrain={}, test={},
    )  # fmt: skip


def geometry_of(params):
    """Kernel size, mode, channels, and paddings as numbers only where they are not what "same" stands for."""
    kernel, mode = str(params["model.kernel_size"]).replace(" ", ""), params["model.upsampling"]
    sizes = json.loads(kernel) if kernel.startswith("[") else [int(kernel)] * 4
    padding = [params[f"model.padding.{place}"] for place in range(4)]
    return {
        "kernel": kernel, "mode": mode, "channels": [int(params[f"model.channels.{place}"]) for place in range(3)],
        "padding": ["same" if p in ("same", same_padding(place, k, mode)) else p
                    for place, (k, p) in enumerate(zip(sizes, padding, strict=True))],
    }  # fmt: skip


def same_padding(place, kernel, mode):
    """The number that "same" is in conv1, conv2, up1, up2; None where no number does it."""
    if place < 2:
        return (kernel - 1) // 2
    if mode == "nearest":
        return (kernel - 1) // 2 if kernel % 2 else None
    return (kernel - 2) // 2 if kernel % 2 == 0 else None


def described(geometry):
    """(kernel, padding, channels) in few letters."""
    kernel = geometry["kernel"].strip("[]").replace(",", " ")
    padding = "same" if set(geometry["padding"]) == {"same"} else " ".join(map(str, geometry["padding"]))
    return kernel, padding, "-".join(map(str, geometry["channels"]))


def trial_row(row, black_db):
    """Everything the tables and the figure need of a trial from which something came."""
    from scratch_dl.search.failure_groups import cause_label

    outcome = row.result
    found = {
        "number": row.number, "state": row.state, "came": cause_label(row), "copied_from": outcome.copied_from,
        "value": outcome.values[0] if outcome.values else None, "output_class": outcome.output_class,
        "cause": outcome.cause, "parameters": outcome.parameters, "epochs": outcome.epochs, "seconds": outcome.seconds,
        "run_id": outcome.run_id, "last_psnr_db": None, "black": False, **geometry_of(row.params),
    }  # fmt: skip
    if outcome.run_id:
        psnr = tracking.Record(Path(outcome.folder)).history().get("val/psnr_db", [])
        found["last_psnr_db"] = psnr[-1][1] if psnr else None
        near = found["last_psnr_db"] is not None and abs(found["last_psnr_db"] - black_db) <= BLACK_DB
        found["black"] = outcome.output_class == "zeros" or near
    return found


def part_sweeps(options, directory):
    from scratch_dl.search.failure_groups import common_settings, group_by_cause
    from scratch_dl.search.importances import EVALUATORS, importances
    from scratch_dl.search.storage import quiet

    found = {}
    for name in SWEEPS:
        began = time.monotonic()
        study, results = sweep(name, options, directory)
        clean = build(study.base).data.validation[1]
        black_db = metrics.psnr_db(torch.zeros_like(clean), clean)
        ended = [row for row in results.rows if row.result is not None and row.result.state != "discarded"]
        trials = [trial_row(row, black_db) for row in ended]
        one = {
            "n_trials": results.n_trials, "sampler": results.sampler, "pruner": results.pruner, "black_db": black_db,
            "trials": trials,
            "common": [(group.label, list(group.common)) for group in group_by_cause(results)],
            "levels": levels_of(ended), "training_s": round(sum(trial["seconds"] for trial in trials)),
            "this_call_s": round(time.monotonic() - began),
        }  # fmt: skip
        if name == "healthy":
            with quiet():
                by = {key: importances(study.optuna, key, 0, results.objectives[0]) for key in EVALUATORS}
            # Where there are none, a text says why.
            one["importances"] = {EVALUATORS[k]: v if isinstance(v, str) else dict(v.shares) for k, v in by.items()}
            good, rest = (list(map(settings, some)) for some in quarters(trials))
            one["good"] = list(common_settings(good, rest))
        found[name] = one
    return found


def levels_of(rows):
    """PSNR of the noisy validation crops and of their blur, dB."""
    for row in rows:
        summary = Path(row.result.folder) / "summary.json" if row.result.run_id else None
        if summary is not None and summary.is_file():
            scores = json.loads(summary.read_text(encoding="utf-8"))["scores"]
            if "baseline/noisy_psnr_db" in scores:
                return {name: scores[f"baseline/{name}_psnr_db"] for name in METHODS}
    return {}


def ranked(trials):
    """Complete trials, each geometry once, the best first."""
    own = [trial for trial in trials if trial["state"] == "complete" and trial["copied_from"] is None]
    return sorted(own, key=lambda trial: (-trial["value"], trial["number"]))


def quarters(trials):
    """The best quarter of the trained geometries, and the others, the pruned ones among them."""
    rest = [trial for trial in trials if trial["state"] == "pruned" and trial["copied_from"] is None]
    order = [*ranked(trials), *rest]
    cut = max(1, round(len(order) / 4))
    return order[:cut], order[cut:]


def settings(geometry):
    return {
        "kernel_size": described(geometry)[0], "upsampling": geometry["mode"],
        **{f"channels.{place}": number for place, number in enumerate(geometry["channels"])},
        "padding": "same" if set(geometry["padding"]) == {"same"} else "by numbers",
    }  # fmt: skip


# --- the best over seeds ---------------------------------------------------------------------------------------------


def words_of(geometry):
    """The overrides that make it."""
    return (f"model.kernel_size={geometry['kernel']}", f"model.upsampling={geometry['mode']}",
            f"model.channels=[{','.join(map(str, geometry['channels']))}]",
            f"model.padding=[{','.join(map(str, geometry['padding']))}]")  # fmt: skip


def part_seeds(options, directory, sweeps):
    if sweeps is None:
        raise SystemExit("--parts seeds needs the results of the part sweeps, which are not in results.json")
    best = ranked(sweeps["healthy"]["trials"])[: 1 if options.smoke else TOP]
    seeds = SEEDS[:2] if options.smoke else SEEDS
    length = ("data.crops_per_epoch=16", "trainer.epochs=1", "data.validation_crops=8") if options.smoke else (
        f"trainer.epochs={2 * TRIAL_EPOCHS}",)  # fmt: skip
    points = [
        Point(f"trial{trial['number']}-seed{seed}",
              ("model=paper", *RECIPE, *words_of(trial), *length, f"seed={seed}", "trainer.test=false",
               "verification=off", "tracking.detail=trial"))
        for trial in best for seed in seeds
    ]  # fmt: skip
    outcomes = train_all(HERE.name, points, options.workers, directory)
    rows = []
    for trial in best:
        runs = [outcomes[f"trial{trial['number']}-seed{seed}"] for seed in seeds]
        rows.append({
            **trial, "psnr_db": [run.summary.get("progress", {}).get("best_psnr_db") for run in runs],
            "causes": [(run.summary.get("diagnosis") or {}).get("cause") for run in runs],
            "run_ids": [run.run_id for run in runs],
        })  # fmt: skip
    return {"seeds": list(seeds), "epochs": 1 if options.smoke else 2 * TRIAL_EPOCHS, "rows": rows}


# --- the finals ------------------------------------------------------------------------------------------------------


def final_words(model, noise, smoke):
    """The training of a final, but for its seed."""
    small = ("data.crops_per_epoch=16", "trainer.epochs=2", "data.validation_crops=8", "data.downsample=4",
             "verification=off", f"model.channels={'[8,8,8]' if model == 'paper' else 4}") if smoke else ()  # fmt: skip
    return (f"experiment=best_{model}", f"noise={noise}", "trainer.test=true", *small)


def setup_of(words):
    return build(compose_config("train", list(words)))


class Twin:
    """The same training by torch.nn, autograd and torch.optim: weights, batches, rates and choice of the best alike.

    After every epoch everything is kept in a file, so that a training that was cut off goes on from there.

    Args:
        name: of the training.
        words: overrides of the own network's training.
        directory: tracking.dir.
    """

    def __init__(self, name, words, directory):
        self.name, self.words, self.directory = name, words, directory
        self.setup = setup_of(words)
        kernels.use(self.setup.backend)
        self.network = self.setup.network
        self.model = in_channels_last(pytorch_twin(self.network))
        self.optimizer = pytorch_optimizer(self.setup.optimizer, self.model.parameters())
        self.base_lr = self.setup.optimizer.lr
        self.per_epoch = self.setup.data.steps_per_epoch(self.setup.trainer.batch_size)
        self.total = self.per_epoch * self.setup.trainer.epochs
        self.step, self.seconds, self.best_psnr_db, self.best_step, self.best = 0, 0.0, -math.inf, 0, {}
        self.file = directory / "twins" / f"{name}.pt"
        self.file.parent.mkdir(parents=True, exist_ok=True)

    def train(self, epochs=None):
        """Up to the end, or for some epochs; an earlier attempt's file is gone on from."""
        if not self._restore():
            self._check()
            self._validate()
        told = began = time.monotonic()
        end = self.total if epochs is None else min(self.total, self.step + epochs * self.per_epoch)
        while self.step < end:
            self._epoch()
            self._validate()
            self._save()
            if time.monotonic() - told > _SAY_EVERY_S:
                told = time.monotonic()
                print(f"  twin {self.name}: step {self.step} of {self.total}, {self.best_psnr_db:.2f} dB at best, "
                      f"{(told - began) / 60:.0f} minutes", flush=True)  # fmt: skip
        return self

    def scores(self):
        """Its line in the file of all twins: the best weights' scores, computed as those of the own network."""
        self.model.load_state_dict(self.best)
        self._put_into_network()
        scores = {}
        for split in WHOLE:
            scores |= scoring.evaluate_photographs(self.setup.data, self.network, split, self.directory / "cache")[0]
        return {"name": self.name, "words": list(self.words), "scores": scores, "best_psnr_db": self.best_psnr_db,
                "best_step": self.best_step, "training_s": round(self.seconds, 1)}  # fmt: skip

    def _epoch(self):
        setup, loss, began = self.setup, torch.nn.MSELoss(), time.perf_counter()
        for _ in range(self.per_epoch):
            pair = setup.data.batch(self.step, setup.trainer.batch_size, setup.seed)
            input, target = (images.contiguous(memory_format=torch.channels_last) for images in pair)
            for group in self.optimizer.param_groups:
                group["lr"] = self.base_lr * setup.schedule.factor(self.step / self.total)
            self.optimizer.zero_grad()
            with torch.enable_grad():
                error = loss(self.model(input), target)
            error.backward()
            self.optimizer.step()
            self.step += 1
        self.seconds += time.perf_counter() - began

    def _validate(self):
        noisy, clean = self.setup.data.validation
        self._put_into_network()
        psnr = scoring.score(scoring.denoise(self.network, noisy), clean).psnr_db
        if psnr > self.best_psnr_db:
            self.best_psnr_db, self.best_step = psnr, self.step
            self.best = {key: value.clone() for key, value in self.model.state_dict().items()}

    @torch.no_grad()
    def _put_into_network(self):
        for own, theirs in zip(self.network.parameters(), self.model.parameters(), strict=True):
            own.value.copy_(theirs)

    @torch.no_grad()
    def _check(self):
        """Refuse a twin that does not begin as the own network does."""
        noisy = self.setup.data.validation[0][:4]
        check_equal(self.name, (scoring.denoise(self.network, noisy), []), (self.model(noisy), []))

    def _save(self):
        state = {"words": list(self.words), "step": self.step, "seconds": self.seconds, "best": self.best,
                 "best_step": self.best_step, "best_psnr_db": self.best_psnr_db, "model": self.model.state_dict(),
                 "optimizer": self.optimizer.state_dict()}  # fmt: skip
        half = self.file.with_suffix(".tmp")
        torch.save(state, half)
        half.replace(self.file)

    def _restore(self):
        """Whether there was something to go on from."""
        if not self.file.is_file():
            return False
        state = torch.load(self.file, weights_only=True)
        if state["words"] != list(self.words):
            return False
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for key in ("step", "seconds", "best", "best_step", "best_psnr_db"):
            setattr(self, key, state[key])
        return True


def train_twin(job, directory):
    name, words = job
    torch.set_num_threads(1)
    return Twin(name, words, directory).train().scores()


def begin_worker():
    """A worker leaves stopping to its parent, and ends when that does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def leave():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


def train_twins(jobs, workers, directory):
    """Name -> line of every twin, from the file of those that are done; the others are trained."""
    file = directory / "studies" / f"{HERE.name}-twins.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock"), timeout=0):
        done = {}
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
            try:
                done[json.loads(line)["name"]] = json.loads(line)
            except ValueError:  # half a line, of a process that was killed
                continue
        missing = [(name, words) for name, words in jobs if done.get(name, {}).get("words") != list(words)]
        print(f"twins: {len(jobs) - len(missing)} of {len(jobs)} trained before", flush=True)
        began = time.monotonic()
        with multiprocessing.get_context("spawn").Pool(min(workers, len(missing)) or 1, begin_worker) as pool:
            for count, one in enumerate(pool.imap_unordered(partial(train_twin, directory=directory), missing), 1):
                with file.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(one) + "\n")
                done[one["name"]] = one
                print(f"twins: {len(jobs) - len(missing) + count} of {len(jobs)}, "
                      f"{(time.monotonic() - began) / 60:.0f} minutes gone", flush=True)  # fmt: skip
    return {name: done[name] for name, _ in jobs}


def bm3d_outputs(photographs, noise, cache):
    """(sigma, outputs) of BM3D a photograph, kept in `cache`; None without the package.

    Its colour version, bm3d_rgb at its defaults. sigma is the noise's own where that is a number, else what
    scikit-image estimates from the picture, as for the baselines.
    """
    try:
        import bm3d
    except ImportError:
        return None
    from skimage.restoration import estimate_sigma

    found = []
    for photograph in photographs:
        picture = photograph.noisy.permute(1, 2, 0).double().numpy()
        sigma = float(getattr(noise, "std", None) or np.mean(estimate_sigma(picture, channel_axis=2)))
        key = hashlib.sha256(f"{version('bm3d')} {sigma} {picture.shape}".encode() + picture.tobytes()).hexdigest()
        path = cache / f"bm3d-{key[:16]}.pt"
        if not path.is_file():
            print(f"BM3D: {photograph.name}, {noise.name}, sigma {255 * sigma:.1f} / 255", flush=True)
            output = np.ascontiguousarray(bm3d.bm3d_rgb(picture, sigma).transpose(2, 0, 1), dtype=np.float32)
            cache.mkdir(parents=True, exist_ok=True)
            torch.save(torch.from_numpy(output), path)
        found.append((sigma, torch.load(path, weights_only=True).clamp(0, 1)))
    return found


def mean_psnr(outputs, photographs):
    return statistics.mean(
        metrics.psnr_db(output[None], photograph.clean[None])
        for output, photograph in zip(outputs, photographs, strict=True)
    )


def train_own(points, options, directory):
    """Name -> outcome of the package's own trainings; one that failed ends the study."""
    own = train_all(HERE.name, points, options.workers, directory)
    if bad := [outcome for outcome in own.values() if outcome.status != "FINISHED"]:
        raise SystemExit(f"{bad[0].name} ended as {bad[0].status}: {bad[0].reason}")
    return own


def own_row(outcome):
    progress = outcome.summary["progress"]
    return {
        "run_id": outcome.run_id, "own": outcome.summary["scores"], "own_best_psnr_db": progress["best_psnr_db"],
        "own_best_step": progress["best_step"], "own_s": round(progress["training_s"], 1), "steps": progress["step"],
        "parameters": count_parameters(setup_of(outcome.overrides).network),
        "verification": outcome.summary.get("verification"),
    }  # fmt: skip


def bm3d_scores(noises, options, directory):
    """BM3D's mean PSNR by "noise split", and the deviations it was told; None without the package."""
    scores = {}
    for noise in noises:
        data = setup_of(final_words("paper", noise, options.smoke)).data
        for split in WHOLE:
            photographs = data.photographs(split)
            found = bm3d_outputs(photographs, data.noise, directory / "cache")
            scores[f"{noise} {split}"] = None if found is None else {
                "psnr_db": mean_psnr([output for _, output in found], photographs),
                "sigma": [sigma for sigma, _ in found]}  # fmt: skip
    return scores


def part_finals(options, directory, known):
    every = [(model, "gaussian") for model in MODELS] if options.smoke else FINALS
    finals = [(model, noise) for model, noise in every if model in options.models]
    seeds = SEEDS[:1] if options.smoke else SEEDS
    points = [
        Point(f"{model}-{noise}-seed{seed}", (*final_words(model, noise, options.smoke), f"seed={seed}"))
        for model, noise in finals
        for seed in seeds
    ]
    own = train_own(points, options, directory)
    twins = train_twins([(point.name, point.overrides) for point in points], options.workers, directory)
    rows = [row for row in known["rows"] if row["model"] not in options.models] if known else []
    for model, noise in finals:
        for seed in seeds:
            name = f"{model}-{noise}-seed{seed}"
            other = twins[name]
            rows.append({
                "model": model, "noise": noise, "seed": seed, **own_row(own[name]), "twin": other["scores"],
                "twin_best_psnr_db": other["best_psnr_db"], "twin_best_step": other["best_step"],
                "twin_s": other["training_s"],
            })  # fmt: skip
    rows.sort(key=lambda row: (every.index((row["model"], row["noise"])), row["seed"]))
    scores = bm3d_scores(dict.fromkeys(noise for _, noise in every), options, directory)
    return {"seeds": list(seeds), "rows": rows, "bm3d": scores}


def part_long(options, directory):
    longer = () if options.smoke else (f"trainer.epochs={LONG_EPOCHS}",)
    words = {model: (*final_words(model, "gaussian", options.smoke), *longer, "seed=0") for model in MODELS}
    own = train_own([Point(f"{model}-long", words[model]) for model in MODELS], options, directory)
    rows = [{"model": model, **own_row(own[f"{model}-long"])} for model in MODELS]
    figure = draw_photograph({model: own[f"{model}-long"] for model in MODELS}, directory)
    return {"rows": rows, "bm3d": bm3d_scores(["gaussian"], options, directory)}, figure


# --- tables ----------------------------------------------------------------------------------------------------------


def decibel(value, places=2):
    return "-" if value is None or not math.isfinite(value) else f"{value:.{places}f}"


def sweep_tables(found):
    from scratch_dl.search.failure_groups import count_with_copies

    trials = {name: one["trials"] for name, one in found.items()}
    counts, copies = ({name: Counter(trial["came"] for trial in rows if trial["copied_from"] is not None or not copied)
                       for name, rows in trials.items()} for copied in (False, True))  # fmt: skip
    order = sorted(counts["healthy"] | counts["fault"], key=lambda came: (-counts["healthy"][came], came))
    yield TextTable(
        "What came of the trials", "the sweep without a fault beside the control with F1",
        1, ("cause", "healthy", "with F1"),
        [(came, *(count_with_copies(counts[name][came], copies[name][came]) for name in SWEEPS)) for came in order],
    )  # fmt: skip
    levels = found["healthy"]["levels"]
    legend = ", ".join(f"{name} {decibel(levels.get(name))}" for name in ("noisy", "blur"))
    best = ranked(trials["healthy"])[:BEST]
    yield TextTable(
        "The ten best geometries", f"best PSNR on the validation crops, dB; {legend}", 5,
        ("trial", "kernel", "padding", "channels", "upsampling", "parameters", "dB"),
        [(f"{t['number']}", *described(t), t["mode"], f"{t['parameters']:,}", decibel(t["value"])) for t in best],
    )  # fmt: skip
    cells = {(k, m): [t["value"] for t in ranked(trials["healthy"]) if (t["kernel"], t["mode"]) == (k, m)]
             for k in KERNELS for m in MODES}  # fmt: skip
    yield TextTable(
        "By kernel size and upsampling", "healthy sweep: best PSNR, dB, of how many complete trials", 1,
        ("kernel", *MODES),
        [(k.strip("[]").replace(",", " "),
          *(f"{max(cells[k, m]):.2f} of {len(cells[k, m])}" if cells[k, m] else "-" for m in MODES)) for k in KERNELS],
    )  # fmt: skip
    shares = {name: by for name, by in found["healthy"]["importances"].items() if not isinstance(by, str)}
    if shares:
        names = sorted({key for by in shares.values() for key in by},
                       key=lambda key: -sum(by.get(key, 0) for by in shares.values()))  # fmt: skip
        yield TextTable(
            "How much each setting matters", "shares of 1, over the complete trials of the healthy sweep", 1,
            ("setting", *shares), [(key, *(f"{by.get(key, 0):.2f}" for by in shares.values())) for key in names],
        )  # fmt: skip


def sweep_sentences(found):
    control = found["fault"]
    trained = [trial for trial in control["trials"] if trial["last_psnr_db"] is not None]
    black = [trial for trial in trained if trial["black"]]
    named = [trial for trial in trained if trial["cause"] == F1]
    low, high = (f(trial["last_psnr_db"] for trial in trained) for f in (min, max)) if trained else (None, None)
    yield (f"The control: with F1 the output is black in {len(black)} of {len(trained)} trials; their last PSNR is "
           f"{decibel(low)} to {decibel(high)} dB, a black output's is {decibel(control['black_db'])}. The diagnosis "
           f"names F1 in {len(named)} of them.")  # fmt: skip
    refused = {name: sum(trial["state"] == "refused" for trial in one["trials"]) for name, one in found.items()}
    copied = {name: sum(trial["copied_from"] is not None for trial in one["trials"]) for name, one in found.items()}
    minutes = sum(one["training_s"] for one in found.values()) / 60
    yield (f"Refused before any training: {refused['healthy']} points of the healthy sweep, {refused['fault']} of the "
           f"control. Trained before, as \"same\" and a number are one geometry, and copied: {copied['healthy']} and "
           f"{copied['fault']}. All trials together took {minutes:.0f} minutes of one core.")  # fmt: skip
    lines = [("the best quarter", found["healthy"]["good"]), *found["healthy"]["common"]]
    said = [f"- *{label}*: {line}" for label, some in lines for line in some]
    yield "\n".join(["What trials of one kind have in common, in the healthy sweep:", "",
                     *(said or ["- nothing that luck would not do as well"])])  # fmt: skip


def spread(values):
    """Mean and standard deviation."""
    values = [value for value in values if value is not None]
    if not values:
        return None, None
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def pm(values):
    mean, deviation = spread(values)
    return f"{decibel(mean)}±{decibel(deviation)}"


def seed_order(found):
    """The geometries by their means, the best first; one that failed at a seed is last."""
    whole = [row for row in found["rows"] if None not in row["psnr_db"]]
    rest = [row for row in found["rows"] if None in row["psnr_db"]]
    return sorted(whole, key=lambda row: -statistics.mean(row["psnr_db"])) + rest


def seed_tables(found):
    yield TextTable(
        f"The best {len(found['rows'])} over {len(found['seeds'])} seeds",
        f"{found['epochs']} epochs, twice a trial's; best PSNR on the validation crops, dB; ±: standard deviation", 5,
        ("trial", "kernel", "padding", "channels", "upsampling", "in the sweep", "mean", "lowest", "highest"),
        [(f"{row['number']}", *described(row), row["mode"], decibel(row["value"]), pm(row["psnr_db"]),
          *(decibel(f([v for v in row["psnr_db"] if v is not None], default=None)) for f in (min, max)))
         for row in seed_order(found)],
    )  # fmt: skip


def seed_sentences(found):
    order = [row for row in seed_order(found) if None not in row["psnr_db"]]
    if len(order) < 2 or len(found["seeds"]) < 2:
        return
    means = [statistics.mean(row["psnr_db"]) for row in order]
    pooled = math.sqrt(statistics.mean(statistics.variance(row["psnr_db"]) for row in order))
    error = pooled * math.sqrt(2 / len(found["seeds"]))

    def verdict(lead):
        return f"{lead:.2f} dB ({'more' if lead > 2 * error else 'not more'} than twice that)"

    yield (f"Over seeds one geometry varies by {pooled:.2f} dB (pooled standard deviation), so that the difference of "
           f"two means has a standard error of {error:.2f} dB. The best leads the second by "
           f"{verdict(means[0] - means[1])} and number {len(order)} by {verdict(means[0] - means[-1])}.")  # fmt: skip


def final_groups(found):
    """(model, noise) -> its rows, a seed each."""
    groups = {}
    for row in found["rows"]:
        groups.setdefault((row["model"], row["noise"]), []).append(row)
    return groups


def final_tables(found):
    for split, what in WHOLE.items():
        lines = []
        for (model, noise), rows in final_groups(found).items():
            own, other = ([row[who][f"{scoring.PREFIXES[split]}/psnr_db"] for row in rows] for who in ("own", "twin"))
            lines.append((
                noise, model, *map(decibel, levels_beside(rows, found, noise, split).values()), pm(own), pm(other),
                f"{statistics.mean(own) - statistics.mean(other):+.2f}",
            ))  # fmt: skip
        yield TextTable(
            f"Whole {what}",
            f"PSNR, dB; own and twin: mean±standard deviation over {len(found['seeds'])} seeds", 2,
            ("noise", "model", "noisy", "blur", "TV", "NLM", "BM3D", "own", "twin", "own - twin"), lines,
        )  # fmt: skip
    yield TextTable(
        "The trainings", "one thread each; means over the seeds; PSNR on the validation crops, dB", 2,
        ("noise", "model", "parameters", "steps", "own minutes", "twin minutes", "own best step", "twin best step",
         "own on crops", "twin on crops"),
        [(noise, model, f"{rows[0]['parameters']:,}", f"{rows[0]['steps']:,}",
          *(f"{statistics.mean(row[key] for row in rows) / 60:.1f}" for key in ("own_s", "twin_s")),
          *(f"{statistics.mean(row[key] for row in rows):,.0f}" for key in ("own_best_step", "twin_best_step")),
          *(pm([row[key] for row in rows]) for key in ("own_best_psnr_db", "twin_best_psnr_db")))
         for (model, noise), rows in final_groups(found).items()],
    )  # fmt: skip


def levels_beside(rows, found, noise, split):
    """Method -> its PSNR on the photographs of "test" or "validation"; BM3D's may be None."""
    bm3d = found["bm3d"][f"{noise} {split}"]
    levels = {name: rows[0]["own"][f"{scoring.PREFIXES[split]}/{name}_psnr_db"] for name in METHODS}
    return levels | {"bm3d": bm3d and bm3d["psnr_db"]}


def beside_others(model, rows, found):
    """How far the mean of some rows is from every other method, on the test photographs with Gaussian noise."""
    own = statistics.mean(row["own"]["test/psnr_db"] for row in rows)
    levels = levels_beside(rows, found, "gaussian", "test")
    names = {"blur": "blur", "tv": "TV", "nlm": "NLM", "bm3d": "BM3D"}
    leads = {label: own - levels[name] for name, label in names.items() if levels[name] is not None}
    said = [f"{abs(lead):.2f} dB {'above' if lead > 0 else 'below'} {label}" for label, lead in leads.items()]
    return f"Gaussian noise, whole test photographs, {rows[0]['steps']:,} steps: {model} is {', '.join(said)}."


def final_sentences(found):
    groups = final_groups(found)
    for (model, noise), rows in groups.items():
        if noise == "gaussian":
            yield beside_others(model, rows, found)
    differences = {
        group: statistics.mean(row["own"]["test/psnr_db"] for row in rows)
        - statistics.mean(row["twin"]["test/psnr_db"] for row in rows)
        for group, rows in groups.items()
    }
    near = sum(abs(difference) <= GOAL_DB for difference in differences.values())
    (model, noise), most = max(differences.items(), key=lambda one: abs(one[1]))
    yield (f"The means of own network and twin are within {GOAL_DB} dB in {near} of {len(differences)} cases; most "
           f"apart are those of {model} under {noise}, {most:+.2f} dB.")  # fmt: skip
    if any(one is None for one in found["bm3d"].values()):
        yield 'BM3D is left out, not being installed: `pip install "scratch_dl[bm3d]"`, under a non-commercial licence.'
    else:
        sigmas = [255 * sigma for key, one in found["bm3d"].items() if key.startswith("pixelation")
                  for sigma in one["sigma"]]  # fmt: skip
        if sigmas:
            yield (f"BM3D (version {found['bm3d_version']}) is given the true deviation of the Gaussian noise, TV and "
                   "non-local means estimate it. Pixelation has none: all three take scikit-image's estimate, "
                   f"{min(sigmas):.1f} to {max(sigmas):.1f} / 255.")  # fmt: skip


def long_tables(found):
    for split, what in WHOLE.items():
        yield TextTable(
            f"As long as the course allowed: whole {what}", "sigma 25, seed 0, one thread; PSNR, dB", 1,
            ("model", "parameters", "steps", "minutes", "noisy", "blur", "TV", "NLM", "BM3D", "own"),
            [(row["model"], f"{row['parameters']:,}", f"{row['steps']:,}", f"{row['own_s'] / 60:.0f}",
              *map(decibel, levels_beside([row], found, "gaussian", split).values()),
              decibel(row["own"][f"{scoring.PREFIXES[split]}/psnr_db"]))
             for row in found["rows"]],
        )  # fmt: skip


def long_sentences(found):
    for row in found["rows"]:
        yield beside_others(row["model"], [row], found)


# --- figures ---------------------------------------------------------------------------------------------------------


def draw_trials(found):
    """The last PSNR of each trial over its kernel size, coloured by mode: healthy at the left, with F1 at the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (name, title) in zip(panels, (("healthy", "without the fault"), ("fault", "with F1")), strict=True):
        one = found[name]
        for place, (mode, marker) in enumerate(zip(MODES, "os", strict=True)):
            for complete in (True, False):
                some = [t for t in one["trials"] if t["mode"] == mode and t["last_psnr_db"] is not None
                        and t["copied_from"] is None and (t["state"] == "complete") == complete]  # fmt: skip
                # The trial's number as the seed: the same picture every time.
                x = [KERNELS.index(t["kernel"]) + (place - 0.5) * 0.36 + random.Random(t["number"]).uniform(-0.12, 0.12)
                     for t in some]  # fmt: skip
                axes.plot(x, [t["last_psnr_db"] for t in some], marker, color=f"C{place}", markersize=5, alpha=0.8,
                          fillstyle="full" if complete else "none",
                          label=f"{mode}{'' if complete else ', not complete'}" if some else None)  # fmt: skip
        levels = {**{key: found["healthy"]["levels"].get(key) for key in ("noisy", "blur")}, "black": one["black_db"]}
        for (key, level), style in zip(levels.items(), ("--", ":", "-."), strict=True):
            if level is not None:
                axes.axhline(level, linestyle=style, linewidth=1, color="0.4")
                axes.text(len(KERNELS) + 0.55, level, f"{key} {level:.1f}", ha="right", va="bottom", fontsize=8)
        axes.set_xticks(range(len(KERNELS)), [key.strip("[]").replace(",", " ") for key in KERNELS], fontsize=8)
        axes.set(xlabel="kernel size", title=title, xlim=(-0.5, len(KERNELS) + 0.6))
        axes.grid(axis="y", alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 0.15))
    panels[0].set_ylabel("PSNR on the validation crops at a trial's end, dB")
    return figure


def draw_photograph(outcomes, directory):
    """The first test photograph and a detail of it: noisy, by the two networks, by BM3D, clean."""
    from matplotlib.figure import Figure

    columns, photograph = {}, None
    for model, outcome in outcomes.items():
        setup = setup_of(outcome.overrides)
        photograph = setup.data.photographs("test")[0]
        setup.network.load_state_dict(checkpoint.load(outcome.folder / "checkpoints" / checkpoint.BEST)["network"])
        columns[{"paper": "the paper's network", "unet": "unet"}[model]] = scoring.denoise(
            setup.network, photograph.noisy[None])[0]  # fmt: skip
    strongest = bm3d_outputs([photograph], setup.data.noise, directory / "cache")
    rival = "non-local means" if strongest is None else "BM3D"
    columns[rival] = baselines.denoise("nlm", photograph.noisy) if strongest is None else strongest[0][1]
    columns = {"noisy": photograph.noisy, **columns, "clean": photograph.clean}
    height, width = photograph.clean.shape[1:]
    top, left, size = height // 2, width * 3 // 8, height * 3 // 8
    figure = Figure(figsize=(13, 13 / len(columns) * (height / width + 1) + 0.5), dpi=110, layout="constrained")
    panels = figure.subplots(2, len(columns), height_ratios=(height / width, 1))
    for place, (name, picture) in enumerate(columns.items()):
        title = name
        if name != "clean":
            scored = picture if name == "noisy" else picture.clamp(0, 1)  # as in all tables
            title = f"{name}\n{decibel(metrics.psnr_db(scored[None], photograph.clean[None]))} dB"
        shown = picture.clamp(0, 1).permute(1, 2, 0).numpy()
        panels[0, place].imshow(shown, interpolation="nearest")
        panels[0, place].set_title(title, fontsize=10)
        panels[1, place].imshow(shown[top : top + size, left : left + size], interpolation="nearest")
        for axes in panels[:, place]:
            axes.set_axis_off()
    return figure


# --- the whole -------------------------------------------------------------------------------------------------------


def shown(results):
    """Title, tables and sentences of every part that there are results of."""
    for part, tables, sentences in (
        ("sweeps", sweep_tables, sweep_sentences),
        ("seeds", seed_tables, seed_sentences),
        ("finals", final_tables, final_sentences),
        ("long", long_tables, long_sentences),
    ):
        if part in results:
            yield part, list(tables(results[part])), list(sentences(results[part]))


def write(results, figures):
    """results.json, the figures, and the part of README.md between the two comments."""
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for name, figure in figures.items():
        figure.savefig(HERE / f"{name}.png")
    machine = results["machine"]
    body = [f"On {machine['cpu']}, {machine['usable_cores']} cores, torch {machine['torch']}."]
    belongs = {"sweeps": "trials", "long": "photograph"}
    for part, tables, sentences in shown(results):
        body += [*(table.markdown() for table in tables), *sentences]
        if part in belongs and (HERE / f"{belongs[part]}.png").is_file():
            body.append(f"![{PICTURES[belongs[part]]}]({belongs[part]}.png)")
    readme = HERE / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    text = "\n\n".join(body)
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def study(options, directory):
    torch.set_num_threads(1)
    kernels.use("auto")
    began, path = time.monotonic(), HERE / "results.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() and not options.smoke else {}
    machine = {key: provenance.environment()[key] for key in ("cpu", "usable_cores", "python", "platform")}
    results, figures = {**known, "machine": {**machine, "torch": str(torch.__version__)}}, {}
    for part in PARTS:
        if part not in options.parts:
            continue
        if part == "sweeps":
            results[part] = part_sweeps(options, directory)
            figures["trials"] = draw_trials(results[part])
        elif part == "seeds":
            results[part] = part_seeds(options, directory, results.get("sweeps"))
        elif part == "finals":
            results[part] = part_finals(options, directory, results.get("finals"))
            if all(results[part]["bm3d"].values()):
                results[part]["bm3d_version"] = version("bm3d")
        else:
            results[part], figures["photograph"] = part_long(options, directory)
        if not options.smoke:  # at once, as the next part takes long
            write(results, figures)
    console = Console(highlight=False, soft_wrap=True)
    for _, tables, sentences in shown(results):
        for table in tables:
            console.print(table.rich())
        for sentence in sentences:
            console.print(sentence, markup=False)
    if options.smoke:
        for name, figure in figures.items():
            figure.savefig(directory / f"{name}.png")
        return
    print(f"done in {(time.monotonic() - began) / 60:.1f} minutes; look: python -m scratch_dl.ui")


def main():
    options = arguments()

    def leave(number, _frame):
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        if options.smoke:
            with tempfile.TemporaryDirectory() as folder:
                study(options, Path(folder))
        else:
            study(options, options.directory.expanduser().absolute())
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
