"""The call itself, and what else can be done with a decorated function: refresh, peek, put, invalidate, key_for, explain.

A call that the lane knows goes straight to a near tier, the others through gate, key and plan. What is done for a
coroutine function gives an awaitable; the rest is the same flow.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cachekit.cache.default import ROOT, default
from cachekit.calls.lanes import Known, Lane, Nearby, arguments_of, at_hand, remember, shorten
from cachekit.calls.prepare import (
    Prepared,
    keyed,
    namespace_of,
    perform,
    prepare,
    retried,
    sample_of,
)
from cachekit.calls.target import Target
from cachekit.errors import TierError, UsageError
from cachekit.keys.binding import Unbound
from cachekit.model import Key, Record
from cachekit.plan import plan as plans
from cachekit.plan.steps import Do, Steps

if TYPE_CHECKING:
    from cachekit.cache.cache import Cache
    from cachekit.keys.outline import Explanation


def call(lane: Lane, args: Any, kwargs: Any) -> Any:
    """A call that the lane does not know; it does from now on, if it can."""
    origin = retried(lane.target, functools.partial(lane.wrapped, *args, **kwargs))
    prepared = prepare(lane.target, args, kwargs)
    if prepared is None:
        return origin()
    arguments = arguments_of(prepared, args, kwargs)
    tail = functools.partial(remember, prepared.cache, lane, arguments, prepared.key)
    return _answer(prepared, prepared.nearby(), origin, tail)


def call_known(lane: Lane, known: Known, args: Any, kwargs: Any) -> Any:
    """A call whose key is known, and which memory does not hold."""
    cache, target = lane.cache, lane.target
    nearby, tail = at_hand(cache, target, known.key), functools.partial(shorten, cache, target, known)
    if type(nearby) is not Nearby:
        return _served(nearby, tail, is_async=target.is_async)
    origin = retried(target, functools.partial(lane.wrapped, *args, **kwargs))
    return _answer(Prepared(cache, target, (known.key, None), target.full(args, kwargs), "on"), nearby, origin, tail)


def call_owned(target: Target, origin: Callable[[], Any], args: Any, kwargs: Any) -> Any:
    """A method's call; `args` begin with the instance or class, `origin` has everything bound."""
    origin, prepared = retried(target, origin), prepare(target, args, kwargs)
    return origin() if prepared is None else _answer(prepared, prepared.nearby(), origin, nothing_more)


def _answer(prepared: Prepared, nearby: Any, origin: Callable[[], Any], tail: Callable[[], None]) -> Any:
    """The value that was found near by, or the plan's; then the tail."""
    if type(nearby) is Nearby:
        return perform(prepared, _flow(prepared, nearby, tail), origin)
    return _served(nearby, tail, is_async=prepared.is_async)


def _served(value: Any, tail: Callable[[], None], *, is_async: bool) -> Any:
    tail()
    return _ready(value) if is_async else value


def _flow(prepared: Prepared, nearby: Nearby, tail: Callable[[], None]) -> Steps:
    value = yield from plans.plan(prepared.request, looked=nearby is Nearby.NOTHING)
    tail()
    return value


async def _ready(value: Any) -> Any:
    return value


def nothing_more() -> None:
    """A tail that does nothing."""


def refresh(target: Target, origin: Callable[[], Any], args: Any, kwargs: Any) -> Any:
    if target.kind.endswith("generator"):
        from cachekit.calls.streams import generators

        return generators.refresh(target, origin, args, kwargs)
    origin, prepared = retried(target, origin), prepare(target, args, kwargs)
    if prepared is None:
        return origin()
    return perform(prepared, plans.compute(prepared.request, []), origin, announce=True)


def peek(target: Target, args: Any, kwargs: Any) -> Any:
    prepared = keyed(target, args, kwargs)
    return perform(prepared, plans.peek(prepared.request), quiet=True)


def put(target: Target, value: Any, args: Any, kwargs: Any) -> Any:
    prepared = storing(target, args, kwargs)
    return perform(prepared, plans.put(prepared.request, value), announce=True)


def storing(target: Target, args: Any, kwargs: Any) -> Prepared:
    """The call that `put` gives an answer to. Raises UsageError where the mode forbids storing."""
    prepared = keyed(target, args, kwargs)
    mode = prepared.mode
    if mode in ("off", "read-only", "replay"):
        raise UsageError(f"put() stores, and mode {mode!r} forbids storing; leave the mode, or do not put")
    return prepared


def invalidate(target: Target, args: Any, kwargs: Any) -> Any:
    prepared = keyed(target, args, kwargs)
    return perform(prepared, _dropped(prepared))


def _dropped(prepared: Prepared) -> Steps:
    return (yield Do(functools.partial(prepared.cache.drop, prepared.key)))


def key_for(target: Target, args: Any, kwargs: Any) -> Key:
    cache = ROOT.cache()
    try:
        return target.explained(target.full(args, kwargs), namespace_of(target, cache), sample_of(target))
    except Unbound as error:
        raise Unbound(target.asks_for(error)) from None


def explain(target: Target, args: Any, kwargs: Any) -> Explanation:
    """Asks each tier for the key, and says what stands in the way, or why there is no answer."""
    from cachekit.cache.reasons import why
    from cachekit.keys.outline import Explanation

    cache = default()
    try:
        key = key_for(target, args, kwargs)
    except UsageError as error:
        return Explanation(None, (), "", (f"note   {error}",))
    found, notes = _standing(cache, key)
    tree, unfollowed = target.keyer.outline()
    call = target.full(args, kwargs)
    sketch = target.keyer.sketch(key, *call, sample=sample_of(target))
    told = Explanation(key, key.parts, found, tuple(notes), tuple(tree), tuple(unfollowed), sketch=sketch)
    if found:
        return told
    reason, lines = why(cache, sketch, target.tags(call))
    return replace(told, reason=reason, differs=tuple(target.keyer.named(lines)))


def _standing(cache: Cache, key: Key) -> tuple[str, list[str]]:
    """Which tier would serve the key, and what stands in the way."""
    notes = [] if key.shareable else ["note   no source could be found for some code, so entries stay on this machine"]
    for name, tier in cache.tiers.items():
        try:
            record = tier.get(key)
        except TierError as error:
            notes.append(f"note   {name} failed: {error}")
            continue
        if record is not None and not cache.ledger.covers(key, record):
            return f"{name} ({_age(record)})", notes
    return "", notes


def _age(record: Record) -> str:
    now = time.time_ns()
    state = "fresh" if record.fresh(now) else "past its TTL"
    return f"{state}, {(now - record.created) / 1e9:.0f} s old, {len(record.payload)} bytes, {record.codec}"
