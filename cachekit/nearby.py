"""The straight way to a hit: a fresh record in memory or on disk is served before a plan is made.

Most calls of a warm cache end here, and a plan with its steps would cost them as much again as the lookup
(docs/performance.md). Nothing is decided here: whatever is not a plain hit (nothing found, stale, undecodable, a tier
that fails, a mode other than `on`) is left to the plan, which looks again.
"""

from __future__ import annotations

import sqlite3
from time import perf_counter, time_ns
from typing import Any

from cachekit.cache import Cache
from cachekit.errors import IntegrityError, TierError
from cachekit.model import MISS, Event, Key
from cachekit.targets import Target


def at_hand(cache: Cache, target: Target, key: Key) -> Any:
    """The value of a fresh record in a near tier, filled back into memory; else MISS."""
    begin = perf_counter()
    for name in cache.near:
        try:
            record = cache.tiers[name].get(key)
            if record is None:
                continue
            if not record.fresh(time_ns()) or cache.ledger.covers(key, record):
                return MISS
            value = target.codec.load(record.codec, record.payload)
            if name != "memory" and "memory" in cache.tiers:
                cache.tiers["memory"].put(key, record)
        except IntegrityError as error:
            # Told here, because the tier dropped what did not verify: the plan will not meet it again.
            cache.tell(Event("error", key.function, name, error.reason, error=error))
            return MISS
        except (TierError, sqlite3.Error, OSError):
            return MISS
        size = len(record.payload)
        cache.tell(Event("hit", key.function, name, "", perf_counter() - begin, size, record.seconds))
        return value
    return MISS
