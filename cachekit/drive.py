"""The only two loops: `run` performs a plan's steps on this thread, `arun` on an event loop.

An errand holds what a plan's steps are performed with: tiers, flight, lease, listeners and the origin. Only TierError is
thrown into the plan. The origin is called outside every `try` that catches for the plan, so that an origin which raises
StopIteration does not end the plan, and its traceback stays caller → run → origin.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any, Protocol

from cachekit.errors import TierError
from cachekit.steps import Call, Failed, Join, Pause, Returned, Steps


class Errand(Protocol):
    """What the drivers need to know of one call."""

    def perform(self, step: Any) -> Any: ...
    def hops(self, step: Any) -> bool: ...
    def join(self, step: Join) -> Any: ...
    async def ajoin(self, step: Join) -> Any: ...
    def end(self, error: BaseException | None) -> None: ...


def run(steps: Steps, errand: Errand, origin: Callable[[], Any]) -> Any:
    """Performs `steps` and returns what the plan returns; raises what the origin raises."""
    answer: Any = None
    fault: TierError | None = None
    ending: BaseException | None = None
    try:
        while True:
            try:
                step = steps.send(answer) if fault is None else steps.throw(fault)
            except StopIteration as done:
                return done.value
            answer, fault, kind = None, None, type(step)
            if kind is Call:
                answer = _call(step, origin)
            elif kind is Join:
                answer = errand.join(step)
            elif kind is Pause:
                time.sleep(step.seconds)
            else:
                try:
                    answer = errand.perform(step)
                except TierError as error:
                    fault = error
    except BaseException as error:
        ending = error
        raise
    finally:
        steps.close()
        errand.end(ending)


async def arun(steps: Steps, errand: Errand, origin: Callable[[], Awaitable[Any]], pool: Callable[[], Executor]) -> Any:
    """Like `run`, on an event loop: what may block goes to `pool`, with the caller's context variables."""
    answer: Any = None
    fault: TierError | None = None
    ending: BaseException | None = None
    try:
        while True:
            try:
                step = steps.send(answer) if fault is None else steps.throw(fault)
            except StopIteration as done:
                return done.value
            answer, fault, kind = None, None, type(step)
            if kind is Call:
                answer = await _acall(step, origin)
            elif kind is Join:
                answer = await errand.ajoin(step)
            elif kind is Pause:
                await asyncio.sleep(step.seconds)
            else:
                try:
                    answer = await _hop(errand, step, pool) if errand.hops(step) else errand.perform(step)
                except TierError as error:
                    fault = error
    except BaseException as error:
        ending = error
        raise
    finally:
        steps.close()
        errand.end(ending)


def _call(step: Call, origin: Callable[[], Any]) -> Returned | Failed:
    started = time.perf_counter()
    if not step.fallback:
        return Returned(origin(), time.perf_counter() - started)
    try:
        return Returned(origin(), time.perf_counter() - started)
    except Exception as error:  # the caller asked for stale_if_error, and the plan tells it
        return Failed(error)


async def _acall(step: Call, origin: Callable[[], Awaitable[Any]]) -> Returned | Failed:
    started = time.perf_counter()
    if not step.fallback:
        return Returned(await origin(), time.perf_counter() - started)
    try:
        return Returned(await origin(), time.perf_counter() - started)
    except Exception as error:  # the caller asked for stale_if_error, and the plan tells it
        return Failed(error)


async def _hop(errand: Errand, step: Any, pool: Callable[[], Executor]) -> Any:
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(pool(), lambda: context.run(errand.perform, step))
