"""The composition root: a Cache puts the tiers, the flight, the ledger and the listeners together.

A constructor opens nothing; the first call does. Whatever cannot be had then (a directory, a daemon, a credential) turns
its tier off with one reason, and the calls go on.
"""

from __future__ import annotations

import atexit
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from cachekit.directory import prepare
from cachekit.errors import TierError, UsageError
from cachekit.flight import Flights
from cachekit.leases import Leases
from cachekit.ledger import Ledger
from cachekit.model import Event, Key, Mark, TierState
from cachekit.stats import INBOX_LIMIT, Stats
from cachekit.tiers.disk import DiskTier
from cachekit.tiers.memory import MemoryTier

if TYPE_CHECKING:
    from cachekit.config import Resolved
    from cachekit.protocols import Listener, Tier
    from cachekit.sharing import Shared

log: Final = logging.getLogger("cachekit")
SAVE_EVERY: Final = 10.0
"""Seconds between two additions to the machine's totals; a write per call would cost more than the call saves."""
REFRESHES: Final = 4
"""Background refreshes at once; what comes while all are busy is skipped, because the next stale hit asks again."""
EXIT_BOUND: Final = 5.0
"""Seconds that the end of the process may wait for uploads; what remains is durable, and the next process sends it."""
FLUSH_BOUND: Final = 60.0
"""Seconds that `flush()` takes at most when it is not told."""

_living: weakref.WeakSet[Cache] = weakref.WeakSet()


class Cache:
    """One cache directory and what belongs to it. Safe from any thread, and in a forked child."""

    def __init__(self, resolved: Resolved, environ: Mapping[str, str]) -> None:
        self.resolved = resolved
        self.settings = resolved.settings
        self.stats = Stats()
        self.flights = Flights()
        self.leases = Leases(self.settings.dir / "leases")
        self.ledger = Ledger(self.settings.dir)
        self.tiers: Mapping[str, Tier] = {}
        self.listeners: list[Listener] = []
        self.shared: Shared | None = None
        self._environ = environ
        self._states: dict[str, TierState] = {}
        self._near: tuple[str, ...] = ()
        self._ready = False
        self._lock = threading.Lock()
        self._next_save = 0.0
        self._refreshes = threading.Semaphore(REFRESHES)
        self._keeper: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._said: set[tuple[str, str]] = set()

    # -- the tiers ----------------------------------------------------------------------------------------------

    def ready(self) -> Cache:
        """Opens what the settings ask for, once. Raises UsageError for what only the user can repair."""
        if not self._ready:
            with self._lock:
                if not self._ready:
                    self._open()
                    self._ready = True
        return self

    @property
    def near(self) -> tuple[str, ...]:
        """The names of the tiers on this machine, fastest first."""
        return self._near

    @property
    def memory(self) -> MemoryTier | None:
        tier = self.tiers.get("memory")
        return tier if isinstance(tier, MemoryTier) else None

    @property
    def disk(self) -> DiskTier | None:
        tier = self.tiers.get("disk")
        return tier if isinstance(tier, DiskTier) else None

    def status(self) -> dict[str, TierState]:
        """What each tier is, and the one reason; the daemon is asked at most once, within its deadline."""
        self.ready()
        states = dict(self._states)
        if self.shared is not None:
            states["ipfs"] = self.shared.state()
        return states

    def _open(self) -> None:
        settings = self.settings
        self._open_directory()
        if settings.memory_limit:
            self.tiers = {"memory": MemoryTier(settings.memory_limit, self.ledger.generation), **self.tiers}
            self._states["memory"] = TierState(True, self.resolved.reason("memory_limit"))
        else:
            self._states["memory"] = TierState(False, self.resolved.reason("memory_limit"))
        self._open_shared()
        self._near = tuple(name for name in ("memory", "disk") if name in self.tiers)
        self._next_save = time.monotonic() + SAVE_EVERY
        for warning in self.resolved.warnings:
            log.warning("%s", warning)
        _living.add(self)

    def _open_directory(self) -> None:
        try:
            prepare(self.settings.dir)
            self.ledger.open()
        except (TierError, OSError) as error:
            reason = error.reason if isinstance(error, TierError) else "directory"
            self._states["disk"] = TierState(False, f"{error}")
            self.tell(Event("error", "", "disk", reason, error=error))
            return
        disk = DiskTier(self.settings.dir, self.settings.size_limit, report=log.warning)
        self.tiers = {**self.tiers, "disk": disk}
        self._states["disk"] = TierState(True, self.resolved.reason("dir"))

    def _open_shared(self) -> None:
        if self.settings.ipfs == "off" or "disk" not in self.tiers:
            reason = self.resolved.reason("ipfs") if self.settings.ipfs == "off" else "there is no cache directory"
            self._states["ipfs"] = TierState(False, reason)
            return
        from cachekit.sharing import Shared

        try:
            self.shared = Shared(self.resolved, self._environ, self._report_shared)
        except (TierError, OSError, sqlite3.Error) as error:
            reason = error.reason if isinstance(error, TierError) else "init_failed"
            self._states["ipfs"] = TierState(False, f"{error}")
            self.tell(Event("error", "", "ipfs", reason, error=error))
            return
        self.tiers = {**self.tiers, "ipfs": self.shared.tier}

    def _report_shared(self, reason: str) -> None:
        self.tell(Event("error", "", "ipfs", reason))

    def missed(self, key: Key) -> None:
        """Counts why a call that missed here could not ask the team: the deciding variable, or the silent daemon."""
        if not key.shareable:
            return
        if self.shared is None:
            reason = "init_failed" if self.settings.ipfs != "off" else self.resolved.reason("ipfs")
            self.tell(Event("bypass", key.function, "ipfs", f"ipfs: {reason}"))
        elif not self.shared.breaker.allows():
            self.tell(Event("bypass", key.function, "ipfs", "ipfs: unreachable"))

    # -- what happened ------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Tells every listener; under CACHEKIT_STRICT a failed tier is raised instead of stepped over."""
        self.stats(event)
        for listener in self.listeners:
            listener(event)
        if event.what == "error" and event.tier != "origin":
            if (event.tier, event.reason) not in self._said:
                self._said.add((event.tier, event.reason))
                log.log(logging.DEBUG, "%s: %s: %s", event.tier, event.reason, event.error)
            if self.settings.strict and event.error is not None:
                raise event.error

    def tidy(self) -> None:
        """Starts what is due in the background: saving totals, culling the disk. Costs a comparison when nothing is."""
        disk = self.disk
        due = time.monotonic() >= self._next_save or len(self.stats.inbox) > INBOX_LIMIT
        if not due and not (disk is not None and disk.wants_culling()):
            return
        if self._keeper is None or not self._keeper.is_alive():
            self._next_save = time.monotonic() + SAVE_EVERY
            self._keeper = threading.Thread(target=self._keep_house, name="cachekit-keeper", daemon=True)
            self._keeper.start()

    def _keep_house(self) -> None:
        try:
            self.save_totals()
            disk = self.disk
            if disk is not None and disk.wants_culling():
                disk.cull()
        except (TierError, sqlite3.Error, OSError) as error:
            self.stats(Event("error", "", "disk", "housekeeping", error=error))

    def save_totals(self) -> None:
        """Adds what was counted since the last time to the machine's totals."""
        unsaved = self.stats.take_unsaved()
        if unsaved and "disk" in self.tiers:
            self.ledger.add_totals(unsaved)

    # -- the background -----------------------------------------------------------------------------------------

    def pool(self) -> ThreadPoolExecutor:
        """The threads that blocking steps of event loops run on."""
        if self._pool is None:
            with self._lock:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(8, thread_name_prefix="cachekit-io")
        return self._pool

    def in_background(self, work: Callable[[], object]) -> None:
        """Runs `work` on a thread named cachekit-refresh, or skips it while too many run."""
        if not self._refreshes.acquire(blocking=False):
            return

        def refresh() -> None:
            try:
                work()
            except Exception as error:  # a refresh has no caller to raise to: the event is all there is
                self.stats(Event("error", "", "origin", type(error).__name__, error=error))
            finally:
                self._refreshes.release()

        threading.Thread(target=refresh, name="cachekit-refresh", daemon=True).start()

    # -- invalidation and the end -------------------------------------------------------------------------------

    def drop(self, key: Key) -> bool:
        """Ends hits for one key, on this machine at once and elsewhere with the next upload; was anything removed?"""
        self.ready()
        removed = [tier.drop(key) for name, tier in self.tiers.items() if name != "ipfs" or key.shareable]
        self._mark([Mark(key.namespace, "key", key.digest.hex(), time.time_ns())])
        self.stats(Event("invalidated", key.function))
        return any(removed)

    def drop_marked(self, marks: Iterable[Mark]) -> bool:
        """Ends hits for every entry that a mark covers; was anything removed?"""
        self.ready()
        chosen = list(marks)
        self._mark(chosen)
        disk = self.disk
        removed = 0
        for mark in chosen:
            if disk is not None:
                removed += disk.drop_where(mark.namespace, mark.value if mark.kind == "tag" else "")
            if self.shared is not None:
                removed += self.shared.tier.mark(mark)
        if self.memory is not None:
            # What is in memory is on disk too, and counted there.
            removed += 0 if disk is not None else len(self.memory)
            self.memory.clear()
        return removed > 0

    def _mark(self, marks: list[Mark]) -> None:
        if "disk" not in self.tiers:
            return
        try:
            self.ledger.mark(marks)
        except (sqlite3.Error, OSError) as error:
            raise UsageError(f"the invalidation could not be written: {error}; check CACHEKIT_DIR") from error

    def flush(self, timeout: float | None = None) -> None:
        """Returns when everything queued stands in the daemon; raises TierError where it does not within `timeout` s."""
        self.ready()
        self.save_totals()
        if self.shared is not None:
            self.shared.tier.flush(FLUSH_BOUND if timeout is None else timeout)

    def close(self, bound: float = EXIT_BOUND) -> None:
        """Uploads for at most `bound` seconds, saves the totals and closes the files."""
        if not self._ready:
            return
        try:
            self.save_totals()
            if self.shared is not None:
                self.shared.close(bound)
        except (TierError, sqlite3.Error, OSError) as error:
            log.debug("closing: %s", error)
        for tier in self.tiers.values():
            tier.close()
        self.ledger.close()
        if self._pool is not None:
            self._pool.shutdown(wait=False)
        self._ready, self.tiers, self.shared, self._pool = False, {}, None, None

    def renew_after_fork(self) -> None:
        """What a forked child must not share with its parent: locks that may be held, threads that do not exist."""
        self._lock = threading.Lock()
        self._refreshes = threading.Semaphore(REFRESHES)
        self._keeper = self._pool = None
        for part in (self.stats, self.flights, self.ledger, *self.tiers.values()):
            renew = getattr(part, "renew_after_fork", None)
            if renew is not None:
                renew()


def _renew_all() -> None:
    for cache in list(_living):
        cache.renew_after_fork()


def _close_all() -> None:
    for cache in list(_living):
        cache.close()


def watch_process() -> None:
    """Registers what must happen at fork and at exit; called when the first default cache is made."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_renew_all)
    atexit.register(_close_all)


def settled(cache: Cache) -> dict[str, Any]:
    """The status as plain data."""
    return {name: {"on": state.on, "reason": state.reason} for name, state in cache.status().items()}
