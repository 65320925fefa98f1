"""Which streams are under way, by the key of the call and the event loop that reads them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

S = TypeVar("S")


class Streams(Generic[S]):
    """The streams under way. An event loop's are its own: what it opened, nobody else can read from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[tuple[bytes, int], S] = {}

    def join(self, digest: bytes, loop: int, make: Callable[[], S]) -> S:
        """The stream under way, or a new one; the caller has a seat in it."""
        with self._lock:
            found: Any = self._running.get((digest, loop))
            if found is None or not found.join():
                found = make()
                found.join()
                self._running.setdefault((digest, loop), found)
            return found  # type: ignore[no-any-return]

    def leave(self, stream: S) -> None:
        """The stream is over: who comes now begins another one."""
        with self._lock:
            for place, running in list(self._running.items()):
                if running is stream:
                    del self._running[place]

    def renew_after_fork(self) -> None:
        """The parent's streams go on in the parent."""
        self._lock = threading.Lock()
        self._running = {}
