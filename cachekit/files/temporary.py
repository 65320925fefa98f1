"""Temporary directories that say who made them, so that what a killed process left can be told from what is in use."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Final

from cachekit.model import NANOSECONDS

ABANDONED: Final = 24 * 3600 * NANOSECONDS
"""Nanoseconds without a change after which a dead process's temporaries are removed."""


@contextmanager
def temporary(parent: Path) -> Iterator[Path]:
    """A new directory in `parent` (0700), named after this process; removed whatever happens."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = parent / new_name()
    path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        remove(path)


@contextmanager
def replacing(target: Path, temporaries: Path | None = None) -> Iterator[Path]:
    """A path in `temporaries`, else beside `target`, for a file that takes the place of `target` when the block succeeds.

    So a reader finds all of it, or what was there before. Directories are made (0700). Raises OSError.
    """
    new = (temporaries or target.parent) / (new_name() if temporaries else f".{target.name}-{new_name()}")
    for directory in (new.parent, target.parent):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        yield new
        os.replace(new, target)
    finally:
        new.unlink(missing_ok=True)


def new_name() -> str:
    """`<pid>-<start of the process>-<random>`."""
    return f"{os.getpid()}-{_start(os.getpid())}-{secrets.token_hex(6)}"


def remove(path: Path) -> None:
    """Removes a file, link or tree, read-only or not. What cannot be removed stays for the janitor; never raises OSError."""
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            path.unlink()
            return
        _flatten(path)
    except OSError:
        pass  # rmtree removes what it may
    with suppress(OSError):  # `ignore_errors` does not cover all that it asks
        shutil.rmtree(path, ignore_errors=True)


def abandoned(parent: Path, now: int, prefix: str = "") -> list[Path]:
    """What lies in `parent`, unchanged for `ABANDONED` before `now` (ns), and was made by a process that is no more.

    `prefix` stands before the names of temporaries there. A name that is nobody's counts by its age alone.
    """
    try:
        found = sorted(path for path in parent.iterdir() if path.name.startswith(prefix))
    except FileNotFoundError:
        return []
    return [path for path in found if not _alive(path.name[len(prefix) :]) and now - _newest(path) >= ABANDONED]


def _alive(name: str) -> bool:
    pid, _, rest = name.partition("-")
    start = rest.partition("-")[0]
    if not (pid.isdecimal() and start.isdecimal()):
        return False
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        pass  # somebody else's, but there
    except (OSError, OverflowError):
        return False
    # Another process may have got the number since; where the start cannot be told, the number has to do.
    return _start(int(pid)) in (int(start), 0)


def _start(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _newest(path: Path) -> int:
    """The last change (ns) of anything in it."""
    newest = 0
    for place in chain((path,), below(path)):
        try:
            newest = max(newest, os.lstat(place).st_mtime_ns)
        except OSError:
            continue  # removed meanwhile
    return newest


def below(path: Path) -> Iterator[os.DirEntry[str]]:
    """Everything below a directory, each before what it holds; links are not followed, what cannot be listed is empty.

    At any depth: `os.walk`, `Path.rglob` and `shutil.rmtree` of Python 3.11 and before call themselves at each level.
    """
    todo = [] if os.path.islink(path) else [os.fspath(path)]
    while todo:
        for entry in _listed(todo.pop()):
            yield entry
            if entry.is_dir(follow_symlinks=False):
                todo.append(entry.path)


def _flatten(path: Path) -> None:
    """Makes every directory writable, and moves it to the top, where a path reaches it however deep it lay."""
    os.chmod(path, 0o700)
    todo = [os.fspath(path)]
    while todo:
        for entry in _listed(todo.pop()):
            if entry.is_dir(follow_symlinks=False):
                with suppress(OSError):  # somebody else's; the others can still go
                    os.chmod(entry.path, 0o700)
                    todo.append(os.path.join(path, secrets.token_hex(8)))
                    os.rename(entry.path, todo[-1])


def _listed(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:  # removed meanwhile, or closed to us
        return []
