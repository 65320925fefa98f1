"""The memory tier: bounded by bytes, holding encoded values, so that a caller never shares a mutable with the cache.

Eviction is CLOCK (second chance): a hit sets a flag instead of moving the entry, because moving would need a lock on
every hit. An entry is valid only in the generation in which it was stored; a shared counter moves on whenever anybody
on the machine invalidates, and the next read then comes from disk.

Whoever keeps a way straight to an entry is told when it goes: `follow`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from cachekit.files import forks
from cachekit.model import FOREVER, NANOSECONDS, Key, Record

OVERHEAD: Final = 700
"""Bytes charged for an entry besides its payload: the objects around it, as the process grows by them."""

FOLLOWER: Final = 550
"""Bytes charged for a way straight to an entry, which lives as long as the entry does."""

MOST_FOLLOWERS: Final = 8
"""Ways of writing one call (positional, by keyword, …) that lead straight to its entry."""


class Entry:
    """One record in memory. `deadline` is on the monotonic clock, because a TTL must not follow a stepped wall clock."""

    __slots__ = ("deadline", "followers", "generation", "key", "payload", "record", "size", "used")

    def __init__(self, key: Key, record: Record, generation: int, deadline: float) -> None:
        self.key = key
        self.record = record
        self.payload = record.payload
        self.generation = generation
        self.deadline = deadline
        # An eighth for the holes that blocks of many sizes leave between them.
        self.size = len(record.payload) * 9 // 8 + OVERHEAD
        self.used = False
        self.followers: list[Any] = []


class MemoryTier:
    """At most `limit` bytes. `generation` is a sequence whose first item is the machine's invalidation counter."""

    name = "memory"
    blocking = False

    def __init__(self, limit: int, generation: Sequence[int] = (0,)) -> None:
        self.limit = limit
        self.generation = generation
        self.used = 0
        self._entries: dict[bytes, Entry] = {}
        self._lock = threading.Lock()
        forks.enrol(self)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Record | None:
        entry = self._entries.get(key.digest)
        if entry is None:
            return None
        if entry.generation != self.generation[0]:
            self.drop(key)
            return None
        entry.used = True
        return entry.record

    def entry(self, key: Key) -> Entry | None:
        """The live entry of a key, for whoever adds a lane to it."""
        return self._entries.get(key.digest)

    def put(self, key: Key, record: Record) -> None:
        entry = Entry(key, record, self.generation[0], _deadline(record))
        with self._lock:
            self._remove(key.digest)
            if entry.size > self.limit:
                return
            self._entries[key.digest] = entry
            self.used += entry.size
            self._evict()

    def drop(self, key: Key) -> bool:
        with self._lock:
            return self._remove(key.digest)

    def clear(self) -> None:
        with self._lock:
            for digest in list(self._entries):
                self._remove(digest)

    def follow_generation(self, generation: Sequence[int]) -> None:
        """Begins anew, empty, with another counter."""
        self.generation = generation
        self.clear()

    def close(self) -> None:
        self.clear()

    def follow(self, entry: Entry, follower: Any, shortcut: object) -> None:
        """Sets `follower.shortcut`, and sets it to None when the entry goes."""
        with self._lock:
            if self._entries.get(entry.key.digest) is not entry:
                return
            if len(entry.followers) >= MOST_FOLLOWERS:
                entry.followers.pop(0).shortcut = None
            else:
                entry.size += FOLLOWER
                self.used += FOLLOWER
            entry.followers.append(follower)
            follower.shortcut = shortcut
            self._evict()

    def renew_after_fork(self) -> None:
        """A lock that another thread held at the fork would stay locked for ever, and its change is half done."""
        self._lock = threading.Lock()
        self.used = sum(entry.size for entry in self._entries.values())

    def _evict(self) -> None:
        while self.used > self.limit and self._entries:
            digest, entry = next(iter(self._entries.items()))
            if entry.used:
                entry.used = False
                self._entries[digest] = self._entries.pop(digest)
            else:
                self._remove(digest)

    def _remove(self, digest: bytes) -> bool:
        entry = self._entries.pop(digest, None)
        if entry is None:
            return False
        self.used -= entry.size
        for follower in entry.followers:
            follower.shortcut = None
        return True


def _deadline(record: Record) -> float:
    if record.expires == FOREVER:
        return float("inf")
    return time.monotonic() + (record.expires - time.time_ns()) / NANOSECONDS
