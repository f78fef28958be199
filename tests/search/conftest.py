"""Small searches in folders of their own: run here or in processes, and read back by Optuna's and MLflow's means."""

import io
import json
import os
import shutil
import signal
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

import pytest

import preloaded

# One set of crops and photographs for all, so that what is known of the baselines serves every search.
DATA = ("experiment=paper_sgd", "debug=fast", "data.downsample=4", "data.test=[coffee]")
SMALL = (*DATA, "verification=off", "diagnosis=off", "trainer.epochs=2", "data.crops_per_epoch=32",
         "trainer.batch_size=8", "threads=1", "model.channels=[4,4,4]")  # fmt: skip
HOOK = """
import json, os, time
if "SWEEP_HOOK" in os.environ:
    from hydra.core.hydra_config import HydraConfig
    from scratch_dl.training.loop import Training
    hook, step = json.loads(os.environ["SWEEP_HOOK"]), Training.take_step
    def hooked(self, batch):
        here = HydraConfig.get().sweeper.trial == hook["trial"] and self.progress.step == hook["step"]
        if here and not os.path.exists(hook["flag"]):
            with open(hook["flag"], "w") as file:
                file.write(str(os.getpid()))
            if hook["signal"] is not None:
                os.kill(os.getpid(), hook["signal"])
            while hook["signal"] is None:
                time.sleep(0.05)
        time.sleep(hook["slow"])
        step(self, batch)
    Training.take_step = hooked
"""


class Place:
    """A folder `mlruns` and what searches have left there."""

    def __init__(self, folder, storage=None, uri=None):
        self.folder = folder
        self.storage = storage or f"sqlite:///{folder}/optuna.db"
        self.uri = uri or f"sqlite:///{folder}/mlflow.db"

    def arguments(self, *more):
        """Of a small search that is kept here."""
        search = () if any(word.startswith("search=") for word in more) else ("search=custom",)
        given = {word.partition("=")[0] for word in more}  # a search takes each key once
        small = [word for word in SMALL if word.partition("=")[0] not in given]
        return ["-m", *search, *small, f"tracking.dir={self.folder}", *more]

    def study(self, name="custom"):
        import optuna
        from optuna.storages import JournalStorage, RDBStorage
        from optuna.storages.journal import JournalFileBackend

        storage = self.storage
        if "://" not in storage:
            storage = JournalStorage(JournalFileBackend(storage))
        elif storage.startswith("postgresql"):  # whose other tables are MLflow's
            from sqlalchemy.pool import NullPool

            from scratch_dl.search.storage import SCHEMA

            options = f"-csearch_path={SCHEMA}"
            storage = RDBStorage(storage, {"connect_args": {"options": options}, "poolclass": NullPool})
        return optuna.load_study(study_name=name, storage=storage)

    def trials(self, name="custom"):
        return self.study(name).trials

    def results(self, name="custom"):
        """What Optuna's attribute has of every trial; None of one that runs, waits or was killed by SIGKILL."""
        return [trial.user_attrs.get("result") for trial in self.trials(name)]

    def states(self, name="custom"):
        return [None if result is None else result["state"] for result in self.results(name)]

    def numbers(self, *states, name="custom"):
        return [number for number, state in enumerate(self.states(name)) if state in states]

    def client(self):
        from mlflow import MlflowClient

        return MlflowClient(self.uri)

    def runs(self, name="custom"):
        """(the study's run, number of a trial -> its run), of one experiment."""
        client = self.client()
        experiment = client.get_experiment_by_name("custom") or client.get_experiment_by_name(name)
        found = [
            run
            for run in client.search_runs([experiment.experiment_id], max_results=1000)
            if run.data.tags["study"] == name
        ]
        parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
        assert len(parents) == 1, parents
        nested = [run for run in found if run is not parents[0]]
        assert {run.data.tags["mlflow.parentRunId"] for run in nested} <= {parents[0].info.run_id}
        assert len({run.data.tags["trial"] for run in nested}) == len(nested)
        return parents[0], {int(run.data.tags["trial"]): run for run in nested}

    def history(self, number, metric="val/psnr_db", name="custom"):
        """A metric's values in a trial's own record, from the one before the first step on."""
        from scratch_dl.tracking import Journal

        folder = self.results(name)[number]["folder"]
        return [value for _, value in Journal(type(self.folder)(folder)).history()[metric]]


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """A folder with the tables of both databases and the baselines' scores; to make them costs seconds."""
    import optuna

    from scratch_dl import tracking
    from scratch_dl.config.build import build
    from scratch_dl.config.composing import compose_config
    from scratch_dl.evaluation import baselines
    from scratch_dl.search.storage import quiet

    folder = tmp_path_factory.mktemp("tables") / "mlruns"
    data = build(compose_config("train", [*SMALL, f"tracking.dir={folder}"])).data
    for split in ("crops", "validation", "test"):
        baselines.baseline_psnr(data, split, folder / "cache")
    tracking.open_store(folder, None)
    with quiet():
        optuna.storages.RDBStorage(f"sqlite:///{folder}/optuna.db")
    return folder


@pytest.fixture(scope="session")
def place(tables, tmp_path_factory):
    """Makes a place with empty tables; with other addresses for the study and for MLflow, if they are given."""

    def make(storage=None, uri=None):
        folder = tmp_path_factory.mktemp("searches") / "mlruns"
        shutil.copytree(tables / "cache", folder / "cache")
        for name, other in (("optuna.db", storage), ("mlflow.db", uri)):
            if other is None:
                shutil.copy(tables / name, folder)
        return Place(folder, storage, uri)

    return make


@pytest.fixture(scope="session")
def search():
    """Runs a small search in this process, as typed: its exit status, stdout and stderr; its pictures only if asked."""

    def run(place, *arguments, pictures=False, prepare=lambda _: None):
        from scratch_dl import train
        from scratch_dl.search import plots

        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", ["scratch_dl.train", *place.arguments(*arguments)])
            patch.setenv("HYDRA_FULL_ERROR", "0")  # and so it is gone afterwards
            if not pictures:
                patch.setattr(plots, "write_plots", lambda *_: {})
            prepare(patch)
            try:
                train.main()
            except SystemExit as stop:
                status = stop.code
            else:
                status = 0
        return SimpleNamespace(returncode=status, stdout=out.getvalue(), stderr=err.getvalue())

    return run


@pytest.fixture(scope="session")
def started(tmp_path_factory):
    """Starts a small search in processes of its own, and ends it if the test does not.

    `trial` is where its process meets a signal, or with None waits for ever, before a step, once; `slow` are seconds
    that each step takes more.
    """
    running = []
    hooks = tmp_path_factory.mktemp("hooks")
    (hooks / "sitecustomize.py").write_text(HOOK)

    def start(place, *arguments, trial=-1, step=2, signal=None, slow=0.0):
        flag = hooks / f"flag-{time.monotonic_ns()}"
        hook = {"trial": trial, "step": step, "signal": signal, "slow": slow, "flag": str(flag)}
        path = os.pathsep.join(filter(None, [str(hooks), os.environ.get("PYTHONPATH")]))
        process = preloaded.Popen(
            [sys.executable, "-m", "scratch_dl.train", *place.arguments(*arguments)],
            cwd=place.folder.parent, env={**os.environ, "SWEEP_HOOK": json.dumps(hook), "PYTHONPATH": path},
            stdout=preloaded.PIPE, stderr=preloaded.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        process.flag = flag
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture(scope="session")
def ended():
    """Waits for a process: its exit status, stdout and stderr."""

    def wait(process, timeout=180):
        out, err = process.communicate(timeout=timeout)
        return SimpleNamespace(returncode=process.returncode, stdout=out, stderr=err)

    return wait


@pytest.fixture(scope="session")
def until():
    """Waits until something is so, while a process runs."""

    def wait(condition, process, seconds=120):
        end = time.monotonic() + seconds
        while not condition():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end, "it does not come to pass"
            time.sleep(0.05)

    return wait
