"""A process that ends with its parent."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

CHILD = """
import os, sys, time
from scratch_dl.system import processes
sys.platform, processes._POLL_S = {platform!r}, 0.1
processes.end_with_parent({parent})
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


@pytest.mark.parametrize("platform", ["linux", "other"])
def test_a_child_ends_when_its_parent_is_killed(platform):
    """By the kernel, or by a thread that asks."""
    code = CHILD.format(platform=platform, parent="os.getppid()")
    parent = subprocess.Popen([sys.executable, "-c", PARENT, code], stdout=subprocess.PIPE, text=True)
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    assert not psutil.wait_procs([child], timeout=10)[1]


def test_a_child_ends_if_its_parent_was_gone_before():
    began = time.monotonic()
    code = CHILD.format(platform="linux", parent=os.getpid() + 10**6)
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=30, check=False)
    assert done.returncode == -signal.SIGTERM
    assert time.monotonic() - began < 20
