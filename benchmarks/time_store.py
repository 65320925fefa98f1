"""What a miss costs: the call of an instant function, keyed, led, leased, encoded and stored, beside `Cache.set`."""

from __future__ import annotations

import itertools
from typing import Any

import diskcache
from harness import Figure, Scale, beside, cache, ratio, rounds
from inputs import chat, completion

import cachekit


def time_miss_and_store(scale: Scale) -> list[Figure]:
    """Every call is new; both files grow alike. `put` alone shows how much of it is the record and SQLite."""
    numbers, keys, puts = itertools.count(), itertools.count(), itertools.count(10**9)
    calls, value, base = max(2, scale.calls // 4), completion(), chat()

    @cachekit.distributed_cache(version="1", share=False, ignore=("value",))
    def complete(model: str, messages: list[dict[str, str]], temperature: float = 1.0, seed: int = 0) -> Any:
        return value

    with cache() as place, diskcache.Cache(str(place / "raw")) as store:

        def ours() -> int:
            for _ in range(calls):
                complete(**base, seed=next(numbers))
            return calls

        def put() -> int:
            for _ in range(calls):
                complete.put(value, **base, seed=next(puts))
            return calls

        def raw() -> int:
            for _ in range(calls):
                store.set(str(next(keys)), value)
            return calls

        taken = rounds({"ours": ours, "put": put, "set": raw}, scale.rounds)
    return [
        Figure("miss + store, 2 kB / Cache.set", ratio(taken, "ours", "set"), 1.3, note=beside(taken, "ours", "set")),
        Figure("f.put(value) / Cache.set", ratio(taken, "put", "set"), note=beside(taken, "put", "set")),
    ]


ALL = [time_miss_and_store]
