"""Performs a plan for a prepared call: its errand, its retries, its refresh in the background."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from cachekit.errors import CacheMiss, UsageError
from cachekit.model import Event
from cachekit.plan import plan as plans
from cachekit.plan import retrying
from cachekit.plan.drive import Errand, arun, run
from cachekit.prepare import Prepared
from cachekit.targets import Target, about


def _errand(prepared: Prepared, revalidate: Callable[[], None] | None, **how: bool) -> Errand:
    cache, request, policy = prepared.cache, prepared.request, prepared.target.policy

    def warn(error: UsageError) -> None:
        prepared.target.warn_once(error, about=about(error), stacklevel=9)

    return Errand(cache, request.key, revalidate=revalidate, sealed=policy.encrypt, warn=warn, **how)


def perform(prepared: Prepared, steps: Any, origin: Callable[[], Any], **how: bool) -> Any:
    origin = retried(prepared.target, origin)

    def revalidate() -> None:
        renewing = plans.renew(prepared.request)
        prepared.cache.in_background(lambda: run(renewing, _errand(prepared, None, announce=True), origin))

    return run(steps, _errand(prepared, revalidate, **how), origin)


async def aperform(prepared: Prepared, steps: Any, origin: Callable[[], Awaitable[Any]], **how: bool) -> Any:
    origin, pool = aretried(prepared.target, origin), prepared.cache.pool

    def revalidate() -> None:
        import asyncio

        renewing = arun(plans.renew(prepared.request), _errand(prepared, None, announce=True), origin, pool)
        task = asyncio.get_running_loop().create_task(_told(prepared, renewing))
        _refreshing_tasks.add(task)
        task.add_done_callback(_refreshing_tasks.discard)

    return await arun(steps, _errand(prepared, revalidate, **how), origin, pool)


_refreshing_tasks: set[Any] = set()
"""Strong references: an event loop keeps only weak ones to its tasks."""


async def _told(prepared: Prepared, renewing: Awaitable[Any]) -> None:
    try:
        await renewing
    except Exception as error:  # a refresh has no caller to raise to: the event is all there is
        prepared.cache.stats(Event("error", prepared.target.name, "origin", type(error).__name__, error=error))


def retried(target: Target, origin: Callable[[], Any]) -> Callable[[], Any]:
    retry = target.policy.retry
    return origin if retry is None else functools.partial(retrying.call, retry, origin)


def aretried(target: Target, origin: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    retry = target.policy.retry
    return origin if retry is None else functools.partial(retrying.acall, retry, origin)


def nothing() -> Any:
    raise CacheMiss("this plan never calls the origin")
