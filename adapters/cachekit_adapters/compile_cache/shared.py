"""A directory of entries that many machines fill: pulled whole, pushed as the union of what is known and what is new."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import cachekit
from cachekit import MISS, CachekitError, Event, persist_artifact
from cachekit_adapters._building import named

Identity = Mapping[str, Any]
"""Tool, versions, device and flags: what decides whether an entry may be used at all. JSON values."""

LIMIT: Final = 4_000_000_000
"""Bytes that one set of entries may have; beyond it the oldest of others' are left out of what is pushed."""
_IGNORED: Final = re.compile(r"(-atime|\.lock|\.tmp)$|(^|/)lock$|(^|/)\.?tmp[._-]|\.tmp[._-]")
"""What is not an entry: when JAX read one, locks, and what is being written, such as all in Triton's `tmp.pid_…/`."""


@contextmanager
def entries(identity: Identity) -> Iterator[Path]:
    """A directory with all entries that are known for `identity`; what is new in it at the end is pushed.

    Nothing is pushed where the block raises. What fails on the way is counted and raises nothing: the compiler compiles.
    """
    with tempfile.TemporaryDirectory(prefix="cachekit-compile-", ignore_cleanup_errors=True) as place:
        directory = Path(place, "entries")
        directory.mkdir()
        pulled = _pull(identity, directory)
        yield directory
        fresh = _names(directory) - pulled
        if fresh:
            _push(identity, directory, fresh)


def _pull(identity: Identity, directory: Path) -> set[str]:
    """Copies the entries that are not there yet; the names of all that are known."""
    try:
        known = _compiled.peek(dict(identity))
        if known is MISS:
            return set()
        names = _names(known)
        for name in names:
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copyfile(known / name, target)
    except (CachekitError, OSError) as error:
        _failed("pull", error)
        return set()
    return names


def _push(identity: Identity, directory: Path, fresh: set[str]) -> None:
    # Another machine may have pushed meanwhile: its entries stay. Who loses the race pushes again the next time.
    _pull(identity, directory)
    try:
        with tempfile.TemporaryDirectory(prefix="cachekit-compile-", ignore_cleanup_errors=True) as place:
            whole = Path(place, "entries")
            whole.mkdir()
            room = LIMIT
            for name in sorted(_names(directory), key=lambda name: name not in fresh):
                room -= (directory / name).stat().st_size
                if room >= 0:
                    (whole / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(directory / name, whole / name)
            _compiled.put(whole, dict(identity))
    except (CachekitError, OSError) as error:
        _failed("push", error)


@persist_artifact(version="1")
@named("compile_cache.entries")
def _compiled(identity: Identity) -> Path:
    """Told by `put`, read by `peek`, and never computed."""
    raise LookupError(identity)


def _names(directory: Path) -> set[str]:
    files = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    names = (path.relative_to(directory).as_posix() for path in files)
    return {name for name in names if not _IGNORED.search(name)}


def _failed(what: str, error: Exception) -> None:
    cachekit.tell(Event("error", "compile_cache", "artifacts", f"{what}_failed", error=error))


def machine() -> str:
    """The processor as compilers see it: code for another one may end in an illegal instruction. A digest."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = [platform.processor()]
    told = sorted({line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))})
    return hashlib.sha256("\n".join([platform.system(), platform.machine(), *(told or lines)]).encode()).hexdigest()[
        :32
    ]


def environment(*names: str) -> dict[str, str]:
    """Those variables that are set: flags of the compiler."""
    return {name: os.environ[name] for name in names if os.environ.get(name)}
