"""The composition root: a Cache puts the tiers, the flight, the ledger and the listeners together.

A constructor opens nothing; the first call does. Whatever cannot be had then (a directory, a daemon, a credential) turns
its tier off with one reason, and the calls go on.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from cachekit.cache.counters import Stats
from cachekit.cache.opening import Opened, open_tiers, remembered
from cachekit.cache.upkeep import EXIT_BOUND, Background, Housekeeper, watch
from cachekit.errors import TierError, TierUnavailable, UsageError
from cachekit.files import forks
from cachekit.files.places import prepare
from cachekit.model import Event, Key, Mark, TierState
from cachekit.plan.flight import Flights, UnderWay
from cachekit.plan.leases import Leases
from cachekit.plan.retrying import Cooldowns
from cachekit.tiers.ledger import Ledger

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from cachekit.calls.lanes import Known, Lane
    from cachekit.config.resolve import Resolved
    from cachekit.model import Listener

log: Final = logging.getLogger("cachekit")
FLUSH_BOUND: Final = 60.0
"""Seconds that `flush()` takes at most when it is not told."""
_UNWRITTEN: Final = "the invalidation could not be written: {}; check CACHEKIT_DIR"
OVERHEAD: Final = 500
"""Bytes charged for a remembered call besides its arguments: the objects around it, measured with tracemalloc."""


class Lanes:
    """All lanes that lead into one cache: beyond `limit` bytes together every lane starts again."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lanes: weakref.WeakSet[Lane] = weakref.WeakSet()
        self._used = 0

    def remember(self, lane: Lane, arguments: bytes, known: Known) -> None:
        """Adds a call. The sum is approximate under threads: it bounds memory, and nothing else rests on it."""
        self._used += len(arguments) + OVERHEAD
        if self._used > self._limit:
            self.close()
        if not lane.known:
            self._lanes.add(lane)
        lane.known[arguments] = known

    def close(self) -> None:
        self._used = 0
        for lane in list(self._lanes):
            lane.close()


class Cache(Opened):
    """One cache directory and what belongs to it. Safe from any thread, and in a forked child."""

    def __init__(self, resolved: Resolved, environ: Mapping[str, str]) -> None:
        from cachekit.cache.notes import Notes  # by the first call: not at import

        super().__init__()
        self.resolved = resolved
        self.settings = resolved.settings
        self.stats = Stats()
        self.notes = Notes()
        self.flights = Flights()
        self.leases = Leases(self.settings.dir / "leases")
        self.ledger = Ledger(self.settings.dir)
        self.listeners: list[Listener] = []
        self._environ = environ
        self.lanes = Lanes(remembered(self.settings.memory_limit))
        self.cooldowns = Cooldowns()
        self.streams: UnderWay[Any] = UnderWay()
        self._ready = False
        self._lock = threading.Lock()
        self._house = Housekeeper(self.stats, self.ledger, self._regain, lambda: self.notes.save(self.noted))
        self._background = Background(self.stats)
        # Not methods: `tidy` is part of every hit.
        self.tidy = self._house.tidy
        self.save_totals = self._house.save_totals
        self.pool: Callable[[], ThreadPoolExecutor] = self._background.pool
        self.in_background = self._background.start
        self._said: set[tuple[str, str]] = set()
        # From the first call on, whatever the mode: a call that is passed by is counted, under a lock.
        forks.watch()
        forks.enrol(self)

    # -- the tiers ----------------------------------------------------------------------------------------------

    def ready(self) -> Cache:
        """Opens what the settings ask for, once. Raises UsageError for what only the user can repair."""
        if not self._ready:
            with self._lock:
                if not self._ready:
                    self._open()
                    self._ready = True
        return self

    def status(self) -> dict[str, TierState]:
        """What each tier is, and the one reason; the daemon is asked at most once, within its deadline."""
        self.ready()
        self._look_again()
        states = dict(self.states)
        if self.team is not None:
            states["ipfs"] = self.team.state()
        return states

    def _open(self) -> None:
        self._open_into(self)
        watch(self)
        for warning in self.resolved.warnings:
            log.warning("%s", warning)
        for failure in self.failures:
            self.tell(failure)

    def _open_into(self, opened: Opened) -> None:
        open_tiers(opened, self.resolved, self._environ, self.ledger, self.tell, log, self._regain)
        self._house.begin(opened.disk)

    def _regain(self) -> None:
        """Opens what could not be had, or was taken away, and can be had now. Raises TierError and OSError else."""
        with self._lock:
            try:
                if self._ready and self.disk is None:
                    self._open_late()
                elif self._ready and self.ledger.lost():
                    self._open_ledger_anew()
            except UsageError as error:  # of somebody who made another thing of the directory meanwhile
                raise TierUnavailable(f"{error}", reason="directory") from error

    def _look_again(self) -> None:
        if self.disk is None:
            with suppress(TierError, OSError):  # the state says why
                self._regain()

    def _open_late(self) -> None:
        # Told once, when it failed; until it is there, everything goes on as it is.
        opened = Opened()
        self._open_into(opened)
        if opened.disk is not None:
            vars(self).update(vars(opened))
            self.lanes.close()

    def _open_ledger_anew(self) -> None:
        prepare(self.settings.dir)
        self.ledger.open()
        if self.memory is not None:
            self.memory.follow_generation(self.ledger.generation)
        self.lanes.close()

    def missed(self, key: Key) -> None:
        """Counts why a call that missed here could not ask the team: the deciding variable, or the silent daemon."""
        if not key.shareable:
            return
        if self.team is None:
            reason = "init_failed" if self.settings.ipfs != "off" else self.resolved.reason("ipfs")
            self.tell(Event("bypass", key.function, "ipfs", f"ipfs: {reason}"))
        elif not self.team.breaker.allows():
            self.tell(Event("bypass", key.function, "ipfs", "ipfs: unreachable"))

    # -- what happened ------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Tells every listener; under CACHEKIT_STRICT a failed tier is raised instead of stepped over."""
        self.stats(event)
        for listener in tuple(self.listeners):
            try:
                listener(event)
            except Exception as error:  # a listener is the user's and may raise anything: the call does not pay for it
                self.stats(Event("error", event.function, "listener", type(error).__name__, error=error))
        if event.what == "error" and event.tier != "origin":
            if (said := (event.tier, event.reason)) not in self._said:
                self._said.add(said)
                level = logging.WARNING if isinstance(event.error, UsageError) else logging.DEBUG
                log.log(level, "%s: %s: %s", event.tier, event.reason, event.error)
            if self.settings.strict and event.error is not None:
                raise event.error

    # -- invalidation and the end -------------------------------------------------------------------------------

    def drop(self, key: Key) -> bool:
        """Ends hits for one key, on this machine at once and elsewhere with the next upload; was anything removed?"""
        self.ready()
        self._mark([Mark(key.namespace, "key", key.digest.hex(), time.time_ns())])
        tiers = [(name, tier) for name, tier in self.tiers.items() if name != "ipfs" or key.shareable]
        removed = [self._ended(name, partial(tier.drop, key)) for name, tier in tiers]
        self.stats(Event("invalidated", key.function))
        return any(removed)

    def forget(self, key: Key) -> None:
        """Removes one key's entry from this machine; nobody else is told."""
        self.ready()
        for name, tier in self.near_tiers:
            self._ended(name, partial(tier.drop, key))

    def drop_marked(self, marks: Iterable[Mark]) -> bool:
        """Ends hits for every entry that a mark covers; was anything removed?"""
        self.ready()
        chosen, removed = list(marks), 0
        self._mark(chosen)
        disk = self.disk
        for mark in chosen:
            if disk is not None:
                removed += self._ended("disk", partial(disk.drop_marked, mark))
            if self.team is not None:
                removed += self._ended("ipfs", partial(self.team.tier.mark, mark))
        if self.memory is not None:
            # What is in memory is on disk too, and counted there.
            removed += 0 if disk is not None else len(self.memory)
            self.memory.clear()
        return removed > 0

    def _mark(self, marks: list[Mark]) -> None:
        try:
            if self.disk is None:
                self._regain()
            if self.disk is not None:
                self.ledger.mark(marks)
            else:
                self._refuse_entries()
        except (TierError, OSError) as error:
            raise UsageError(_UNWRITTEN.format(error)) from error

    def _ended(self, name: str, end: Callable[[], int]) -> int:
        """How many entries `end` removed. What stays here is covered by the mark; the others have to hear of it."""
        try:
            return end()
        except TierError as error:
            if name == "ipfs":
                raise UsageError(_UNWRITTEN.format(error)) from error
            self.tell(Event("error", "", name, error.reason, error=error))
            return 0

    def _refuse_entries(self) -> None:
        """Raises OSError and TierUnavailable where entries may be that this process cannot reach, and others can."""
        try:
            os.stat(self.settings.dir / "cache.db")
        except (FileNotFoundError, NotADirectoryError):
            return
        raise TierUnavailable(self.states["disk"].reason, reason="directory")

    def flush(self, timeout: float | None = None) -> None:
        """Returns when everything queued stands in the daemon; raises TierError where it does not within `timeout` s."""
        self.ready()
        self._look_again()
        try:
            self.save_totals()
        except TierError as error:  # what the machine's totals miss is no reason to fail
            self.stats(Event("error", "", "disk", "housekeeping", error=error))
        self.notes.save(self.noted)
        if self.team is not None:
            from cachekit.artifacts.progress import waiting

            with waiting():
                self.team.tier.flush(FLUSH_BOUND if timeout is None else timeout)

    def close(self, bound: float = EXIT_BOUND) -> None:
        """Uploads for at most `bound` seconds, saves the totals and closes the files."""
        if not self._ready:
            return
        try:
            self.save_totals()
            self.notes.save(self.noted)
            if self.team is not None:
                self.team.close(bound)
        except (TierError, OSError) as error:
            log.debug("closing: %s", error)
        for _, tier in self.near_tiers:
            tier.close()
        if self.digests is not None:
            self.digests.close()
        self.ledger.close()
        self._background.close()
        self._house.disk = None
        self.lanes.close()
        self._ready = False
        super().__init__()

    def renew_after_fork(self) -> None:
        """What a forked child must not share with its parent: locks that may be held, threads that do not exist."""
        self._lock = threading.Lock()
        for part in (self._house, self._background, self.notes, self.flights, self.streams):
            part.renew_after_fork()
        if self.team is not None:
            self.team.tier.renew_after_fork()
