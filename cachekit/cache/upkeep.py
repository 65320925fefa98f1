"""What is done every few seconds, behind the calls: totals saved, the disk culled.

The threads of a cache: a pool for the blocking steps of event loops, and a few that refresh stale entries.

What must happen to every open cache when the process ends.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from cachekit.cache.counters import INBOX_LIMIT, Stats
from cachekit.errors import TierError
from cachekit.files import forks
from cachekit.ipfs.worker import Worker
from cachekit.model import Event

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from cachekit.tiers.disk import DiskTier
    from cachekit.tiers.ledger import Ledger


SAVE_EVERY: Final = 10.0
"""Seconds between two additions to the machine's totals; a write per call would cost more than the call saves."""


class Housekeeper:
    """Keeps one cache tidy. `disk` is its disk tier while it has one; `regain` gets a directory back that was lost."""

    def __init__(
        self, stats: Stats, ledger: Ledger, regain: Callable[[], None], save_notes: Callable[[], None]
    ) -> None:
        self.disk: DiskTier | None = None
        self._stats = stats
        self._ledger = ledger
        self._regain = regain
        self._save_notes = save_notes
        self._next_save = 0.0
        self._keeper = Worker("cachekit-keeper", self._keep_house)

    def begin(self, disk: DiskTier | None) -> None:
        """The cache is open; the first totals are due in a while."""
        self.disk = disk
        self._next_save = time.monotonic() + SAVE_EVERY

    def tidy(self, *, crowded: bool = False) -> None:
        """Starts what is due in the background, or what a crowd of uncounted hits asks for; else a comparison."""
        disk = self.disk
        due = crowded or time.monotonic() >= self._next_save or len(self._stats.inbox) > INBOX_LIMIT
        if due or (disk is not None and disk.wants_culling()):
            self._keeper.begin()

    def _keep_house(self) -> bool:
        try:
            if time.monotonic() >= self._next_save:
                self._next_save = time.monotonic() + SAVE_EVERY
                self._regain()
                self.save_totals()
                self._save_notes()
            self._stats.drain()
            disk = self.disk
            if disk is not None and disk.wants_culling():
                disk.cull()
        except (TierError, OSError) as error:
            self._stats(Event("error", "", "disk", "housekeeping", error=error))
        return True

    def save_totals(self) -> None:
        """Adds what was counted since the last time to the machine's totals."""
        unsaved = self._stats.take_unsaved()
        if unsaved and self.disk is not None:
            self._ledger.add_totals(unsaved)

    def renew_after_fork(self) -> None:
        """The thread exists in the parent only."""
        self._keeper.renew_after_fork()


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


EXIT_BOUND: Final = 4.5
"""Seconds that the end of the process may wait for uploads; what remains is durable, and the next process sends it.

With what else there is to end it takes 5 at most.
"""


class Living(Protocol):
    """What has files and threads of its own."""

    def close(self, bound: float = ..., /) -> None: ...


class _End:
    """Closes every open cache when the process ends, or when a worker of multiprocessing does: that one skips atexit."""

    def __init__(self) -> None:
        self._open: weakref.WeakSet[Living] = weakref.WeakSet()
        self._awaited = False
        forks.enrol(self)

    def watch(self, cache: Living) -> None:
        """Closes `cache` at the end, for as long as anybody else holds it."""
        self._open.add(cache)
        if not self._awaited:
            # Asked for once a process, and never at import.
            self._awaited = True
            atexit.register(self.close)
            self.renew_after_fork()

    def renew_after_fork(self) -> None:
        """Waits for the end of the worker that this process is, or becomes: it forgets then what it was asked before."""
        util = sys.modules.get("multiprocessing.util")  # without it there is no worker
        if util is not None:
            util.register_after_fork(self, _End.await_worker)
            self.await_worker()

    def await_worker(self) -> None:
        if sys.modules["multiprocessing.process"].parent_process() is not None:
            # Behind the finalizers of the user, who may call us.
            sys.modules["multiprocessing.util"].Finalize(None, self.close, exitpriority=-100)

    def close(self) -> None:
        end = time.monotonic() + EXIT_BOUND
        for cache in list(self._open):
            # Each gets what the ones before left: a program with many caches ends no later than one with one.
            cache.close(max(0.0, end - time.monotonic()))


watch: Final = _End().watch
