"""Hits of the local tiers beside `diskcache.Cache.get` of the same value, and what an import costs."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import diskcache
from harness import Body, Figure, Scale, added, beside, cache, directory, ratio, rounds
from inputs import chat, completion
from worker import Worker

import cachekit

IMPORT = """
import sys, time
begin = time.perf_counter()
from cachekit import distributed_cache
taken = time.perf_counter() - begin
print(taken * 1000, *(name for name in ("requests", "httpx", "aiohttp", "ipfshttpclient") if name in sys.modules))
"""


def decorated(value: Any) -> Any:
    """A fresh decorated function with the signature of a chat client; answers `value`."""
    answer = [value]

    @cachekit.distributed_cache(version="1", share=False, ignore=("answer",))
    def complete(model: str, messages: list[dict[str, str]], temperature: float = 1.0) -> Any:
        return answer[0]

    return complete


def repeated(function: Any, call: dict[str, Any], calls: int) -> Body:
    def body() -> int:
        for _ in range(calls):
            function(**call)
        return calls

    return body


def each(function: Any, given: list[dict[str, Any]]) -> Body:
    def body() -> int:
        for call in given:
            function(**call)
        return len(given)

    return body


def gets(store: diskcache.Cache, keys: list[str]) -> Body:
    def body() -> int:
        for key in keys:
            store.get(key)
        return len(keys)

    return body


def beside_get(name: str, value: Any, bound: float, scale: Scale, calls: int) -> Figure:
    """A repeated hit with the default settings against `Cache.get` of one key."""
    with cache() as place:
        function, call = decorated(value), chat()
        with diskcache.Cache(str(place / "raw")) as store:
            store.set("k", value)
            function(**call)
            bodies = {"ours": repeated(function, call, calls), "get": gets(store, ["k"] * calls)}
            taken = rounds(bodies, scale.rounds)
    return Figure(name, ratio(taken, "ours", "get"), bound, note=beside(taken, "ours", "get"))


def time_memory_hit(scale: Scale) -> list[Figure]:
    return [beside_get("memory hit, 2 kB / Cache.get", completion(), 0.50, scale, 5 * scale.calls)]


def time_large_hits(scale: Scale) -> list[Figure]:
    calls = max(1, scale.calls // 20)
    wide, blob = completion(size=64_000), bytes(range(256)) * 12_000
    return [
        beside_get("hit, 64 kB / Cache.get", wide, 0.9, scale, calls),
        beside_get("hit, 3 MB bytes / Cache.get", blob, 0.9, scale, calls),
    ]


def time_disk_hit(scale: Scale) -> list[Figure]:
    """Memory off. Distinct keys, each called once a round, are the gate; a repeated key flatters every cache inside."""
    with cache(memory_limit=0) as place:
        given = [chat(number) for number in range(scale.calls)]
        with diskcache.Cache(str(place / "raw")) as store:
            functions = _filled(store, given)
            bodies = {
                "ours": each(functions, given),
                "get": gets(store, [str(number) for number in range(len(given))]),
                "ours again": repeated(functions, given[0], scale.calls),
                "get again": gets(store, ["0"] * scale.calls),
            }
            taken = rounds(bodies, scale.rounds)
    return [
        Figure(
            "disk hit, distinct keys / Cache.get", ratio(taken, "ours", "get"), 1.25, note=beside(taken, "ours", "get")
        ),
        Figure(
            "disk hit, one key / Cache.get",
            ratio(taken, "ours again", "get again"),
            note=beside(taken, "ours again", "get again"),
        ),
    ]


def _filled(store: diskcache.Cache, given: list[dict[str, Any]]) -> Any:
    function = decorated(None)
    for number, call in enumerate(given):
        value = completion(number)
        store.set(str(number), value)
        function.put(value, **call)
    return function


def time_async_hit(scale: Scale) -> list[Figure]:
    """An awaited memory hit, the loop's own cost included on neither side: one loop runs the whole round."""
    value, calls, call = completion(), 5 * scale.calls, chat()

    # `value` is a dict: a closure over one is looked at for every key, and a client library has none.
    @cachekit.distributed_cache(version="1", share=False, ignore=("value",))
    async def acomplete(model: str, messages: list[dict[str, str]], temperature: float = 1.0) -> Any:
        return value

    async def loop() -> None:
        for _ in range(calls):
            await acomplete(**call)

    runner = asyncio.new_event_loop()

    def body() -> int:
        runner.run_until_complete(loop())
        return calls

    with cache():
        function = decorated(value)
        function(**call)
        taken = rounds({"async": body, "sync": repeated(function, call, calls)}, scale.rounds)
    runner.close()
    return [
        Figure("async hit - sync hit", added(taken, "async", "sync"), 1.5, "us", note=beside(taken, "async", "sync"))
    ]


def time_two_processes(scale: Scale) -> list[Figure]:
    """Disk hits a second of two processes on one directory over those of one alone."""
    with cache() as place:
        with Worker(place / "cache") as first, Worker(place / "cache") as second:
            first.ask(f"fill {scale.small}")
            figures, calls = [], max(10, 8 * scale.calls)
            for number in range(scale.rounds // 2 + 2):
                alone = first.ask(f"read {scale.small} {calls}")
                first.send(f"read {scale.small} {calls}")
                second.send(f"read {scale.small} {calls}")
                both = max(first.answer(), second.answer())
                if number:
                    figures.append(2 * alone / both)
    return [Figure("two processes / one, disk hits a second", statistics.median(figures), 1.8, floor=True)]


def time_import(scale: Scale) -> list[Figure]:
    """Inside a fresh interpreter, so that what the interpreter itself costs is not counted; compiled beforehand."""
    taken, loaded = [], set[str]()
    with directory() as compiled:
        environ = {**os.environ, "PYTHONPYCACHEPREFIX": str(compiled), "PYTHONPATH": str(Path(__file__).parent.parent)}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-c", IMPORT]
        for number in range(scale.imports + 1):
            answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environ).stdout.split()
            if number:
                taken.append(float(answer[0]))
                loaded.update(answer[1:])
    return [
        Figure("import cachekit", statistics.median(taken), 100, "ms"),
        Figure("HTTP clients loaded by the import", len(loaded), 0, "modules", note=" ".join(sorted(loaded))),
    ]


ALL = [time_memory_hit, time_disk_hit, time_async_hit, time_large_hits, time_two_processes, time_import]
