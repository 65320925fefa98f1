"""Calls that build a file or a directory, and what else can be done with such a function: refresh, peek, put.

Between the common path of a call and its caller stands a Work: what is stored is a Manifest, and what the caller gets is
a path. Where the store refuses, the caller gets what the origin built, and the refusal is counted under `artifacts`.

The paths among the arguments of a call: inputs, which no output may take with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from cachekit.artifacts.manifest import Manifest
from cachekit.artifacts.output import refuse_place
from cachekit.cache.default import ROOT
from cachekit.calls.builds.build import Build, Unkept, auncached, uncached
from cachekit.calls.builds.work import Work, handed, scratch_of, taken_in
from cachekit.calls.call import storing
from cachekit.calls.prepare import Prepared, aperform, keyed, nothing, perform, prepare
from cachekit.model import MISS, Event
from cachekit.plan import plan as plans

_CONTAINERS = (list, tuple, set, frozenset)


def paths_in(value: Any) -> Iterator[Path]:
    """Every Path in nested containers; other objects are not looked into, nor is a container that holds itself."""
    waiting, seen = [value], set[int]()
    while waiting:
        one = waiting.pop()
        if isinstance(one, Path):
            yield one
        elif isinstance(one, (dict, *_CONTAINERS)) and id(one) not in seen:
            seen.add(id(one))
            waiting.extend(one.values() if isinstance(one, dict) else one)


__all__ = ["Build", "acall", "apeek", "aput", "call", "peek", "put"]


def call(build: Build, *, again: bool = False) -> Any:
    """The artifact's read-only path, or the caller's own `output` with its content; `again` builds it whatever is stored."""
    prepared = _prepared(build)
    if prepared is None:
        return uncached(build)
    work, found = Work(prepared, build), None if again else prepared.nearby()
    if not isinstance(found, Manifest):
        found = perform(prepared, _steps(prepared, again=again), lambda: _built(work), announce=again)
        work.over = True
    result = handed(work, found)
    if result is MISS:
        work = Work(prepared, build)
        result = handed(work, perform(prepared, _steps(prepared, again=True), lambda: _built(work)))
    return uncached(build) if result is MISS else result


async def acall(build: Build, *, again: bool = False) -> Any:
    import asyncio

    # Inputs are read for the key.
    prepared = await asyncio.to_thread(_prepared, build) if _inputs(build) else _prepared(build)
    if prepared is None:
        return await auncached(build)
    work, found = Work(prepared, build), None if again else prepared.nearby()
    if not isinstance(found, Manifest):
        found = await aperform(prepared, _steps(prepared, again=again), lambda: _abuilt(work), announce=again)
        work.over = True
    result = await asyncio.to_thread(handed, work, found)
    if result is MISS:
        work = Work(prepared, build)
        found = await aperform(prepared, _steps(prepared, again=True), lambda: _abuilt(work))
        result = await asyncio.to_thread(handed, work, found)
    return await auncached(build) if result is MISS else result


def _steps(prepared: Prepared, *, again: bool) -> Any:
    return plans.compute(prepared.request, []) if again else plans.plan(prepared.request)


def peek(build: Build) -> Any:
    """What a hit would give, `output` left alone; MISS where there is none, or its files cannot be had."""
    prepared = keyed(build.target, build.owned, build.kwargs)
    if prepared.mode == "off" or prepared.cache.artifacts is None:
        return MISS
    found = perform(prepared, plans.peek(prepared.request), nothing, quiet=True)
    return MISS if found is MISS else handed(Work(prepared, build), found, place=False)


async def apeek(build: Build) -> Any:
    import asyncio

    prepared = keyed(build.target, build.owned, build.kwargs)
    if prepared.mode == "off" or prepared.cache.artifacts is None:
        return MISS
    found = await aperform(prepared, plans.peek(prepared.request), nothing, quiet=True)
    return MISS if found is MISS else await asyncio.to_thread(handed, Work(prepared, build), found, place=False)


def put(build: Build, value: Any) -> bool:
    """Stores a copy of what stands at the path `value`, or what an artifact codec writes of it, as the call's answer."""
    work = _storing(build)
    if work is None:
        return False
    found = _given(work, value)
    if isinstance(found, Unkept):
        return False
    return bool(perform(work.prepared, plans.put(work.prepared.request, found), nothing, announce=True))


async def aput(build: Build, value: Any) -> bool:
    import asyncio

    work = _storing(build)
    if work is None:
        return False
    found = await asyncio.to_thread(_given, work, value)
    if isinstance(found, Unkept):
        return False
    return bool(await aperform(work.prepared, plans.put(work.prepared.request, found), nothing, announce=True))


def _inputs(build: Build) -> list[Path]:
    """The paths that the call is made of, and that are there."""
    ignored = build.target.policy.ignore
    bound = build.target.bound(build.owned, build.kwargs)
    found = paths_in([value for name, value in bound.items() if name not in ignored])
    return [path for path in found if path.exists()]


def _prepared(build: Build) -> Prepared | None:
    """None where the call must go straight to the origin; the reason is counted."""
    if build.output is not None:
        refuse_place(build.output, ROOT.cache().settings.dir, _inputs(build))
    prepared = prepare(build.target, build.owned, build.kwargs)
    return prepared if prepared is not None and _has_store(prepared) else None


def _storing(build: Build) -> Work | None:
    prepared = storing(build.target, build.owned, build.kwargs)
    return Work(prepared, build) if _has_store(prepared) else None


def _has_store(prepared: Prepared) -> bool:
    if prepared.cache.artifacts is not None:
        return True
    # Why, `status()` says: the directory could not be had.
    prepared.cache.tell(Event("bypass", prepared.target.name, reason="no_store"))
    return False


def _given(work: Work, value: Any) -> Manifest | Unkept:
    with scratch_of(work) as scratch:
        return taken_in(work, value, scratch)


def _built(work: Work) -> Manifest | Unkept:
    with scratch_of(work) as scratch:
        return taken_in(work, work.build.origin(scratch.path)(), scratch)


async def _abuilt(work: Work) -> Manifest | Unkept:
    import asyncio

    with scratch_of(work) as scratch:
        origin: Callable[[], Awaitable[Any]] = work.build.origin(scratch.path)
        storing = asyncio.ensure_future(asyncio.to_thread(taken_in, work, await origin(), scratch))
        try:
            return await asyncio.shield(storing)
        finally:
            # Whoever is cancelled must not take the directory away under the thread that reads it.
            await asyncio.wait([storing])
