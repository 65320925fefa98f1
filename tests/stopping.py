"""Stopping a real process, so that it hangs; and a child that heeds signals."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def stop(pid: int) -> None:
    """SIGSTOP, and returns when every thread of the process stands (where the system tells)."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while any(_state(task) != "T" for task in Path(f"/proc/{pid}/task").glob("*/stat")):
        assert time.monotonic() < deadline, "the process does not stop"
        time.sleep(0.001)


def heed() -> None:
    """For `preexec_fn`: a test run in the background ignores interrupts, and so would its children."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def _state(task: Path) -> str:
    return task.read_text(encoding="utf-8").rpartition(")")[2].split()[0]
