"""Look at the runs: `python -m scratch_dl.ui [tracking.dir=mlruns] [tracking.uri=...] [port=5000]`.

Runs MLflow's own pages on the right store, on 127.0.0.1 only; Ctrl-C ends it.
"""

import ctypes
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from scratch_dl.config.environment import URI, check_variable, say_used
from scratch_dl.config.overrides import as_text
from scratch_dl.system.addresses import check_uri
from scratch_dl.system.checks import nearest
from scratch_dl.system.passwords import hide
from scratch_dl.tracking import Store, TrackingError, open_store
from scratch_dl.tracking.store import make_ready, unavailable_reason

HOST = "127.0.0.1"
DEFAULTS = {"tracking.dir": "mlruns", "tracking.uri": None, "port": 5000}
USAGE = """usage: python -m scratch_dl.ui [tracking.dir=mlruns] [tracking.uri=...] [port=5000]

  tracking.dir   the folder of the runs, as given to scratch_dl.train
  tracking.uri   another database; a server shows its own pages already
  port           where to listen, on 127.0.0.1 only"""
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 10.0
_PR_SET_PDEATHSIG = 1  # of prctl(2)


class UsageError(ValueError):
    """A command that cannot be carried out as given; the message is one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the runs until interrupted, and return the exit status: 0, 1 for a failure, 2 for a wrong command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if any(word in {"--help", "-h"} for word in given):
        print(USAGE)
        return 0
    try:
        options = with_environment(parse(given), given)
        return show(store_of(options), options["port"])
    except UsageError as error:
        print(f"scratch_dl.ui: {hide(str(error))}", file=sys.stderr)
        return 2
    except TrackingError as error:
        print(f"scratch_dl.ui: {hide(str(error))}", file=sys.stderr)
        return 1


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the options given as key=value over the defaults.

    Raises:
        UsageError: naming the key, the value and the rule.
    """
    options: dict[str, Any] = dict(DEFAULTS)
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in DEFAULTS:
            hint = nearest(key, DEFAULTS) or f"; the keys are {', '.join(DEFAULTS)}"
            raise UsageError(f"unknown key {key!r}{hint}")
        if not equals:
            raise UsageError(f"{key} needs a value: {key}=...")
        if "${" in value:
            raise UsageError(f"{argument} cannot be read: ${{...}} has no meaning here")
        options[key] = as_text(value)
    port = str(options["port"])
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise UsageError(f"port must be a whole number from 1 to 65535, but got {options['port']!r}")
    return {**options, "port": int(port)}


def with_environment(options: dict[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """Return the options, with the address of MLFLOW_TRACKING_URI if the arguments name no place.

    Raises:
        UsageError: if an address cannot be used.
    """
    uri = os.environ.get(URI, "")
    try:
        if options["tracking.uri"] is not None:
            check_uri("tracking.uri", options["tracking.uri"])
        elif uri.strip() and not any(one.startswith("tracking.uri=") for one in arguments):
            check_variable(uri)
            say_used(URI, uri, "tracking.uri")
            return {**options, "tracking.uri": uri}
    except ValueError as error:
        raise UsageError(str(error)) from None
    return options


def store_of(options: dict[str, Any]) -> Store:
    """Return the store that the options name, without making one.

    Raises:
        TrackingError: if there is none yet.
    """
    directory = Path(options["tracking.dir"] or "mlruns").expanduser().absolute()
    uri = options["tracking.uri"] or f"sqlite:///{directory / 'mlflow.db'}"
    if uri.startswith("sqlite:///"):
        file = Path(uri.removeprefix("sqlite:///")).absolute()
        if not file.is_file():
            raise TrackingError(f"there are no runs in {file}; train first: python -m scratch_dl.train")
        uri = f"sqlite:///{file}"
    return Store(directory, uri)


def command(store: Store, port: int) -> list[str]:
    """Return the plain MLflow command that shows the store."""
    return [
        *(sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.uri),
        *("--default-artifact-root", str(store.artifact_location)),
        *("--host", HOST, "--port", str(port), "--workers", "1"),
    ]


def show(store: Store, port: int) -> int:
    """Run MLflow's pages until interrupted.

    Raises:
        UsageError: if the port is taken; the message names a free one.
        TrackingError: if MLflow cannot open the store.
    """
    if store.is_server:
        print(f"{store.shown} is a server with pages of its own: open it in a browser")
        return 0
    if not _is_free(port):
        raise UsageError(f"port={port} is taken by another program; port={_free_port()} is free")
    words = command(store, port)
    settings = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Runs of a training need none of the job workers, three more processes.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    make_ready(store)
    url = f"http://{HOST}:{port}"
    print(
        f"starting MLflow's pages; the same by hand: MLFLOW_DISABLE_TELEMETRY=true {hide(shlex.join(words))}",
        flush=True,
    )
    with tempfile.TemporaryFile() as log:
        # In a session of its own, so that Ctrl-C reaches this process alone, which then ends the others in order.
        process = subprocess.Popen(
            words, env={**settings, **os.environ}, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=_end_with_parent,
        )  # fmt: skip
        before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
        try:
            _wait_until_it_answers(process, url, store, log)
            print(f"open {url} and choose 'Model training' at the top left; Ctrl-C ends it", flush=True)
            status = process.wait()
            raise TrackingError(f"MLflow's pages ended by themselves, status {status}: {_last_line(log)}")
        except KeyboardInterrupt:
            print("\nended", flush=True)
            return 0
        finally:
            _end(process)
            for number, handler in before.items():
                signal.signal(number, handler)


def _wait_until_it_answers(process: "subprocess.Popen[bytes]", url: str, store: Store, log: IO[bytes]) -> None:
    end = time.monotonic() + _START_TIMEOUT_S
    while unavailable_reason(Store(store.directory, url), 1.0) is not None:
        if process.poll() is not None:
            open_store(store.directory, store.uri)  # says in one line what is wrong with the store, if it is that
            raise TrackingError(f"MLflow's pages did not start: {_last_line(log)}")
        if time.monotonic() > end:
            raise TrackingError(f"MLflow's pages did not answer on {url} in {_START_TIMEOUT_S:g} s: {_last_line(log)}")
        time.sleep(0.2)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End MLflow and every process it has started."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(family, timeout=1)
    for child in alive:
        child.terminate()
    for child in psutil.wait_procs(alive, timeout=2)[1]:
        child.kill()


def _end_with_parent() -> None:
    """Let the kernel end MLflow's pages when this process is killed and cannot; only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it printed nothing"


if __name__ == "__main__":
    sys.exit(main())
