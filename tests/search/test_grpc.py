"""A study at Optuna's own gRPC proxy on 127.0.0.1."""

import contextlib
import sys

import pytest

import preloaded
from scratch_dl import ui

SPACE = ("optimizer.lr=tag(log,interval(0.5,20.0))", "hydra.sweeper.pruner=none")
SERVER = """
import sys, optuna
from optuna.storages import RDBStorage, run_grpc_proxy_server
print("ready", flush=True)
run_grpc_proxy_server(RDBStorage(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
"""


@contextlib.contextmanager
def proxy(storage, port):
    words = [sys.executable, "-c", SERVER, storage, str(port)]
    with preloaded.Popen(words, stdout=preloaded.PIPE, stderr=preloaded.DEVNULL) as server:
        try:
            assert server.stdout.readline() == b"ready\n"
            yield
        finally:
            server.kill()


@pytest.mark.exhaustive
def test_a_search_draws_trains_and_goes_on_through_a_proxy(place, search, started, ended):
    pytest.importorskip("grpc")
    port = ui.free_port()
    here = place()  # read directly, beside the proxy
    words = (*SPACE, f"hydra.sweeper.storage=grpc://127.0.0.1:{port}")
    with proxy(here.storage, port):
        killed = ended(started(here, *words, "hydra.sweeper.n_trials=2", trial=1, step=2, signal=9))
        assert killed.returncode == -9
        done = search(here, *words, "hydra.sweeper.n_trials=2")
        assert done.returncode == 0, done.stderr
        assert f"kept in grpc://127.0.0.1:{port}; goes on after 1 draws" in done.stdout
    assert here.states() == ["complete", None, "complete"]
    assert here.trials()[1].params == here.trials()[2].params


def test_a_proxy_that_does_not_answer_is_one_line(place, search, monkeypatch):
    pytest.importorskip("grpc")
    monkeypatch.setattr("scratch_dl.search.storage._CONNECT_TIMEOUT_S", 0.3)
    done = search(place(), *SPACE, "hydra.sweeper.storage=grpc://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("error: hydra.sweeper.storage=grpc://127.0.0.1:9 did not answer within 0.3 s; start")
    assert done.stderr.count("\n") == 1
