"""Python processes that start at once: forked from an interpreter that has imported what the commands import.

PyTorch, MLflow and Matplotlib take three seconds to import, in each command that a test starts. `Popen` and `run` are
those of `subprocess` for `python -m MODULE`, `python -c PROGRAM` and `python FILE`. The processes are real ones: each
has its own memory, environment, folder, streams and session. Two things differ from `subprocess`: their parent is not
pytest, and of Python's own variables only PYTHONPATH counts.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT  # noqa: F401

# None of them looks at the environment when it is imported.
IMPORTED = (
    "matplotlib.pyplot", "mlflow.artifacts", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store", "mlflow.utils",
    "optuna.storages", "skimage.restoration", "torch._dynamo", "scratch_dl.search.study", "scratch_dl.training.resume",
    "scratch_dl.tracking", "scratch_dl.verification.suite", "scratch_dl.diagnosis",
)  # fmt: skip


class Popen(subprocess.Popen):
    """Like subprocess.Popen for words that start this Python without options of its own; one for each other word."""

    _status = None  # where the exit status will come from

    def _execute_child(self, args, _executable, _preexec_fn, _close_fds, _pass_fds, cwd, env, *rest):
        words, (p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite) = list(map(os.fspath, args)), rest[3:9]
        assert words[0] == sys.executable, words
        self._status, told = os.pipe()
        streams = [own if given == -1 else given for own, given in enumerate((p2cread, c2pwrite, errwrite))]
        order = {"words": words[1:], "folder": os.path.join(Path.cwd(), cwd or ""), "session": rest[-2],  # noqa: PTH118
                 "environment": dict(os.environ if env is None else env)}  # fmt: skip
        try:
            socket.send_fds(_interpreter(), [json.dumps(order).encode()], [*streams, told])
        finally:
            os.close(told)
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
        self.pid = self._told()
        self._child_created = True

    def _told(self):
        return int.from_bytes(os.read(self._status, 4), "little")

    def _try_wait(self, flags):
        if not select.select([self._status], [], [], 0 if flags & os.WNOHANG else None)[0]:
            return 0, 0
        status = self._told()
        os.close(self._status)
        return self.pid, status

    def _internal_poll(self, *_, **__):
        if self.returncode is None and self._status is not None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)
        return self.returncode


def run(words, capture_output=False, check=False, timeout=None, **settings):
    """Like subprocess.run."""
    if capture_output:
        settings |= {"stdout": PIPE, "stderr": PIPE}
    with Popen(words, **settings) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(words, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


@functools.cache
def _interpreter():
    """Return the connection to the interpreter of this process, which ends when it is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    words = [sys.executable, __file__, str(theirs.fileno())]
    process = subprocess.Popen(words, pass_fds=[theirs.fileno()], stdin=DEVNULL)
    theirs.close()

    def end():
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(line):
    """Return only in a process that is to do what is ordered; end when nobody is left to order anything."""
    while True:
        order, files, *_ = socket.recv_fds(line, 1 << 20, 4)
        if not order:
            os._exit(0)
        with contextlib.suppress(ChildProcessError):  # the keepers of the processes that have ended
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if os.fork() == 0:
            line.close()
            return _keep(json.loads(order), files)
        for file in files:
            os.close(file)


def _keep(order, files):
    """Fork the process itself, and tell its id and its status."""
    *streams, told = files
    process = os.fork()
    if process == 0:
        if order["session"]:
            os.setsid()
        for own, stream in enumerate(streams):
            os.dup2(stream, own)
        for file in files:
            os.close(file)
        return order
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # of a terminal or a group
        signal.signal(number, signal.SIG_IGN)
    for stream in (0, 1, 2, *streams):
        os.close(stream)
    os.write(told, process.to_bytes(4, "little"))
    with contextlib.suppress(BrokenPipeError):
        os.write(told, os.waitpid(process, 0)[1].to_bytes(4, "little"))
    os._exit(0)


def _become(words, folder, environment, **_):
    """Do what Python does at its start, and run what `words` name."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    random.seed()
    sys.orig_argv = [sys.executable, *words]
    path = list(filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)))
    sys.path[:] = [*path, *sys.path[1:]]
    for place in path:
        if Path(place, "sitecustomize.py").is_file():
            sys.modules.pop("sitecustomize", None)
            importlib.import_module("sitecustomize")
    importlib.invalidate_caches()
    kind, *arguments = words
    if kind == "-m":
        sys.argv = arguments
        sys.path.insert(0, folder)
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *arguments[1:]]
        sys.path.insert(0, "")
        exec(compile(arguments[0], "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(kind).parent))
        runpy.run_path(kind, run_name="__main__")


def _end(status):
    """End as Python does, but for taking apart what was imported, which would copy all of its memory first."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError, ValueError):
            stream.flush()
    os._exit(status)


def _status_of(work):
    """Return the exit status that Python would have after `work`."""
    try:
        work()
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return (stop.code or 0) & 0xFF
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        return 1
    return 0


if __name__ == "__main__":
    from scratch_dl.tracking.mlflow_calls import set_mlflow_environment

    set_mlflow_environment()
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # so that the collector of a forked process copies none of this memory
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # pytest's own matter
    mine = _serve(socket.socket(fileno=int(sys.argv[1])))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _end(_status_of(functools.partial(_become, **mine)))
