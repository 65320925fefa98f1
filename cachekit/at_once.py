"""Several files at once: while one waits for the disk, another is digested. An error, or Ctrl-C, ends the others too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Stopped(Exception):
    """Ends work that is given up. Never leaves this module: what gave it up does."""


def at_once(
    work: Callable[[Item, Callable[[], None]], Result], items: Sequence[Item], *, name: str, workers: int = 4
) -> list[Result]:
    """What `work` makes of each item, in their order, on threads called `name`; the first error is raised when all stopped.

    Between its steps `work` calls its second argument, which does not come back where another item failed.
    """
    try:
        return _pooled(work, items, name, workers)
    except _NoThreads:
        return [work(item, _go_on) for item in items]


class _NoThreads(Exception):
    """Nothing was begun: the program is ending, or may have no more threads."""


def _pooled(
    work: Callable[[Item, Callable[[], None]], Result], items: Sequence[Item], name: str, workers: int
) -> list[Result]:
    try:
        # Imported late: at the end of a program, where calls may still be cached, it cannot be imported any more.
        from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
    except RuntimeError as error:
        raise _NoThreads from error
    stop, jobs = threading.Event(), list[Future[Result]]()

    def go_on() -> None:
        if stop.is_set():
            raise _Stopped

    with ThreadPoolExecutor(max(1, workers), thread_name_prefix=name) as pool:
        try:
            for item in items:
                jobs.append(_begun(pool, work, item, go_on, first=not jobs))
            done, _running = wait(jobs, return_when=FIRST_EXCEPTION)
            failed = [raised for job in done if (raised := job.exception()) is not None]
            if failed:
                raise next((raised for raised in failed if not isinstance(raised, _Stopped)), failed[0])
            return [job.result() for job in jobs]
        finally:
            # Ctrl-C comes this way too.
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _begun(pool: Any, work: Any, item: Any, go_on: Callable[[], None], *, first: bool) -> Any:
    try:
        return pool.submit(work, item, go_on)
    except RuntimeError as error:
        if first:
            raise _NoThreads from error
        raise


def _go_on() -> None:
    return None
