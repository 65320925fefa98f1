"""A program in a process of its own, with a cache directory and no daemon; what it prints is what is asked of it."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

MOUNTED = 'mount -t tmpfs -o size=6m tmpfs "$0" && exec "$@"'
HEAD = """
import json, os, shutil, signal, sqlite3, subprocess, sys, threading, time
from pathlib import Path
from cachekit import distributed_cache, flush, gc, invalidate, stats, status
from cachekit.cache.default import ROOT
HERE = Path(os.environ["CACHEKIT_DIR"])
def say(*words): print(*words, flush=True)
def errors(tier="disk"): return sorted(stats().as_dict()["errors"].get(tier, {}))
"""


def environment(directory: Path, **settings: object) -> dict[str, str]:
    """What such a program runs in: `settings` are those of `CACHEKIT_`, in small letters."""
    given = {f"CACHEKIT_{name.upper()}": str(value) for name, value in settings.items()}
    bare = {name: value for name, value in os.environ.items() if not name.startswith("CACHEKIT_")}
    return {
        **bare,
        "CACHEKIT_DIR": str(directory),
        "CACHEKIT_IPFS": "off",
        "PYTHONPATH": os.pathsep.join(sys.path),
        **given,
    }


def told(
    script: str,
    directory: Path,
    *arguments: object,
    seconds: float = 60,
    within: Sequence[str] = (),
    **settings: object,
) -> list[str]:
    """The lines that `script` prints behind `HEAD`; fails where it raises, or runs for longer than `seconds`.

    `within` is a command that runs the one that is appended to it.
    """
    done = subprocess.run(
        [*within, sys.executable, "-c", HEAD + script, *map(str, arguments)],
        env=environment(directory, **settings),
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def small_disk(place: Path) -> Sequence[str]:
    """What runs a program with six megabytes at `place/disk`, a file system that nobody else sees and that ends with it."""
    if not _may_mount():
        pytest.skip("this machine lets nobody mount a file system")
    (place / "disk").mkdir()
    return ("env", f"TMPDIR={place}", "unshare", "-Urm", "sh", "-c", MOUNTED, str(place / "disk"))


@functools.cache
def _may_mount() -> bool:
    try:
        command = ["unshare", "-Urm", "sh", "-c", MOUNTED, "/mnt", "true"]
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
    except OSError:
        return False


def without_privileges() -> Sequence[str]:
    """What runs a program that may read no more than its user: root has to become nobody special for it."""
    if hasattr(os, "geteuid") and os.geteuid():
        return ()
    try:
        if subprocess.run(["unshare", "-U", "true"], capture_output=True, timeout=20).returncode == 0:
            return ("unshare", "-U")
    except OSError:
        pass
    pytest.skip("root may read everything, and this machine makes nobody of it")
