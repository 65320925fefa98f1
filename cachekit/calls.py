"""From a call to its plan: gate, key, request, errand, driver. Sync and async differ in their last line only."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from marshal import dumps
from typing import Any, Final

from cachekit import plan as plans
from cachekit import retrying
from cachekit.cache import Cache
from cachekit.default import ROOT, default
from cachekit.drive import arun, run
from cachekit.errand import Errand
from cachekit.errors import CacheMiss, CannotKey, TierError, UsageError
from cachekit.gate import current, decide
from cachekit.keys import lane_safe
from cachekit.model import MISS, Event, Explanation, Key, Mode, Record
from cachekit.nearby import at_hand
from cachekit.plan import Request
from cachekit.targets import Call, Target, about
from cachekit.tiers.memory import MemoryTier, Shortcut

LONGEST_ARGUMENTS: Final = 1 << 16
"""Bytes of marshalled arguments up to which a call gets a fast lane; a longer one would crowd values out of memory."""


class Lane:
    """One function's shortcuts into the memory tier. Empty, it costs a truth test."""

    __slots__ = ("__weakref__", "generation", "inbox", "shortcuts", "state", "tidy")

    def __init__(self) -> None:
        self.shortcuts: dict[bytes, Shortcut] = {}
        self.generation: Any = (0,)
        self.inbox: Any = None
        self.state: Callable[[], Any] = tuple
        self.tidy: Callable[[], None] = _nothing

    def lead(self, state: Callable[[], Any], cache: Cache) -> None:
        """Makes the lane lead into `cache`."""
        self.state, self.generation = state, cache.ledger.generation
        self.inbox, self.tidy = cache.stats.inbox, cache.tidy

    def close(self) -> None:
        self.shortcuts = {}


class Prepared:
    """A call that the cache takes part in. The request is made when a plan needs it: a hit nearby does not."""

    __slots__ = ("_request", "cache", "call", "key", "mode", "target")

    def __init__(self, cache: Cache, target: Target, key: Key, call: Call, mode: Mode) -> None:
        self.cache, self.target, self.key, self.call = cache, target, key, call
        self.mode: Mode = mode
        self._request: Request | None = None

    @property
    def request(self) -> Request:
        if self._request is None:
            self._request = _request(self.cache, self.target, self.key, self.call, self.mode)
        return self._request

    def nearby(self) -> Any:
        """A hit that needs no plan, or MISS."""
        return at_hand(self.cache, self.target, self.key) if self.mode == "on" else MISS


def call(target: Target, lane: Lane, wrapped: Any, args: Any, kwargs: Any) -> Any:
    """The slow path of a plain function."""
    origin = functools.partial(wrapped, *args, **kwargs)
    prepared = prepare(target, args, kwargs)
    if prepared is None:
        return _retried(target, origin)()
    arguments = _arguments(prepared, args, kwargs)
    value = prepared.nearby()
    if value is MISS:
        value = _run(prepared, plans.plan(prepared.request), origin)
    _lead_in(prepared, lane, arguments)
    return value


async def acall(target: Target, lane: Lane, wrapped: Any, args: Any, kwargs: Any) -> Any:
    origin = functools.partial(wrapped, *args, **kwargs)
    prepared = prepare(target, args, kwargs)
    if prepared is None:
        return await _aretried(target, origin)()
    arguments = _arguments(prepared, args, kwargs)
    value = prepared.nearby()
    if value is MISS:
        value = await _arun(prepared, plans.plan(prepared.request), origin)
    _lead_in(prepared, lane, arguments)
    return value


def call_owned(target: Target, origin: Callable[[], Any], args: Any, kwargs: Any) -> Any:
    """A method's call; `args` begin with the instance or class, `origin` has everything bound."""
    prepared = prepare(target, args, kwargs)
    if prepared is None:
        return _retried(target, origin)()
    value = prepared.nearby()
    return _run(prepared, plans.plan(prepared.request), origin) if value is MISS else value


async def acall_owned(target: Target, origin: Callable[[], Awaitable[Any]], args: Any, kwargs: Any) -> Any:
    prepared = prepare(target, args, kwargs)
    if prepared is None:
        return await _aretried(target, origin)()
    value = prepared.nearby()
    return await _arun(prepared, plans.plan(prepared.request), origin) if value is MISS else value


def refresh(target: Target, origin: Callable[[], Any], args: Any, kwargs: Any) -> Any:
    prepared = prepare(target, args, kwargs)
    if target.is_async:
        return _arefresh(target, prepared, origin)
    if prepared is None:
        return _retried(target, origin)()
    return _run(prepared, _refreshing(prepared), origin, announce=True)


async def _arefresh(target: Target, prepared: Prepared | None, origin: Callable[[], Awaitable[Any]]) -> Any:
    if prepared is None:
        return await _aretried(target, origin)()
    return await _arun(prepared, _refreshing(prepared), origin, announce=True)


def _refreshing(prepared: Prepared) -> Any:
    return plans.compute(prepared.request, [])


def peek(target: Target, args: Any, kwargs: Any) -> Any:
    prepared = _keyed(target, args, kwargs)
    if target.is_async:
        return _apeek(prepared)
    return MISS if _is_off(prepared) else _run(prepared, plans.peek(prepared.request), _nothing, quiet=True)


async def _apeek(prepared: Prepared) -> Any:
    return MISS if _is_off(prepared) else await _arun(prepared, plans.peek(prepared.request), _nothing, quiet=True)


def put(target: Target, value: Any, args: Any, kwargs: Any) -> Any:
    prepared = _keyed(target, args, kwargs)
    mode = prepared.mode
    if mode in ("off", "read-only", "replay"):
        raise UsageError(f"put() stores, and mode {mode!r} forbids storing; leave the mode, or do not put")
    steps = plans.put(prepared.request, value)
    if target.is_async:
        return _arun(prepared, steps, _nothing, announce=True)
    return _run(prepared, steps, _nothing, announce=True)


def invalidate(target: Target, args: Any, kwargs: Any) -> Any:
    prepared = _keyed(target, args, kwargs)
    if target.is_async:
        return _ainvalidate(prepared)
    return prepared.cache.drop(prepared.key)


async def _ainvalidate(prepared: Prepared) -> bool:
    import asyncio

    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(prepared.cache.pool(), prepared.cache.drop, prepared.key)


def key_for(target: Target, args: Any, kwargs: Any) -> Key:
    cache = ROOT.cache()
    return target.explained(target.full(args, kwargs), _namespace(target, cache), _sample(target))


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


# -- preparing ------------------------------------------------------------------------------------------------------


def prepare(target: Target, args: Any, kwargs: Any) -> Prepared | None:
    """None where the call must go straight to the origin; the reason is counted."""
    cache = ROOT.cache()
    mode = decide(cache.settings.mode, current())
    if mode == "off":
        cache.tell(Event("bypass", target.name, reason=_why_off(cache)))
        return None
    cache.ready()
    call = target.full(args, kwargs)
    try:
        key = target.key(call, _namespace(target, cache), _sample(target))
    except CannotKey as error:
        if cache.settings.strict:
            raise
        cache.tell(Event("bypass", target.name, reason="unkeyable"))
        target.warn_once(error, about=about(error), stacklevel=5)
        return None
    except TypeError:
        # Python's own refusal of the arguments: the origin raises it better than we could.
        cache.tell(Event("bypass", target.name, reason="unbound"))
        return None
    return Prepared(cache, target, key, call, mode)


def _keyed(target: Target, args: Any, kwargs: Any) -> Prepared:
    cache = ROOT.cache()
    mode = decide(cache.settings.mode, current())
    call = target.full(args, kwargs)
    key = target.key(call, _namespace(target, cache), _sample(target))
    cache.ready()
    return Prepared(cache, target, key, call, mode)


def _request(cache: Cache, target: Target, key: Key, call: Call, mode: Mode) -> Request:
    policy = target.policy
    return Request(
        key=key,
        codec=target.codec,
        near=cache.near,
        far=_far(cache, target, key),
        clock=time.time_ns,
        mode=mode,
        ttl=cache.settings.ttl if policy.ttl == "default" else policy.ttl,
        stale_while_revalidate=policy.stale_while_revalidate,
        stale_if_error=policy.stale_if_error,
        cacheable=policy.cacheable,
        tags=functools.partial(target.tags, call) if policy.tags else tuple,
        pin=policy.pin,
        leases=cache.disk is not None,
        explain=functools.partial(_explained, target, call),
    )


def _far(cache: Cache, target: Target, key: Key) -> tuple[str, ...]:
    return ("ipfs",) if target.policy.share and key.shareable and "ipfs" in cache.tiers else ()


def _explained(target: Target, call: Call) -> str:
    key = target.explained(call, _namespace(target, ROOT.cache()), _sample(target))
    return str(Explanation(key, key.parts, ""))


def _namespace(target: Target, cache: Cache) -> str:
    return target.policy.namespace or cache.settings.namespace


def _sample(target: Target) -> int:
    context = current()
    return target.policy.sample if context is None or context.sample is None else context.sample


def _why_off(cache: Cache) -> str:
    context = current()
    if context is not None and context.bypass:
        return "bypass"
    return "mode_off" if context is None or context.mode is None else "mode_off_in_context"


def _is_off(prepared: Prepared) -> bool:
    return prepared.mode == "off"


def _nothing() -> Any:
    raise CacheMiss("this plan never calls the origin")


# -- running --------------------------------------------------------------------------------------------------------


def _errand(prepared: Prepared, revalidate: Callable[[], None] | None, **how: bool) -> Errand:
    cache, request, policy = prepared.cache, prepared.request, prepared.target.policy

    def warn(error: UsageError) -> None:
        prepared.target.warn_once(error, about=about(error), stacklevel=9)

    return Errand(cache, request.key, revalidate=revalidate, sealed=policy.encrypt, warn=warn, **how)


def _run(prepared: Prepared, steps: Any, origin: Callable[[], Any], **how: bool) -> Any:
    retried = _retried(prepared.target, origin)

    def revalidate() -> None:
        renewing = plans.renew(prepared.request)
        prepared.cache.in_background(lambda: run(renewing, _errand(prepared, None, announce=True), retried))

    return run(steps, _errand(prepared, revalidate, **how), retried)


async def _arun(prepared: Prepared, steps: Any, origin: Callable[[], Awaitable[Any]], **how: bool) -> Any:
    retried, pool = _aretried(prepared.target, origin), prepared.cache.pool

    def revalidate() -> None:
        import asyncio

        renewing = arun(plans.renew(prepared.request), _errand(prepared, None, announce=True), retried, pool)
        task = asyncio.get_running_loop().create_task(_told(prepared, renewing))
        _refreshing_tasks.add(task)
        task.add_done_callback(_refreshing_tasks.discard)

    return await arun(steps, _errand(prepared, revalidate, **how), retried, pool)


_refreshing_tasks: set[Any] = set()
"""Strong references: an event loop keeps only weak ones to its tasks."""


async def _told(prepared: Prepared, renewing: Awaitable[Any]) -> None:
    try:
        await renewing
    except Exception as error:  # a refresh has no caller to raise to: the event is all there is
        prepared.cache.stats(Event("error", prepared.target.name, "origin", type(error).__name__, error=error))


def _retried(target: Target, origin: Callable[[], Any]) -> Callable[[], Any]:
    retry = target.policy.retry
    return origin if retry is None else functools.partial(retrying.call, retry, origin)


def _aretried(target: Target, origin: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    retry = target.policy.retry
    return origin if retry is None else functools.partial(retrying.acall, retry, origin)


# -- the fast lane --------------------------------------------------------------------------------------------------


def _arguments(prepared: Prepared, args: Any, kwargs: Any) -> bytes | None:
    """What the fast lane would look up for this call. Taken before the origin runs: it may change its arguments."""
    cache, keyer = prepared.cache, prepared.target.keyer
    if prepared.mode != "on" or cache.listeners or current() is not None or "memory" not in cache.tiers:
        return None
    if not keyer.fast or not lane_safe((args, kwargs)):
        return None
    state: Any = keyer.state()
    arguments = dumps((args, kwargs, state), 2)
    return arguments if len(arguments) <= LONGEST_ARGUMENTS else None


def _lead_in(prepared: Prepared, lane: Lane, arguments: bytes | None) -> None:
    """Gives the next identical call a shortcut, where the call's whole identity is plain data."""
    cache, target = prepared.cache, prepared.target
    memory = cache.tiers.get("memory")
    entry = memory.entry(prepared.key) if isinstance(memory, MemoryTier) else None
    if arguments is None or entry is None or not isinstance(memory, MemoryTier):
        return
    if not lane.shortcuts:
        lane.lead(target.keyer.state if target.keyer.state() else tuple, cache)
        ROOT.lanes.add(lane)
    record = entry.record
    note = Event("hit", target.name, "memory", size=len(record.payload), saved=record.seconds)
    load = target.codec.loader(record.codec)  # type: ignore[attr-defined]
    memory.shorten(entry, lane.shortcuts, arguments, Shortcut(entry, load, note))
