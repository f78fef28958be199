"""`python -m scratch_dl.ui [tracking.dir=mlruns] [tracking.uri=...] [port=5000]`: look at the runs.

Serves MLflow's own pages for the store, on 127.0.0.1 only; Ctrl-C ends it.
"""

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

from scratch_dl.cli.errors import exit_with
from scratch_dl.config.environment import URI, check_variable, print_used
from scratch_dl.config.overrides import unquoted
from scratch_dl.system.addresses import check_uri
from scratch_dl.system.checks import nearest
from scratch_dl.system.errors import ConfigError
from scratch_dl.system.passwords import hide
from scratch_dl.system.processes import end_family, end_with_parent
from scratch_dl.tracking import Store, TrackingError, open_store
from scratch_dl.tracking.mlflow_calls import mlflow_call
from scratch_dl.tracking.store import client, make_ready, unavailable_reason
from scratch_dl.tracking.views import CURVES, RESULTS, has_view, page, start_page

HOST = "127.0.0.1"
DEFAULTS = {"tracking.dir": "mlruns", "tracking.uri": None, "port": 5000}
USAGE = """usage: python -m scratch_dl.ui [tracking.dir=mlruns] [tracking.uri=...] [port=5000]

  tracking.dir   the folder of the runs, as given to scratch_dl.train
  tracking.uri   another database; a server shows its own pages already
  port           where to listen, on 127.0.0.1 only"""
_START_TIMEOUT_S = 120.0
_PROBE_TIMEOUT_S = 2.0
_SHOWN = 4  # experiments whose pages are printed
# No telemetry, and none of MLflow's job workers, which would be three more processes.
_ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def main() -> None:
    """Entry point of the command: show the runs until interrupted."""
    arguments = sys.argv[1:]
    if {"--help", "-h"} & set(arguments):
        print(USAGE)
        return
    try:
        options = parse(arguments)
        show(store_of(options), options["port"])
    except (ConfigError, TrackingError) as error:
        exit_with(error)


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the options: those given as key=value, else the environment's address and the defaults.

    Raises:
        ConfigError: naming the key, the value and the rule.
    """
    options: dict[str, Any] = dict(DEFAULTS)
    uri = os.environ.get(URI, "")
    if uri.strip() and not any(argument.startswith("tracking.uri=") for argument in arguments):
        check_variable(uri)
        print_used(URI, uri, "tracking.uri")
        options["tracking.uri"] = uri
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in DEFAULTS:
            hint = nearest(key, DEFAULTS) or f"; there are: {', '.join(DEFAULTS)}"
            raise ConfigError(f"{key} is not a setting{hint}")
        if not equals:
            raise ConfigError(f"{key} must be given as {key}=..., but its value is missing")
        if "${" in value:
            raise ConfigError(f"{argument} cannot be read: ${{...}} has no meaning here")
        options[key] = unquoted(value)
    port = str(options["port"])
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ConfigError(f"port must be a whole number from 1 to 65535, but got {options['port']!r}")
    return {**options, "port": int(port)}


def store_of(options: dict[str, Any]) -> Store:
    """Return the store that the options name, without creating one.

    Raises:
        ConfigError: if its address cannot be used.
        TrackingError: if it does not exist yet.
    """
    directory = Path(options["tracking.dir"] or "mlruns").expanduser().absolute()
    uri = options["tracking.uri"] or f"sqlite:///{directory / 'mlflow.db'}"
    try:
        check_uri("tracking.uri", uri)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if uri.startswith("sqlite:///"):
        file = Path(uri.removeprefix("sqlite:///")).absolute()
        if not file.is_file():
            raise TrackingError(f"there are no runs in {file}; train first: python -m scratch_dl.train")
        uri = f"sqlite:///{file}"
    return Store(directory, uri)


def show(store: Store, port: int) -> None:
    """Serve MLflow's pages until interrupted.

    Raises:
        ConfigError: if the port is taken; the message names a free one.
        TrackingError: if MLflow cannot open the store, or ends by itself.
    """
    if store.is_server:
        url = store.shown.rstrip("/")
        print(f"{store.shown} is a server with pages of its own: open {start_page(url)} in a browser")
        if unavailable_reason(store, _PROBE_TIMEOUT_S) is None:
            _print_views(store, url)
        return
    if not is_free(port):
        raise ConfigError(f"port={port} is taken by another program; port={free_port()} is free")
    make_ready(store)
    command = [
        *(sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.uri),
        *("--default-artifact-root", str(store.artifact_location)),
        *("--host", HOST, "--port", str(port), "--workers", "1"),
    ]
    by_hand = f"MLFLOW_DISABLE_TELEMETRY=true {hide(shlex.join(command))}"
    print(f"starting MLflow's pages; the same by hand: {by_hand}", flush=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # a KeyboardInterrupt, as from Ctrl-C
    with tempfile.TemporaryFile() as log:
        # In its own session, so that Ctrl-C reaches only this process, which then ends the others in order.
        process = subprocess.Popen(
            command,
            env={**_ENVIRONMENT, **os.environ},
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        try:
            url = f"http://{HOST}:{port}"
            _wait_until_it_answers(process, url, store, log)
            print(f"open {start_page(url)}; Ctrl-C ends it", flush=True)
            _print_views(store, url)
            status = process.wait()
            raise TrackingError(f"MLflow's pages ended by themselves, status {status}: {_last_line(log)}")
        except KeyboardInterrupt:
            print("\nended", flush=True)
        finally:
            end_family(process)


def _print_views(store: Store, url: str) -> None:
    """Print where the saved views of the experiments are that were changed last."""
    try:
        with mlflow_call():
            found = client(store).search_experiments(order_by=["last_update_time DESC"], max_results=_SHOWN)
    except TrackingError:  # the pages are served nevertheless
        return
    for experiment in found:
        for view in (RESULTS, CURVES):
            if has_view(experiment.tags, view):
                print(f"{experiment.name}, {view}: {page(url, experiment.experiment_id, view)}", flush=True)


def is_free(port: int) -> bool:
    """Return whether a server can listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """Return a port on which a server can listen now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(process: "subprocess.Popen[bytes]", url: str, store: Store, log: IO[bytes]) -> None:
    end = time.monotonic() + _START_TIMEOUT_S
    while unavailable_reason(Store(store.directory, url), 1.0) is not None:
        if process.poll() is not None:
            open_store(store.directory, store.uri)  # if the store is the cause, this error explains it in one line
            raise TrackingError(f"MLflow's pages did not start: {_last_line(log)}")
        if time.monotonic() > end:
            raise TrackingError(f"MLflow's pages did not answer on {url} in {_START_TIMEOUT_S:g} s: {_last_line(log)}")
        time.sleep(0.2)


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it printed nothing"


if __name__ == "__main__":
    main()
