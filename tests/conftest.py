"""What tests all over the tree share: one thread, and a seeded generator of their own."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch


def pytest_configure():
    """One thread: on tensors of this size more of them wait for one another, eight times as long on a busy machine."""
    torch.set_num_threads(1)


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


@pytest.fixture(scope="session")
def killed_at():
    """A step -> a program that trains by its arguments, and is killed by SIGKILL before that step."""
    program = """
import os, signal, sys
from scratch_dl import training
step = training.Training._step
def killing(self, batch):
    if self.progress.step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, batch)
training.Training._step = killing
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


@pytest.fixture
def generator():
    """A generator of the test's own, so that no test depends on what ran before it."""
    return torch.Generator().manual_seed(20240607)


@pytest.fixture(scope="session")
def postgres():
    """A real PostgreSQL on 127.0.0.1 that lives as long as the tests: makes an empty database and returns its URL."""
    initdb = _initdb()
    if initdb is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no PostgreSQL here: apt-get install postgresql")
    # Not below pytest's own folder, which no other user may enter.
    with tempfile.TemporaryDirectory(prefix="scratch_dl_pg_", ignore_cleanup_errors=True) as name:
        folder, password = Path(name), secrets.token_hex(8)
        (folder / "password").write_text(password)
        user = ["setpriv", "--no-new-privs"]
        if os.geteuid() == 0:  # whom PostgreSQL refuses
            owner = next(entry for name in ("postgres", "nobody") for entry in pwd.getpwall() if entry.pw_name == name)
            user += ["--reuid", str(owner.pw_uid), "--regid", str(owner.pw_gid), "--clear-groups"]
            for path in (folder, folder / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        cluster = ["-D", str(folder / "data")]
        options = ["-U", "tester", "-A", "scram-sha-256", "--pwfile", str(folder / "password"), "--no-sync"]
        words = [*user, str(initdb), *cluster, *options, "-E", "UTF8", "--locale=C"]
        subprocess.run(words, stdout=subprocess.DEVNULL, cwd=folder, timeout=120, check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder, "fsync": "off",
                    "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "32MB"}  # fmt: skip
        # A child, so that it is surely the one that is ended; and it ends by itself if pytest is killed.
        words = [*user, "--pdeathsig", "INT", str(initdb.with_name("postgres")), *cluster]
        words += [f"--{key}={value}" for key, value in settings.items()]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(words, stdout=log, stderr=log, cwd=folder)
        try:

            def fresh():
                database = f"test_{secrets.token_hex(4)}"
                _execute(f"CREATE DATABASE {database}", server, folder / "log", port=port, password=password)
                return f"postgresql+psycopg://tester:{password}@127.0.0.1:{port}/{database}"

            yield fresh
        finally:
            server.send_signal(signal.SIGINT)  # "fast": without waiting for connections that are left in pools
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _initdb():
    """The newest of Debian's, which are not on the PATH, or the one that is."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    plain = shutil.which("initdb")
    return found[-1] if found else Path(plain).resolve() if plain else None


def _execute(statement, server, log, **how):
    """Wait until the server answers, and let it do one thing."""
    import psycopg

    end = time.monotonic() + 60
    while True:
        assert server.poll() is None, f"PostgreSQL did not start: {log.read_text()[-2000:]}"
        try:
            with psycopg.connect(
                host="127.0.0.1", user="tester", dbname="postgres", autocommit=True, **how
            ) as connection:
                connection.execute(statement)
                return
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
