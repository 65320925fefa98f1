"""What may be wrong with the cache directory, its files and the disk below them, and what to do about each."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from cachekit.cli.report import Finding
from cachekit.config.settings import Settings
from cachekit.errors import CachekitError
from cachekit.files.locks import holder_of_byte, try_lock
from cachekit.files.places import prepare, set_aside
from cachekit.files.sqlite import is_busy
from cachekit.files.temporary import below
from cachekit.tiers.disk_file import WAIT

_LITTLE: Final = 64 << 20
"""Bytes free below which writes are about to fail."""
_LOG: Final = 32 << 20
"""Bytes of a write-ahead log above which somebody keeps it from being moved into its file; 4 MiB are usual."""
_OVER: Final = 1.25
"""Times its limit that a part of the cache may be; it is culled behind the calls, and somewhat late."""
_SLACK: Final = 8 << 20
_AHEAD: Final = 300.0
_WRITER: Final = 120
"""The byte of a `-shm` file that SQLite locks while it writes."""
_CHECKED: Final = 5.0
_AGAIN: Final = "delete it: what it held is computed again"
_DATABASES: Final = {
    "cache.db": _AGAIN,
    # The marks in it are gone with it: what they ended must not come back.
    "ledger.db": "delete it together with cache.db: what was invalidated would count again",
    "index.db": "delete it: it is read from the daemon again",
    "outbox.db": "delete it: what waits in it is not sent to the team",
}


def examined(settings: Settings) -> Iterator[Finding]:
    """Every check of the directory, which is made if missing; where that fails it is the last one."""
    directory = settings.dir
    yield _space(directory, settings.size_limit)
    found = _directory(directory)
    yield found
    if found.state == "failed":
        return
    yield from _clock(directory)
    for name, remedy in _DATABASES.items():
        yield from _database(directory / name, remedy)
    yield from _sender(directory / "outbox.lock")
    yield from _left_aside(directory)
    yield from _volumes(directory, settings.size_limit)


def _directory(directory: Path) -> Finding:
    try:
        prepare(directory)
        mode = stat.S_IMODE(directory.stat().st_mode)
    except (CachekitError, OSError) as error:
        full = getattr(error.__cause__, "errno", None) == errno.ENOSPC
        remedy = "make room" if full else "set CACHEKIT_DIR to a directory that cachekit may own"
        return Finding("directory", "failed", str(error), remedy)
    if os.name == "posix" and mode & 0o077:
        text = f"others may look into {directory} (mode {mode:o})"
        return Finding("directory", "note", text, f"chmod 700 {directory}, where that is not meant")
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        return Finding("directory", "failed", f"{directory} cannot be written", f"chmod 700 {directory}")
    return Finding("directory", "ok", str(directory))


def _space(directory: Path, limit: int) -> Finding:
    there = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    text = f"{free >> 20} MiB free, the limit of the cache is {limit >> 20} MiB"
    if free < _LITTLE:
        return Finding("space", "failed", text, "make room, or set CACHEKIT_DIR to another file system")
    if free < limit:
        return Finding("space", "note", text, "a smaller CACHEKIT_SIZE_LIMIT keeps the cache from filling the disk")
    return Finding("space", "ok", text)


def _clock(directory: Path) -> Iterator[Finding]:
    files = [path for path in directory.iterdir() if path.is_file()]
    ahead = max((path.stat().st_mtime for path in files), default=0.0) - time.time()
    if ahead > _AHEAD:
        text = f"files in {directory} were written {ahead / 60:.0f} minutes from now"
        yield Finding("clock", "failed", text, "set the clock; what was stored while it was ahead is computed again")


def _database(path: Path, remedy: str) -> Iterator[Finding]:
    if not path.exists():
        if path.name == "cache.db":
            yield Finding("disk file", "ok", "none yet")
        return
    if (verdict := _verdict(path)) != "ok":
        yield Finding("disk file", "failed", f"{path}: {verdict}", remedy)
        return
    yield Finding("disk file", "ok", f"{path} opens and is whole")
    if _is_held(path):
        yield _held(path, path.with_name(f"{path.name}-shm"))
    logged = _size(path.with_name(f"{path.name}-wal"))
    if logged > _LOG:
        text = f"the log of {path} has {logged >> 20} MiB: a process that reads for long keeps it from being moved"
        yield Finding("disk file", "failed", text, "end that process; `cachekit gc` then shrinks it")


def _verdict(path: Path) -> str:
    # Read-only and not through the tier, which would set a corrupt file aside before anybody looked at it.
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_CHECKED)) as connection:
            return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        return str(error)


def _is_held(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path, timeout=4 * WAIT, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        return is_busy(error)  # what else there may be has a check of its own
    return False


def _held(path: Path, locked: Path) -> Finding:
    try:
        with locked.open("rb") as file:
            pid = holder_of_byte(file.fileno(), _WRITER)
    except OSError:
        pid = 0
    who = f"process {pid}" if pid else "another process"
    remedy = f"end {who}, or let it go on (kill -CONT {pid})" if pid else "end the process that writes, or let it go on"
    return Finding("disk file", "failed", f"{who} holds {path} for longer than a store waits", remedy)


def _sender(path: Path) -> Iterator[Finding]:
    try:
        with path.open("rb") as file:
            end = time.monotonic() + _CHECKED
            while not (free := try_lock(file.fileno())) and time.monotonic() < end:
                time.sleep(0.05)
    except OSError:  # nobody ever sent, or there are no locks here
        return
    if not free:
        text = f"another process holds {path}: nothing is sent to the team"
        yield Finding("outbox", "failed", text, f"end it, or let it go on; `fuser {path}` names it")


def _left_aside(directory: Path) -> Iterator[Finding]:
    for path in set_aside(directory):
        text = f"{path} was corrupt and set aside"
        yield Finding("disk file", "failed", text, "look why the disk lost it; `cachekit gc` deletes it")
    for name in ("digests", "notes"):
        if (directory / name).is_file():
            yield Finding("disk file", "failed", f"{directory / name} is no directory", _AGAIN)


def _volumes(directory: Path, limit: int) -> Iterator[Finding]:
    entries = sum(map(_size, (*directory.glob("cache.db*"), *directory.glob("[0-9a-f][0-9a-f]/*/*.val"))))
    # A name more of the same file takes no more room.
    artifacts = {os.stat(one).st_ino: os.stat(one).st_size for one in below(directory / "artifacts") if one.is_file()}
    for what, size in (("entries", entries), ("artifacts", sum(artifacts.values()))):
        if size > _OVER * limit + _SLACK:
            text = f"the {what} take {size >> 20} MiB, the limit is {limit >> 20} MiB"
            remedy = "`cachekit gc` deletes the oldest; what is pinned stays until `cachekit unpin`"
            yield Finding("limit", "failed", text, remedy)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # gone meanwhile
        return 0
