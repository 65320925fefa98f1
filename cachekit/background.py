"""The threads of a cache: a pool for the blocking steps of event loops, and a few that refresh stale entries."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from cachekit.model import Event

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

REFRESHES: Final = 4
"""Background refreshes at once; what comes while all are busy is skipped, because the next stale hit asks again."""
_IO_THREADS: Final = 8


class Background:
    """Threads made on first use. `tell` hears of a refresh that failed."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell
        self._pool: ThreadPoolExecutor | None = None
        self.renew_after_fork()

    def pool(self) -> ThreadPoolExecutor:
        """The threads that blocking steps of event loops run on."""
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            with self._lock:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(_IO_THREADS, thread_name_prefix="cachekit-io")
        return self._pool

    def start(self, work: Callable[[], object]) -> None:
        """Runs `work` on a thread named cachekit-refresh, or skips it while too many run."""
        # The semaphore of now: after a fork the child has another.
        slots = self._slots
        if not slots.acquire(blocking=False):
            return

        def refresh() -> None:
            try:
                work()
            except Exception as error:  # a refresh has no caller to raise to: the event is all there is
                self._tell(Event("error", "", "origin", type(error).__name__, error=error))
            finally:
                slots.release()

        threading.Thread(target=refresh, name="cachekit-refresh", daemon=True).start()

    def close(self) -> None:
        """Lets go of the pool; what runs on it ends by itself."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
        self._pool = None

    def renew_after_fork(self) -> None:
        """A child has none of the parent's threads, and locks that may be held for ever."""
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(REFRESHES)
        self._pool = None
