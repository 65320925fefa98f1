"""The same chat call behind the decorators of other libraries, where they are installed; no gate rests on them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diskcache
import orjson
from harness import Body, Figure, Scale, cache, middle, ratio, rounds
from inputs import chat, completion

import cachekit

Wrap = Callable[[Any, Path], Any]
"""Decorates the function with a peer; the path is a directory it may use."""


def _digest(**call: Any) -> bytes:
    return orjson.dumps(call, option=orjson.OPT_SORT_KEYS)


def _memoize(function: Any, place: Path) -> Any:
    return diskcache.Cache(str(place / "memoize")).memoize()(function)


def _joblib(function: Any, place: Path) -> Any:
    return importlib.import_module("joblib").Memory(str(place / "joblib"), verbose=0).cache(function)


def _cachier(function: Any, place: Path) -> Any:
    return importlib.import_module("cachier").cachier(cache_dir=str(place / "cachier"))(function)


def _cachier_memory(function: Any, _place: Path) -> Any:
    return importlib.import_module("cachier").cachier(backend="memory")(function)


def _cachetools(function: Any, _place: Path) -> Any:
    tools = importlib.import_module("cachetools")
    return tools.cached(tools.LRUCache(1024), key=_digest)(function)


def _lru(function: Any, _place: Path) -> Any:
    @functools.lru_cache(1024)
    def keyed(call: bytes) -> Any:
        return function(**orjson.loads(call))

    return lambda **call: keyed(orjson.dumps(call))


def _cashews(function: Any, _place: Path) -> Any:
    store = importlib.import_module("cashews").Cache()
    store.setup("mem://")

    @store(ttl="1h")
    async def complete(model: str, messages: list[dict[str, str]], temperature: float = 1.0) -> Any:
        return function(model, messages, temperature)

    return complete


PEERS: dict[str, Wrap] = {
    "functools.lru_cache on orjson (shared object)": _lru,
    "cachetools.cached on orjson (shared object)": _cachetools,
    "cachier, memory": _cachier_memory,
    "cashews, memory (await)": _cashews,
    "diskcache.memoize": _memoize,
    "joblib.Memory": _joblib,
    "cachier, pickle files": _cachier,
}


@contextlib.contextmanager
def peers(place: Path, runner: asyncio.AbstractEventLoop) -> Iterator[dict[str, Callable[[int], Body]]]:
    """name -> (calls -> body)."""
    found: dict[str, Callable[[int], Body]] = {}
    for name, wrap in PEERS.items():

        def complete(model: str, messages: list[dict[str, str]], temperature: float = 1.0) -> Any:
            return completion()

        try:
            function = wrap(complete, place)
        except ImportError:
            continue
        found[name] = functools.partial(_awaited if "await" in name else _called, function, runner)
    yield found


def _called(function: Any, _runner: Any, calls: int) -> Body:
    call = chat()

    def body() -> int:
        for _ in range(calls):
            function(**call)
        return calls

    return body


def _awaited(function: Any, runner: asyncio.AbstractEventLoop, calls: int) -> Body:
    call = chat()

    async def loop() -> None:
        for _ in range(calls):
            await function(**call)

    def body() -> int:
        runner.run_until_complete(loop())
        return calls

    return body


def time_peers(scale: Scale) -> list[Figure]:
    """A repeated hit of 2 kB, as a ratio to `diskcache.Cache.get`; a long table, so a quarter of the calls."""
    calls, value, runner = max(2, scale.calls // 4), completion(), asyncio.new_event_loop()

    @cachekit.distributed_cache(version="1", share=False)
    def ours(model: str, messages: list[dict[str, str]], temperature: float = 1.0) -> Any:
        return completion()

    with warnings.catch_warnings(), cache() as place, peers(place, runner) as found:
        warnings.simplefilter("ignore")
        with diskcache.Cache(str(place / "raw")) as store:
            store.set("k", value)

            def raw() -> int:
                for _ in range(calls):
                    store.get("k")
                return calls

            bodies = {"Cache.get": raw, "cachekit, memory hit": _called(ours, runner, calls)}
            bodies.update({name: make(calls) for name, make in found.items()})
            taken = rounds(bodies, scale.rounds)
    runner.close()
    names = sorted(taken, key=lambda name: ratio(taken, name, "Cache.get"))
    return [Figure(name, ratio(taken, name, "Cache.get"), note=f"{middle(taken, name):.1f} us") for name in names]


ALL = [time_peers]
