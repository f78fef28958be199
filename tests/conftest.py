"""What tests all over the tree share: one thread, and a seeded generator of their own."""

import contextlib
import importlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import torch
from variants import BACKENDS

from scratch_dl import kernels


def pytest_configure():
    """One thread: on tensors of this size more of them wait for one another, eight times as long on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def run_command(tmp_path, monkeypatch, capsys):
    """Run a command in this process and the test's folder: (module, *arguments) -> (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # a command changes it; this restores it afterwards

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        capsys.readouterr()
        status = 0
        try:
            importlib.import_module(f"scratch_dl.{module}").main()
        except SystemExit as stop:
            status = stop.code or 0
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    """Of one test for the next: a user's `my_layers` of its own folder, and what a command or MLflow has set."""
    names = ("HYDRA_FULL_ERROR", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID")
    before = {name: os.environ[name] for name in names if name in os.environ}
    for name in names[1:]:
        os.environ.pop(name, None)
    yield
    sys.modules.pop("my_layers", None)
    for name in names:
        os.environ.pop(name, None)
    os.environ.update(before)


@pytest.fixture(scope="session", autouse=True)
def tables_made_once(tmp_path_factory):
    """MLflow makes its tables in a second: the first sqlite database is copied for the next ones."""
    from scratch_dl.tracking import database

    template = tmp_path_factory.mktemp("tables") / "mlflow.db"
    make = database._make_tables

    def copy(uri, artifact_location):
        file = database.sqlite_file(uri)
        if file is None:
            make(uri, artifact_location)
            return
        if not template.exists():
            make(f"sqlite:///{template}", artifact_location)
        shutil.copy(template, file)
        with contextlib.closing(sqlite3.connect(file)) as copied, copied:
            copied.execute("UPDATE experiments SET artifact_location = ? || '/0'", (artifact_location,))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_make_tables", copy)
        yield make


@pytest.fixture(scope="session")
def killed_at():
    """A step -> a program that trains by its arguments, and is killed by SIGKILL before that step."""
    program = """
import os, signal, sys
from scratch_dl.training import loop
step = loop.Training.take_step
def killing(self, batch):
    if self.progress.step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, batch)
loop.Training.take_step = killing
from scratch_dl import train
sys.argv = ["train", *sys.argv[1:]]
train.main()
"""
    return lambda step: program.format(step=step)


@pytest.fixture
def in_process(monkeypatch, capsys):
    """Runs a command's main in this process, as typed with the arguments: (exit status, stdout, stderr)."""

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
        try:
            module.main()
        except SystemExit as stop:
            status = stop.code
        else:
            status = 0
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def server():
    """Runs `mlflow server` on a store's database: yields its port and process, and ends it with all its children."""

    @contextlib.contextmanager
    def serve(store, port=None):
        from scratch_dl.tracking.store import Store, unavailable_reason

        port = port or free_port()
        words = [
            *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri, "--host", "127.0.0.1"),
            *("--port", str(port), "--workers", "1", "--artifacts-destination", str(store.directory / "remote")),
        ]
        settings = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        process = subprocess.Popen(words, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        family = []
        try:
            end = time.monotonic() + 60
            while unavailable_reason(Store(store.directory, f"http://127.0.0.1:{port}"), 1.0) is not None:
                assert process.poll() is None, "the server did not start"
                assert time.monotonic() < end, "the server did not answer in 60 s"
                time.sleep(0.1)
            family = psutil.Process(process.pid).children(recursive=True)
            yield port, process
        finally:
            for each in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            process.kill()
            process.wait()

    return serve


@pytest.fixture
def mounted(tmp_path):
    """Mounts a file system of a kind and size below the test's folder, and returns where; it is gone after the test."""
    ended = contextlib.ExitStack()

    def mount(kind, size):
        if os.geteuid() != 0:
            pytest.skip("only root may mount a file system")
        folder = tmp_path / kind
        folder.mkdir()
        if kind == "exfat":
            image = tmp_path / "exfat.image"
            with image.open("wb") as file:
                file.truncate(int(size.removesuffix("m")) << 20)
            _run("mkfs.exfat", image)
            device = _run("losetup", "--find", "--show", image).strip()
            ended.callback(_run, "losetup", "--detach", device)
            _run("mount.exfat-fuse", device, folder)
        else:
            _run("mount", "-t", kind, "-o", f"size={size}", kind, folder)
        ended.callback(_run, "umount", "--lazy", folder)
        return folder

    with ended:
        yield mount


def _run(*words):
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True).stdout


@pytest.fixture
def generator():
    """A generator of the test's own, so that no test depends on what ran before it."""
    return torch.Generator().manual_seed(20240607)


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Each backend in turn."""
    before = kernels.used()
    kernels.use(request.param)
    yield request.param
    kernels.use(before)


@pytest.fixture(scope="session")
def postgres():
    """A real PostgreSQL on 127.0.0.1 that lives as long as the tests: makes an empty database and returns its URL."""
    with Postgres() as server:
        yield server.database


@pytest.fixture
def own_postgres():
    """A PostgreSQL of the test's own, that it may kill and start again."""
    with Postgres(forgets=False) as server:
        yield server


class Postgres:
    """A cluster in a temporary folder, and the process that serves it on 127.0.0.1.

    Args:
        forgets: whether it may forget the last transactions when it is killed, by which it is faster.
    """

    def __init__(self, forgets=True):
        self.synchronous_commit = "off" if forgets else "on"

    def __enter__(self):
        initdb = _initdb()
        if initdb is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)("no PostgreSQL here: apt-get install postgresql")
        # Not below pytest's own folder, which no other user may enter.
        self.temporary = tempfile.TemporaryDirectory(prefix="scratch_dl_pg_", ignore_cleanup_errors=True)
        self.folder, self.password = Path(self.temporary.name), secrets.token_hex(8)
        (self.folder / "password").write_text(self.password)
        self.program, self.user = initdb.with_name("postgres"), ["setpriv", "--no-new-privs"]
        if os.geteuid() == 0:  # whom PostgreSQL refuses
            owner = next(entry for name in ("postgres", "nobody") for entry in pwd.getpwall() if entry.pw_name == name)
            self.user += ["--reuid", str(owner.pw_uid), "--regid", str(owner.pw_gid), "--clear-groups"]
            for path in (self.folder, self.folder / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        self.cluster = ["-D", str(self.folder / "data")]
        options = ["-U", "tester", "-A", "scram-sha-256", "--pwfile", str(self.folder / "password"), "--no-sync"]
        words = [*self.user, str(initdb), *self.cluster, *options, "-E", "UTF8", "--locale=C"]
        subprocess.run(words, stdout=subprocess.DEVNULL, cwd=self.folder, timeout=120, check=True)
        self.port = free_port()
        self.start()
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()
        self.temporary.cleanup()

    def start(self):
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self.folder,
                    "fsync": "off", "synchronous_commit": self.synchronous_commit, "full_page_writes": "off",
                    "shared_buffers": "32MB"}  # fmt: skip
        # A child, so that it is surely the one that is ended; and it ends by itself if pytest is killed.
        words = [*self.user, "--pdeathsig", "INT", str(self.program), *self.cluster]
        words += [f"--{key}={value}" for key, value in settings.items()]
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, cwd=self.folder)
        self.execute("SELECT 1")

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)  # SIGINT is "fast": without waiting for connections that are left in pools
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def database(self):
        database = f"test_{secrets.token_hex(4)}"
        self.execute(f"CREATE DATABASE {database}")
        return f"postgresql+psycopg://tester:{self.password}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement):
        """Wait until the server answers, and let it do one thing."""
        import psycopg

        end = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2000:]}"
            try:
                with psycopg.connect(
                    host="127.0.0.1", user="tester", dbname="postgres", autocommit=True, port=self.port,
                    password=self.password
                ) as connection:  # fmt: skip
                    connection.execute(statement)
                    return
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)


def _initdb():
    """The newest of Debian's, which are not on the PATH, or the one that is."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    plain = shutil.which("initdb")
    return found[-1] if found else Path(plain).resolve() if plain else None
