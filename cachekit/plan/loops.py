"""The loop that a coroutine runs on: asyncio's, or trio's where the program runs on that. Neither is imported here."""

from __future__ import annotations

import contextvars
import math
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any


def trio() -> Any:
    """The trio module where this code runs on its loop, else None."""
    found = sys.modules.get("trio")
    try:
        return found if found is not None and found.lowlevel.current_task() else None
    except (RuntimeError, AttributeError):  # imported and not running, or still being imported
        return None


async def sleep(seconds: float) -> None:
    """Lets others run meanwhile."""
    if (other := trio()) is not None:
        await other.sleep(seconds)
        return
    import asyncio

    await asyncio.sleep(seconds)


async def done(future: Future[Any], seconds: float) -> bool:
    """Whether the future is done within `seconds`."""
    if (other := trio()) is not None:
        return await _done_on_trio(other, future, seconds)
    import asyncio

    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[None] = loop.create_future()

    def tell(_: Any) -> None:
        loop.call_soon_threadsafe(waiting.cancel)

    future.add_done_callback(_unless_closed(tell))
    await asyncio.wait([waiting], timeout=None if seconds == math.inf else seconds)
    return future.done()


async def _done_on_trio(other: Any, future: Future[Any], seconds: float) -> bool:
    event, token = other.Event(), other.lowlevel.current_trio_token()
    future.add_done_callback(_unless_closed(lambda _: token.run_sync_soon(event.set)))
    with other.move_on_after(seconds):
        await event.wait()
    return future.done()


def _unless_closed(tell: Callable[[Any], Any]) -> Callable[[Any], None]:
    def told(future: Any) -> None:
        try:
            tell(future)
        except RuntimeError:  # the loop of who waited is over: asyncio's is closed, trio's run has finished
            return

    return told


async def beside(work: Callable[[], Any], pool: Callable[[], Executor], *, held: bool = False) -> Any:
    """On a thread, with the caller's context variables. `held`: who is cancelled waits until it is done."""
    if (other := trio()) is not None:
        return await other.to_thread.run_sync(work)
    import asyncio

    context = contextvars.copy_context()
    working = asyncio.get_running_loop().run_in_executor(pool(), context.run, work)
    if not held:
        return await working
    try:
        return await asyncio.shield(working)
    finally:
        await asyncio.wait([working])


_tasks: set[Any] = set()
"""Strong references: asyncio's loop keeps only weak ones to its tasks."""


def start(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs `work`, which must not raise, as a task that nobody waits for."""
    if (other := trio()) is not None:
        other.lowlevel.spawn_system_task(work)
        return
    import asyncio

    task = asyncio.get_running_loop().create_task(work())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
