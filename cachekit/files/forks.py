"""What a forked child must not share with its parent: locks that a thread held which is not there, and SQLite's files.

Every part that has such a thing is enrolled here, and one hook serves them all. Python's own locks of modules are such
a thing too: what another thread was importing at the fork, the child would wait for without end at its first import.
So a fork waits for imports, and where one of ours takes longer, the child begins it anew.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final, Protocol

PAUSE: Final = 0.5
"""Seconds that a fork waits at most for other threads to leave what must not be cut in two by it."""

_POOLS: Final = "concurrent.futures.thread"

IMPORT_PAUSE: Final = 2.0
"""Seconds that a fork waits at most for what other threads are importing."""


class Renewable(Protocol):
    """What a child renews. It may pause for the fork as well: see `Pausing`."""

    def renew_after_fork(self) -> None: ...


class Pausing(Renewable, Protocol):
    """What no thread should be inside of while the process forks."""

    def pause_for_fork(self, end: float) -> None: ...
    def resume_after_fork(self) -> None: ...


_parts: Final[weakref.WeakSet[Renewable]] = weakref.WeakSet()
_pausing: Final[list[Pausing]] = []
_watched: Final[list[bool]] = []


def enrol(part: Renewable) -> None:
    """Renews `part` in every forked child, for as long as anybody else holds it, once `watch` was called."""
    _parts.add(part)


def enrol_pausing(part: Pausing) -> None:
    """The same, for good, and has `part` paused during each fork."""
    _pausing.append(part)


def watch() -> None:
    """Asks to be told of forks, once a process: before the first lock is taken, and never at import."""
    if _watched or not hasattr(os, "register_at_fork"):
        return
    _watched.append(True)
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


class Lock:
    """A lock of a module or of a long-lived object; free in a forked child, whoever held it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        enrol(self)

    def renew_after_fork(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _before() -> None:
    _await_imports()
    end = time.monotonic() + PAUSE
    for part in _pausing:
        part.pause_for_fork(end)


def _await_imports() -> None:
    known, end = _POOLS in sys.modules, time.monotonic() + IMPORT_PAUSE
    while _imported_elsewhere() and time.monotonic() < end:
        time.sleep(0.001)
    # Imported meanwhile it is told of the end of this fork, and not of its beginning: it would release what nobody holds.
    lock = None if known else getattr(sys.modules.get(_POOLS), "_global_shutdown_lock", None)
    if lock is not None:
        lock.acquire(timeout=PAUSE)


def _in_parent() -> None:
    for part in _pausing:
        part.resume_after_fork()


def _in_child() -> None:
    for name in _imported_elsewhere():
        if name.partition(".")[0] == __name__.partition(".")[0]:
            sys.modules.pop(name, None)
            _module_locks().pop(name, None)
    for part in (*_pausing, *_parts):
        part.renew_after_fork()


def _imported_elsewhere() -> list[str]:
    """The modules that other threads have begun to import."""
    me = threading.get_ident()
    return [name for name, lock in list(_module_locks().items()) if getattr(lock(), "owner", None) not in (None, me)]


def _module_locks() -> dict[str, Callable[[], object]]:
    # Python says it nowhere else. Where it has another way one day, a fork waits for no import, as without us.
    return getattr(sys.modules.get("_frozen_importlib"), "_module_locks", {})
