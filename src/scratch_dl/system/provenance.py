"""The provenance of a run: the machine, the versions, the commit and the command."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratch_dl import __version__

DIFF_LIMIT_BYTES = 1_000_000
_GIT_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class GitState:
    """The commit that was checked out, and the differences from it.

    Attributes:
        commit: its full hash.
        dirty: whether a tracked file differed, or there was an untracked file (not ignored).
        diff: `git diff HEAD` and the names of untracked files; at most 1 MB, empty if not dirty.
    """

    commit: str
    dirty: bool
    diff: str


def environment() -> dict[str, Any]:
    """Return host, machine, Python, thread count and the version of every installed distribution."""
    import torch

    packages = {
        name: distribution.version
        for distribution in importlib.metadata.distributions()
        if (name := distribution.metadata["Name"])
    }
    return {
        "host": platform.node(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "torch_threads": torch.get_num_threads(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def usable_cores() -> int:
    """Return how many of the machine's cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def git_state(path: Path | None = None) -> GitState | None:
    """Return the state of the repository that tracks the code in the folder `path`.

    Args:
        path: a package's folder; None for that of scratch_dl. If no repository tracks it (the package is installed),
            use the repository of the current directory, whose files then determine the run.

    Returns:
        None if there is no repository, no commit or no git.
    """
    folder = Path(__file__).parents[1] if path is None else path
    if _git(folder, "ls-files", "--error-unmatch", ".") is None:
        folder = Path.cwd()
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    top = _git(folder, "rev-parse", "--show-toplevel")
    if commit is None or top is None:
        return None
    root = Path(os.fsdecode(top).rstrip("\n"))
    diff = _git(root, "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color")
    untracked = _git(root, "ls-files", "--others", "--exclude-standard")
    if diff is None or untracked is None:
        return None
    text = diff
    if untracked:
        text += b"\n# untracked files:\n" + b"".join(b"#   " + line + b"\n" for line in untracked.splitlines())
    if len(text) > DIFF_LIMIT_BYTES:
        note = f"\n# cut: {len(text)} bytes in all\n".encode()
        text = text[: DIFF_LIMIT_BYTES - len(note)] + note
    # Bytes that are not UTF-8 become "?", one byte each, so that the text has at most as many bytes.
    return GitState(commit.decode().strip(), bool(text), text.decode("utf-8", "replace").replace("\ufffd", "?"))


def source_tags() -> tuple[dict[str, str], str]:
    """Return the tags command, version, git.commit and git.dirty of a run, and the diff of the commit (may be empty).

    The tags of git are missing if `git_state` returns None.
    """
    tags = {"command": command_line(), "version": __version__}
    git = git_state()
    if git is None:
        return tags, ""
    return {**tags, "git.commit": git.commit, "git.dirty": str(git.dirty).lower()}, git.diff


def command_line() -> str:
    """Return the command that started this process, quoted for a shell."""
    return shlex.join(sys.orig_argv)


def _git(folder: Path, *arguments: str) -> bytes | None:
    """Return what a git command prints, or None if it fails in any way."""
    command = ["git", "-C", str(folder), "-c", "core.quotePath=false", "-c", "core.fsmonitor=false", *arguments]
    try:
        completed = subprocess.run(
            command,
            capture_output=True,
            timeout=_GIT_TIMEOUT_S,
            check=False,
            # Without GIT_OPTIONAL_LOCKS=0, git would write to its index, under a lock.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return completed.stdout if completed.returncode == 0 else None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
