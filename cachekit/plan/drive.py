"""The only two loops: `run` performs a flow's steps on this thread, `arun` on an event loop.

Only TierError is thrown into the plan. The origin is called outside every `try` that catches for the plan, so that an
origin which raises StopIteration does not end the plan, and its traceback stays caller → run → origin.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any

from cachekit.errors import TierError
from cachekit.plan.loops import beside, sleep
from cachekit.plan.steps import Begin, CallOrigin, Do, Failed, Join, Pause, Returned, Steps


def run(flow: Steps) -> Any:
    """Performs the steps of `flow` and returns what it returns; raises what an origin or a `Do` raises."""
    errand: Any = None
    answer: Any = None
    fault: TierError | None = None
    ending: BaseException | None = None
    try:
        while True:
            try:
                step = flow.send(answer) if fault is None else flow.throw(fault)
            except StopIteration as done:
                return done.value
            answer, fault, kind = None, None, type(step)
            if kind is CallOrigin:
                answer = _call(step, step.origin or errand.origin)
            elif kind is Begin:
                errand = _next(errand, step)
            elif kind is Do:
                answer = step.work()
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
        flow.close()
        if errand is not None:
            errand.end(ending)


async def arun(flow: Steps, pool: Callable[[], Executor]) -> Any:
    """Like `run`, on an event loop: origins are awaited, and what may block goes to `pool`."""
    errand: Any = None
    answer: Any = None
    fault: TierError | None = None
    ending: BaseException | None = None
    try:
        while True:
            try:
                step = flow.send(answer) if fault is None else flow.throw(fault)
            except StopIteration as done:
                return done.value
            answer, fault, kind = None, None, type(step)
            if kind is CallOrigin:
                answer = await _acall(step, step.origin or errand.origin)
            elif kind is Begin:
                errand = _next(errand, step)
            elif kind is Do:
                answer = await beside(step.work, pool, held=step.held)
            elif kind is Join:
                answer = await errand.ajoin(step)
            elif kind is Pause:
                await sleep(step.seconds)
            else:
                work = functools.partial(errand.perform, step)
                try:
                    answer = await beside(work, pool) if errand.hops(step) else work()
                except TierError as error:
                    fault = error
    except BaseException as error:
        ending = error
        raise
    finally:
        flow.close()
        if errand is not None:
            errand.end(ending)


def _next(errand: Any, step: Begin) -> Any:
    if errand is not None:
        errand.end(None)
    return step.errand


def _call(step: CallOrigin, origin: Callable[..., Any]) -> Returned | Failed:
    started = time.perf_counter()
    try:
        return Returned(origin(**step.given), time.perf_counter() - started)
    except step.fallback as error:
        return Failed(error)


async def _acall(step: CallOrigin, origin: Callable[..., Awaitable[Any]]) -> Returned | Failed:
    started = time.perf_counter()
    try:
        return Returned(await origin(**step.given), time.perf_counter() - started)
    except step.fallback as error:
        return Failed(error)
