"""A call: the known ones straight to a near tier, the others through gate, key and plan. Async differs in its awaits."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from cachekit.lanes import Known, Lane
from cachekit.nearby import Nearby, at_hand, remember, shorten
from cachekit.perform import aperform, aretried, perform, retried
from cachekit.plan import plan as plans
from cachekit.prepare import Prepared, arguments_of, prepare
from cachekit.targets import Target


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
