"""The straight way to a hit: a fresh record in memory or on disk is served before a plan is made.

Most calls of a warm cache end here, and a plan with its steps would cost them as much again as the lookup
(docs/performance.md). Nothing is decided here: whatever is not a plain hit (nothing found, stale, undecodable, a tier
that fails, a mode other than `on`) is left to the plan, which looks again.
"""

from __future__ import annotations

import sqlite3
from enum import Enum
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, Any

from cachekit.errors import IntegrityError, TierError
from cachekit.lanes import Known, Lane, Shortcut
from cachekit.model import FOREVER, NOTHING_SAVED, Event, Key, Record, Reply

if TYPE_CHECKING:
    from cachekit.cache import Cache
    from cachekit.targets import Target


class Nearby(Enum):
    """What was seen where no value was served."""

    NOTHING = "no near tier has a record"
    UNSURE = "something that a plan must decide"


_event = tuple.__new__
"""`Event(...)` without the Python frame of a NamedTuple's `__new__`."""


def at_hand(cache: Cache, target: Target, key: Key, *, streamed: bool = False) -> Any:
    """The value of a fresh record in a near tier, filled back into memory; else a Nearby.

    `streamed`: the caller wants a Reply as a stream, which the event says where it never was one.
    """
    begin = perf_counter()
    for name, tier in cache.near_tiers:
        try:
            record = tier.get(key)
            if record is None:
                continue
            expires = record.expires
            if (expires != FOREVER and time_ns() >= expires) or cache.ledger.covers(key, record):
                return Nearby.UNSURE
            payload = record.payload
            value = target.codec.loader(record.codec)(payload)
            if cache.memory is not None and name != "memory":
                _fill(cache, key, record)
        except IntegrityError as error:
            # Told here, because the tier dropped what did not verify: the plan will not meet it again.
            cache.tell(Event("error", key.function, name, error.reason, error=error))
            return Nearby.UNSURE
        except (TierError, sqlite3.Error, OSError, ValueError, TypeError):
            return Nearby.UNSURE  # the last two: a payload that the codec refuses
        took, saving, made = perf_counter() - begin, NOTHING_SAVED, False
        if type(value) is Reply:
            saving, made = value.saving, streamed and value.kind == "plain"
        fields = ("hit", key.function, name, "", took, len(payload), record.seconds, None, saving, made)
        cache.tell(_event(Event, fields))
        return value
    return Nearby.NOTHING


def _fill(cache: Cache, key: Key, record: Record) -> None:
    """Into memory, and out again if an invalidation came between the reading and the writing."""
    assert cache.memory is not None
    cache.memory.put(key, record)
    if cache.ledger.covers(key, record):
        cache.memory.drop(key)


def shorten(cache: Cache, target: Target, known: Known) -> None:
    """Gives the next identical call a shortcut, where memory holds the answer."""
    memory = cache.memory
    entry = None if memory is None else memory.entry(known.key)
    if memory is None or entry is None:
        return
    record, load = entry.record, target.codec.loader(entry.record.codec)
    saving = load(record.payload).saving if target.policy.adapter is not None else NOTHING_SAVED
    note = Event("hit", target.name, "memory", size=len(record.payload), saved=record.seconds, saving=saving)
    memory.follow(entry, known, Shortcut(entry, load, note))


def remember(cache: Cache, lane: Lane, arguments: bytes, key: Key) -> None:
    """Lets the next identical call pass by the key, and the memory tier's lookup if it can."""
    if not lane.known:
        lane.lead(cache)
    known = Known(key)
    shorten(cache, lane.target, known)
    cache.lanes.remember(lane, arguments, known)
