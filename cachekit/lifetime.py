"""What must happen to every open cache when the process forks, and when it ends."""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Final, Protocol

EXIT_BOUND: Final = 5.0
"""Seconds that the end of the process may wait for uploads; what remains is durable, and the next process sends it."""


class Living(Protocol):
    """What has files and threads of its own."""

    def close(self, bound: float = ..., /) -> None: ...
    def renew_after_fork(self) -> None: ...


_open: Final[weakref.WeakSet[Living]] = weakref.WeakSet()
_watched: list[bool] = []


def watch(cache: Living) -> None:
    """Renews `cache` in a forked child and closes it at exit, for as long as anybody else holds it."""
    _open.add(cache)
    if _watched:
        return
    # Asked for once a process, and never at import.
    _watched.append(True)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_renew_all)
    atexit.register(_close_all)


def _renew_all() -> None:
    for cache in list(_open):
        cache.renew_after_fork()


def _close_all() -> None:
    for cache in list(_open):
        cache.close()
