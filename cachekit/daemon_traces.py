"""What tells processes of each other's private node: a lock while it is started or ended, and its recorded pid."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cachekit.errors import UsageError
from cachekit.files.locks import NO_LOCKS, has_locks, try_lock

_POLL_SECONDS: Final = 0.05


@contextlib.contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Hold the lock file `path`, waiting at most `timeout` seconds for it; else raise UsageError."""
    if not has_locks():
        raise UsageError(NO_LOCKS)
    deadline = time.monotonic() + timeout
    with path.open("a") as file:
        while not try_lock(file.fileno()):
            if time.monotonic() >= deadline:
                raise UsageError(f"{path} is held by another cachekit; wait for it to finish, then try again.")
            time.sleep(_POLL_SECONDS)
        yield


def own_pid(node: Path) -> int:
    """The recorded pid if that process is the daemon of this repository, else 0."""
    try:
        pid = int((node / "pid").read_text())
    except (OSError, ValueError):
        return 0
    return pid if f"--repo-dir={node / 'repo'}" in command_line(pid) else 0


def command_line(pid: int) -> str:
    """How the process was started, empty where there is none."""
    proc = Path("/proc")
    try:
        if (proc / "self" / "cmdline").exists():
            return (proc / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="surrogateescape")
        shown = subprocess.run(
            ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return shown.stdout
