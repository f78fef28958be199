"""Memory that is freed stays with the process."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from scratch_dl.system.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    several = [torch.empty(1 << 20).fill_(1) for _ in range(8)]
for _ in range(4):
    step()
before = faults()
for _ in range(10):
    step()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_what_a_step_frees_is_there_for_the_next_one():
    """8 tensors of 4 MiB are 8192 pages a step."""
    settings = {"capture_output": True, "text": True, "check": True}
    kept = int(subprocess.run([sys.executable, "-c", PROGRAM, "kept"], **settings).stdout)
    assert kept < 1000, f"{kept} page faults in 10 steps"
