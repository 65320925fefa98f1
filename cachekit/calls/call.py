"""What can be done with a decorated function besides calling it: refresh, peek, put, invalidate, key_for, explain.

A call: the known ones straight to a near tier, the others through gate, key and plan. Async differs in its awaits.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any

from cachekit.cache.default import ROOT, default
from cachekit.calls.lanes import Known, Lane, Nearby, at_hand, remember, shorten
from cachekit.calls.prepare import (
    Prepared,
    aperform,
    aretried,
    arguments_of,
    keyed,
    namespace_of,
    nothing,
    perform,
    prepare,
    retried,
    sample_of,
)
from cachekit.calls.target import Target
from cachekit.errors import TierError, UsageError
from cachekit.model import MISS, Explanation, Key, Record
from cachekit.plan import plan as plans


def refresh(target: Target, origin: Callable[[], Any], args: Any, kwargs: Any) -> Any:
    if target.kind.endswith("generator"):
        from cachekit.calls.streams import generators

        return generators.refresh(target, origin, args, kwargs)
    prepared = prepare(target, args, kwargs)
    if target.is_async:
        return _arefresh(target, prepared, origin)
    if prepared is None:
        return retried(target, origin)()
    return perform(prepared, _refreshing(prepared), origin, announce=True)


async def _arefresh(target: Target, prepared: Prepared | None, origin: Callable[[], Awaitable[Any]]) -> Any:
    if prepared is None:
        return await aretried(target, origin)()
    return await aperform(prepared, _refreshing(prepared), origin, announce=True)


def _refreshing(prepared: Prepared) -> Any:
    return plans.compute(prepared.request, [])


def peek(target: Target, args: Any, kwargs: Any) -> Any:
    prepared = keyed(target, args, kwargs)
    if target.is_async:
        return _apeek(prepared)
    return MISS if prepared.mode == "off" else perform(prepared, plans.peek(prepared.request), nothing, quiet=True)


async def _apeek(prepared: Prepared) -> Any:
    return (
        MISS if prepared.mode == "off" else await aperform(prepared, plans.peek(prepared.request), nothing, quiet=True)
    )


def storing(target: Target, args: Any, kwargs: Any) -> Prepared:
    """The call that `put` gives an answer to. Raises UsageError where the mode forbids storing."""
    prepared = keyed(target, args, kwargs)
    mode = prepared.mode
    if mode in ("off", "read-only", "replay"):
        raise UsageError(f"put() stores, and mode {mode!r} forbids storing; leave the mode, or do not put")
    return prepared


def put(target: Target, value: Any, args: Any, kwargs: Any) -> Any:
    prepared = storing(target, args, kwargs)
    steps = plans.put(prepared.request, value)
    if target.is_async:
        return aperform(prepared, steps, nothing, announce=True)
    return perform(prepared, steps, nothing, announce=True)


def invalidate(target: Target, args: Any, kwargs: Any) -> Any:
    prepared = keyed(target, args, kwargs)
    if target.is_async:
        return _ainvalidate(prepared)
    return prepared.cache.drop(prepared.key)


async def _ainvalidate(prepared: Prepared) -> bool:
    import asyncio

    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(prepared.cache.pool(), prepared.cache.drop, prepared.key)


def key_for(target: Target, args: Any, kwargs: Any) -> Key:
    cache = ROOT.cache()
    return target.explained(target.full(args, kwargs), namespace_of(target, cache), sample_of(target))


def explain(target: Target, args: Any, kwargs: Any) -> Explanation:
    """Asks each tier for the key, and says what stands in the way."""
    cache = default()
    try:
        key = key_for(target, args, kwargs)
    except UsageError as error:
        return Explanation(None, (), "", (f"note   {error}",))
    notes = (
        [] if key.shareable else ["note   no source could be found for the function, so entries stay on this machine"]
    )
    for name, tier in cache.tiers.items():
        try:
            record = tier.get(key)
        except TierError as error:
            notes.append(f"note   {name} failed: {error}")
            continue
        if record is not None and not cache.ledger.covers(key, record):
            return Explanation(key, key.parts, f"{name} ({_age(record)})", tuple(notes))
    return Explanation(key, key.parts, "", tuple(notes))


def _age(record: Record) -> str:
    now = time.time_ns()
    state = "fresh" if record.fresh(now) else "past its TTL"
    return f"{state}, {(now - record.created) / 1e9:.0f} s old, {len(record.payload)} bytes, {record.codec}"


def call(lane: Lane, args: Any, kwargs: Any) -> Any:
    """The slow path of a plain function."""
    target, origin = lane.target, functools.partial(lane.wrapped, *args, **kwargs)
    prepared = prepare(target, args, kwargs)
    if prepared is None:
        return retried(target, origin)()
    arguments = arguments_of(prepared, args, kwargs)
    value = _answer(prepared, prepared.nearby(), origin)
    if arguments is not None:
        remember(prepared.cache, lane, arguments, prepared.key)
    return value


async def acall(lane: Lane, args: Any, kwargs: Any) -> Any:
    target, origin = lane.target, functools.partial(lane.wrapped, *args, **kwargs)
    prepared = prepare(target, args, kwargs)
    if prepared is None:
        return await aretried(target, origin)()
    arguments = arguments_of(prepared, args, kwargs)
    value = await _aanswer(prepared, prepared.nearby(), origin)
    if arguments is not None:
        remember(prepared.cache, lane, arguments, prepared.key)
    return value


def call_known(lane: Lane, known: Known, args: Any, kwargs: Any) -> Any:
    """A call whose key is known, and which memory does not hold."""
    cache = lane.cache
    value = at_hand(cache, lane.target, known.key)
    if type(value) is Nearby:
        value = _answer(_prepared(lane, known, args, kwargs), value, functools.partial(lane.wrapped, *args, **kwargs))
    if cache.memory is not None:
        shorten(cache, lane.target, known)
    return value


async def acall_known(lane: Lane, known: Known, args: Any, kwargs: Any) -> Any:
    cache = lane.cache
    value = at_hand(cache, lane.target, known.key)
    if type(value) is Nearby:
        origin = functools.partial(lane.wrapped, *args, **kwargs)
        value = await _aanswer(_prepared(lane, known, args, kwargs), value, origin)
    if cache.memory is not None:
        shorten(cache, lane.target, known)
    return value


def call_owned(target: Target, origin: Callable[[], Any], args: Any, kwargs: Any) -> Any:
    """A method's call; `args` begin with the instance or class, `origin` has everything bound."""
    prepared = prepare(target, args, kwargs)
    if prepared is None:
        return retried(target, origin)()
    return _answer(prepared, prepared.nearby(), origin)


async def acall_owned(target: Target, origin: Callable[[], Awaitable[Any]], args: Any, kwargs: Any) -> Any:
    prepared = prepare(target, args, kwargs)
    if prepared is None:
        return await aretried(target, origin)()
    return await _aanswer(prepared, prepared.nearby(), origin)


def _prepared(lane: Lane, known: Known, args: Any, kwargs: Any) -> Prepared:
    return Prepared(lane.cache, lane.target, known.key, lane.target.full(args, kwargs), "on")


def _answer(prepared: Prepared, found: Any, origin: Callable[[], Any]) -> Any:
    if type(found) is not Nearby:
        return found
    return perform(prepared, plans.plan(prepared.request, looked=found is Nearby.NOTHING), origin)


async def _aanswer(prepared: Prepared, found: Any, origin: Callable[[], Awaitable[Any]]) -> Any:
    if type(found) is not Nearby:
        return found
    return await aperform(prepared, plans.plan(prepared.request, looked=found is Nearby.NOTHING), origin)
